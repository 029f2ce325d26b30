// One experiment: what follows, token by token, with the controls below.

import { controlTable } from "./bench_controls.js";
import { KlAxis } from "./bench_paint.js";
import { doneWords, natsWords, verdictWords } from "./bench_words.js";
import { DiffRows } from "./diff_rows.js";
import { LinkedPair } from "./linked_pair.js";
import { decode } from "./numerics.js";
import { h, setData, setText } from "./surface.js";
import { Tokens } from "./tokens.js";

const NUMBERS_ONLY = "saved with the trace: numbers only; run it again to read the transcript";
const UNDER_WAY = "the transcript is on its way";
const SIDE_LABELS = ["Transcript before", "Transcript after"];

export class BenchResult {
  constructor(view) {
    this.view = view;
    this.axis = new KlAxis();
    this.axis.surface.canvas.addEventListener("pointerdown", (event) => {
      if (this.rows) view.select({ token: this.axis.tokenAt(event.offsetX) });
    });
    this.verdict = h("div", { class: "moe-bench-verdict", role: "status" });
    this.source = h("div", { class: "moe-secondary" });
    this.body = h("div", { class: "moe-bench-sides" });
    this.controls = h("div", { class: "moe-bench-controls" });
    this.element = h(
      "section",
      { class: "moe-bench-result", "aria-label": "What follows", hidden: true },
      this.verdict,
      this.axis.surface.canvas,
      this.source,
      this.body,
      this.controls,
    );
    this.before = new Tokens(view.facts, decode(view.model.get("_arrays").token_ids, "int32"));
  }

  // A record of the history with its transcript; without one (saved with the trace) the numbers alone.
  show(record, result, at) {
    this.element.hidden = !record;
    this.rows = null;
    if (!record) return;
    this.verdict.replaceChildren(
      h("b", { text: doneWords(record.done) }),
      h("div", { text: verdictWords(record) }),
      ...this.chainWords(record),
    );
    const known = result?.of === at;
    for (const part of [this.axis.surface.canvas, this.source]) part.hidden = !known;
    if (known) this.showTranscripts(record, result);
    else {
      const text = result?.rows && this.view.facts.canRun ? UNDER_WAY : NUMBERS_ONLY;
      this.body.replaceChildren(h("div", { class: "moe-missing", text }));
    }
    this.controls.replaceChildren(...controlTable(record));
    setData(this.element, "answer", record.answer ?? "");
  }

  chainWords({ keepsChain }) {
    if (keepsChain === null) return [];
    return [h("div", { class: "moe-secondary", text: `chain of thought ${keepsChain ? "the same" : "another one"}` })];
  }

  showTranscripts(record, result) {
    const arrays = { rows: decode(result.rows, "int32"), same: decode(result.same, "uint8") };
    this.rows = new DiffRows(arrays, { numShared: result.numShared, layers: [], topK: 0 });
    this.after = new Tokens(result.facts, decode(result.token_ids, "int32"));
    this.kl = decode(result.kl, "float32");
    const parting = result.parting === null ? null : this.rows.tokenBefore(result.parting, 0);
    this.axis.show({ kl: this.kl, first: record.first, parting, numPrompt: this.before.numPrompt });
    setText(this.source, `${result.source}; height: square root; grey: before anything was changed`);
    const names = ["baseline", record.generated ? "changed" : "changed, reading the same tokens"];
    const sides = [this.before, this.after];
    this.pair = new LinkedPair(this.rows, sides, SIDE_LABELS, (row) =>
      this.view.select({ token: this.rows.tokenBefore(row, 0) }),
    );
    this.body.replaceChildren(...sides.map((tokens, side) => this.column(tokens, names[side], this.pair.sides[side])));
  }

  column(tokens, name, { element }) {
    const written = tokens.length - tokens.numPrompt;
    const count = h("span", { class: "moe-secondary", text: ` ${written.toLocaleString("en")} tokens written` });
    return h(
      "section",
      { class: "moe-bench-side", "aria-label": name },
      h("div", { class: "moe-bench-name" }, h("b", { text: name }), count),
      h("div", { class: "moe-bench-text" }, element),
    );
  }

  resize(width) {
    this.axis.resize(width - 28);
  }

  draw(palette) {
    if (!this.rows) return;
    const { token } = this.view.selection;
    this.pair.draw(this.rows.rowOf(0, token), () => this.axis.paint(palette, token));
  }

  // KL at the selected token in words.
  klWords() {
    return this.rows ? natsWords(this.kl[this.view.selection.token]) : "–";
  }
}
