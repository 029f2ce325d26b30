// Efforts beside each other: columns of rollouts with one selection, and what they came to in numbers.

import { AccuracyMultiple, EntropyMultiple, LengthMultiple } from "./behaviour_multiples.js";
import { Column, FORKS } from "./effort_column.js";
import { claimsTable, effortHeader } from "./effort_parts.js";
import { chipText, plain } from "./effort_words.js";
import { chainPlace, linkedToken, tokenAlong } from "./linked_place.js";
import { decode } from "./numerics.js";
import { StatusLine } from "./parts.js";
import { DivergenceMultiple, ExpertsMultiple, pairName } from "./routing_multiples.js";
import { Selection, withinCounts } from "./selection.js";
import { h, setData, setText } from "./surface.js";
import { Tokens } from "./tokens.js";
import { View } from "./view.js";

const PATIENCE = 8000;

export class EffortView extends View {
  constructor(model, el) {
    super(model, el, { label: `Efforts compared: ${model.get("_facts").title}`, className: "moe-efforts" });
    this.onPicked = () => this.adopt();
    for (const name of ["column", "rollouts"]) model.on(`change:${name}`, this.onPicked);
    this.onExplorer = () => this.showExplorer();
    model.on("change:explorer", this.onExplorer);
    this.onMessage = (message, buffers) => this.receive(message, buffers);
    model.on("msg:custom", this.onMessage);
    this.box.append(this.opened); // a view of its own, beside this one's keys
    this.showExplorer();
  }

  close() {
    super.close();
    for (const name of ["column", "rollouts"]) this.model.off(`change:${name}`, this.onPicked);
    this.model.off("change:explorer", this.onExplorer);
    this.model.off("msg:custom", this.onMessage);
    this.explorerView?.remove();
    clearTimeout(this.patience);
  }

  // The one selection is that of the chosen rollout, whose key and length it has.
  join(model) {
    this.column = model.get("column");
    this.rollouts = [...model.get("rollouts")];
    this.texts ??= new Map();
    this.places ??= new Map();
    const unlessPicked = (callback) => () => (this.isStale() ? this.adopt() : callback());
    const listening = new Map();
    const ofChosen = {
      get: (name) => (name === "_selection_key" ? this.chosen.key : model.get(name)),
      set: (name, value) => model.set(name, value),
      save_changes: () => model.save_changes(),
      on: (name, callback) => model.on(name, listening.set(callback, unlessPicked(callback)).get(callback)),
      off: (name, callback) => model.off(name, listening.get(callback)),
    };
    this.selected = new Selection(ofChosen, { clamp: (wanted) => this.clamp(wanted), moved: () => this.schedule() });
  }

  get chosen() {
    return this.facts.columns[this.column].rollouts[this.rollouts[this.column]];
  }

  clamp(wanted) {
    return withinCounts(wanted, this.chosen.counts);
  }

  // Whether Python has picked another rollout.
  isStale() {
    return (
      this.model.get("column") !== this.column || this.model.get("rollouts").some((r, c) => r !== this.rollouts[c])
    );
  }

  adopt() {
    if (!this.isStale()) return;
    this.selected.close();
    this.join(this.model);
    this.schedule();
  }

  // Pick a rollout, and the place in it: where it was left, else where the one before was.
  choose(column, rollout, token) {
    const { model } = this;
    const before = this.textOf(this.column, this.rollouts[this.column]);
    this.places.set(this.chosen.key, this.selection.token);
    const next = this.facts.columns[column].rollouts[rollout];
    const text = this.textOf(column, rollout);
    const linked = before && text ? linkedToken(before.tokens, this.selection.token, text.tokens) : null;
    this.selected.close();
    model.set("token", token ?? linked ?? this.places.get(next.key) ?? next.start);
    model.set("column", column);
    model.set(
      "rollouts",
      this.rollouts.map((r, c) => (c === column ? rollout : r)),
    );
    this.join(model);
    model.save_changes();
    this.schedule();
  }

  // A token of a column's rollout was pointed at.
  pick(column, token) {
    if (column === this.column) this.select({ token });
    else this.choose(column, this.rollouts[column], token);
  }

  // Go as far along the chain of a column's rollout.
  goAlongChain(column, share) {
    const text = this.textOf(column, this.rollouts[column]);
    const chain = text?.tokens.messages.find((m) => m.hue === "analysis" && m.stop > text.tokens.numPrompt);
    if (chain) this.pick(column, tokenAlong(text.tokens, chain, true, share));
  }

