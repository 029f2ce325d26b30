// The fields of one change: what is done, to which, at which tokens.

import {
  AMOUNTS,
  EXPERT_VARIANTS,
  HEAD_VARIANTS,
  SPANS,
  STREAM_VARIANTS,
  kindOf,
  limitsOf,
  toggled,
} from "./bench_asked.js";
import { h, setText } from "./surface.js";

const field = (label, input) => h("label", { class: "moe-bench-field" }, h("span", { text: label }), input);
const options = (values) => values.map((value) => h("option", { value, text: value }));
const PLACEHOLDERS = { experts: "0: 4, 6; 1: 3", heads: "2: 0, 3; 3: all" };

// A change as the fields hold it: texts, so that what is half typed is kept.
export function blankChange({ numExperts, numHeads }, tokens = "all") {
  const variant = numExperts ? EXPERT_VARIANTS[0] : numHeads ? HEAD_VARIANTS[0] : STREAM_VARIANTS[0];
  return { variant, picks: "", from: null, tokens, amount: 2, layer: 0, given: "", sourceStart: "" };
}

export class Fields {
  // `onChange` is called when the change was edited, `onEnter` for a wish to run.
  constructor(view, { onChange, onEnter }) {
    Object.assign(this, { view, onChange, onEnter });
    const { facts } = view;
    const typed = { type: "text", spellcheck: "false", autocomplete: "off" };
    const heard = { oninput: () => this.read(), onkeydown: (event) => this.typed(event) };
    const leave = ({ key }) => key === "Escape" && view.root.focus();
    this.variant = h(
      "select",
      { "aria-label": "Variant", onchange: () => this.setVariant(this.variant.value), onkeydown: leave },
      ...this.groups(facts),
    );
    this.picks = h("input", { ...typed, ...heard, "aria-label": "Experts or heads by layer" });
    this.toggle = h("button", { type: "button", class: "moe-button", onclick: () => this.toggleSelected() });
    this.spans = h("datalist", { id: `moe-spans-${Math.random().toString(36).slice(2)}` }, ...options(SPANS));
    this.tokens = h("input", { ...typed, ...heard, "aria-label": "At which tokens", list: this.spans.id });
    const numeric = { ...typed, ...heard, type: "number" };
    this.amount = h("input", { ...numeric, step: "any", "aria-label": "Factor or logits" });
    this.layer = h("input", { ...numeric, min: "0", max: facts.numLayers - 1, "aria-label": "After layer" });
    this.given = h("select", { "aria-label": "Vector or source", onchange: () => this.read(), onkeydown: leave });
    this.sourceStart = h("input", { ...typed, ...heard, class: "moe-bench-short", "aria-label": "From its token" });
    this.amountField = field("factor", this.amount);
    this.picksField = h("div", { class: "moe-bench-picks" }, field("to layer: which", this.picks), this.toggle);
    this.givenField = field("vector", this.given);
    this.layerField = field("after layer", this.layer);
    this.sourceField = field("from its token", this.sourceStart);
    this.elements = [
      field("do", this.variant),
      this.givenField,
      this.amountField,
      this.layerField,
      this.picksField,
      field("at tokens", this.tokens),
      this.spans,
      this.sourceField,
    ];
  }

  groups({ numExperts, numHeads, vectors, sources }) {
    const stream = STREAM_VARIANTS.filter((_, i) => [vectors, sources][i].length);
    return [
      ["experts", EXPERT_VARIANTS, numExperts],
      ["heads", HEAD_VARIANTS, numHeads],
      ["residual stream", stream, stream.length],
    ]
      .filter(([, , count]) => count > 0)
      .map(([label, values]) => h("optgroup", { label }, ...options(values)));
  }

  get kind() {
    return kindOf(this.change.variant);
  }

  // Show a change, which is then edited in place.
  show(change) {
    this.change = change;
    this.write();
  }

