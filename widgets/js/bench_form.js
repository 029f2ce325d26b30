// What is to be changed, by one change or several at once, and how it is run.

import { described, kindOf, limitsOf, parseTokens, placesOf } from "./bench_asked.js";
import { Fields, blankChange } from "./bench_fields.js";
import { Picker } from "./bench_picker.js";
import { doneWords, inPlaceWords } from "./bench_words.js";
import { Choice } from "./parts.js";
import { h, setData, setText } from "./surface.js";

export class BenchForm {
  // `onRun` is given {asked, generate, controls}.
  constructor(view, onRun) {
    Object.assign(this, { view, onRun, generate: true, at: 0 });
    this.changes = [blankChange(view.facts)];
    this.fields = new Fields(view, { onChange: () => this.edited(), onEnter: () => this.submit() });
    this.pickers = Object.fromEntries(
      [["experts", view.facts.numExperts], ["heads", view.facts.numHeads]]
        .filter(([, count]) => count > 0)
        .map(([kind]) => [kind, new Picker(view, kind, (place) => this.fields.pick(place))]),
    );
    this.list = h("ol", { class: "moe-bench-changes", "aria-label": "Changes made together" });
    this.another = h("button", {
      type: "button",
      class: "moe-button",
      text: "+ another change",
      onclick: () => this.addChange(),
    });
    this.controls = h("input", {
      ...{ type: "number", min: "0", max: "99", value: "7", "aria-label": "Controls" },
      onkeydown: (event) => this.fields.typed(event),
    });
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
    this.element = h(
      "section",
      { class: "moe-bench-form", "aria-label": "What to change" },
      this.list,
      h("div", { class: "moe-bench-row" }, ...this.fields.elements, this.another),
      this.inPlace,
      ...Object.values(this.pickers).map((picker) => picker.element),
      h(
        "div",
        { class: "moe-bench-row" },
        h("label", { class: "moe-bench-field" }, h("span", { text: "controls" }), this.controls),
        this.how.element,
        this.run,
      ),
      this.problem,
    );
    this.how.draw(true);
    this.choose(0);
  }

  get isHeads() {
    return this.fields.kind === "heads";
  }

  get kind() {
    return this.fields.kind;
  }

  setGenerate(value) {
    this.generate = value;
    this.how.draw(value);
  }

  addChange() {
    const { tokens } = this.changes[this.at];
    this.changes.push(blankChange(this.view.facts, tokens));
    this.choose(this.changes.length - 1);
  }

  removeChange(at) {
    this.changes.splice(at, 1);
    this.choose(Math.min(this.at - (at < this.at ? 1 : 0), this.changes.length - 1));
  }

  // Edit one of the changes.
  choose(at) {
    this.at = at;
    this.fields.show(this.changes[at]);
    this.edited();
  }

  edited() {
    const { variant } = this.changes[this.at];
    setText(this.inPlace, `${inPlaceWords(variant)}; variants answer different questions`);
    for (const [kind, picker] of Object.entries(this.pickers)) picker.element.hidden = kind !== this.kind;
    this.complain("");
    this.writeList();
    this.view.schedule();
  }

  // One line per change, where there are several.
  writeList() {
    setData(this.element, "changes", this.changes.length);
    this.list.hidden = this.changes.length === 1;
    if (this.list.hidden) return;
    const focused = this.list.contains(document.activeElement);
    this.list.replaceChildren(...this.changes.map((change, at) => this.line(change, at)));
    if (focused) this.list.children[this.at].firstChild.focus();
  }

  line(change, at) {
    const { description, problem } = described(change, this.view.facts);
    const words = description ? doneWords([description]) : `${change.variant}: ${problem}`;
    return h(
      "li",
      {},
      h("button", {
        ...{ type: "button", class: "moe-chip", text: words, "aria-pressed": String(at === this.at) },
        onclick: () => this.choose(at),
      }),
      h("button", {
        ...{ type: "button", class: "moe-button", text: "×", "aria-label": `Remove change ${at + 1}` },
        onclick: () => this.removeChange(at),
      }),
    );
  }

  submit() {
    if (!this.view.facts.canRun || this.view.isBusy) return;
    const found = this.changes.map((change) => described(change, this.view.facts));
    const wrong = found.findIndex(({ problem }) => problem);
    if (wrong >= 0) {
      if (wrong !== this.at) this.choose(wrong);
      this.complain(this.changes.length > 1 ? `change ${wrong + 1}: ${found[wrong].problem}` : found[wrong].problem);
      return;
    }
    const controls = this.controls.valueAsNumber;
    const countable = Number.isInteger(controls) && controls >= 0;
    this.complain(countable ? "" : "expected a number of controls, 0 or more");
    if (countable) this.onRun({ asked: found.map(({ description }) => description), generate: this.generate, controls });
  }

  complain(words) {
    this.problem.hidden = !words;
    setText(this.problem, words);
  }

  resize(width) {
    for (const picker of Object.values(this.pickers)) picker.resize(width);
  }

  draw(palette) {
    const { facts, isBusy } = this.view;
    this.fields.draw();
    setText(this.run, facts.canRun ? "Run" : "no model to run");
    this.run.disabled = !facts.canRun || Boolean(isBusy);
    const { variant, picks, tokens, from } = this.changes[this.at];
    const span = parseTokens(tokens, facts.numTokens).tokens ?? this.span ?? "all";
    this.span = span;
    const limits = limitsOf(variant, facts);
    this.pickers[this.kind]?.draw(palette, { span, text: picks, limits, from, others: this.others() });
  }

  // What the other changes of this kind name.
  others() {
    const { facts } = this.view;
    const beside = this.changes.filter((change, at) => at !== this.at && kindOf(change.variant) === this.kind);
    return beside.flatMap((change) => placesOf(change.picks, limitsOf(change.variant, facts)));
  }

  // The amount of the selected expert or head, in words.
  get said() {
    return this.pickers[this.kind]?.said;
  }
}
