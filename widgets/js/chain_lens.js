// The logit lens of the selected token: layers × ranks of what would come NEXT, read after each layer.

import { twoDigits } from "./numerics.js";
import { h, setData, setText } from "./surface.js";

export class ChainLens {
  constructor(view) {
    this.view = view;
    const { facts } = view;
    this.ranks = facts.arrays.lens_token_ids?.shape[2] ?? 0;
    this.next = h("span", { class: "moe-code" });
    this.note = h("div", { class: "moe-secondary moe-foot" });
    this.absence = h("div", { class: "moe-missing", hidden: true });
    this.rows = Array.from({ length: this.ranks ? facts.numLayers : 0 }, (_, layer) => this.row(layer));
    const ranks = Array.from({ length: this.ranks }, (_, r) => h("th", { scope: "col", text: `#${r + 1}` }));
    this.table = h(
      "table",
      { class: "moe-chain-lens-table" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col", text: "layer" }), ...ranks)),
      h("tbody", {}, ...this.rows.map((row) => row.element)),
    );
    this.element = h(
      "section",
      { class: "moe-chain-lens", "aria-label": "Logit lens: the next token, layer by layer" },
      h(
        "div",
        { class: "moe-panel-title" },
        h("b", { text: "Logit lens " }),
        h("span", { class: "moe-secondary", text: "next, really " }),
        this.next,
      ),
      this.absence,
      h("div", { class: "moe-chain-lens-scroll", hidden: !this.ranks }, this.table),
      this.note,
    );
  }

  row(layer) {
    const cells = Array.from({ length: this.ranks }, () => {
      const text = h("span", { class: "moe-code" });
      const prob = h("span", { class: "moe-number" });
      return { text, prob, element: h("td", {}, text, prob) };
    });
    const choose = () => this.view.select({ layer });
    const element = h(
      "tr",
      { "data-layer": layer, onclick: choose },
      h("th", { scope: "row", text: layer }),
      ...cells.map((c) => c.element),
    );
    return { layer, cells, element };
  }

  draw() {
    const { view } = this;
    const { token, layer } = view.selection;
    const next = token + 1 < view.facts.numTokens ? view.tokens.ids[token + 1] : null;
    setText(this.next, next === null ? "nothing follows" : view.tokens.cellOf(next));
    this.absence.hidden = this.ranks > 0;
    if (!this.ranks) setText(this.absence, "lens not captured");
    for (const row of this.rows) this.write(row, view.reading.lens(token, row.layer), next, row.layer === layer);
    setData(this.element, "token", token);
    if (this.ranks) setText(this.note, this.words(token));
  }

  write(row, found, next, isSelected) {
    setData(row.element, "selected", isSelected);
    setData(row.element, "state", found.state);
    const predictsAnswer = this.view.data.answerRank(this.view.selection.token, row.layer);
    setData(row.element, "answer", predictsAnswer >= 0);
    row.cells.forEach(({ text, prob, element }, rank) => {
      const here = found.state === "here";
      const value = here ? found.probs[rank] : null;
      setText(text, here ? this.view.tokens.cellOf(found.ids[rank]) : rank === 0 ? found.words : "");
      setText(prob, here ? twoDigits(value) : "");
      const [fill, colour] = here ? [this.view.palette.fill(value), this.view.palette.textOnFill(value)] : ["", ""];
      if (element.dataset.fill !== fill) {
        setData(element, "fill", fill);
        Object.assign(element.style, { background: fill, color: colour });
      }
      element.classList.toggle("moe-actual", here && found.ids[rank] === next);
    });
  }

  words(token) {
    const { data } = this.view;
    if (data.answer.missing || token < data.answer.begin || token >= data.answer.start)
      return "bold: what really comes";
    return "bold: what really comes · ◆ predicts the answer";
  }
}
