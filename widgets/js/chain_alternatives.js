// What could have stood in place of the selected token, and the wish to go on from it.

import { shownRows } from "./alternatives.js";
import { threeDigits } from "./numerics.js";
import { h, setData, setText } from "./surface.js";

const MOST_ALTERNATIVES = 7;
const NO_MODEL = "To go on from an alternative: ChainView(trace, continue_from=partial(continue_from, model))";

export class ChainAlternatives {
  constructor(view) {
    this.view = view;
    this.picked = 0;
    this.token = h("span", { class: "moe-code" });
    this.absence = h("div", { class: "moe-absence" });
    this.rows = Array.from({ length: MOST_ALTERNATIVES }, (_, at) => this.row(at));
    this.list = h(
      "div",
      { class: "moe-alternative-rows", role: "group", "aria-label": "Alternatives" },
      ...this.rows.map((r) => r.element),
    );
    const { temperature } = view.facts;
    const drawn = temperature === 0 ? ", taken greedily" : temperature ? `, drawn at T = ${temperature}` : "";
    this.element = h(
      "section",
      { class: "moe-chain-alternatives", "aria-label": "Alternatives in place of this token" },
      h("div", { class: "moe-panel-title" }, h("b", { text: "In place of " }), this.token),
      this.absence,
      this.list,
      h("div", { class: "moe-secondary moe-foot", text: `full softmax, T = 1${drawn}` }),
      this.controls(),
    );
  }

  row(at) {
    const mark = h("span", { class: "moe-mark" });
    const text = h("span", { class: "moe-code moe-alternative" });
    const fill = h("i");
    const number = h("span", { class: "moe-number" });
    const element = h(
      "button",
      { type: "button", class: "moe-alternative-row", onclick: () => this.pick(at) },
      ...[mark, text, h("span", { class: "moe-bar" }, fill), number],
    );
    return { mark, text, fill, number, element };
  }

  controls() {
    const { canContinue } = this.view.data;
    this.go = h("button", { type: "button", class: "moe-button moe-go-on", onclick: () => this.goOn() });
    this.anew = h("button", {
      type: "button",
      class: "moe-button",
      text: "choose anew",
      title: "keep what stands before this token and let the model choose it again",
      onclick: () => this.view.branches.ask({ token: this.view.selection.token }, ""),
    });
    this.input = h("input", {
      type: "text",
      class: "moe-other-text",
      placeholder: "or other text, then enter",
      "aria-label": "Other text in place of this token",
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.input.value) this.goOnWithText();
      if (event.key === "Escape") this.view.root.focus();
    });
    this.why = h("div", { class: "moe-secondary moe-foot" });
    if (!canContinue) setText(this.why, NO_MODEL);
    return h("div", { class: "moe-go-on-controls" }, this.go, this.anew, this.input, this.why);
  }

  draw() {
    const { tokens, reading, selection, data } = this.view;
    const { token } = selection;
    const found = reading.alternatives(token);
    setText(this.token, tokens.cell(token));
    setText(this.absence, found.words ?? "");
    this.absence.className = found.state === "here" ? "moe-absence" : `moe-absence moe-${found.state}`;
    setData(this.element, "state", found.state);
    this.shown = found.state === "here" ? shownRows(found.rows) : [];
    if (this.drawnFor !== token || this.drawnState !== found.state) this.picked = this.firstOther();
    [this.drawnFor, this.drawnState] = [token, found.state];
    this.rows.forEach((row, at) => this.write(row, this.shown[at], at));
    this.writeControls(token >= data.start);
  }

  // What the model did not say, and would have said first.
  firstOther() {
    return Math.max(
      0,
      this.shown.findIndex((row) => !row.actual),
    );
  }

  write(row, entry, at) {
    row.element.hidden = !entry;
    if (!entry) return;
    const text = this.view.tokens.cellOf(entry.id);
    setText(row.mark, entry.actual ? "▸" : "");
    setText(row.text, text);
    row.element.title = entry.actual ? `${text}: what stands here` : text;
    row.element.classList.toggle("moe-actual", Boolean(entry.actual));
    row.element.setAttribute("aria-pressed", String(at === this.picked));
    setData(row.element, "id", entry.id);
    const width = `${(entry.prob * 100).toFixed(1)}%`;
    if (row.fill.style.width !== width) row.fill.style.width = width;
    setText(row.number, threeDigits(entry.prob));
  }

  writeControls(inCompletion) {
    const { data, tokens, branches } = this.view;
    const entry = this.shown[this.picked];
    const free = data.canContinue && inCompletion && !branches.isBusy;
    this.go.disabled = !free || !entry;
    this.anew.disabled = this.input.disabled = !free;
    setText(this.go, entry ? `continue from ${tokens.cellOf(entry.id)} ⏎` : "continue ⏎");
    if (data.canContinue)
      setText(this.why, inCompletion ? "" : "this token is in the prompt: go on from one of the completion");
  }

  pick(at) {
    this.picked = at;
    this.view.schedule();
  }

  step(by) {
    if (this.shown.length) this.pick(Math.min(this.shown.length - 1, Math.max(0, this.picked + by)));
  }

  goOn() {
    const entry = this.shown[this.picked];
    if (this.go.disabled || !entry) return;
    this.view.branches.ask({ token: this.view.selection.token, id: entry.id }, this.view.tokens.cellOf(entry.id));
  }

  goOnWithText() {
    if (this.input.disabled) return;
    this.view.branches.ask({ token: this.view.selection.token, text: this.input.value }, this.input.value);
    this.input.value = "";
    this.view.root.focus();
  }
}
