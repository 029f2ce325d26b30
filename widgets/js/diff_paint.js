// The alignment drawn: an overview of all rows, and a strip of the rows around the selected one with their experts.

import { Surface, UI_FONT, fitText, hatch } from "./surface.js";

const LABEL_WIDTH = 64;
const CELL = 40;
const TEXT = 20;
const OVERVIEW = 52;
const AT = 0.4; // where the selected row stands in the strip

function write(ctx, colour, text, font, x, y, align = "left", room = Infinity) {
  ctx.font = `${font} ${UI_FONT}`;
  ctx.fillStyle = colour;
  ctx.textAlign = align;
  ctx.textBaseline = "middle";
  ctx.fillText(room === Infinity ? text : fitText(ctx, text, room), x, y);
}

// All rows: above where the text differs, below how much the experts do where the text does not.
export class DiffOverview {
  constructor(rows, facts) {
    Object.assign(this, { rows, facts });
    this.surface = new Surface("Where text and experts part");
  }

  resize(width) {
    this.surface.resize(width, OVERVIEW);
    this.pooled = this.rows.pooled(Math.max(1, Math.min(this.rows.length, Math.floor(width - LABEL_WIDTH))));
  }

  x(row) {
    return LABEL_WIDTH + ((row + 0.5) / this.rows.length) * (this.surface.width - LABEL_WIDTH);
  }

  rowAt(x) {
    return this.rows.within(((x - LABEL_WIDTH) / (this.surface.width - LABEL_WIDTH)) * this.rows.length);
  }

  paint(palette, row) {
    const ctx = this.surface.clear();
    const { text, experts } = this.pooled;
    const edge = (b) => LABEL_WIDTH + Math.round((b / text.length) * (this.surface.width - LABEL_WIDTH));
    write(ctx, palette.secondary, "text", "11px", 0, 13);
    write(ctx, palette.secondary, "experts", "11px", 0, 33);
    ctx.fillStyle = palette.track;
    ctx.fillRect(LABEL_WIDTH, 5, this.surface.width - LABEL_WIDTH, 16);
    for (let b = 0; b < text.length; b++) {
      const [x, width] = [edge(b), edge(b + 1) - edge(b)];
      if (text[b] > 0) {
        ctx.fillStyle = palette.warning;
        ctx.globalAlpha = 0.35 + 0.65 * text[b];
        ctx.fillRect(x, 5, width, 16);
        ctx.globalAlpha = 1;
      }
      if (!Number.isNaN(experts[b])) {
        ctx.fillStyle = palette.fill(experts[b]);
        ctx.fillRect(x, 25, width, 16);
      }
    }
    if (!this.rows.shared) hatch(ctx, palette, LABEL_WIDTH, 25, this.surface.width - LABEL_WIDTH, 16, "not compared");
    this.paintMarks(ctx, palette, row);
  }

  paintMarks(ctx, palette, row) {
    const { parting } = this.facts;
    if (parting !== null) {
      const x = this.x(parting);
      const left = x > this.surface.width - 70;
      write(ctx, palette.warning, "parting", "600 10.5px", x + (left ? -3 : 3), 46, left ? "right" : "left");
      ctx.fillStyle = palette.warning;
      ctx.fillRect(x - 0.75, 3, 1.5, 47);
    }
    ctx.fillStyle = palette.ink;
    ctx.fillRect(this.x(row) - 1, 0, 2, OVERVIEW);
  }
}

export const layerRow = (numLayers) => (numLayers <= 12 ? 15 : 9);

// The rows around the selected one: both tokens, and in each layer how many experts both chose.
export class DiffStrip {
  constructor(rows, facts, tokens) {
    Object.assign(this, { rows, facts, tokens });
    this.row = layerRow(facts.counts.layer);
    this.surface = new Surface("Aligned tokens and the experts both chose");
  }

  resize(width) {
    this.surface.resize(width, 2 * TEXT + 8 + this.facts.counts.layer * this.row);
    this.count = Math.max(1, Math.floor((width - LABEL_WIDTH) / CELL));
  }

