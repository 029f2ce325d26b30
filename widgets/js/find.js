// Search in the transcript: a field, how many matches, and the way to the next one.

import { h, setText } from "./surface.js";

export class Find {
  constructor(explorer) {
    this.explorer = explorer;
    this.hits = [];
    this.input = h("input", {
      type: "search",
      "aria-label": "Find in the transcript",
      placeholder: "find in the transcript",
    });
    this.count = h("span", { class: "moe-secondary", role: "status" });
    const button = (text, label, step) =>
      h("button", { type: "button", class: "moe-button", text, "aria-label": label, onclick: () => this.go(step) });
    this.element = h(
      "div",
      { class: "moe-find", role: "search", hidden: true },
      this.input,
      button("‹", "Previous match", -1),
      button("›", "Next match", 1),
      this.count,
      h("button", {
        type: "button",
        class: "moe-button",
        text: "×",
        "aria-label": "Close find",
        onclick: () => this.close(),
      }),
    );
    this.input.addEventListener("input", () => this.search());
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.go(event.shiftKey ? -1 : 1);
      if (event.key === "Escape") this.close();
      event.stopPropagation();
    });
  }

  open() {
    this.element.hidden = false;
    this.input.focus();
    this.input.select();
  }

  close() {
    this.element.hidden = true;
    this.explorer.root.focus();
  }

  search() {
    this.hits = this.explorer.tokens.find(this.input.value);
    if (this.hits.length) {
      const { token } = this.explorer.selection;
      this.visit(this.hits.find((hit) => hit >= token) ?? this.hits[0]);
    } else setText(this.count, this.input.value ? "no match" : "");
  }

  go(step) {
    if (!this.hits.length) return;
    const { token } = this.explorer.selection;
    const next = step > 0 ? this.hits.find((hit) => hit > token) : this.hits.findLast((hit) => hit < token);
    this.visit(next ?? (step > 0 ? this.hits[0] : this.hits.at(-1)));
  }

  visit(token) {
    setText(this.count, `${this.hits.indexOf(token) + 1} of ${this.hits.length}`);
    this.explorer.select({ token });
  }
}
