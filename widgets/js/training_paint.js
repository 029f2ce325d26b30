// Painting a training: experts run down, steps run right; below, two lines over the same steps.

import { decode } from "./numerics.js";
import { Surface, UI_FONT } from "./surface.js";
import { amountOf, lineBounds } from "./training_words.js";

const GUTTER = 60;
const BARS = 150;
const TOP = 22;
const ROW = 17;
const LINE = 54;
const LINE_GAP = 26;

export class TrainingPainter {
  constructor() {
    this.surface = new Surface("Load of the experts by step");
  }

  // `columns` is how many the picture has when all planned steps are done.
  paint(palette, { arrays, facts, columns, steps, width }) {
    const load = decode(arrays.load, "float32");
    const { experts } = facts;
    const plot = Math.max(40, width - GUTTER - BARS);
    const bottom = TOP + experts * ROW;
    this.surface.resize(width, bottom + 18 + 2 * (LINE + LINE_GAP) + 2);
    const ctx = this.surface.clear();
    const x = (column) => GUTTER + (column / columns) * plot;
    this.text(ctx, palette.secondary, "share of the choices of a step", GUTTER, 9);
    this.text(ctx, palette.secondary, `last ${facts.last} steps`, GUTTER + plot + 14, 9);
    for (let e = 0; e < experts; e++) {
      this.text(ctx, palette.text, `expert ${e}`, GUTTER - 8, TOP + (e + 0.5) * ROW, "right");
      for (let c = 0; c * experts < load.length; c++) {
        ctx.fillStyle = palette.fill(amountOf(load[c * experts + e], experts));
        ctx.fillRect(x(c), TOP + e * ROW, x(c + 1) - x(c) + 0.5, ROW - 1);
      }
    }
    this.frame(ctx, palette, TOP, bottom - 1, plot);
    this.bars(ctx, palette, facts, GUTTER + plot + 14);
    this.text(ctx, palette.secondary, "step 1", GUTTER, bottom + 9);
    this.text(ctx, palette.secondary, steps.toLocaleString("en"), GUTTER + plot, bottom + 9, "right");
    const lines = [
      { name: "loss", note: "cross entropy of the next token, nats", values: decode(arrays.loss, "float32"), shown: [] },
      { name: "balance loss", note: "before its weight; 1 is even", values: decode(arrays.balance, "float32"), shown: [1, 2] },
    ];
    lines.forEach((line, i) => this.line(ctx, palette, line, bottom + 18 + LINE_GAP + i * (LINE + LINE_GAP), x, plot));
  }

  bars(ctx, palette, { load, experts, dead }, left) {
    const room = BARS - 14 - 62;
    const at = (value) => left + amountOf(value, experts) * room;
    load.forEach((value, e) => {
      const y = TOP + e * ROW;
      ctx.fillStyle = palette.track;
      ctx.fillRect(left, y + 4, room, ROW - 9);
      ctx.fillStyle = palette.bar;
      ctx.fillRect(left, y + 4, at(value) - left, ROW - 9);
      const words = value.toFixed(2).replace(/^0/, "") + (dead.includes(e) ? " dead" : "");
      this.text(ctx, dead.includes(e) ? palette.warning : palette.text, words, left + room + 6, y + ROW / 2 - 0.5);
    });
    ctx.strokeStyle = palette.ink;
    ctx.setLineDash([2, 2]);
    this.stroke(ctx, [[at(1 / experts), TOP], [at(1 / experts), TOP + experts * ROW - 1]]);
    ctx.setLineDash([]);
    this.text(ctx, palette.secondary, `uniform ${(1 / experts).toFixed(3).replace(/^0/, "")}`, left, TOP + experts * ROW + 9);
  }

  line(ctx, palette, { name, note, values, shown }, top, x, plot) {
    const [low, high] = lineBounds(values, shown);
    const y = (value) => top + LINE * (1 - (value - low) / (high - low));
    this.text(ctx, palette.text, name, GUTTER, top - 9);
    const after = GUTTER + ctx.measureText(name).width + 8;
    this.text(ctx, palette.secondary, note, after, top - 9);
    this.text(ctx, palette.secondary, high.toFixed(1), GUTTER - 8, top + 4, "right");
    this.text(ctx, palette.secondary, low.toFixed(1), GUTTER - 8, top + LINE - 4, "right");
    this.frame(ctx, palette, top, top + LINE, plot);
    if (shown.length) {
      ctx.strokeStyle = palette.grey;
      ctx.setLineDash([2, 2]);
      this.stroke(ctx, [[GUTTER, y(1)], [GUTTER + plot, y(1)]]);
      ctx.setLineDash([]);
    }
    ctx.strokeStyle = palette.bar;
    ctx.lineWidth = 1.75;
    this.stroke(ctx, Array.from(values, (value, column) => [x(column + 0.5), y(value)]));
    ctx.lineWidth = 1;
  }

  frame(ctx, palette, top, bottom, plot) {
    ctx.strokeStyle = palette.line;
    ctx.lineWidth = 1;
    ctx.strokeRect(GUTTER - 0.5, top - 0.5, plot + 1, bottom - top + 1);
  }

  stroke(ctx, points) {
    ctx.beginPath();
    points.forEach(([px, py], i) => (i ? ctx.lineTo(px, py) : ctx.moveTo(px, py)));
    ctx.stroke();
  }

  text(ctx, colour, words, x, y, align = "left") {
    ctx.font = `11px ${UI_FONT}`;
    ctx.textAlign = align;
    ctx.textBaseline = "middle";
    ctx.fillStyle = colour;
    ctx.fillText(words, x, y);
  }
}
