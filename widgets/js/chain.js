// ChainView: one selection (token, layer) over the whole completion, its sentences, the lens, alternatives, branches.

import { Blocks } from "./blocks.js";
import { ChainAlternatives } from "./chain_alternatives.js";
import { ChainBranches } from "./chain_branches.js";
import { ChainData, neighbour } from "./chain_data.js";
import { CHAIN_KEYS, chainAction } from "./chain_keys.js";
import { ChainLabels } from "./chain_labels.js";
import { ChainLens } from "./chain_lens.js";
import { ChainList } from "./chain_list.js";
import { ChainOverview } from "./chain_overview.js";
import { Find } from "./find.js";
import { DTYPES, sourceBadge } from "./header.js";
import { StatusLine } from "./parts.js";
import { Reading } from "./reading.js";
import { h } from "./surface.js";
import { Tokens } from "./tokens.js";
import { View } from "./view.js";

// What is here and what is not: badges {text, kind, title}.
export function chainBadges(facts) {
  const { arrays, dtype } = facts;
  const shown = { entropy: "entropy", alternatives: "top_token_ids", lens: "lens_token_ids" };
  const sources = Object.values(shown).map((name) => arrays[name]?.source);
  return [
    ...[...new Set(sources.filter(Boolean))].map(sourceBadge),
    ...(dtype ? [{ text: DTYPES[dtype] ?? dtype, kind: "plain", title: `the model ran in ${dtype}` }] : []),
    ...Object.entries(shown).map(([name, array]) =>
      arrays[array]
        ? { text: `✓ ${name}`, kind: "plain", title: `captured: ${array}` }
        : { text: `${name} not captured`, kind: "missing", title: `not in this trace: ${array}` },
    ),
    ...(facts.truncated
      ? [{ text: `✂ ${facts.truncated}`, kind: "warning", title: "the rollout did not end by itself" }]
      : []),
  ];
}

// "chain concludes 132, answer 132: they agree"; what is missing is no disagreement.
export function agreementWords({ result, answer, agree }) {
  if (agree === null) return `chain concludes ${result ?? "nothing"}, answer ${answer ?? "none"}: nothing to compare`;
  return `chain concludes ${result}, answer ${answer}: they ${agree ? "agree" : "differ"} (by rule)`;
}

export class Chain extends View {
  constructor(model, el) {
    super(model, el, { label: `Chain of thought: ${model.get("_facts").question}`, className: "moe-chain" });
  }

  build() {
    const { facts, model } = this;
    this.blocks = new Blocks(model, facts, (problem) => this.arrived(problem));
    this.tokens = new Tokens(facts, this.blocks.get("all/token_ids"));
    this.reading = new Reading(this.blocks, facts, this.tokens);
    this.data = new ChainData(model.get("_chain"), model.get("_arrays"), facts);
    this.find = new Find(this);
    this.overview = new ChainOverview(this);
    this.list = new ChainList(this);
    this.lens = new ChainLens(this);
    this.branches = new ChainBranches(this);
    this.alternatives = new ChainAlternatives(this);
    this.labels = new ChainLabels(this);
    this.onLabels = () => {
      this.list.relabel();
      this.labels.refresh();
    };
    for (const name of ["labels", "labels_by"]) model.on(`change:${name}`, this.onLabels);
    this.status = new StatusLine([
      [["←", "→"], "token"],
      [["⇧"], "sentence"],
      [["↑", "↓"], "layer"],
      [["f"], "fork"],
      [["[", "]"], "alternative"],
      [["⏎"], "continue"],
      [["?"], "all keys"],
    ]);
    const side = h(
      "div",
      { class: "moe-chain-side" },
      this.alternatives.element,
      this.lens.element,
      this.labels.element,
    );
    return [
      this.header(),
      this.find.element,
      this.overview.element,
      h("div", { class: "moe-chain-panels" }, this.list.element, side),
      this.branches.element,
      this.status.element,
    ];
  }

  header() {
    const { facts, data } = this;
    const { question } = facts;
    const badge = ({ text, kind, title }) => h("span", { class: `moe-badge moe-badge-${kind}`, text, title });
    const completion = (facts.numTokens - facts.numPromptTokens).toLocaleString("en");
    const said = facts.embedded ? " (embedded: says nothing about gpt-oss)" : "";
    return h(
      "header",
      { class: "moe-header" },
      h(
        "div",
        { class: "moe-header-row" },
        h("div", { class: "moe-question", role: "heading", "aria-level": "2", text: question, title: question }),
        h("button", { type: "button", class: "moe-button", text: "Find", onclick: () => this.find.open() }),
      ),
      h(
        "div",
        { class: "moe-header-row" },
        h(
          "div",
          { class: "moe-facts moe-secondary" },
          ...(facts.effort ? ["effort ", h("b", { text: facts.effort }), " · "] : []),
          h("b", { text: facts.model }),
          `${said} · ${completion} completion tokens · ${agreementWords(data.agreement)}`,
        ),
        h("div", { class: "moe-badges" }, ...chainBadges(facts).map(badge)),
      ),
    );
  }

  close() {
    super.close();
    for (const name of ["labels", "labels_by"]) this.model.off(`change:${name}`, this.onLabels);
    this.branches.close();
    this.blocks.close();
  }

  actionOf(event) {
    return chainAction(event);
  }

  keyList() {
    return CHAIN_KEYS;
  }

  escape() {
    this.help.close();
    this.root.focus();
  }

  toFork(direction) {
    const token = neighbour(this.data.forkTokens, this.selection.token, direction);
    if (token !== null) this.select({ token });
  }

  // To the sentence that is taken up again, where the chain turns back; else to the next turn.
  toTurn() {
    const { turns, turnOf, sentences } = this.data;
    const turn = turnOf.get(this.data.sentenceAt(this.selection.token));
    if (turn && turn.to !== null) return this.select({ token: sentences[turn.to].start });
    const starts = turns.map((t) => t.token);
    const token = neighbour(starts, this.selection.token, 1) ?? starts[0];
    if (token !== undefined) this.select({ token });
  }

  toAnswer() {
    const { first } = this.data.answer;
    if (first) this.select({ token: first[0], layer: first[1] });
  }

  // Blocks came from the kernel, or did not.
  arrived(problem) {
    this.problem = problem;
    this.schedule();
  }

  resize(width) {
    this.overview.resize(width);
  }

  draw() {
    this.list.measure();
    this.overview.draw();
    this.list.draw();
    this.alternatives.draw();
    this.lens.draw();
    this.labels.draw();
    this.status.write(this.statusPairs());
    this.blocks.flush();
  }

  statusPairs() {
    const { token, layer } = this.selection;
    const { tokens, facts, data } = this;
    const sentence = data.sentenceAt(token);
    const { surprisal, entropy } = this.reading.draw(token);
    return [
      ["token", `${token.toLocaleString("en")} of ${facts.numTokens.toLocaleString("en")}`],
      ["", tokens.cell(token)],
      ["in", token < data.start ? "the prompt" : (tokens.messageAt(token)?.hue ?? "–")],
      sentence >= 0 && ["sentence", `${sentence + 1} of ${data.sentences.length}`],
      ["surprisal", natsWords(surprisal)],
      ["entropy", natsWords(entropy)],
      data.isFork.has(token) && ["", "forking token"],
      ["layer", layer],
      this.problem && ["", this.problem],
    ];
  }

  settle() {}
}

function natsWords(value) {
  if (value === null) return "not captured";
  return Number.isNaN(value) ? "undefined" : `${Math.max(0, value).toFixed(2)} nats`;
}
