// What is done to the chosen sentence, what follows it, how often, and what that will cost.

import { borders, costOf, costWords, putText, takesText } from "./editor_words.js";
import { Choice } from "./parts.js";
import { h, setData, setText } from "./surface.js";

const NO_MODEL = "no model to run: make it with ChainEditor(trace, run=partial(continue_from, model))";
const CONTROL = "control: t, truncate after it and let the rest be written anew, with nothing changed";

const labelled = (label, input) => h("label", { class: "moe-editor-field" }, h("span", { text: label }), input);

export class EditorForm {
  // `onRun` is given {action, sentence, text, rest, branch, samples, temperature, seed}.
  constructor(view, onRun) {
    Object.assign(this, { view, onRun, action: "replace", rest: "anew" });
    this.drafts = new Map(); // what was typed, by place and action
    const { facts } = view;
    this.title = h("b");
    this.actions = new Choice(
      "",
      [
        { value: "replace", text: "replace" },
        { value: "delete", text: "delete" },
        { value: "insert", text: "insert after" },
        { value: "truncate", text: "truncate after" },
      ],
      (action) => this.act(action),
    );
    this.actions.element.querySelector('[role="group"]').setAttribute("aria-label", "What to do with the sentence");
    this.text = h("textarea", {
      rows: "2",
      spellcheck: "false",
      autocomplete: "off",
      "aria-label": "Text",
      onkeydown: (event) => this.typed(event),
      oninput: () => this.drafts.set(this.draftKey(), this.text.value),
    });
    this.rests = new Choice(
      "then",
      [
        { value: "anew", text: "" },
        { value: "kept", text: "" },
      ],
      (rest) => this.follow(rest),
    );
    const number = (value, more) =>
      h("input", { type: "number", value, onkeydown: (e) => this.typed(e), oninput: () => this.drawCost(), ...more });
    this.samples = number(String(facts.samples), { min: "1", max: "999", "aria-label": "Rollouts" });
    this.temperature = number("1", { min: "0", step: "any", "aria-label": "Temperature, 0 is greedy" });
    this.seed = number("0", { min: "0", "aria-label": "First seed" });
    this.run = h("button", { type: "button", class: "moe-button moe-editor-run", onclick: () => this.submit() });
    this.cost = h("div", { class: "moe-secondary moe-editor-cost" });
    this.problem = h("div", { class: "moe-job-error", role: "alert", hidden: true });
    this.element = h("section", { class: "moe-editor-form", "aria-label": "Edit the sentence" }, ...this.parts());
  }

  parts() {
    if (!this.view.facts.canRun) return [h("div", { class: "moe-missing", text: NO_MODEL })];
    const settings = [
      labelled("rollouts", this.samples),
      labelled("temperature", this.temperature),
      labelled("seed", this.seed),
    ];
    return [
      h("div", { class: "moe-editor-line" }, this.title, this.actions.element),
      this.text,
      h("div", { class: "moe-editor-line" }, this.rests.element, ...settings),
      h("div", { class: "moe-editor-line moe-editor-last" }, this.cost, this.run),
      this.problem,
    ];
  }

  get chain() {
    return this.view.chain;
  }

  get isGreedy() {
    return this.temperature.valueAsNumber === 0;
  }

  draftKey() {
    return `${this.view.shown} ${this.view.sentence} ${this.action}`;
  }

  act(action, focus = false) {
    this.action = action;
    this.complain("");
    this.draw();
    if (focus && this.view.facts.canRun) {
      this.text.focus();
      this.text.select();
    } else this.view.root.focus({ preventScroll: true });
  }

  follow(rest) {
    if (rest === "kept" && this.cannotKeep()) return;
    this.rest = rest;
    this.draw();
  }

  cannotKeep() {
    const { answerStart } = this.view.side;
    const sentence = this.chain.view.data.sentences[this.view.sentence];
    return answerStart === null || !sentence || answerStart < sentence.stop;
  }

