// The token axis of the attention view: minimap, strip, the row of the selected head, and where its mass went.

import { rowMasses } from "./attention_reading.js";
import { paintAttentionLane } from "./lanes.js";
import { Minimap } from "./minimap.js";
import { largest, twoDigits } from "./numerics.js";
import { here } from "./reading.js";
import { CellWidths, cellAt, paintBand, paintIndex, paintStrip, stripLayout } from "./strip.js";
import { Surface, h, setData, setText } from "./surface.js";

const GUTTER = 112;
const PADDING = 14;
const TOP = 8;
const Y = { band: 74, strip: 91, index: 118, attention: 136 };
const HEIGHT = { strip: 26, attention: 64, all: 206 };
const NO_MARKS = new Set();
const BY_CHANNEL = { id: "channel", ...here({ values: null }) };

// What a row's mass is told apart into, in the order of the bar.
const PARTS = [
  ["sink", "sink", "not a token: it takes mass and gives nothing"],
  ["first", "first token", "token 0, which many heads rest on"],
  ["further", "further back", "tokens before those on the strip"],
  ["shown", "on the strip", "tokens on the strip, up to this one"],
];

export class AttentionAxis {
  constructor(view) {
    this.view = view;
    this.widths = new CellWidths(view.tokens);
    this.minimap = new Minimap();
    this.cells = [];
    this.surface = new Surface("Token axis");
    this.buildGutter();
    this.masses = new Masses();
    this.element = h(
      "section",
      { class: "moe-axis moe-attention-axis", "aria-label": "Token axis" },
      h("div", { class: "moe-axis-canvas", style: `height:${HEIGHT.all}px` }, ...this.labels, this.surface.canvas),
      this.masses.element,
    );
    this.listen();
  }

  buildGutter() {
    const faint = (text) => h("span", { class: "moe-secondary", text });
    const label = (top, ...children) => h("div", { class: "moe-gutter", style: `top:${top}px` }, ...children);
    this.attentionOf = faint("");
    this.kind = faint("");
    this.sinkRow = faint("sink mass, max");
    this.sinkText = faint("");
    this.sinkFill = h("i");
    this.sinkBar = h("span", { class: "moe-sink-bar" }, this.sinkFill);
    this.labels = [
      label(TOP - 2, faint("channel")),
      label(TOP + 15, this.sinkRow),
      label(TOP + 36, faint("attention, max (√)")),
      label(Y.strip + 5, h("b", { text: "tokens" })),
      label(Y.attention + 8, h("b", { text: "attention" }), " ", this.attentionOf, h("br"), this.kind),
      label(Y.attention + 44, h("b", { text: "sink" }), " ", this.sinkText, " ", this.sinkBar),
    ];
  }

  listen() {
    const { canvas } = this.surface;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("pointerdown", (event) => {
      const [x, y] = place(event);
      this.dragging = y < Y.band;
      if (this.dragging) canvas.setPointerCapture(event.pointerId);
      this.pick(x, y);
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      if (this.dragging && event.buttons) this.pick(x, 0);
      else canvas.title = this.hint(x, y);
    });
    canvas.addEventListener("pointerup", () => (this.dragging = false));
  }

  pick(x, y) {
    const { view } = this;
    if (y < Y.band) {
      view.select({ token: Math.floor((x / this.surface.width) * view.facts.numTokens) });
      return;
    }
    const cell = cellAt(this.cells, x);
    if (cell) view.select({ token: cell.token });
  }

  hint(x, y) {
    const cell = y >= Y.band && cellAt(this.cells, x);
    if (!cell) return "";
    const { tokens, reading, selection, facts } = this.view;
    const row = reading.attention(selection);
    const weight = row.state === "here" && cell.token <= selection.token ? weightWords(row, cell.token) : "";
    const message = tokens.messageAt(cell.token);
    return `token ${cell.token} of ${facts.numTokens}: ${tokens.cell(cell.token)} (${message.hue})${weight}`;
  }

  resize(width) {
    this.surface.resize(Math.max(80, width - GUTTER - PADDING), HEIGHT.all);
  }

  draw() {
    const { view, surface } = this;
    const { tokens, reading, selection, palette } = view;
    const { width, scale } = surface;
    const { token } = selection;
    const ctx = surface.clear();
    const row = (this.row = reading.attention(selection));
    const cells = (this.cells = stripLayout(token, tokens.length, width, (t) => this.widths.of(t)));
    const quantity = this.sinkQuantity(selection);
    ctx.save();
    ctx.translate(0, TOP);
    this.minimap.paint(ctx, palette, { tokens, quantity, selection, row, cells, marks: NO_MARKS, width, scale });
    ctx.restore();
    this.paintCurrent(ctx, palette, token);
    paintBand(ctx, palette, cells, tokens, Y.band, width);
    const strip = { tokens, quantity: BY_CHANNEL, selection, marks: NO_MARKS, y: Y.strip, height: HEIGHT.strip };
    paintStrip(ctx, palette, cells, strip);
    paintIndex(ctx, palette, cells, selection, Y.index);
    paintAttentionLane(ctx, palette, cells, row, { token, y: Y.attention, height: HEIGHT.attention, width });
  }

