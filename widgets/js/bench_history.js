// What was done before: each can be shown and run again. Progress touches none of it.

import { answerChange, doneWords, natsWords } from "./bench_words.js";
import { h } from "./surface.js";

export class BenchHistory {
  // `onShow` and `onAgain` are given the number of an experiment.
  constructor({ onShow, onAgain }) {
    Object.assign(this, { onShow, onAgain, entries: [] });
    this.list = h("ol", { class: "moe-bench-list" });
    this.element = h("section", { class: "moe-bench-history", "aria-label": "Experiments", hidden: true }, this.list);
  }

  // A history only grows.
  write(history) {
    if (history.length < this.entries.length) {
      this.list.replaceChildren();
      this.entries = [];
    }
    for (let at = this.entries.length; at < history.length; at++) {
      const entry = this.entry(history[at], at);
      this.entries.push(entry);
      this.list.append(h("li", {}, entry.show, entry.again));
    }
    this.element.hidden = !history.length;
  }

  entry(record, at) {
    const words = `${doneWords(record.done)} · ${answerChange(record)} · KL ${natsWords(record.meanKl)}`;
    const show = h("button", { type: "button", class: "moe-chip", text: words, onclick: () => this.onShow(at) });
    const again = h("button", {
      ...{ type: "button", class: "moe-button", text: "again", "aria-label": `Run experiment ${at + 1} again` },
      onclick: () => this.onAgain(at),
    });
    return { show, again };
  }

  // Which one is shown, and whether one can be run.
  mark(shown, canRun) {
    this.entries.forEach(({ show, again }, at) => {
      const pressed = String(at === shown);
      if (show.getAttribute("aria-pressed") !== pressed) {
        show.setAttribute("aria-pressed", pressed);
        if (at === shown) this.reveal(show.parentElement);
      }
      if (again.disabled === canRun) again.disabled = !canRun;
    });
  }

  // Scroll the list alone, not the notebook.
  reveal({ offsetTop: top, offsetHeight: height }) {
    const { scrollTop, clientHeight } = this.list;
    if (top < scrollTop || top + height > scrollTop + clientHeight) this.list.scrollTop = top - 4;
  }
}