  // The text of a rollout: {tokens, logprobs, entropy}; null while it is waited for.
  textOf(column, rollout) {
    const key = `${column}/${rollout}`;
    if (this.texts.has(key)) return this.texts.get(key);
    const sent = this.model.get("_texts")[key];
    if (sent) return this.keep(key, sent.facts, sent);
    if (this.waitingFor !== key) {
      this.waitingFor = key;
      this.model.send({ text: key });
      clearTimeout(this.patience);
      this.patience = setTimeout(() => this.say("no answer from the kernel: is it running?"), PATIENCE);
    }
    return null;
  }

  textWords(key) {
    return `waiting for rollout ${key.split("/")[1]}`;
  }

  keep(key, facts, arrays) {
    const values = (name) => (arrays[name] ? decode(arrays[name], facts.arrays[name].dtype) : null);
    const tokens = new Tokens(facts, values("token_ids"));
    this.texts.set(key, { tokens, facts, logprobs: values("logprobs"), entropy: values("entropy") });
    return this.texts.get(key);
  }

  receive(message, buffers) {
    clearTimeout(this.patience);
    this.waitingFor = null;
    if (message?.text)
      this.keep(message.text, message.facts, Object.fromEntries(message.names.map((n, i) => [n, buffers[i]])));
    if (message?.said) this.say(message.said);
    else this.schedule();
  }

  say(words) {
    setText(this.said, words);
  }

  // Token of each column's rollout: the selected one, and the same place in the others; −1 where there is none.
  tokens() {
    const own = this.textOf(this.column, this.rollouts[this.column]);
    return this.facts.columns.map((_, c) => {
      if (c === this.column) return this.selection.token;
      const text = this.textOf(c, this.rollouts[c]);
      return (own && text ? linkedToken(own.tokens, this.selection.token, text.tokens) : null) ?? -1;
    });
  }

  chainPlaces() {
    return this.tokens().map((token, c) => {
      const text = this.textOf(c, this.rollouts[c]);
      return text && token >= 0 ? chainPlace(text.tokens, token) : null;
    });
  }

  scrollOthers(column, share) {
    this.columns.forEach((other, c) => c !== column && other.transcript?.scrollAlong(share));
  }

  build() {
    this.columns = this.facts.columns.map((_, c) => new Column(this, c));
    this.multiples = [LengthMultiple, AccuracyMultiple, EntropyMultiple, DivergenceMultiple].map(
      (Kind) => new Kind(this),
    );
    this.experts = new ExpertsMultiple(this);
    this.said = h("div", { class: "moe-warning moe-effort-said", role: "alert" });
    this.opened = h("div", { class: "moe-effort-opened" });
    this.status = new StatusLine([
      [this.facts.columns.map((_, c) => String(c + 1)), "column"],
      [[",", "."], "rollout"],
      [["←", "→"], "token, linked"],
      [["⏎"], "open"],
      [["?"], "all keys"],
    ]);
    const row = h("div", { class: "moe-effort-columns" }, ...this.columns.map((c) => c.element));
    row.style.setProperty("--columns", this.columns.length);
    return [
      effortHeader(this.facts),
      row,
      this.said,
      h("div", { class: "moe-multiples" }, ...this.multiples.map((m) => m.element)),
      this.experts.element,
      claimsTable(this.facts),
      this.status.element,
    ];
  }

  actionOf({ key, shiftKey, ctrlKey, metaKey, altKey }) {
    if (ctrlKey || metaKey || altKey) return undefined;
    if (shiftKey && key.startsWith("Arrow")) return this.sentenceKey(key);
    if (/^[1-9]$/.test(key)) {
      const column = Number(key) - 1;
      return column < this.columns.length ? () => this.choose(column, this.rollouts[column]) : undefined;
    }
    const { token, layer, expert } = this.selection;
    return {
      ",": () => this.stepRollout(-1),
      ".": () => this.stepRollout(1),
      ArrowLeft: () => this.select({ token: token - 1 }),
      ArrowRight: () => this.select({ token: token + 1 }),
      ArrowUp: () => this.select({ layer: layer - 1 }),
      ArrowDown: () => this.select({ layer: layer + 1 }),
      "[": () => this.select({ expert: expert - 1 }),
      "]": () => this.select({ expert: expert + 1 }),
      Home: () => this.select({ token: this.chosen.start }),
      End: () => this.select({ token: this.chosen.counts.token - 1 }),
      Enter: () => this.open(),
      Escape: () => this.help.close(),
      "?": () => this.help.toggle(),
      "/": shiftKey ? () => this.help.toggle() : undefined,
    }[key];
  }