  // Sink mass along the trace; kept, for it changes with layer and head only.
  sinkQuantity({ layer, head }) {
    const id = `sink ${layer} ${head}`;
    if (this.sinks?.id !== id) {
      const found = this.view.reading.sinkMasses({ layer, head });
      if (found.state !== "here") return { id, ...found };
      this.sinks = { id, top: 1, ...found };
    }
    return this.sinks;
  }

  paintCurrent(ctx, palette, token) {
    const current = this.cells.find((c) => c.token === token);
    if (!current) return;
    const top = Y.strip + HEIGHT.strip;
    ctx.fillStyle = palette.shade;
    ctx.fillRect(current.x, top, current.width - 1, Y.attention + HEIGHT.attention - top);
  }

  write() {
    const { selection, reading, facts } = this.view;
    const { layer, head } = selection;
    setText(this.attentionOf, `L${layer} h${head}`);
    setText(this.kind, reading.layerKind(layer).replace("sliding ", "sliding, window ").replace("full", "full layer"));
    setText(this.sinkRow, facts.arrays.sink_logits ? "sink mass, max" : "sink mass: none");
    this.writeSink(this.row.state === "here" ? this.row.sink : undefined);
    this.masses.write(this.row, this.cells[0].token);
  }

  // undefined: not known here; null: a family without sinks.
  writeSink(sink) {
    setText(this.sinkText, sink === undefined ? "–" : sink === null ? "none" : twoDigits(sink));
    this.sinkBar.hidden = typeof sink !== "number";
    if (typeof sink === "number") this.sinkFill.style.width = `${(sink * 100).toFixed(1)}%`;
  }

  // What the canvas shows, in words and as data, when stepping pauses.
  describe() {
    const { tokens, selection } = this.view;
    const { row } = this;
    const { token, layer, head } = selection;
    let words = row.words ?? "";
    if (row.state === "here") {
      const top = largest(row.weights, 5, 0.005);
      const looked = top.map((j) => `${row.from + j} ${tokens.cell(row.from + j)} ${twoDigits(row.weights[j])}`);
      words = `looks at ${looked.join(", ") || "no token above .005"}`;
      setData(this.element, "attention", top.map((j) => `${row.from + j}:${row.weights[j].toFixed(4)}`).join(" "));
      setData(this.element, "windowStart", row.from);
    }
    setData(this.element, "state", row.state);
    this.surface.label(`Token axis. Token ${token}, layer ${layer} head ${head} ${words}`);
  }
}

function weightWords(row, token) {
  return token < row.from ? ", outside the window" : `, weight ${row.weights[token - row.from].toFixed(4)}`;
}

// Where the row's mass went: a bar, and its parts in numbers with their sum.
class Masses {
  constructor() {
    this.parts = Object.fromEntries(
      PARTS.map(([name, text, title]) => {
        const value = h("b");
        const key = h("i", { class: "moe-mass-key", "data-part": name });
        return [
          name,
          { bar: h("i", { "data-part": name }), value, words: h("span", { title }, key, `${text} `, value) },
        ];
      }),
    );
    const of = (kind) => PARTS.map(([name]) => this.parts[name][kind]);
    this.sum = h("b");
    this.note = h("span", { class: "moe-secondary" });
    this.bar = h("div", { class: "moe-mass-bar", "aria-hidden": "true" }, ...of("bar"));
    this.line = h("div", { class: "moe-mass-words" }, ...of("words"), h("span", {}, "sum ", this.sum), this.note);
    this.absence = h("div", { class: "moe-secondary" });
    this.element = h(
      "div",
      { class: "moe-masses" },
      h("div", { class: "moe-mass-name" }, h("b", { text: "mass of the row" })),
      h("div", { class: "moe-mass-body" }, this.bar, this.line, this.absence),
    );
  }

  // `from` is the first token on the strip.
  write(row, from) {
    const found = row.state === "here";
    this.bar.hidden = this.line.hidden = !found;
    this.absence.hidden = found;
    setText(this.absence, found ? "" : row.words);
    if (!found) return;
    const masses = rowMasses(row, from);
    for (const [name] of PARTS) {
      const value = masses[name];
      setText(this.parts[name].value, value === null ? absentPart(name) : twoDigits(value));
      this.parts[name].bar.style.width = `${(100 * (value ?? 0)).toFixed(2)}%`;
      setData(this.line, name, value === null ? "none" : value.toFixed(4));
    }
    setText(this.sum, masses.sum.toFixed(2));
    setData(this.line, "sum", masses.sum.toFixed(4));
    const off = Math.abs(masses.sum - 1) > 0.005;
    setText(this.note, off ? "not 1: the stored log-sum-exp is not of these queries and keys" : "nothing renormalised");
    this.note.className = off ? "moe-warning" : "moe-secondary";
  }
}

function absentPart(name) {
  return name === "sink" ? "none" : "outside the window";
}
