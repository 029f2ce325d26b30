// One column: an effort, its rollouts to pick from, and what the picked one said.

import { answersWords, chipText, lengthWords, outcomeKind, outcomeWords } from "./effort_words.js";
import { LinkedTranscript } from "./linked_transcript.js";
import { h, setText } from "./surface.js";

export const FORKS = 0.5; // nats of surprisal from which a token is underlined

export class Column {
  constructor(view, index) {
    const facts = view.facts.columns[index];
    Object.assign(this, { view, index, facts });
    this.length = h("span", { class: "moe-secondary" });
    this.name = h("button", {
      type: "button",
      class: "moe-effort-name",
      text: facts.name,
      title: facts.name,
      onclick: () => view.choose(index, view.rollouts[index]),
    });
    this.chips = facts.outcomes.map((outcome, r) => this.chip(outcome, r));
    this.holder = h("div", { class: "moe-effort-text" });
    const answers = answersWords(facts);
    this.element = h(
      "section",
      { class: "moe-effort", "aria-label": `${facts.name}, ${facts.outcomes.length} rollouts` },
      h("div", { class: "moe-effort-head" }, this.name, this.length),
      h("div", { class: "moe-effort-chips", role: "group", "aria-label": `rollouts of ${facts.name}` }, ...this.chips),
      h("div", { class: "moe-secondary moe-effort-answers", text: answers, title: answers }),
      this.holder,
    );
  }

  chip(outcome, r) {
    const of = this.facts.numQuestions > 1 ? `${outcome.question} · ` : "";
    const words = `${of}${outcomeWords(outcome, r, this.facts.rollouts[r].seed)}`;
    return h("button", {
      type: "button",
      class: `moe-effort-chip moe-outcome-${outcomeKind(outcome)}`,
      text: chipText(outcome),
      title: words,
      "aria-label": words,
      "aria-pressed": "false",
      onclick: () => this.view.choose(this.index, r),
    });
  }

  // The transcript of the picked rollout; while its text is waited for, words say so.
  show(key, text) {
    if (this.shown === (text ? key : null)) return;
    this.shown = text ? key : null;
    if (!text) {
      this.transcript = null;
      this.holder.replaceChildren(h("div", { class: "moe-undefined", text: this.view.textWords(key) }));
      return;
    }
    const { tokens, logprobs } = text;
    const explorer = {
      tokens,
      facts: { numTokens: tokens.length },
      reading: { attention: () => ({ state: "missing" }) },
      select: ({ token }) => this.view.pick(this.index, token),
    };
    this.transcript = new LinkedTranscript(explorer, {
      first: tokens.numPrompt,
      label: `What ${this.facts.name} said`,
      classOf: (token) => (logprobs && -logprobs[token] > FORKS ? "moe-forks" : null),
      onScroll: () => this.scrolled(),
    });
    this.holder.replaceChildren(this.transcript.element);
  }

  // The reader scrolled: the other columns go as far along.
  scrolled() {
    const share = this.transcript.scrolled;
    if (share !== null) this.view.scrollOthers(this.index, share);
  }

  measure(token) {
    this.transcript?.measure({ selection: { token } });
  }

  draw(rollout, token, isChosen) {
    this.element.dataset.chosen = String(isChosen);
    this.name.setAttribute("aria-pressed", String(isChosen));
    this.element.dataset.rollout = rollout;
    this.element.dataset.token = token;
    setText(this.length, lengthWords(this.facts.outcomes[rollout]));
    this.chips.forEach((chip, r) => chip.setAttribute("aria-pressed", String(r === rollout)));
    this.transcript?.draw({ selection: { token, layer: 0, head: 0 } });
  }
}
