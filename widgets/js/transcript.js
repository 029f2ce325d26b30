// What was said, by channel, with the current token marked, its sentence tinted and what it attends to underlined.
// Only tokens near the current one are mounted; the rest is counted.

import { largest } from "./numerics.js";
import { messageName, messageNote } from "./strip.js";
import { h, setData } from "./surface.js";

const MOUNTED = 420;
const REMOUNT_WITHIN = 120;
const UNDERLINES = 6;

// Tokens [from, to) to mount around a token, none before `first`.
export function mountedRange(token, count, first = 0) {
  return { from: Math.max(first, token - MOUNTED), to: Math.min(count, token + MOUNTED + 1) };
}

// Where to scroll for an element of the text, read by the line; null where it is in view already, or not mounted.
export function scrollTarget(scroller, element) {
  if (!element) return null;
  const { offsetTop: line } = element;
  const { scrollTop, clientHeight: height } = scroller;
  const visible = line >= scrollTop + 24 && line + 24 <= scrollTop + height;
  return visible ? null : Math.max(0, line - height * 0.6);
}

// Whether a token is too near the end of what is mounted.
export function mustRemount(range, token, count, first = 0) {
  if (!range) return true;
  const nearStart = token - range.from < REMOUNT_WITHIN && range.from > first;
  const nearEnd = range.to - token <= REMOUNT_WITHIN && range.to < count;
  return nearStart || nearEnd;
}

export class Transcript {
  // `first` is the first token that is shown, such as that of the completion.
  constructor(explorer, { first = 0, label = "Transcript by channel" } = {}) {
    this.explorer = explorer;
    this.first = first;
    this.range = null;
    this.spans = new Map(); // token → its element
    this.marked = { current: null, sentence: [], attended: [] };
    this.scroller = h("div", {
      class: "moe-transcript-scroll",
      tabindex: "0",
      role: "region",
      "aria-label": label,
    });
    this.element = h("section", { class: "moe-transcript" }, this.scroller);
    this.scroller.addEventListener("click", (event) => {
      const target = event.target.closest("[data-token]");
      if (target) explorer.select({ token: Number(target.dataset.token) });
    });
  }

  // Read geometry here, before anything of this step is written.
  measure({ selection }) {
    this.scrollTo = null;
    if (mustRemount(this.range, selection.token, this.explorer.facts.numTokens, this.first)) return;
    this.scrollTo = this.target(selection.token);
  }

  target(token) {
    return scrollTarget(this.scroller, this.spans.get(token));
  }

  draw({ selection }) {
    const { tokens, facts } = this.explorer;
    const remount = mustRemount(this.range, selection.token, facts.numTokens, this.first);
    if (remount) this.mount(selection.token);
    this.mark(selection, tokens);
    const to = remount ? this.target(selection.token) : this.scrollTo;
    if (to !== null) this.scroller.scrollTop = to;
  }

  mount(token) {
    const { tokens, facts } = this.explorer;
    this.range = mountedRange(token, facts.numTokens, this.first);
    this.spans.clear();
    this.marked = { current: null, sentence: [], attended: [] };
    const { from, to } = this.range;
    const blocks = tokens.messages.filter((m) => m.start < to && m.stop > from).map((m) => this.message(m, from, to));
    this.scroller.replaceChildren(
      ...(from > this.first ? [this.more(from - this.first, "before", from - 1)] : []),
      ...(blocks.length ? blocks : [h("div", { class: "moe-content" }, ...this.pieces(from, to))]),
      ...(to < facts.numTokens ? [this.more(facts.numTokens - to, "after", to)] : []),
    );
  }

  more(count, where, token) {
    return h("button", {
      class: "moe-more",
      type: "button",
      "data-token": token,
      text: `${count.toLocaleString("en")} tokens ${where}`,
    });
  }

  message(message, from, to) {
    const name = messageName(message);
    const count = `${message.stop - message.start} tokens`;
    const note = [messageNote(message), count].filter(Boolean).join(" · ");
    const label = h(
      "div",
      {
        class: "moe-channel",
        "data-token": message.start,
        title: message.malformed ? `malformed: ${message.malformed}` : null,
      },
      h("b", { text: name }),
      h("span", { class: "moe-secondary", text: `  ${note}` }),
    );
    // Header and closing tokens have no text of their own: stepping onto them marks the message's name.
    for (let i = Math.max(from, message.start); i < Math.min(to, message.contentStart); i++) this.spans.set(i, label);
    const content = h("div", { class: "moe-content" });
    content.append(...this.pieces(Math.max(from, message.contentStart), Math.min(to, message.stop)));
    const tool = message.hue === "tool" || (message.role === "assistant" && message.recipient) ? "" : null;
    return h("div", { class: "moe-message", "data-hue": message.hue, "data-tool": tool }, label, content);
  }

  pieces(from, to) {
    const { tokens } = this.explorer;
    return tokens.pieces(from, Math.max(from, to)).map(({ token, count, text }) => {
      const special = tokens.isSpecial(token);
      const shown = special ? tokens.cell(token) : text;
      const element = h("span", { "data-token": token, class: special ? "moe-special" : null });
      // Marks go around the word, not the space before it, which may end the line above.
      const word = shown.length > 1 && shown.startsWith(" ") ? h("span", { text: shown.slice(1) }) : element;
      if (word === element) element.textContent = shown;
      else element.append(" ", word);
      for (let i = token; i < token + count; i++) this.spans.set(i, word);
      return element;
    });
  }

  mark({ token, layer, head }, tokens) {
    const { marked } = this;
    const current = this.spans.get(token) ?? null;
    if (current !== marked.current) {
      marked.current?.classList.remove("moe-current");
      marked.current?.removeAttribute("aria-current");
      current?.classList.add("moe-current");
      current?.setAttribute("aria-current", "true");
      marked.current = current;
    }
    const sentence = tokens.sentenceAt(token);
    this.swap("sentence", "moe-sentence", sentence ? this.elements(sentence.start, sentence.stop) : []);
    const row = this.explorer.reading.attention({ token, layer, head });
    const top = row.state === "here" ? largest(row.weights, UNDERLINES, 0.03).map((j) => row.from + j) : [];
    this.swap("attended", "moe-attended", top.map((t) => this.spans.get(t)).filter(Boolean));
    setData(this.element, "current", token);
  }

  elements(start, stop) {
    const found = [];
    for (let i = start; i < stop; i++) {
      const word = this.spans.get(i);
      if (word) found.push(word.dataset.token ? word : word.parentElement);
    }
    return found;
  }

  // Move a class from the elements that had it to those that should, touching only the difference.
  swap(kind, name, wanted) {
    const before = this.marked[kind];
    if (before.length === wanted.length && before.every((e, i) => e === wanted[i])) return;
    const keep = new Set(wanted);
    for (const element of before) if (!keep.has(element)) element.classList.remove(name);
    for (const element of wanted) element.classList.add(name);
    this.marked[kind] = wanted;
  }
}
