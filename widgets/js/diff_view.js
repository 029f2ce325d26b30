// Two traces beside each other, stepped through by the rows of their alignment.

import { Blocks } from "./blocks.js";
import { DiffLayers, weightsWords } from "./diff_layers.js";
import { DiffOverview, DiffStrip } from "./diff_paint.js";
import { DiffRows, SIDES } from "./diff_rows.js";
import { answerWords, legendWords, overlapLines, rowWords, textWords } from "./diff_words.js";
import { badges } from "./header.js";
import { LinkedPair } from "./linked_pair.js";
import { decode } from "./numerics.js";
import { StatusLine } from "./parts.js";
import { Selection, withinCounts } from "./selection.js";
import { h, setData } from "./surface.js";
import { Tokens } from "./tokens.js";
import { View } from "./view.js";
import { EVERYWHERE, viewAction } from "./view_keys.js";

const plainNumber = (n) => n.toLocaleString("en");

// The model as the views of one side see it: its blocks, its messages, and for b its token and key.
function sideModel(model, side, key) {
  const heard = new Map();
  const names = side === "b" ? { token: "token_b" } : {};
  const own = { _blocks: `_blocks_${side}`, ...names };
  const isShared = (name) => side === "b" && ["layer", "head", "expert"].includes(name.replace("change:", ""));
  return {
    get: (name) => (name === "_selection_key" ? key : model.get(own[name] ?? name)),
    set: (name, value) => isShared(name) || model.set(own[name] ?? name, value),
    save_changes: () => model.save_changes(),
    send: (message) => model.send({ ...message, side }),
    on: (event, callback) => {
      if (isShared(event)) return; // a's
      const ours = event === "msg:custom" ? (m, buffers) => m?.side === side && callback(m, buffers) : callback;
      heard.set(`${event}`, ours);
      model.on(event === "change:token" && side === "b" ? "change:token_b" : event, ours);
    },
    off: (event) => {
      if (heard.has(event))
        model.off(event === "change:token" && side === "b" ? "change:token_b" : event, heard.get(event));
    },
  };
}

export class DiffView extends View {
  constructor(model, el) {
    const { labels } = model.get("_facts");
    super(model, el, { label: `Two traces compared: ${labels.join(" and ")}`, className: "moe-diff" });
  }

  // Both traces' selections, and the row that holds their tokens.
  join(model) {
    const { facts } = this;
    const sent = model.get("_arrays");
    const arrays = Object.fromEntries(
      Object.entries(sent).map(([name, bytes]) => [name, decode(bytes, name === "rows" ? "int32" : "uint8")]),
    );
    this.rows = new DiffRows(arrays, facts);
    this.at = this.rows.within(model.get("row"));
    const clamp = (wanted) => ({
      ...withinCounts(wanted, facts.sides.a.counts),
      row: this.rows.within(wanted.row),
    });
    const models = SIDES.map((side) => sideModel(model, side, facts.keys[side]));
    this.blocks = models.map((m, i) => new Blocks(m, facts.sides[SIDES[i]], () => this.schedule()));
    this.tokens = this.blocks.map((b, i) => new Tokens(facts.sides[SIDES[i]], b.get("all/token_ids")));
    this.selected = new Selection(models[0], { clamp, moved: () => this.movedBy(0), own: { row: "row" } });
    this.other = new Selection(models[1], {
      clamp: (wanted) => withinCounts(wanted, facts.sides.b.counts),
      moved: () => this.movedBy(1),
    });
    this.movedBy(0);
  }

  // Another view or Python moved a trace's token, or Python the row: the row follows, and then the other trace.
  movedBy(side) {
    if (!this.other) return;
    const { token } = [this.selected, this.other][side].values;
    const { row } = this.selected.values;
    if (side === 0 && row !== this.at) this.at = row;
    else if (this.rows.tokenBefore(this.at, side) !== token) this.at = this.rows.rowOf(side, token);
    const { layer, head, expert } = side ? this.other.values : this.selected.values;
    this.go(this.at, side ? { layer, head, expert } : {});
  }

