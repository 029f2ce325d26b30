// The text of the open trace as the desk shows it: tokens that can be read, one after the other. A hidden chain has no
// place among them. Texts are untrusted: strings for textContent only.

import { readingText } from "./tokens.js";

const HUES = ["system", "developer", "user", "analysis", "commentary", "final", "tool"];

// Hue means channel; what the model wrote without a channel has the answer's.
export function deskHue(channel) {
  if (HUES.includes(channel)) return channel;
  return channel === "assistant" ? "final" : "tool";
}

export class DeskText {
  // `messages` as Python sends them: texts has one text per token, "" where the piece before goes on, null when hidden.
  constructor(messages) {
    this.messages = messages.map((m) => ({ ...m, hue: deskHue(m.channel), hidden: m.texts === null }));
    this.pieces = []; // {token, stop, text, message}
    this.messages.forEach((message, at) => {
      message.from = this.pieces.length;
      this.addPieces(message, at);
      message.to = this.pieces.length;
    });
  }

  addPieces({ start, texts }, message) {
    for (let i = 0; i < (texts?.length ?? 0); i++) {
      const stop = start + i + 1;
      const last = this.pieces.at(-1);
      if (texts[i] === "" && last?.message === message) last.stop = stop;
      else this.pieces.push({ token: start + i, stop, text: readingText(texts[i]), message });
    }
  }

  get count() {
    return this.pieces.length;
  }

  // Which piece a token is in; the nearest one that can be read where it is in none. −1 where there is none.
  at(token) {
    let low = 0;
    let high = this.pieces.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.pieces[middle].token <= token) low = middle;
      else high = middle - 1;
    }
    return this.pieces.length ? low : -1;
  }

  // Where to begin: at the last message of the prompt, which is the user's as a rule.
  get first() {
    const readable = this.messages.filter((m) => m.to > m.from);
    return (readable.findLast((m) => m.prompt) ?? readable[0])?.from ?? -1;
  }

  // The piece where the message before or after begins.
  messageStep(at, direction) {
    const starts = this.messages.filter((m) => m.to > m.from).map((m) => m.from);
    const before = starts.findLast((start) => start < at);
    const after = starts.find((start) => start > at);
    return (direction < 0 ? before : after) ?? at;
  }

  // Pieces within the message of one of them.
  within(at, anchor) {
    const { from, to } = this.messages[this.pieces[anchor].message];
    return Math.min(to - 1, Math.max(from, at));
  }

  // Tokens [start, stop) of the pieces from one to another, the other included.
  range(anchor, at) {
    const [a, b] = anchor <= at ? [anchor, at] : [at, anchor];
    return { start: this.pieces[a].token, stop: this.pieces[b].stop };
  }

  text(start, stop) {
    const found = [];
    for (let i = this.at(start); i >= 0 && i < this.pieces.length && this.pieces[i].token < stop; i++) {
      if (this.pieces[i].stop > start) found.push(this.pieces[i].text);
    }
    return found.join("");
  }
}
