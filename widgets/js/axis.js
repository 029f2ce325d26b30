// The token axis: minimap, funnel, strip, attention row, expert roll, with their names in the gutter at the left.

import { Gutter } from "./gutter.js";
import { largest, twoDigits } from "./numerics.js";
import { MINIMAP, Minimap } from "./minimap.js";
import { paintAttentionLane, paintExpertRoll } from "./lanes.js";
import { QUANTITIES } from "./quantities.js";
import { CellWidths, cellAt, paintBand, paintIndex, paintStrip, stripLayout } from "./strip.js";
import { Surface, h, paintAbsence, setData } from "./surface.js";

const GUTTER = 112;
const PADDING = 14;
const TOP = 8;
const Y = { band: 74, strip: 91, index: 118, attention: 134, roll: 184 };
const HEIGHT = { strip: 26, attention: 42 };

export class Axis {
  constructor(explorer) {
    this.explorer = explorer;
    this.widths = new CellWidths(explorer.tokens);
    this.minimap = new Minimap();
    this.cells = [];
    this.surface = new Surface("Token axis");
    const { numExperts } = explorer.facts;
    this.rowHeight = numExperts > 16 ? 2.2 : 7;
    this.height = Y.roll + Math.max(1, numExperts) * this.rowHeight + 10;
    this.gutter = new Gutter(explorer, { top: TOP, ...Y });
    this.element = h(
      "section",
      { class: "moe-axis", "aria-label": "Token axis", style: `height:${this.height}px` },
      ...this.gutter.labels,
      this.surface.canvas,
    );
    this.listen();
  }

  listen() {
    const { canvas } = this.surface;
    const pick = (event, dragging) => {
      const box = canvas.getBoundingClientRect();
      this.pick(event.clientX - box.left, event.clientY - box.top, dragging);
    };
    canvas.addEventListener("pointerdown", (event) => {
      this.dragging = event.clientY - canvas.getBoundingClientRect().top < Y.band;
      if (this.dragging) canvas.setPointerCapture(event.pointerId);
      pick(event, false);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.dragging && event.buttons) pick(event, true);
      else canvas.title = this.hint(event.clientX - canvas.getBoundingClientRect().left, event.offsetY);
    });
    canvas.addEventListener("pointerup", () => (this.dragging = false));
  }

  pick(x, y, dragging) {
    const { explorer } = this;
    if (y < Y.band || dragging) {
      explorer.select({ token: Math.floor((x / this.surface.width) * explorer.facts.numTokens) });
      return;
    }
    const cell = cellAt(this.cells, x);
    if (!cell) return;
    const expert = Math.floor((y - Y.roll) / this.rowHeight);
    if (y >= Y.roll && expert < explorer.facts.numExperts) explorer.select({ token: cell.token, expert }, "expert");
    else explorer.select({ token: cell.token });
  }

  // What the pointer is on: the token, and what it is coloured by.
  hint(x, y) {
    const cell = y >= Y.band && cellAt(this.cells, x);
    if (!cell) return "";
    const { tokens, quantities, selection, facts } = this.explorer;
    const { label, unit, top } = QUANTITIES[selection.colorBy];
    const value = quantities.of(selection).values?.[cell.token];
    const words = top && Number.isFinite(value) ? `, ${label} ${value.toFixed(2)} ${unit}` : "";
    const message = tokens.messageAt(cell.token);
    return `token ${cell.token} of ${facts.numTokens}: ${tokens.cell(cell.token)} (${message.hue})${words}`;
  }

  resize(width) {
    this.surface.resize(Math.max(80, width - GUTTER - PADDING), this.height);
  }

  draw({ selection, palette }) {
    const { explorer, surface } = this;
    const { tokens, reading, quantities } = explorer;
    const width = surface.width;
    const ctx = surface.clear();
    const quantity = quantities.of(selection);
    const row = reading.attention(selection);
    const cells = (this.cells = stripLayout(selection.token, tokens.length, width, (t) => this.widths.of(t)));
    const marks = explorer.marks();
    ctx.save();
    ctx.translate(0, TOP);
    this.minimap.paint(ctx, palette, { tokens, quantity, selection, row, cells, marks, width, scale: surface.scale });
    ctx.restore();
    this.paintCurrentColumn(ctx, palette, cells, selection.token);
    paintBand(ctx, palette, cells, tokens, Y.band, width);
    paintStrip(ctx, palette, cells, { tokens, quantity, selection, marks, y: Y.strip, height: HEIGHT.strip });
    paintIndex(ctx, palette, cells, selection, Y.index);
    paintAttentionLane(ctx, palette, cells, row, {
      token: selection.token,
      y: Y.attention,
      height: HEIGHT.attention,
      width,
    });
    this.drawRoll(ctx, palette, cells, selection);
  }

  paintCurrentColumn(ctx, palette, cells, token) {
    const current = cells.find((c) => c.token === token);
    if (!current) return;
    ctx.fillStyle = palette.shade;
    ctx.fillRect(current.x, Y.strip + HEIGHT.strip, current.width - 1, this.height - Y.strip - HEIGHT.strip);
  }

  drawRoll(ctx, palette, cells, { layer, expert }) {
    const { blocks, reading, facts } = this.explorer;
    const height = Math.max(16, facts.numExperts * this.rowHeight);
    const width = this.surface.width;
    if (!blocks.has("expert_indices", layer)) {
      paintAbsence(ctx, palette, reading.absence("router", "expert_indices"), 0, Y.roll, width, height);
      return;
    }
    const experts = blocks.layerColumn("expert_indices", layer);
    const weights = blocks.has("expert_weights", layer) ? blocks.layerColumn("expert_weights", layer) : undefined;
    if (!experts || weights === null) {
      paintAbsence(ctx, palette, reading.wait(`experts of layer ${layer}`), 0, Y.roll, width, height);
      return;
    }
    const { numExperts, topK } = facts;
    const selected = this.explorer.focus === "expert" ? expert : null;
    paintExpertRoll(ctx, palette, cells, {
      experts,
      weights,
      numExperts,
      topK,
      selected,
      y: Y.roll,
      rowHeight: this.rowHeight,
      width,
    });
  }

  write({ selection }) {
    this.gutter.write(selection, this.explorer.reading.attention(selection));
  }

  // What the canvas shows, in words and as data, for people who cannot see it and for tests.
  describe(selection) {
    const { tokens, reading, quantities } = this.explorer;
    const row = reading.attention(selection);
    const quantity = quantities.of(selection);
    const { token, layer, head, colorBy } = selection;
    let words = row.words ?? "";
    if (row.state === "here") {
      const top = largest(row.weights, 5, 0.005);
      const looked = top.map((j) => `${row.from + j} ${tokens.cell(row.from + j)} ${twoDigits(row.weights[j])}`);
      words = `looks at ${looked.join(", ") || "no token above .005"}`;
      setData(this.element, "attention", top.map((j) => `${row.from + j}:${row.weights[j].toFixed(4)}`).join(" "));
      setData(this.element, "sink", row.sink === null ? "none" : row.sink.toFixed(4));
      setData(this.element, "windowStart", row.from);
    }
    setData(this.element, "state", row.state);
    const value = quantity.values?.[token];
    setData(
      this.element,
      "quantity",
      value === undefined ? (quantity.words ?? "") : Number.isNaN(value) ? "undefined" : value.toFixed(4),
    );
    this.surface.label(
      `Token axis, coloured by ${QUANTITIES[colorBy].label}. Token ${token}, layer ${layer} head ${head} ${words}`,
    );
  }
}
