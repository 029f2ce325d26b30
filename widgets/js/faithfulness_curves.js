// How often the answer stays, along the chain of thought: one curve with its intervals, and the area that AOC counts.

import { figureWords, pointWords, shareOfToken, tokenAtShare } from "./faithfulness_words.js";
import { Multiple } from "./multiple.js";
import { missing, undefinedValue } from "./reading.js";
import { dottedFrame, paintAbsence } from "./surface.js";

const CURVE_LEFT = 46;
const CURVE_RIGHT = 14;
const CURVE_TOP = 10;
const CURVE_TALL = 168;
const CURVE_SCALE = 36;
const REACH = 11; // px around a point that select it

export class CurveMultiple extends Multiple {
  constructor(view, number) {
    const curve = view.facts.curves[number];
    const title = `${number + 1} ${curve.name}`;
    super(view, { name: curve.key, title, note: curve.found && curve.found.aoc.value !== null ? figureWords(curve.found.aoc, "aoc") : "" });
    Object.assign(this, { curve, number });
    if (!this.absence()) this.foot.textContent = this.legend();
  }

  // What the marks mean, in the order they are drawn.
  legend() {
    const { found, control } = this.curve;
    return [
      "● same answer",
      found.points[0].right ? "□ right answer" : null,
      control ? "◆ control" : null,
      "shaded: AOC",
    ]
      .filter(Boolean)
      .join("   ");
  }

  get points() {
    return this.curve.found?.points ?? [];
  }

  // The token that a point stands for: filler is no place in the chain.
  tokenOf(point) {
    const { chain } = this.view.facts;
    return chain && this.curve.key !== "filler" ? tokenAtShare(chain, point.fraction) : null;
  }

  words(i) {
    const token = this.tokenOf(this.points[i]);
    return pointWords(this.curve, this.points[i], token === null ? null : `token ${token}`);
  }

  height() {
    return CURVE_TOP + CURVE_TALL + CURVE_SCALE;
  }

  state() {
    return `${this.view.point(this.number)}/${this.view.selection.token}`;
  }

  x(fraction) {
    return CURVE_LEFT + fraction * (this.surface.width - CURVE_LEFT - CURVE_RIGHT);
  }

  y(share) {
    return CURVE_TOP + (1 - share) * CURVE_TALL;
  }

  paint(ctx, palette) {
    const absence = this.absence();
    const wide = this.x(1) - this.x(0);
    if (absence) {
      paintAbsence(ctx, palette, absence, this.x(0), CURVE_TOP, wide, CURVE_TALL);
      return;
    }
    this.paintScale(ctx, palette);
    this.paintArea(ctx, palette);
    this.paintPlace(ctx, palette);
    const { control } = this.curve;
    if (control) this.paintOther(ctx, palette, control.points, (p) => p.agrees, "diamond", [1, 3]);
    if (this.points[0].right) this.paintOther(ctx, palette, this.points, (p) => p.right, "square", [5, 3]);
    this.paintLine(ctx, palette.bar, this.points, (p) => p.agrees, []);
    this.points.forEach((point, i) => this.paintPoint(ctx, palette, point, i));
  }

  absence() {
    if (!this.curve.found) return missing("not tested");
    if (this.points.every((p) => p.agrees.value === null)) return undefinedValue(`undefined: ${this.curve.found.aoc.why}`);
    return null;
  }

  paintScale(ctx, palette) {
    for (const share of [0, 0.5, 1]) {
      this.line(ctx, palette.line, this.x(0), this.y(share), this.x(1), this.y(share));
      this.text(ctx, palette.secondary, `${100 * share} %`, "11px", CURVE_LEFT - 10, this.y(share), "right");
    }
    let right = -Infinity;
    for (const { fraction } of this.points) {
      const words = `${Math.round(100 * fraction)} %`;
      const align = fraction === 0 ? "left" : fraction === 1 ? "right" : "center";
      if (fraction > 0 && fraction < 1 && (this.x(fraction) < right + 40 || this.x(1) - this.x(fraction) < 48)) continue;
      this.text(ctx, palette.secondary, words, "11px", this.x(fraction), this.y(0) + 13, align);
      right = this.x(fraction);
    }
    const axis = `of the chain ${this.curve.share}`;
    this.text(ctx, palette.secondary, axis, "11px", (this.x(0) + this.x(1)) / 2, this.y(0) + 28, "center");
  }

  // The area over the curve, where every point is known.
  paintArea(ctx, palette) {
    if (this.points.some((p) => p.agrees.value === null)) return;
    ctx.fillStyle = palette.shade;
    ctx.beginPath();
    ctx.moveTo(this.x(0), this.y(1));
    for (const { fraction, agrees } of this.points) ctx.lineTo(this.x(fraction), this.y(agrees.value));
    ctx.lineTo(this.x(1), this.y(1));
    ctx.fill();
  }

  // Where the selected token of the trace stands along its chain.
  paintPlace(ctx, palette) {
    const share = this.curve.key === "filler" ? null : shareOfToken(this.view.facts.chain, this.view.selection.token);
    if (share !== null) this.line(ctx, palette.ink, this.x(share), CURVE_TOP, this.x(share), this.y(0), 1.5);
  }

  // A point that is undefined is a gap in the line.
  paintLine(ctx, colour, points, read, dash) {
    ctx.save();
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1.75;
    ctx.setLineDash(dash);
    ctx.beginPath();
    let known = false;
    for (const point of points) {
      const { value } = read(point);
      const to = [this.x(point.fraction), value === null ? 0 : this.y(value)];
      if (value !== null) ctx[known ? "lineTo" : "moveTo"](...to);
      known = value !== null;
    }
    ctx.stroke();
    ctx.restore();
  }

  paintOther(ctx, palette, points, read, shape, dash) {
    this.paintLine(ctx, palette.grey, points, read, dash);
    for (const point of points) {
      const { value } = read(point);
      if (value !== null) this.mark(ctx, palette, shape, this.x(point.fraction), this.y(value));
    }
  }

  mark(ctx, palette, shape, x, y) {
    const r = shape === "square" ? 3.25 : 4.5;
    const corners = { square: [[-r, -r], [r, -r], [r, r], [-r, r]], diamond: [[0, -r], [r, 0], [0, r], [-r, 0]] }[shape]; // prettier-ignore
    ctx.beginPath();
    corners.forEach(([dx, dy]) => ctx.lineTo(x + dx, y + dy));
    ctx.closePath();
    ctx.fillStyle = shape === "square" ? palette.panel : palette.grey;
    ctx.fill();
    ctx.strokeStyle = palette.dark;
    ctx.lineWidth = 1.25;
    ctx.stroke();
  }

  // A point, hollow where the test changed nothing; the selected one is in ink.
  paintPoint(ctx, palette, point, i) {
    const { value, low, high } = point.agrees;
    const x = this.x(point.fraction);
    const chosen = this.view.point(this.number) === i;
    if (value === null) dottedFrame(ctx, palette, x - 7, this.y(1), 14, CURVE_TALL);
    else {
      const colour = chosen ? palette.ink : palette.bar;
      this.line(ctx, colour, x, this.y(low), x, this.y(high), 2);
      ctx.beginPath();
      ctx.arc(x, this.y(value), chosen ? 5.5 : 4, 0, 2 * Math.PI);
      ctx.fillStyle = point.changed === 0 ? palette.panel : colour;
      ctx.strokeStyle = colour;
      ctx.lineWidth = 2;
      ctx.fill();
      ctx.stroke();
    }
    this.hit(x - REACH, 0, 2 * REACH, this.height(), this.words(i), () => this.view.choosePoint(this.number, i));
  }
}
