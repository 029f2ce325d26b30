// Painting curves over layers: one row per layer, one line per selection, told apart by dashes, marks and a label.

import { Surface, UI_FONT, fitText, hatch } from "./surface.js";

const GUTTER = 44;
const TOP = 40;
const GAP = 44;
const LABEL_ROW = 15;
export const DASHES = [[], [6, 3], [2, 2], [9, 3, 2, 3], [4, 4], [1, 3]];

export const rowHeight = (numLayers) => (numLayers <= 12 ? 26 : numLayers <= 40 ? 15 : 10);

// Rows of the labels under the ends of lines, so that no leader crosses a text: the rightmost end is highest.
export function labelRows(ends) {
  const order = ends.map((_, i) => i).sort((a, b) => ends[b] - ends[a] || a - b);
  const rows = [];
  order.forEach((line, row) => (rows[line] = row));
  return rows;
}

export class CurvePainter {
  constructor(facts, rows) {
    Object.assign(this, { facts, rows });
    this.row = rowHeight(facts.counts.layer);
    this.surface = new Surface("Load per layer");
  }

  resize(width) {
    const { counts, lines } = this.facts;
    this.bottom = TOP + counts.layer * this.row;
    this.surface.resize(width, this.bottom + 8 + lines.length * LABEL_ROW);
    this.chart = Math.floor((width - GUTTER - 2 * GAP - 8) / 3);
  }

  layerAt(y) {
    return Math.min(this.facts.counts.layer - 1, Math.max(0, Math.floor((y - TOP) / this.row)));
  }

  middle(layer) {
    return TOP + (layer + 0.5) * this.row;
  }

  paint(palette, charts, layer) {
    const ctx = this.surface.clear();
    ctx.fillStyle = palette.shade;
    ctx.fillRect(0, TOP + layer * this.row, this.surface.width, this.row);
    ctx.fillStyle = palette.ink;
    ctx.fillRect(0, TOP + layer * this.row, 2.5, this.row);
    this.paintLayers(ctx, palette, layer);
    charts.forEach((chart, i) => this.paintChart(ctx, palette, chart, GUTTER + i * (this.chart + GAP), layer));
  }

  paintLayers(ctx, palette, layer) {
    this.text(ctx, palette.secondary, "layer", "11px", 34, TOP - 9, "right");
    const every = this.row >= 13 ? 1 : 2;
    for (let l = 0; l < this.facts.counts.layer; l++) {
      if (l !== layer && l % every) continue;
      const [colour, font] = l === layer ? [palette.ink, "700 11.5px"] : [palette.secondary, "11px"];
      this.text(ctx, colour, String(l), font, 34, this.middle(l), "right");
    }
  }

  paintChart(ctx, palette, chart, x0, layer) {
    const [low, high] = chart.bounds;
    const x = (value) => x0 + ((value - low) / (high - low)) * this.chart;
    this.text(ctx, palette.text, chart.title, "700 12px", x0, 8, "left");
    ctx.font = `700 12px ${UI_FONT}`;
    const after = x0 + ctx.measureText(chart.title).width + 7;
    this.text(ctx, palette.secondary, chart.note, "11px", after, 8, "left");
    this.paintScale(ctx, palette, chart.bounds, x);
    for (let l = 0; l < this.facts.counts.layer; l++) {
      if (this.rows.has(l)) continue;
      const words = this.row >= 15 ? "not captured" : "";
      hatch(ctx, palette, x0, TOP + l * this.row + 1, this.chart, this.row - 2, words);
    }
    const ends = chart.lines.map((values) => x(values.at(-1)));
    const below = labelRows(ends);
    chart.lines.forEach((values, i) => {
      const { label } = this.facts.lines[i];
      const colour = palette.channels[label] ?? [palette.bar, palette.dark, palette.secondary][i % 3];
      this.paintLine(ctx, palette, values, x, colour, i, layer);
      this.paintLabel(ctx, palette, colour, label, ends[i], below[i], x0 + this.chart);
    });
  }

  paintScale(ctx, palette, [low, high], x) {
    for (const [value, align] of [
      [low, "left"],
      [(low + high) / 2, "center"],
      [high, "right"],
    ]) {
      const at = Math.round(x(value)) + 0.5;
      const tick = String(Number(value.toFixed(2))).replace(/^0\./, ".");
      this.text(ctx, palette.secondary, tick, "11px", at, TOP - 9, align);
      ctx.strokeStyle = palette.line;
      ctx.lineWidth = 1;
      ctx.beginPath();
      ctx.moveTo(at, TOP);
      ctx.lineTo(at, this.bottom);
      ctx.stroke();
    }
  }

  // A gap in the layers is a gap in the line.
  paintLine(ctx, palette, values, x, colour, number, layer) {
    ctx.save();
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1.75;
    ctx.setLineDash(DASHES[number % DASHES.length]);
    ctx.beginPath();
    let before = null;
    for (const [l, at] of this.rows) {
      if (before === l - 1) ctx.lineTo(x(values[at]), this.middle(l));
      else ctx.moveTo(x(values[at]), this.middle(l));
      before = l;
    }
    ctx.stroke();
    ctx.restore();
    for (const [l, at] of this.rows) {
      const isHere = l === layer;
      this.mark(ctx, isHere ? palette.ink : colour, x(values[at]), this.middle(l), isHere ? 4.5 : 2.75, number);
    }
  }

  // Circles, squares, diamonds, triangles.
  mark(ctx, colour, x, y, r, number) {
    ctx.fillStyle = colour;
    ctx.beginPath();
    if (number % 4 === 0) ctx.arc(x, y, r, 0, 2 * Math.PI);
    else if (number % 4 === 1) ctx.rect(x - r, y - r, 2 * r, 2 * r);
    else {
      const corners =
        number % 4 === 2
          ? [
              [0, -1.3],
              [1.3, 0],
              [0, 1.3],
              [-1.3, 0],
            ]
          : [
              [0, -1.3],
              [1.2, 1],
              [-1.2, 1],
            ];
      corners.forEach(([dx, dy]) => ctx.lineTo(x + dx * r, y + dy * r));
      ctx.closePath();
    }
    ctx.fill();
  }

  paintLabel(ctx, palette, colour, label, x, row, right) {
    const y = this.bottom + 8 + row * LABEL_ROW;
    ctx.strokeStyle = palette.grey;
    ctx.lineWidth = 0.75;
    ctx.beginPath();
    ctx.moveTo(x, this.bottom - this.row / 2 + 5);
    ctx.lineTo(x, y + 2);
    ctx.stroke();
    ctx.font = `600 11px ${UI_FONT}`;
    const fitted = fitText(ctx, label, this.chart);
    const width = ctx.measureText(fitted).width;
    const left = Math.min(x - 3, right - width);
    ctx.fillStyle = palette.panel;
    ctx.fillRect(left - 2, y, width + 4, LABEL_ROW - 1);
    this.text(ctx, colour, fitted, "600 11px", left, y + LABEL_ROW / 2, "left");
  }

  text(ctx, colour, text, font, x, y, align) {
    ctx.font = `${font} ${UI_FONT}`;
    ctx.textAlign = align;
    ctx.textBaseline = "middle";
    ctx.fillStyle = colour;
    ctx.fillText(text, x, y);
  }
}
