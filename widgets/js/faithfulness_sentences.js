// The sentences of a resampled chain of thought, a row each: text, importance, what it rests on.

import { niceEnd } from "./effort_words.js";
import { figureCell } from "./faithfulness_parts.js";
import { sameSentence, sentenceWords, withN } from "./faithfulness_words.js";
import { h, setData } from "./surface.js";
import { readingText } from "./tokens.js";

export class SentenceList {
  constructor(view) {
    const [found, control] = view.facts.resampling;
    this.rows = new Map(); // index of a sentence → its element
    const head = h("div", { class: "moe-panel-title" }, h("b", { text: "Importance of each sentence" }), " ");
    this.element = h("section", { class: "moe-sentences", "aria-label": "Importance of each sentence" }, head);
    if (!found) {
      this.element.append(h("div", { class: "moe-missing", text: "not tested" }));
      return;
    }
    this.end = niceEnd(Math.max(0, ...found.sentences.map(({ counterfactual: c }) => Math.max(c.high ?? 0, c.chance ?? 0))));
    head.append(h("span", { class: "moe-secondary", text: this.titleWords(found, control) }));
    this.list = h("div", { class: "moe-rows", tabindex: "0", role: "region", "aria-label": "Sentences" });
    const items = found.sentences.map((sentence) => this.row(view, sentence, sameSentence(control, sentence)));
    this.list.append(h("div", { role: "list" }, ...items));
    this.element.append(h("div", { class: "moe-secondary moe-resampled", text: readingText(found.question) }), this.list);
    if (!items.length) this.element.append(h("div", { class: "moe-undefined", text: "undefined: no sentence was done" }));
  }

  titleWords({ interrupted }, control) {
    const parts = [
      `counterfactual, 0–${this.end} nats, bootstrap 95 %`,
      "grey: by chance",
      control ? "◇ control" : null,
      interrupted ? "interrupted" : null,
    ];
    return parts.filter(Boolean).join(" · ");
  }

  row(view, sentence, control) {
    const { index, text, counterfactual, resampling, example, enough } = sentence;
    const beside = { chance: counterfactual.chance, control: control?.counterfactual ?? null };
    const more = [
      `resampling importance ${withN(resampling, "nats")}`,
      control ? `control ${withN(control.counterfactual, "nats")}` : null,
      example ? `most often in its place: ${example}` : null,
    ];
    const row = h(
      "div",
      { class: "moe-resampled-sentence", role: "listitem", "data-sentence": index, "data-enough": enough },
      h("span", { class: "moe-number moe-secondary", text: index }),
      h("div", { class: "moe-content moe-said", text: readingText(text) }),
      h(
        "div",
        { class: "moe-importance" },
        figureCell(counterfactual, "nats", this.end, beside),
        h("div", { class: "moe-secondary", text: sentenceWords(sentence) }),
        h("div", { class: "moe-more-of-it moe-secondary" }, ...more.filter(Boolean).map((words) => h("div", { text: readingText(words) }))),
      ),
    );
    row.addEventListener("click", () => view.chooseSentence(index));
    this.rows.set(index, row);
    return row;
  }

  draw(index) {
    if (this.marked === index) return;
    this.rows.get(this.marked)?.removeAttribute("aria-current");
    this.marked = index;
    const row = this.rows.get(index);
    if (!row) return;
    row.setAttribute("aria-current", "true");
    setData(this.element, "sentence", index);
    const { offsetTop: top, offsetHeight: tall } = row;
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    else if (top + tall > this.list.scrollTop + this.list.clientHeight) this.list.scrollTop = top + tall - this.list.clientHeight;
  }
}
