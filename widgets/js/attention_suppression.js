// The causal test beside the attention: hide the sentence of the selected token from all later ones, and read again.

import { grouped } from "./map_data.js";
import { h, setData, setText } from "./surface.js";

const NOT_CAUSATION =
  "Attention is not causation: a weight says how much of a token's value was mixed in, not what it changed.";
const HOW = "To test a sentence, hand the view a model: AttentionView(trace, suppress=partial(suppression, model, trace)).";

const nats = (kl) => (kl > 0 && kl < 0.01 ? kl.toExponential(1) : kl.toFixed(2));

// What came of hiding a sentence: `result` as widgets/attention_suppression.py gives it.
export function suppressionWords(name, { answer, later, most, problem }, textOf) {
  if (problem) return `${name} could not be hidden: ${problem}`;
  if (!later) return `${name} hidden: no later token has a prediction to compare`;
  const parts = [
    answer ? `answer ${nats(answer.kl)} nats (mean of ${answer.count})` : "no answer after it",
    `all later tokens ${nats(later.kl)} (mean of ${grouped(later.count)})`,
    `most ${nats(most.kl)} at ${grouped(most.token)} ${textOf(most.token)}`,
  ];
  return `${name} hidden from all later tokens, all heads and layers, KL: ${parts.join(" · ")}`;
}

export class Suppression {
  constructor(view) {
    this.view = view;
    this.results = new Map(); // "start:stop" → result
    this.running = null;
    this.button = h("button", { type: "button", class: "moe-button", onclick: () => this.ask() });
    this.result = h("div", { class: "moe-suppression-result", role: "status" });
    this.element = h(
      "div",
      { class: "moe-causation" },
      h("div", { text: view.facts.canSuppress ? NOT_CAUSATION : `${NOT_CAUSATION} ${HOW}` }),
      h("div", { class: "moe-suppression", hidden: !view.facts.canSuppress }, this.button, this.result),
    );
    this.receive = ({ suppressed }) => suppressed && this.arrived(suppressed);
    view.model.on("msg:custom", this.receive);
  }

  close() {
    this.view.model.off("msg:custom", this.receive);
  }

  sentence() {
    const { tokens, selection } = this.view;
    return tokens.sentenceAt(selection.token);
  }

  ask() {
    const { start, stop } = this.sentence();
    this.running = `${start}:${stop}`;
    this.view.model.send({ suppress: [start, stop] });
    this.settle();
  }

  arrived(result) {
    this.running = null;
    this.results.set(result.span.join(":"), result);
    this.settle();
  }

  settle() {
    if (!this.view.facts.canSuppress) return;
    const sentence = this.sentence();
    const name = sentence && `sentence ${sentence.index + 1}`;
    const id = sentence && `${sentence.start}:${sentence.stop}`;
    const result = this.results.get(id);
    this.button.disabled = !sentence || Boolean(this.running);
    setText(this.button, this.running ? "reading again …" : sentence ? `Hide ${name}` : "no sentence here");
    const textOf = (token) => this.view.tokens.cell(token);
    setText(this.result, result ? suppressionWords(name, result, textOf) : "");
    setData(this.element, "result", result ? id : "");
  }
}