  go(row, changes = {}) {
    this.at = this.rows.within(row);
    const [a, b] = [0, 1].map((side) => this.rows.tokenBefore(this.at, side));
    this.selected.move({ ...changes, row: this.at, token: a });
    const { layer, head, expert } = this.selected.values;
    this.other.move({ token: b, layer, head, expert });
    if (this.width) this.schedule();
  }

  select(changes) {
    this.go(this.at, changes);
  }

  close() {
    super.close();
    this.other.close();
    for (const blocks of this.blocks) blocks.close();
  }

  build() {
    const { facts, rows, tokens } = this;
    this.overview = new DiffOverview(rows, facts);
    this.strip = new DiffStrip(rows, facts, tokens);
    const labels = facts.labels.map((name) => `What ${name} said`);
    this.pair = new LinkedPair(rows, tokens, labels, (row) => this.go(row));
    this.layers = new DiffLayers(this);
    this.overview.surface.canvas.addEventListener("pointerdown", (event) =>
      this.go(this.overview.rowAt(event.offsetX)),
    );
    const strip = this.strip.surface.canvas;
    strip.addEventListener("pointerdown", (event) => {
      const found = this.strip.at(event.offsetX, event.offsetY, this.at);
      if (found) this.go(found.row, found.layer === null ? {} : { layer: found.layer });
    });
    strip.addEventListener("pointermove", (event) => {
      const found = this.strip.at(event.offsetX, event.offsetY, this.at);
      strip.title = found ? this.cellWords(found) : "";
    });
    this.status = new StatusLine([
      [["←", "→"], "row"],
      [["⇧"], "stretch"],
      [["p"], "parting"],
      [["↑", "↓"], "layer"],
      [["?"], "all keys"],
    ]);
    return [
      this.header(),
      this.summary(),
      h(
        "div",
        { class: "moe-diff-drawn" },
        this.overview.surface.canvas,
        this.strip.surface.canvas,
        h("p", { class: "moe-secondary", text: legendWords(this.facts) }),
      ),
      h("div", { class: "moe-diff-panels" }, ...SIDES.map((_, side) => this.column(side)), this.layers.element),
      this.status.element,
    ];
  }

  column(side) {
    const { facts } = this;
    const name = facts.labels[side];
    const { numTokens, numPromptTokens, truncated } = facts.sides[SIDES[side]];
    const counts = `${plainNumber(numPromptTokens)} + ${plainNumber(numTokens - numPromptTokens)} tokens`;
    return h(
      "section",
      { class: "moe-diff-side", "aria-label": name },
      h(
        "div",
        { class: "moe-diff-name" },
        h("b", { text: name, title: name }),
        h("span", { class: "moe-secondary", text: ` ${counts}` }),
        ...(truncated ? [h("span", { class: "moe-warning", text: ` ✂ ${truncated}` })] : []),
      ),
      h("div", { class: "moe-diff-text" }, this.pair.sides[side].element),
    );
  }

  header() {
    const { sides, labels } = this.facts;
    const of = SIDES.map((side, i) => {
      const { model, embedded, question } = sides[side];
      const marks = badges({ ...sides[side], arrays: { ...sides[side].captured } });
      return h(
        "div",
        { class: "moe-header-row" },
        h(
          "div",
          { class: "moe-facts moe-secondary" },
          `${side}: `,
          h("b", { text: labels[i] }),
          ` ${model}${embedded ? " (embedded: says nothing about gpt-oss)" : ""}${i && question !== sides.a.question ? `: ${question}` : ""}`,
        ),
        h(
          "div",
          { class: "moe-badges" },
          ...marks.map(({ text, kind, title }) => h("span", { class: `moe-badge moe-badge-${kind}`, text, title })),
        ),
      );
    });
    const title = sides.a.question;
    return h(
      "header",
      { class: "moe-header" },
      h("div", { class: "moe-question", role: "heading", "aria-level": "2", text: title, title }),
      ...of,
    );
  }

  summary() {
    const { facts } = this;
    const line = (name, words, title) =>
      h("tr", {}, h("th", { scope: "row", text: name }), h("td", { text: words, title }));
    const experts = overlapLines(facts);
    const body = h(
      "tbody",
      {},
      line("text", textWords(facts, this.rows, facts.labels), facts.method),
      line("answers", answerWords(facts)),
      ...experts.map((words, i) => line(i ? "" : "experts", words, facts.overlaps[i].source)),
      ...facts.missing.map((words) => line("not compared", words)),
    );
    return h("section", { class: "moe-diff-summary", "aria-label": "Where they part" }, h("table", {}, body));
  }

