// One experiment: what follows, token by token, and the controls beside it.

import { KlAxis } from "./bench_paint.js";
import { answerChange, doneWords, natsWords, verdictWords } from "./bench_words.js";
import { DiffRows } from "./diff_rows.js";
import { LinkedTranscript } from "./linked_transcript.js";
import { decode } from "./numerics.js";
import { h, setData, setText } from "./surface.js";
import { Tokens } from "./tokens.js";

const NUMBERS_ONLY = "saved with the trace: numbers only; run it again to read the transcript";
const WHEN = ["before", "after"];

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
  show(record, result) {
    this.element.hidden = !record;
    this.rows = null;
    if (!record) return;
    this.verdict.replaceChildren(
      h("b", { text: doneWords(record.done) }),
      h("div", { text: verdictWords(record) }),
      ...this.chainWords(record),
    );
    const known = Boolean(result?.rows);
    for (const part of [this.axis.surface.canvas, this.source]) part.hidden = !known;
    if (known) this.showTranscripts(record, result);
    else this.body.replaceChildren(h("div", { class: "moe-missing", text: NUMBERS_ONLY }));
    this.controls.replaceChildren(...this.controlTable(record));
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
    this.transcripts = [this.before, this.after].map((tokens, side) => this.transcript(tokens, side, names[side]));
    this.body.replaceChildren(...this.transcripts.map((one) => one.column));
  }

  transcript(tokens, side, name) {
    const { rows } = this;
    const explorer = {
      tokens,
      facts: { numTokens: tokens.length },
      reading: { attention: () => ({ state: "missing" }) },
      select: ({ token }) => this.view.select({ token: rows.tokenBefore(rows.rowOf(side, token), 0) }),
    };
    const transcript = new LinkedTranscript(explorer, {
      label: `Transcript ${WHEN[side]}`,
      classOf: (token) => (rows.differs(rows.rowOf(side, token)) ? "moe-differs" : null),
      onScroll: () => {},
    });
    const written = tokens.length - tokens.numPrompt;
    const count = h("span", { class: "moe-secondary", text: ` ${written.toLocaleString("en")} tokens written` });
    transcript.column = h(
      "section",
      { class: "moe-bench-side", "aria-label": name },
      h("div", { class: "moe-bench-name" }, h("b", { text: name }), count),
      h("div", { class: "moe-bench-text" }, transcript.element),
    );
    return transcript;
  }

  controlTable(record) {
    const rows = [{ ...record, own: true }, ...record.controlRows.map((control) => ({ ...control, own: false }))];
    if (rows.length === 1) return [];
    const most = Math.max(...rows.map(({ meanKl }) => meanKl ?? 0));
    const ordered = rows.sort((a, b) => (b.meanKl ?? -1) - (a.meanKl ?? -1));
    const heads = ["", "mean KL, nats", "", "answer", "load / of the one it stands for"];
    return [
      h(
        "table",
        {},
        h("caption", { text: "The same change of others, by KL; the experiment in bold" }),
        h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col", text })))),
        h("tbody", {}, ...ordered.map((row) => this.controlRow(row, most, record))),
      ),
    ];
  }

  controlRow(row, most, record) {
    const share = most > 0 && row.meanKl !== null ? row.meanKl / most : 0;
    const loads = (row.matches ?? []).map(
      (m) => `${m.instead_load.toFixed(3)} / ${m.load.toFixed(3)}${m.within ? "" : " (only nearest)"}`,
    );
    const bar =
      row.meanKl === null
        ? h("div", { class: "moe-undefined", text: "undefined" })
        : h("div", { class: "moe-bar" }, h("i", { style: `width:${(100 * share).toFixed(1)}%` }));
    return h(
      "tr",
      { "data-own": String(row.own) },
      h("th", { scope: "row", text: doneWords(row.done) }),
      h("td", { class: "moe-number", text: natsWords(row.meanKl) }),
      h("td", { class: "moe-bench-bar" }, bar),
      h("td", { text: record.generated ? answerChange({ ...record, ...row }) : "read, not generated" }),
      h("td", { class: "moe-number", text: loads.join(", ") }),
    );
  }

  resize(width) {
    this.axis.resize(width - 28);
  }

  // The selected token of the baseline, and the token beside it.
  placed() {
    const { token } = this.view.selection;
    return this.transcripts.map((_, side) => ({
      selection: { token: this.rows.token(this.rows.rowOf(0, token), side), layer: 0, head: 0 },
    }));
  }

  draw(palette) {
    if (!this.rows) return;
    const placed = this.placed();
    this.transcripts.forEach((one, side) => one.measure(placed[side]));
    this.axis.paint(palette, this.view.selection.token);
    this.transcripts.forEach((one, side) => one.draw(placed[side]));
  }

  // KL at the selected token in words.
  klWords() {
    return this.rows ? natsWords(this.kl[this.view.selection.token]) : "–";
  }
}