  first(row) {
    const most = Math.max(0, this.rows.length - this.count);
    return Math.max(0, Math.min(most, row - Math.floor(this.count * AT)));
  }

  // {row, layer} at a place; layer null above the layers.
  at(x, y, selected) {
    const row = this.first(selected) + Math.floor((x - LABEL_WIDTH) / CELL);
    const layer = Math.floor((y - 2 * TEXT - 8) / this.row);
    if (x < LABEL_WIDTH || row >= this.rows.length) return null;
    return { row, layer: layer >= 0 && layer < this.facts.counts.layer ? layer : null };
  }

  paint(palette, { row: selected, layer: chosen }) {
    const ctx = this.surface.clear();
    const first = this.first(selected);
    this.paintLabels(ctx, palette, chosen);
    for (let row = first; row < Math.min(this.rows.length, first + this.count); row++) {
      this.paintRow(ctx, palette, row, LABEL_WIDTH + (row - first) * CELL, row === selected);
    }
    const missing = Array.from({ length: this.facts.counts.layer }, (_, l) => l).filter(
      (l) => !this.facts.layers.includes(l),
    );
    const width = this.count * CELL;
    for (const layer of missing) hatch(ctx, palette, LABEL_WIDTH, this.top(layer), width, this.row - 1);
    ctx.strokeStyle = palette.ink;
    ctx.lineWidth = 2;
    const x = LABEL_WIDTH + (selected - first) * CELL;
    ctx.strokeRect(x + 1, 1, CELL - 3, this.surface.height - 2);
  }

  top(layer) {
    return 2 * TEXT + 8 + layer * this.row;
  }

  paintLabels(ctx, palette, chosen) {
    this.facts.labels.forEach((label, side) => {
      write(ctx, palette.text, label, "600 11px", 0, side * TEXT + TEXT / 2, "left", LABEL_WIDTH - 8);
    });
    const every = this.row >= 13 ? 1 : 2;
    for (let layer = 0; layer < this.facts.counts.layer; layer++) {
      if (layer !== chosen && layer % every) continue;
      const font = layer === chosen ? "700 11px" : "10.5px";
      const colour = layer === chosen ? palette.ink : palette.secondary;
      write(ctx, colour, `L${layer}`, font, LABEL_WIDTH - 8, this.top(layer) + this.row / 2, "right");
    }
  }

  paintRow(ctx, palette, row, x, isSelected) {
    const same = this.rows.isSame(row);
    [0, 1].forEach((side) => {
      const token = this.rows.token(row, side);
      const y = side * TEXT;
      if (!same) {
        ctx.fillStyle = palette.shade;
        ctx.fillRect(x, y + 1, CELL - 1, TEXT - 2);
      }
      if (token < 0) return;
      const hue = this.tokens[side].messageAt(token)?.hue;
      const colour = isSelected ? palette.ink : (palette.channels[hue] ?? palette.text);
      const font = `${same ? "" : "700 "}12px`;
      write(ctx, colour, this.tokens[side].cell(token), font, x + CELL / 2, y + TEXT / 2, "center", CELL - 4);
    });
    if (!same || !this.rows.shared) return;
    if (!this.rows.sameContext(row)) {
      ctx.fillStyle = palette.warning;
      ctx.fillRect(x, 2 * TEXT + 2, CELL - 1, 3);
    }
    for (const layer of this.facts.layers) this.paintCell(ctx, palette, row, layer, x);
  }

  paintCell(ctx, palette, row, layer, x) {
    const shared = this.rows.sharedExperts(row, layer);
    const amount = shared / this.facts.topK;
    const y = this.top(layer);
    ctx.fillStyle = palette.fill(amount);
    ctx.fillRect(x, y, CELL - 1, this.row - 1);
    if (this.row < 13) return;
    const tie = this.rows.isNearTie(row, layer) ? " ≈" : "";
    write(ctx, palette.textOnFill(amount), `${shared}${tie}`, "10.5px", x + CELL / 2, y + this.row / 2, "center");
  }
}