  // Experts of a side's token in a layer: {state, experts, weights} or words for why there are none.
  experts(side, token, layer) {
    const blocks = this.blocks[side];
    if (token < 0) return { state: "undefined", words: "no token" };
    if (!blocks.has("expert_indices", layer)) return { state: "missing", words: "not captured" };
    const experts = blocks.layerRow("expert_indices", token, layer);
    const weights = blocks.has("expert_weights", layer) ? blocks.layerRow("expert_weights", token, layer) : undefined;
    if (experts === null || weights === null) return { state: "waiting", words: "waiting …" };
    return { state: "here", experts: Array.from(experts), weights: weights ? Array.from(weights) : null };
  }

  weightWords(found) {
    return weightsWords(found);
  }

  contextWords(row) {
    const { rows, facts } = this;
    if (!rows.isSame(row)) return `${rowWords(rows, row, facts.labels)}: experts are not compared`;
    if (rows.sameContext(row)) return "same context: all before this token is the same";
    return "on different text: what came before this token differs";
  }

  cellWords({ row, layer }) {
    const { rows, facts } = this;
    const texts = [0, 1].map((side) => {
      const token = rows.token(row, side);
      return `${facts.labels[side]}: ${token < 0 ? "no token" : `${token} ${this.tokens[side].cell(token)}`}`;
    });
    const shared = layer === null ? null : rows.sharedExperts(row, layer);
    const tie = layer !== null && rows.isNearTie(row, layer) ? ", near-tie" : "";
    const both = shared === null ? "" : `; layer ${layer}: ${shared} of ${facts.topK} experts alike${tie}`;
    return `${texts.join(", ")}; ${rowWords(rows, row, facts.labels)}${both}`;
  }

  actionOf(event) {
    const { expert } = this.selection;
    const own = {
      ArrowLeft: () => this.go(this.at - 1),
      ArrowRight: () => this.go(this.at + 1),
      "[": () => this.select({ expert: expert - 1 }),
      "]": () => this.select({ expert: expert + 1 }),
      Home: () => this.go(0),
      End: () => this.go(this.rows.length - 1),
      p: () => this.facts.parting !== null && this.go(this.facts.parting),
    };
    return viewAction(this, event, own, {
      ArrowLeft: () => this.go(this.rows.nextStretch(this.at, -1)),
      ArrowRight: () => this.go(this.rows.nextStretch(this.at, 1)),
    });
  }

  keyList() {
    return [
      ["← →", "row"],
      ["⇧ ← →", "next stretch that is the same, or that is not"],
      ["p", "where the completions part"],
      ["↑ ↓", "layer"],
      ["[ ]", "expert"],
      ["home end", "first, last row"],
      ...EVERYWHERE,
    ];
  }

  resize(width) {
    this.overview.resize(width - 28);
    this.strip.resize(width - 28);
  }

  draw() {
    const { at, rows, facts } = this;
    this.pair.draw(at, () => {
      this.overview.paint(this.palette, at);
      this.strip.paint(this.palette, this.selection);
    });
    this.layers.draw();
    const said = [0, 1].map((side) => {
      const token = rows.token(at, side);
      return [facts.labels[side], token < 0 ? "no token" : `${plainNumber(token)} ${this.tokens[side].cell(token)}`];
    });
    const { layer, expert } = this.selection;
    const row = ["row", `${plainNumber(at)} of ${plainNumber(rows.length)}`];
    this.status.write([row, ...said, ["", rowWords(rows, at, facts.labels)], ["layer", layer], ["expert", expert]]);
    for (const blocks of this.blocks) blocks.flush();
  }

  settle() {
    const { layer } = this.selection;
    setData(this.root, "tokenB", this.other.values.token);
    this.strip.surface.label(this.cellWords({ row: this.at, layer }));
    this.overview.surface.label(textWords(this.facts, this.rows, this.facts.labels));
  }
}
