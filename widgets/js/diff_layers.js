// The selected row layer by layer: whom each side chose, how many are the same, and whether it was a near-tie.

import { twoDigits } from "./numerics.js";
import { h, setData, setText } from "./surface.js";

// Experts of a side in rank order, in words; those that the other side did not choose are marked, where it is known.
export function expertsWords(found, others) {
  return found.map((e) => (!others || others.includes(e) ? `${e}` : `${e}′`)).join(" ");
}

export class DiffLayers {
  constructor(view) {
    this.view = view;
    const { counts, labels } = view.facts;
    this.note = h("div", { class: "moe-diff-context", role: "note" });
    const heads = ["layer", labels[0], labels[1], "both", ""];
    this.rows = Array.from({ length: counts.layer }, (_, layer) => this.row(layer));
    this.element = h(
      "section",
      { class: "moe-diff-layers", "aria-label": "Experts of the selected tokens" },
      this.note,
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col", text, title: text })))),
        h("tbody", {}, ...this.rows.map(({ element }) => element)),
      ),
      h("p", { class: "moe-secondary", text: "rank order; ′ chosen by one side only; ≈ near-tie in either" }),
    );
  }

  row(layer) {
    const cells = Array.from({ length: 4 }, () => h("td"));
    const head = h("th", { scope: "row", text: String(layer) });
    const element = h("tr", { onclick: () => this.view.select({ layer }) }, head, ...cells);
    return { element, cells };
  }

  draw() {
    const { view } = this;
    const { row, layer: selected } = view.selection;
    const { rows, facts } = view;
    const routed = facts.layers.length > 0;
    setText(this.note, routed ? view.contextWords(row) : (facts.missing[0] ?? "experts are not compared"));
    setData(this.note, "context", !routed || !rows.isSame(row) ? "none" : rows.sameContext(row) ? "same" : "other");
    this.rows.forEach(({ element, cells }, layer) => {
      setData(element, "chosen", layer === selected);
      const found = [0, 1].map((side) => view.experts(side, rows.token(row, side), layer));
      [0, 1].forEach((side) => {
        const { state, experts, words } = found[side];
        const others = rows.isSame(row) ? found[1 - side].experts : undefined;
        setText(cells[side], state === "here" ? expertsWords(experts, others) : words);
        cells[side].title = state === "here" ? view.weightWords(found[side]) : words;
      });
      const shared = rows.sharedExperts(row, layer);
      setText(cells[2], shared === null ? "–" : `${shared}/${facts.topK}`);
      setText(cells[3], rows.isNearTie(row, layer) ? "≈" : "");
    });
  }
}

export const weightsWords = ({ experts, weights }) =>
  experts.map((e, i) => `#${i + 1} expert ${e}${weights ? `, weight ${twoDigits(weights[i])}` : ""}`).join("; ");
