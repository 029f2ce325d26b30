// Painting flows: each shown layer is a bar cut into its experts' top-1 shares, ribbons join them downwards.

import { Surface, UI_FONT } from "./surface.js";

const GUTTER = 44;
const SIDE = 190;
const NARROW = 560;
const BAR = 20;
const GAP = 92;
const TOP = 8;

// Left edge and width of every expert in a bar: shares of the tokens, index order. `total` tokens are `width` wide.
export function segments(loads, total, width) {
  let before = 0;
  return Array.from(loads, (n) => {
    const segment = { x: (before / total) * width, width: (n / total) * width };
    before += n;
    return segment;
  });
}

// The ribbon of a flow: its left and right edge at the top and at the bottom.
export function ribbon({ from, to, count, leaving, coming }, above, below, total, width) {
  const unit = width / total;
  const [top, bottom] = [above[from].x + leaving * unit, below[to].x + coming * unit];
  return { top: [top, top + count * unit], bottom: [bottom, bottom + count * unit] };
}

export class PathsPainter {
  constructor(facts, loads, flows) {
    Object.assign(this, { facts, loads, flows });
    this.surface = new Surface("Paths");
    this.drawn = [];
  }

  resize(width) {
    this.side = width < NARROW ? 0 : SIDE;
    this.width = width - GUTTER - this.side;
    this.surface.resize(width, TOP + this.facts.shown.length * BAR + (this.facts.shown.length - 1) * GAP + 4);
    this.bars = this.loads.map((loads) => segments(loads, this.facts.tokens, this.width));
  }

  top(row) {
    return TOP + row * (BAR + GAP);
  }

  // {row, expert} of a bar, {flow}, or null.
  at(x, y) {
    for (const { path, flow } of this.drawn) {
      if (this.surface.ctx.isPointInPath(path, x * this.surface.scale, y * this.surface.scale)) return { flow };
    }
    const row = this.bars.findIndex((_, i) => y >= this.top(i) && y < this.top(i) + BAR);
    if (row < 0) return null;
    const expert = this.bars[row].findIndex((s) => x - GUTTER >= s.x && x - GUTTER < s.x + s.width);
    return { row, expert: expert < 0 ? null : expert };
  }

  paint(palette, { row, expert }, words) {
    const ctx = this.surface.clear();
    const isChosen = ({ pair, from, to }) => (pair === row && from === expert) || (pair + 1 === row && to === expert);
    this.drawn = [];
    const [chosen, rest] = [this.flows.filter(isChosen), this.flows.filter((flow) => !isChosen(flow))];
    const pale = palette.contrast ? 0.6 : palette.name === "dark" ? 0.42 : 0.28;
    for (const flow of rest) this.paintFlow(ctx, flow, palette.bar, pale);
    for (const flow of chosen) this.paintFlow(ctx, flow, palette.contrast ? palette.ink : palette.bar, 0.9);
    this.drawn.reverse(); // what was painted last is found first
    this.bars.forEach((bar, i) => this.paintBar(ctx, palette, bar, i, i === row ? expert : null));
    if (this.side) words.forEach((lines, i) => this.paintWords(ctx, palette, lines, i));
  }

  paintFlow(ctx, flow, colour, alpha) {
    const [above, below] = [this.bars[flow.pair], this.bars[flow.pair + 1]];
    const { top, bottom } = ribbon(flow, above, below, this.facts.tokens, this.width);
    const [y0, y1] = [this.top(flow.pair) + BAR, this.top(flow.pair + 1)];
    const half = (y0 + y1) / 2;
    const path = new Path2D();
    path.moveTo(GUTTER + top[0], y0);
    path.bezierCurveTo(GUTTER + top[0], half, GUTTER + bottom[0], half, GUTTER + bottom[0], y1);
    path.lineTo(GUTTER + bottom[1], y1);
    path.bezierCurveTo(GUTTER + bottom[1], half, GUTTER + top[1], half, GUTTER + top[1], y0);
    path.closePath();
    ctx.save();
    ctx.globalAlpha = alpha;
    ctx.fillStyle = colour;
    ctx.fill(path);
    ctx.restore();
    this.drawn.push({ path, flow });
  }

  paintBar(ctx, palette, bar, i, chosen) {
    const y = this.top(i);
    const layer = this.facts.shown[i];
    this.text(ctx, chosen === null ? palette.secondary : palette.ink, `layer ${layer}`, "11px", 0, y + BAR / 2, "left");
    bar.forEach(({ x, width }, expert) => {
      if (!width) return;
      ctx.fillStyle = palette.track;
      ctx.fillRect(GUTTER + x, y, Math.max(0.5, width - 1), BAR);
      if (width >= 20) {
        const bold = expert === chosen ? "700 " : "";
        this.text(
          ctx,
          palette.text,
          `e${expert}`,
          `${bold}10.5px`,
          GUTTER + x + width / 2,
          y + BAR / 2 + 0.5,
          "center",
        );
      }
    });
    if (chosen === null) return;
    const { x, width } = bar[chosen];
    ctx.strokeStyle = palette.ink;
    ctx.lineWidth = 2;
    if (width) ctx.strokeRect(GUTTER + x, y, Math.max(2, width - 1), BAR);
  }

  paintWords(ctx, palette, lines, i) {
    const x = GUTTER + this.width + 16;
    const y = this.top(i) + BAR + GAP / 2 - 24;
    lines.forEach((line, n) => {
      const [colour, font] = n ? [palette.secondary, "11px"] : [palette.text, "700 12px"];
      this.text(ctx, colour, line, font, x, y + n * 16, "left");
    });
  }

  text(ctx, colour, text, font, x, y, align) {
    ctx.font = `${font} ${UI_FONT}`;
    ctx.textAlign = align;
    ctx.textBaseline = "middle";
    ctx.fillStyle = colour;
    ctx.fillText(text, x, y);
  }
}
