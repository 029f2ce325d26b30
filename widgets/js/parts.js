// Parts that views share: choices, the status line.

import { h, setText } from "./surface.js";

// One of several: buttons in a row. An option with `why` cannot be chosen.
export class Choice {
  constructor(label, options, onChoose) {
    this.buttons = new Map(
      options.map(({ value, text, why }) => [
        value,
        h("button", {
          type: "button",
          text,
          title: why,
          disabled: Boolean(why),
          "aria-pressed": "false",
          onclick: () => onChoose(value),
        }),
      ]),
    );
    this.element = h(
      "div",
      { class: "moe-choice" },
      h("span", { class: "moe-secondary", text: label }),
      h("div", { class: "moe-segments", role: "group", "aria-label": label }, ...this.buttons.values()),
    );
  }

  allowed() {
    return [...this.buttons].filter(([, button]) => !button.disabled).map(([value]) => value);
  }

  draw(value) {
    for (const [own, button] of this.buttons) button.setAttribute("aria-pressed", String(own === value));
  }
}

// Where the selection is, and the keys.
export class StatusLine {
  constructor(hints) {
    this.parts = h("div", { class: "moe-status-line", role: "status" });
    this.keys = h("div", { class: "moe-hints", "aria-hidden": "true" });
    for (const [caps, words] of hints) {
      this.keys.append(h("span", {}, ...caps.map((c) => h("kbd", { text: c })), ` ${words}`));
    }
    this.element = h("footer", { class: "moe-status" }, this.parts, this.keys);
  }

  // Pairs of a name and its value in bold; nodes are made once and their texts updated.
  write(pairs) {
    while (this.parts.children.length < pairs.length) this.parts.append(h("span", {}, h("span"), h("b")));
    [...this.parts.children].forEach((part, i) => {
      part.hidden = !pairs[i];
      setText(part.firstChild, pairs[i] ? `${pairs[i][0]} ` : "");
      setText(part.lastChild, pairs[i] ? String(pairs[i][1]) : "");
    });
  }
}