  write() {
    const { change } = this;
    const { variant } = change;
    const kind = kindOf(variant);
    this.variant.value = variant;
    for (const name of ["picks", "tokens", "sourceStart", "layer"]) {
      if (this[name].value !== String(change[name])) this[name].value = change[name];
    }
    this.amount.value = Number.isFinite(change.amount) ? change.amount : "";
    this.amountField.hidden = !(variant in AMOUNTS);
    setText(this.amountField.firstChild, AMOUNTS[variant] === "by" ? "logits" : "factor");
    this.picks.placeholder = variant === "swap" ? "0: 4>6" : PLACEHOLDERS[kind];
    this.picksField.hidden = kind === "stream";
    this.layerField.hidden = this.givenField.hidden = kind !== "stream";
    this.sourceField.hidden = variant !== "patch residual";
    this.sourceStart.placeholder = "the same";
    if (kind === "stream") this.writeGiven();
    this.draw();
  }

  // The vectors or the sources that Python holds.
  writeGiven() {
    const { change, view } = this;
    const isVector = change.variant === "add vector";
    const given = isVector ? view.facts.vectors : view.facts.sources;
    const words = (one) => (isVector ? `length ${one.norm.toFixed(2)}` : `${one.numTokens} tokens`);
    this.given.replaceChildren(
      ...given.map((one) => h("option", { value: one.name, text: `${one.name} · ${words(one)}` })),
    );
    if (!given.some(({ name }) => name === change.given)) change.given = given[0]?.name ?? "";
    this.given.value = change.given;
    setText(this.givenField.firstChild, isVector ? "vector" : "source");
  }

  read() {
    const { change } = this;
    if (change.picks !== this.picks.value) change.from = null;
    for (const name of ["picks", "tokens", "given", "sourceStart"]) change[name] = this[name].value;
    change.amount = this.amount.valueAsNumber;
    change.layer = this.layer.valueAsNumber;
    this.draw();
    this.onChange();
  }

  typed(event) {
    if (event.key === "Enter") this.onEnter();
    else if (event.key === "Escape") this.view.root.focus();
  }

  // Experts are no heads: what was picked goes with its kind, and a swap is of pairs.
  setVariant(variant) {
    const { change } = this;
    const isOther = kindOf(variant) !== this.kind || (variant === "swap") !== (change.variant === "swap");
    if (isOther) Object.assign(change, { picks: "", from: null });
    if (kindOf(variant) === "stream" && this.kind !== "stream") change.layer = this.view.selection.layer;
    change.variant = variant;
    this.write();
    this.onChange();
  }

  // Take the selected expert or head in or out; of the residual stream, the selected layer.
  toggleSelected() {
    const { layer, head, expert } = this.view.selection;
    if (this.kind === "stream") this.change.layer = layer;
    this.pick({ layer, one: this.kind === "heads" ? head : expert });
  }

  pick({ layer, one }) {
    const { change, view } = this;
    if (this.kind !== "stream") {
      const found = toggled(change.picks, layer, one, limitsOf(change.variant, view.facts), change.from);
      Object.assign(change, { picks: found.text, from: found.from });
    }
    this.write();
    this.onChange();
  }

  // Only at the selected token.
  setToken(token) {
    this.change.tokens = `${token}–${token + 1}`;
    this.write();
    this.onChange();
  }

  draw() {
    const { change, view } = this;
    const { layer, head, expert } = view.selection;
    const what = this.kind === "heads" ? `head ${head}` : `expert ${expert}`;
    const { text, from } = toggled(change.picks, layer, this.kind === "heads" ? head : expert, this.limits, change.from);
    const goes = from ? "swap" : text.length < change.picks.length ? "−" : "+";
    setText(this.toggle, change.from && !from ? `with ${what}` : `${goes} ${what} of layer ${layer}`);
  }

  get limits() {
    return limitsOf(this.change.variant, this.view.facts);
  }
}
