// What else could have stood in place of the current token.

import { threeDigits } from "./numerics.js";
import { h, setData, setText } from "./surface.js";

const SHOWN = 6;

export class Alternatives {
  constructor(explorer) {
    this.explorer = explorer;
    this.token = h("span", { class: "moe-code" });
    this.rows = Array.from({ length: SHOWN + 1 }, () => this.row());
    this.words = h("div", { class: "moe-absence" });
    const { temperature } = explorer.facts;
    const taken =
      temperature === 0
        ? ", taken greedily"
        : temperature === null || temperature === undefined
          ? ""
          : `, drawn at T = ${temperature}`;
    this.element = h(
      "section",
      { class: "moe-alternatives", "aria-label": "Alternatives in place of this token" },
      h("div", { class: "moe-panel-title" }, h("b", { text: "In place of " }), this.token),
      this.words,
      ...this.rows.map((r) => r.element),
      h("div", { class: "moe-secondary moe-foot", text: `full softmax, T = 1${taken}` }),
    );
  }

  row() {
    const mark = h("span", { class: "moe-mark" });
    const text = h("span", { class: "moe-code moe-alternative" });
    const fill = h("i");
    const number = h("span", { class: "moe-number" });
    const element = h("div", { class: "moe-row" }, mark, text, h("span", { class: "moe-bar" }, fill), number);
    return { mark, text, fill, number, element };
  }

  draw({ selection }) {
    const { reading, tokens } = this.explorer;
    const found = reading.alternatives(selection.token);
    setText(this.token, tokens.cell(selection.token));
    setText(this.words, found.words ?? "");
    this.words.className = found.state === "here" ? "moe-absence" : `moe-absence moe-${found.state}`;
    setData(this.element, "state", found.state);
    const rows = found.state === "here" ? shownRows(found.rows) : [];
    this.rows.forEach((row, i) => this.fill(row, this.textOf(rows, i, found), tokens));
  }

  textOf(rows, i, found) {
    if (i < rows.length) return { ...rows[i], text: this.explorer.tokens.cellOf(rows[i].id) };
    const shown = rows.reduce((sum, r) => sum + r.prob, 0);
    return i === rows.length && rows.length ? { text: "other", prob: Math.max(0, 1 - shown) } : null;
  }

  fill(row, entry) {
    row.element.hidden = !entry;
    if (!entry) return;
    setText(row.mark, entry.actual ? "▸" : "");
    setText(row.text, entry.text);
    row.text.title = entry.text;
    row.element.classList.toggle("moe-actual", Boolean(entry.actual));
    const width = `${(entry.prob * 100).toFixed(1)}%`;
    if (row.fill.style.width !== width) row.fill.style.width = width;
    setText(row.number, threeDigits(entry.prob));
  }
}

// The first alternatives, and the token itself wherever it ranks.
export function shownRows(rows) {
  const first = rows.slice(0, SHOWN - 1);
  const actual = rows.find((r) => r.actual);
  return !actual || first.includes(actual) ? first : [...first, actual];
}
