// A transcript beside others: it starts at a token, marks some of its tokens, and tells the reader's scrolling from its
// own, so that columns can follow one another.

import { h } from "./surface.js";
import { Transcript } from "./transcript.js";

export class LinkedTranscript extends Transcript {
  // `classOf` gives the class of a token, or null; `onScroll` is called when the reader scrolled.
  constructor(explorer, { first = 0, label, classOf, onScroll }) {
    super(explorer, { first, label });
    this.classOf = classOf;
    this.expected = 0;
    this.scroller.addEventListener("scroll", () => {
      if (Math.abs(this.scroller.scrollTop - this.expected) < 2) return;
      this.expected = this.scroller.scrollTop;
      onScroll();
    });
  }

  mount(token) {
    super.mount(token);
    for (let i = this.range.from; i < this.range.to; i++) {
      const name = this.classOf(i);
      if (name) this.spans.get(i)?.classList.add(name);
    }
  }

  // A message without a word is said to be empty.
  message(message, from, to) {
    const element = super.message(message, from, to);
    const { contentStart: start, stop } = message;
    if (start >= from && (start >= stop || this.explorer.tokens.isSpecial(start))) {
      element.append(h("div", { class: "moe-secondary moe-empty", text: "empty: nothing was written here" }));
    }
    return element;
  }

  measure({ selection }) {
    this.scrollTo = null;
    if (selection.token >= this.first) super.measure({ selection });
  }

  // A token that is not shown, such as one of the prompt, is marked nowhere.
  draw({ selection }) {
    if (selection.token >= this.first) super.draw({ selection });
    else {
      if (!this.range) this.mount(this.first);
      this.mark({ ...selection, token: -1 }, this.explorer.tokens);
    }
    this.expected = this.scroller.scrollTop;
  }

  // How far it is scrolled, 0 to 1; null where all of it is seen.
  get scrolled() {
    const room = this.scroller.scrollHeight - this.scroller.clientHeight;
    return room > 1 ? this.scroller.scrollTop / room : null;
  }

  scrollAlong(share) {
    this.scrollHere(share * (this.scroller.scrollHeight - this.scroller.clientHeight));
  }

  scrollHere(top) {
    this.scroller.scrollTop = top;
    this.expected = this.scroller.scrollTop;
  }

  // The first mounted token at or below the upper edge, and how far below it stands.
  get firstSeen() {
    let [low, high] = [this.range.from, this.range.to - 1];
    const { scrollTop } = this.scroller;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.top(middle) >= scrollTop) high = middle;
      else low = middle + 1;
    }
    return { token: low, below: this.top(low) - scrollTop };
  }

  // Where a token stands, from the top of what is mounted; null where it is not.
  top(token) {
    const element = this.spans.get(token);
    if (!element) return null;
    // A message's name sticks to the upper edge, so it does not say where the message begins.
    return element.classList.contains("moe-channel") ? element.parentElement.offsetTop : element.offsetTop;
  }
}