  typed(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "Escape") this.view.root.focus();
  }

  // The sentence's own text, for which white space at either end is kept.
  ownText() {
    return borders(this.chain.textOf(this.view.sentence)).body;
  }

  submit() {
    const { view, action, rest } = this;
    if (!view.facts.canRun || view.isBusy) return;
    const { sentence } = view;
    const text = putText(action, this.text.value, this.chain.textOf(sentence), this.chain.textOf(sentence + 1));
    const samples = this.isGreedy ? 1 : this.samples.valueAsNumber;
    const [temperature, seed] = [this.temperature.valueAsNumber, this.seed.valueAsNumber];
    this.complain(this.problemOf(text, samples, temperature, seed));
    if (!this.problem.hidden) return;
    this.onRun({ action, sentence, text, rest, branch: view.shown, samples, temperature, seed });
  }

  problemOf(text, samples, temperature, seed) {
    const { action } = this;
    if (!this.chain.view.data.sentences.length) return "this rollout has no chain of thought to edit";
    if (takesText(action) && !text) return `expected the text to ${action}; d deletes the sentence`;
    const isTyped = this.drafts.has(this.draftKey());
    if (action === "replace" && (!isTyped || text === this.chain.textOf(this.view.sentence)))
      return "the sentence is as it was: change it, or let the model go on after it with t, which is the control";
    if (!Number.isInteger(samples) || samples < 1) return "expected a number of rollouts, 1 or more";
    if (!(temperature >= 0)) return "expected a temperature of 0 or more; 0 is greedy";
    if (!Number.isInteger(seed) || seed < 0) return "expected a seed of 0 or more";
    return "";
  }

  complain(words) {
    this.problem.hidden = !words;
    setText(this.problem, words);
  }

  draw() {
    const { view } = this;
    if (!view.facts.canRun) return;
    const { sentences } = this.chain.view.data;
    const known = sentences.length > 0;
    setText(this.title, known ? `Sentence ${view.sentence + 1} of ${sentences.length}` : "No sentence");
    this.actions.draw(this.action);
    this.text.hidden = !takesText(this.action);
    this.text.placeholder = this.action === "insert" ? "text of the new sentence" : "text in its place";
    const draft = this.drafts.get(this.draftKey()) ?? (this.action === "replace" ? this.ownText() : "");
    if (this.text.value !== draft) this.text.value = draft;
    this.drawRests();
    this.samples.disabled = this.isGreedy;
    setText(this.run, view.isBusy ? "running" : "Run");
    this.run.disabled = view.isBusy || !known;
    this.drawCost();
    setData(this.element, "action", this.action);
    setData(this.element, "rest", this.rest);
  }

  drawRests() {
    const isEnd = this.action === "truncate";
    const kept = this.rests.buttons.get("kept");
    setText(this.rests.buttons.get("anew"), isEnd ? "write on" : "write the rest anew");
    setText(kept, isEnd ? "close the chain, answer anew" : "keep the rest, answer anew");
    kept.disabled = this.cannotKeep();
    kept.title = kept.disabled ? "this rollout gives no answer after its chain" : "";
    if (kept.disabled) this.rest = "anew";
    this.rests.draw(this.rest);
  }

  drawCost() {
    const { view } = this;
    const sentence = this.chain.view.data.sentences[view.sentence];
    this.samples.disabled = this.isGreedy;
    if (!sentence) return setText(this.cost, "");
    const lengths = { answerStart: view.side.answerStart, closing: this.closing(sentence), numTokens: this.length };
    const cost = costOf({ action: this.action, rest: this.rest }, sentence, lengths);
    const samples = this.isGreedy ? 1 : Math.max(1, Math.trunc(this.samples.valueAsNumber) || 1);
    const hint = this.action === "truncate" && this.rest === "anew" ? "nothing is changed: a control" : CONTROL;
    setText(this.cost, `${costWords(cost, samples, view.speeds[this.rest])} · ${hint}`);
  }

  get length() {
    return this.chain.view.tokens.length;
  }

  // How many tokens close the message of a sentence and open the answer.
  closing(sentence) {
    const { tokens } = this.chain.view;
    const { answerStart } = this.view.side;
    const thought = tokens.messageAt(sentence.start);
    let stop = thought.stop;
    while (stop > thought.contentStart && tokens.isSpecial(stop - 1)) stop--;
    const header = answerStart === null ? 0 : answerStart - tokens.messageAt(answerStart - 1).start;
    return thought.stop - stop + header;
  }
}
