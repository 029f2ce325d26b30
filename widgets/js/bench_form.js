// What is to be changed, where, and how it is run.

import { EXPERT_VARIANTS, HEAD_VARIANTS, SPANS, described, inPlaceWords, withPick } from "./bench_words.js";
import { Choice } from "./parts.js";
import { h, setText } from "./surface.js";

const field = (label, input) => h("label", { class: "moe-bench-field" }, h("span", { text: label }), input);
const options = (values) => values.map((value) => h("option", { value, text: value }));

export class BenchForm {
  // `onRun` is given {asked, generate, controls}.
  constructor(view, onRun) {
    Object.assign(this, { view, onRun, generate: true });
    const { facts } = view;
    const groups = [
      ["experts", EXPERT_VARIANTS, facts.numExperts],
      ["heads", HEAD_VARIANTS, facts.numHeads],
    ].filter(([, , count]) => count > 0);
    this.variant = h(
      "select",
      { "aria-label": "Variant", onchange: () => this.variantChosen() },
      ...groups.map(([label, values]) => h("optgroup", { label }, ...options(values))),
    );
    const typed = { type: "text", spellcheck: "false", autocomplete: "off", onkeydown: (e) => this.typed(e) };
    this.picks = h("input", { ...typed, "aria-label": "Experts or heads by layer" });
    this.add = h("button", { type: "button", class: "moe-button", onclick: () => this.addSelected() });
    this.spans = h("datalist", { id: `moe-spans-${Math.random().toString(36).slice(2)}` }, ...options(SPANS));
    this.tokens = h("input", { ...typed, value: "all", "aria-label": "At which tokens", list: this.spans.id });
    this.amount = h("input", { ...typed, type: "number", step: "any", value: "2", "aria-label": "Factor or logits" });
    this.controls = h("input", { ...typed, type: "number", min: "0", max: "99", value: "7", "aria-label": "Controls" });
    this.how = new Choice(
      "afterwards",
      [
        { value: true, text: "generate anew" },
        { value: false, text: "read the same tokens" },
      ],
      (value) => this.setGenerate(value),
    );
    this.run = h("button", { type: "button", class: "moe-button moe-bench-run", onclick: () => this.submit() });
    this.inPlace = h("div", { class: "moe-secondary" });
    this.problem = h("div", { class: "moe-job-error", role: "alert", hidden: true });
    this.amountField = field("factor", this.amount);
    this.element = h(
      "section",
      { class: "moe-bench-form", "aria-label": "What to change" },
      field("do", this.variant),
      this.amountField,
      h("div", { class: "moe-bench-picks" }, field("to layer: which", this.picks), this.add),
      field("at tokens", this.tokens),
      this.spans,
      field("controls", this.controls),
      this.how.element,
      this.run,
      this.inPlace,
      this.problem,
    );
    this.how.draw(true);
    this.variantChosen();
  }

  get isHeads() {
    return HEAD_VARIANTS.includes(this.variant.value);
  }

  typed(event) {
    if (event.key === "Enter") this.submit();
    else if (event.key === "Escape") this.view.root.focus();
  }

  variantChosen() {
    const { value } = this.variant;
    this.amountField.hidden = value !== "scale" && value !== "move sink";
    setText(this.amountField.firstChild, value === "scale" ? "factor" : "logits");
    this.picks.placeholder = this.isHeads ? "2: 0, 3; 3: all" : value === "swap" ? "0: 4>6" : "0: 4, 6; 1: 3";
    this.add.hidden = value === "swap";
    if (this.isHeads !== this.wasHeads) this.picks.value = "";
    this.wasHeads = this.isHeads;
    setText(this.inPlace, `${inPlaceWords(value)}; variants answer different questions`);
    this.draw();
  }

  setGenerate(value) {
    this.generate = value;
    this.how.draw(value);
  }

  // Take the selected expert or head.
  addSelected() {
    const { facts, selection } = this.view;
    const of = this.isHeads ? "head" : "expert";
    const count = this.isHeads ? facts.numHeads : facts.numExperts;
    const limits = { of, count, numLayers: facts.numLayers, variant: this.variant.value };
    this.picks.value = withPick(this.picks.value, selection.layer, selection[of], limits);
  }

  submit() {
    if (!this.view.facts.canRun || this.view.isBusy) return;
    const { facts } = this.view;
    const { value: variant } = this.variant;
    const wanted = { variant, picks: this.picks.value, tokens: this.tokens.value, amount: this.amount.valueAsNumber };
    const found = described(wanted, facts);
    const controls = this.controls.valueAsNumber;
    const countable = Number.isInteger(controls) && controls >= 0;
    this.complain(found.problem ?? (countable ? "" : "expected a number of controls, 0 or more"));
    if (!this.problem.hidden) return;
    this.onRun({ asked: [found.description], generate: this.generate, controls });
  }

  complain(words) {
    this.problem.hidden = !words;
    setText(this.problem, words);
  }

  draw() {
    const { facts, selection, isBusy } = this.view;
    const of = this.isHeads ? "head" : "expert";
    setText(this.add, `+ ${of} ${selection[of]} of layer ${selection.layer}`);
    setText(this.run, facts.canRun ? "Run" : "no model to run");
    this.run.disabled = !facts.canRun || Boolean(isBusy);
  }
}
