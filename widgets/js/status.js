// The status line: where the selection is, what its draw cost, what just happened; the keys at the right.

import { h, setData, setText } from "./surface.js";

const HINTS = [
  [["←", "→"], "token"],
  [["⇧"], "sentence"],
  [["↑", "↓"], "layer"],
  [["[", "]"], "head"],
  [["/"], "find"],
  [["?"], "all keys"],
];

export class Status {
  constructor(explorer) {
    this.explorer = explorer;
    const bold = (className) => h("b", { class: className ?? "" });
    this.token = bold();
    this.text = bold("moe-code");
    this.channel = bold();
    this.sentence = h("span");
    this.surprisal = bold();
    this.entropy = bold();
    this.message = h("span", { class: "moe-message-line" });
    this.focus = h("span", { text: "head" });
    const part = (...nodes) => h("span", {}, ...nodes);
    this.line = h(
      "div",
      { class: "moe-status-line", role: "status" },
      part("token ", this.token),
      part(this.text),
      part("in ", this.channel),
      this.sentence,
      part("surprisal ", this.surprisal),
      part("entropy ", this.entropy),
      this.message,
    );
    const keys = h("div", { class: "moe-hints", "aria-hidden": "true" });
    for (const [caps, words] of HINTS) {
      const label = words === "head" ? this.focus : words;
      keys.append(h("span", {}, ...caps.map((c) => h("kbd", { text: c })), " ", label));
    }
    this.element = h("footer", { class: "moe-status" }, this.line, keys);
    this.timer = null;
  }

  draw({ selection }) {
    const { tokens, reading, facts } = this.explorer;
    const { token } = selection;
    setText(this.token, `${token.toLocaleString("en")} of ${facts.numTokens.toLocaleString("en")}`);
    setText(this.text, tokens.cell(token));
    const message = tokens.messageAt(token);
    setText(this.channel, message ? message.hue : "–");
    const sentence = tokens.sentenceAt(token);
    setText(this.sentence, sentence ? `sentence ${sentence.index + 1} of ${tokens.sentences.length}` : "");
    const draw = reading.draw(token);
    setText(this.surprisal, nats(draw.surprisal));
    setText(this.entropy, nats(draw.entropy));
    setText(this.focus, this.explorer.focus);
    setData(this.line, "token", token);
  }

  // Say something for a while.
  say(text, kind = "") {
    clearTimeout(this.timer);
    setText(this.message, text ?? "");
    this.message.className = `moe-message-line ${kind ? `moe-${kind}` : ""}`;
    if (text) this.timer = setTimeout(() => setText(this.message, ""), 8000);
  }
}

function nats(value) {
  if (value === null) return "not captured";
  return Number.isNaN(value) ? "undefined" : `${Math.max(0, value).toFixed(2)} nats`;
}
