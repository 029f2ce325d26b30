// One rollout of the pair: its sentences, what was put there by hand, where the model went on, and which tokens differ.

import { ChainData } from "./chain_data.js";
import { ChainList } from "./chain_list.js";
import { lineOf, wholeText } from "./editor_words.js";
import { decode } from "./numerics.js";
import { h } from "./surface.js";
import { Tokens } from "./tokens.js";

// What ChainList reads of a rollout.
export function chainOf(side) {
  const sentences = side.sentences.map(([start, stop]) => ({ start, stop }));
  const chain = { sentences, channel: "analysis", turns: [], markers: [], forks: null, answer: {} };
  return {
    tokens: new Tokens(side.facts, decode(side.token_ids, "int32")),
    data: new ChainData(chain, {}, side.facts),
    selection: { token: 0 },
  };
}

export class EditorChain extends ChainList {
  // `side` is of `_pair`; `differs` says of a token whether the other rollout has another; `onSelect` is given a token,
  // `onRollout` the next (1) or the previous (−1).
  constructor(side, { name, count, differs, onSelect, onRollout }) {
    const view = { ...chainOf(side), select: ({ token }) => onSelect(token), side, name, count, onRollout };
    super(view);
    this.differs = differs;
    this.scroller.setAttribute("aria-label", `Chain and answer of ${name}`);
  }

  head() {
    const { side, name, count, onRollout, data } = this.view;
    const { facts, answer, chainTokens } = side;
    const step = (by, text, label) =>
      h("button", { type: "button", class: "moe-button", text, "aria-label": label, onclick: () => onRollout(by) });
    const rollouts =
      count > 1
        ? [
            step(-1, "‹", `previous rollout of ${name}`),
            h("span", { class: "moe-secondary", text: `rollout ${side.place[1] + 1} of ${count}` }),
            step(1, "›", `next rollout of ${name}`),
          ]
        : [];
    const length = `${data.sentences.length} sentences, ${chainTokens.toLocaleString("en")} tokens`;
    return h(
      "div",
      { class: "moe-chain-head" },
      h("b", { text: name }),
      ...rollouts,
      h("span", {}, "answer ", h("b", { class: "moe-code", text: answer === null ? "none" : lineOf(answer) })),
      h("span", { class: "moe-secondary", text: length }),
      ...(facts.truncated
        ? [h("span", { class: "moe-badge moe-badge-warning", text: `✂ ${lineOf(facts.truncated)}` })]
        : []),
    );
  }

  message(message, low, high) {
    const element = super.message(message, low, high);
    if (message.hue === "analysis" && !this.view.data.sentences.length)
      element.append(h("div", { class: "moe-secondary", text: "nothing was thought here" }));
    return element;
  }

  row({ number, start, stop }) {
    const { side, data } = this.view;
    const from = side.generatedFrom;
    const begins = from !== null && from !== undefined && start <= from && from < stop;
    const inner = number < 0 ? super.row({ number, start, stop }) : this.sentence(number, start, stop, data);
    if (number < 0) inner.classList.add("moe-content");
    if (!begins) return inner;
    const words = `written by the model from token ${from.toLocaleString("en")}`;
    return h("div", {}, h("div", { class: "moe-editor-from moe-secondary", text: words }), inner);
  }

  sentence(number, start, stop, data) {
    const sentence = data.sentences[number];
    const text = h(
      "div",
      { class: "moe-content moe-chain-text" },
      start > sentence.start ? "… " : "",
      ...this.pieces(start, stop),
      stop < sentence.stop ? " …" : "",
    );
    const put = this.view.side.put;
    const byHand = put && sentence.start < put[1] && sentence.stop > put[0];
    const name = h("span", {
      class: "moe-chain-number moe-secondary",
      "data-token": sentence.start,
      title: byHand ? "put there by hand" : null,
      text: `${byHand ? "✎ " : ""}${number + 1}`,
    });
    const element = h("div", { class: "moe-chain-row", "data-sentence": number }, name, text);
    if (byHand) element.classList.add("moe-by-hand");
    this.rows.set(number, { element, labels: null });
    return element;
  }

  mount(token) {
    super.mount(token);
    for (let i = this.range.from; i < this.range.to; i++) {
      if (this.differs(i)) this.words.get(i)?.classList.add("moe-differs");
    }
  }

  // Draw with a token marked.
  show(token) {
    this.view.selection = { token };
  }

  // The sentence that is edited when a token is selected: its own, else the one before it, else the first.
  numberAt(token) {
    const { data } = this.view;
    const own = data.sentenceAt(token);
    if (own >= 0) return own;
    const before = data.sentences.findLastIndex((s) => s.start <= token);
    return Math.max(0, before);
  }

  textOf(number) {
    const sentence = this.view.data.sentences[number];
    return sentence ? wholeText(this.view.tokens, sentence.start, sentence.stop) : "";
  }
}