  sentenceKey(key) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
    const text = by && this.textOf(this.column, this.rollouts[this.column]);
    return text ? () => this.select({ token: text.tokens.sentenceStep(this.selection.token, by) }) : undefined;
  }

  keyList() {
    return [
      ["1 2 3", "column"],
      [", .", "rollout of the column"],
      ["← →", "token, linked by its place in the channel"],
      ["⇧ ← →", "sentence"],
      ["↑ ↓", "layer"],
      ["[ ]", "expert"],
      ["home end", "first, last token of the completion"],
      ["⏎", "open the rollout in TraceExplorer"],
      ["?", "this list"],
      ["esc", "close"],
    ];
  }

  stepRollout(by) {
    const count = this.facts.columns[this.column].rollouts.length;
    const rollout = Math.max(0, Math.min(count - 1, this.rollouts[this.column] + by));
    if (rollout !== this.rollouts[this.column]) this.choose(this.column, rollout);
  }

  open() {
    this.say("opening …");
    this.model.send({ open: true });
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.say("no answer from the kernel: nothing was opened"), PATIENCE);
  }

  // The explorer that Python made is a widget of its own.
  async showExplorer() {
    const explorer = this.model.get("explorer");
    if (!explorer || explorer === this.explorerModel) return;
    this.explorerModel = explorer;
    clearTimeout(this.patience);
    const { widget_manager: manager } = this.model;
    const child = typeof explorer === "string" ? await manager.get_model(explorer.replace("IPY_MODEL_", "")) : explorer;
    const view = await manager.create_view(child);
    this.explorerView?.remove();
    this.explorerView = view;
    this.opened.replaceChildren(view.el);
    this.say("");
  }

  resize() {
    const widths = this.multiples.map((m) => m.element.clientWidth);
    const wide = this.experts.element.clientWidth;
    this.multiples.forEach((m, i) => m.resize(widths[i] - 28));
    this.experts.resize(wide - 28);
  }

  draw() {
    this.columns.forEach((column, c) => {
      const key = `${c}/${this.rollouts[c]}`;
      column.show(key, this.textOf(c, this.rollouts[c]));
    });
    const tokens = this.tokens();
    this.columns.forEach((column, c) => column.measure(tokens[c]));
    for (const multiple of [...this.multiples, this.experts]) multiple.draw(this.palette);
    this.columns.forEach((column, c) => column.draw(this.rollouts[c], tokens[c], c === this.column));
    this.status.write(this.statusPairs());
  }

  statusPairs() {
    const { token, layer, expert } = this.selection;
    const { name, rollouts, outcomes } = this.facts.columns[this.column];
    const rollout = this.rollouts[this.column];
    const text = this.textOf(this.column, rollout);
    const nats = (value) => (Number.isNaN(value) ? "undefined" : `${Math.max(0, value).toFixed(2)} nats`);
    const said = !text
      ? []
      : [
          ["token", `${plain(token)} of ${plain(text.tokens.length)} ${text.tokens.cell(token)}`],
          ["in", text.tokens.messageAt(token)?.hue ?? "no message"],
          ["surprisal", text.logprobs ? nats(-text.logprobs[token]) : "not captured"],
          ["entropy", text.entropy ? nats(text.entropy[token]) : "not captured"],
        ];
    return [
      [name, `rollout ${rollout} of 0–${rollouts.length - 1}`],
      ["answer", chipText(outcomes[rollout])],
      ...said,
      ["layer", layer],
      ["expert", expert],
      ["underlined:", `surprisal > ${FORKS} nats`],
    ];
  }

  settle() {
    setData(this.root, "column", this.column);
    setData(this.root, "rollouts", this.rollouts.join(","));
    setData(this.root, "tokens", this.tokens().join(","));
    const { columns, pairs } = this.facts;
    const said = {
      length: columns.map((c) => `${c.name}: ${c.outcomes.map((o) => o.chainTokens).join(", ")} tokens`),
      accuracy: columns.map(
        (c) => `${c.name}: ${c.accuracy ? `${c.accuracy.successes} of ${c.accuracy.n}` : "no references"}`,
      ),
      entropy: columns.map(
        (c) => `${c.name}: ${c.entropy.map((v) => (v === null ? "undefined" : v.toFixed(2))).join(", ")} nats`,
      ),
      divergence: pairs.map(
        (p, i) => `${pairName(p)}: ${(p.layers ?? []).map((_, l) => this.multiples[3].words(i, l)).join("; ")}`,
      ),
    };
    for (const multiple of this.multiples)
      multiple.surface.label(said[multiple.name].join(". ") || "nothing to compare");
    const experts = pairs.map((p, i) => {
      const cells = this.experts.delta[i]
        ? this.experts.significant(i).map(([l, e]) => `layer ${p.layers[l]} expert ${e}`)
        : null;
      return `${pairName(p)}: ${cells ? cells.join(", ") || "none" : (p.noRouting ?? `not tested: ${p.notTested}`)}`;
    });
    this.experts.surface.label(`Experts that differ. ${experts.join(". ")}`);
  }
}
