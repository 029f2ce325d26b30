// The transcript in the middle: messages by channel, the raw chain a closed box until it is revealed. Tokens are
// chosen by mouse or with arrow keys, and become evidence. Only pieces near the chosen one are mounted.

import { h, setData, setText } from "./surface.js";
import { readingText } from "./tokens.js";
import { mountedRange, mustRemount, scrollTarget } from "./transcript.js";

const WHY_HIDDEN =
  "Raw reasoning had no training pressure on its content: it may hold harmful or invented text and is not for end users unfiltered.";

export class DeskTranscript {
  // `desk` gives text (DeskText), at and anchor (pieces), and evidence.
  constructor(desk) {
    this.desk = desk;
    this.spans = new Map(); // piece → its element
    this.scroller = h("div", {
      ...{ class: "moe-transcript-scroll", tabindex: "0", role: "region", "aria-label": "Transcript by channel" },
    });
    this.element = h("div", { class: "moe-desk-transcript" }, this.scroller);
    this.listen();
  }

  listen() {
    const pieceOf = (event) => event.target.closest?.("[data-piece]")?.dataset.piece;
    this.scroller.addEventListener("pointerdown", (event) => {
      const piece = pieceOf(event);
      if (piece === undefined || event.button) return;
      this.isDragging = true;
      this.desk.point(Number(piece), event.shiftKey);
    });
    this.scroller.addEventListener("pointermove", (event) => {
      const piece = pieceOf(event);
      if (this.isDragging && piece !== undefined) this.desk.point(Number(piece), true);
    });
    this.onUp = () => (this.isDragging = false);
    window.addEventListener("pointerup", this.onUp);
  }

  close() {
    window.removeEventListener("pointerup", this.onUp);
  }

  // A trace was opened, or its chain revealed.
  reset() {
    this.range = null;
    this.marked = null;
    this.scroller.scrollTop = 0;
  }

  draw() {
    const { text, at } = this.desk;
    const evidence = JSON.stringify(this.desk.evidence.map(({ start, stop }) => [start, stop]));
    const remount =
      !this.range || evidence !== this.drawn || (text.count > 0 && mustRemount(this.range, at, text.count));
    const keep = this.range && remount ? this.scroller.scrollTop : null;
    const moved = at !== this.shownAt;
    if (remount) this.mount(at);
    this.drawn = evidence;
    this.shownAt = at;
    this.mark();
    if (keep !== null) this.scroller.scrollTop = keep;
    const to = moved ? scrollTarget(this.scroller, this.spans.get(at)) : null;
    if (to !== null) this.scroller.scrollTop = to;
  }

  mount(at) {
    const { text } = this.desk;
    this.range = mountedRange(Math.max(0, at), text.count);
    this.spans.clear();
    this.marked = null;
    const { from, to } = this.range;
    const shown = text.messages.filter((m) =>
      m.to > m.from ? m.from < to && m.to > from : m.from >= from && m.from <= to,
    );
    this.scroller.replaceChildren(
      ...(from > 0 ? [this.more(from, "before", from - 1)] : []),
      ...shown.map((message) => this.message(message, from, to)),
      ...(to < text.count ? [this.more(text.count - to, "after", to)] : []),
    );
    this.number();
  }

  more(count, where, piece) {
    return h("button", {
      ...{ class: "moe-more", type: "button", text: `${count.toLocaleString("en")} tokens ${where}` },
      onclick: () => this.desk.point(piece, false),
    });
  }

  message(message, from, to) {
    const label = h(
      "div",
      { class: "moe-channel", title: message.malformed ? `malformed: ${readingText(message.malformed)}` : null },
      h("b", { text: readingText(message.channel) }),
      h("span", { class: "moe-secondary", text: `  ${this.note(message)}` }),
    );
    const content = message.hidden ? this.closedBox() : h("div", { class: "moe-content" });
    if (!message.hidden) content.append(...this.pieces(Math.max(from, message.from), Math.min(to, message.to)));
    return h("div", { class: "moe-message", "data-hue": message.hue }, label, content);
  }

  note({ hue, start, stop, hidden, malformed, channel }) {
    const count = (stop - start).toLocaleString("en");
    const wrong = malformed ? " · malformed" : "";
    if (hue === "analysis" || hidden) return `raw chain of thought · ${count} tokens${wrong}`;
    if (stop === start) return `no tokens${wrong}`;
    const where = stop - start > 1 ? `tokens ${start}–${stop - 1}` : `token ${start}`;
    return `${where}${channel === "assistant" ? " · no channel named" : ""}${wrong}`;
  }

  closedBox() {
    return h(
      "div",
      { class: "moe-desk-closed" },
      h(
        "p",
        {},
        h("span", { class: "moe-desk-lock", "aria-hidden": "true" }),
        h("b", { text: "Hidden until you reveal it. " }),
        WHY_HIDDEN,
      ),
      h("button", {
        type: "button",
        class: "moe-desk-primary",
        text: "Reveal chain",
        onclick: () => this.desk.reveal(),
      }),
      h("kbd", { "aria-hidden": "true", text: "r" }),
      h("span", { class: "moe-secondary", text: "recorded with your name and the time" }),
    );
  }

  pieces(from, to) {
    const { text } = this.desk;
    return Array.from({ length: Math.max(0, to - from) }, (_, i) => {
      const span = h("span", { "data-piece": from + i, text: text.pieces[from + i].text });
      this.spans.set(from + i, span);
      return span;
    });
  }

  // Evidence is tinted and underlined, with its number after it.
  number() {
    const { text, evidence } = this.desk;
    evidence.forEach(({ start, stop }, i) => {
      let last = null;
      for (let at = text.at(start); at >= 0 && at < text.count && text.pieces[at].token < stop; at++) {
        const span = text.pieces[at].stop > start ? this.spans.get(at) : null;
        if (!span) continue;
        span.classList.add("moe-desk-evidence");
        last = span;
      }
      last?.after(h("span", { class: "moe-desk-number", "aria-label": `evidence ${i + 1}`, role: "img", text: i + 1 }));
    });
  }

  // The chosen pieces, in ink.
  mark() {
    const { at, anchor } = this.desk;
    const wanted = `${at}/${anchor}`;
    if (this.marked === wanted) return;
    this.marked = wanted;
    for (const span of this.scroller.querySelectorAll(".moe-desk-chosen, .moe-current")) {
      span.classList.remove("moe-desk-chosen", "moe-current");
      span.removeAttribute("aria-current");
    }
    for (let i = Math.min(at, anchor); i <= Math.max(at, anchor); i++)
      this.spans.get(i)?.classList.add("moe-desk-chosen");
    this.spans.get(at)?.classList.add("moe-current");
    this.spans.get(at)?.setAttribute("aria-current", "true");
    setData(this.element, "at", at);
  }

  say(words) {
    this.scroller.replaceChildren(h("p", { class: "moe-secondary moe-desk-empty" }));
    setText(this.scroller.firstChild, words);
    this.spans.clear();
    this.range = null;
  }
}
