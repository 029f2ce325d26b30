// What two groups of rollouts route differently: divergence of loads per layer beside what chance gives, and which
// experts differ.

import { niceEnd } from "./effort_words.js";
import { Multiple } from "./multiple.js";
import { decode, twoDigits } from "./numerics.js";
import { missing, undefinedValue } from "./reading.js";
import { h, paintAbsence } from "./surface.js";

const PAIR_HEAD = 20;
const PAIR_SCALE = 20;
const LAYER_LABELS = 30;
const PAIR_LEAST = 74;

export const pairName = ({ a, b }) => `${a} − ${b}`;

// The layers of the first pair that has any; pairs of other models may have others.
function layersOf(pairs) {
  return pairs.find((p) => p.layers)?.layers ?? [];
}

// Arrays of pairs by kind, decoded once; null where the analysis has none.
export function pairValues(sent, kind, count) {
  return Array.from({ length: count }, (_, i) =>
    sent[`${kind}/${i}`] ? decode(sent[`${kind}/${i}`], "float64") : null,
  );
}

export const rowOf = (numLayers) => (numLayers <= 8 ? 20 : numLayers <= 16 ? 14 : numLayers <= 40 ? 10 : 7);

class PairMultiple extends Multiple {
  constructor(view, titles) {
    super(view, titles);
    this.pairs = view.facts.pairs;
    this.layers = layersOf(this.pairs);
    this.row = rowOf(this.layers.length);
  }

  values(kind) {
    return pairValues(this.view.model.get("_arrays"), kind, this.pairs.length);
  }

  paintLayers(ctx, palette, top) {
    const every = this.row >= 13 ? 1 : this.row >= 10 ? 2 : 4;
    this.layers.forEach((layer, i) => {
      const here = layer === this.view.selection.layer;
      if (!here && i % every) return;
      const colour = here ? palette.ink : palette.secondary;
      this.text(
        ctx,
        colour,
        `L${layer}`,
        here ? "700 11px" : "11px",
        LAYER_LABELS - 6,
        top + (i + 0.5) * this.row,
        "right",
      );
    });
  }
}

export class DivergenceMultiple extends PairMultiple {
  constructor(view) {
    const note = "Jensen–Shannon, nats; null 95 % by rollout";
    super(view, { name: "divergence", title: "Routing divergence", note });
    this.divergence = this.values("divergence");
    this.band = this.values("band");
    const thresholds = this.pairs.map((p) => p.threshold ?? 0);
    const all = [...this.divergence, ...this.band].filter(Boolean).flatMap((values) => Array.from(values));
    this.end = niceEnd(Math.max(...all, ...thresholds, 1e-6));
    this.least = LAYER_LABELS + this.pairs.length * PAIR_LEAST;
    this.foot.textContent = this.pairs.length
      ? "grey: chance stays below, in this layer; dashed: in every layer"
      : "one group: nothing to compare";
  }

  height() {
    return PAIR_HEAD + Math.max(3, this.layers.length) * this.row + PAIR_SCALE;
  }

  state() {
    return this.view.selection.layer;
  }

  paint(ctx, palette) {
    const each = (this.surface.width - LAYER_LABELS) / Math.max(1, this.pairs.length);
    this.paintLayers(ctx, palette, PAIR_HEAD);
    this.pairs.forEach((pair, p) => this.paintPair(ctx, palette, pair, p, LAYER_LABELS + p * each, each - 16));
  }

  paintPair(ctx, palette, pair, p, x0, width) {
    const tall = Math.max(3, this.layers.length) * this.row;
    const room = pair.notTested ? width - 42 : width;
    this.text(ctx, palette.text, `${pair.a} – ${pair.b}`, "600 11px", x0, PAIR_HEAD / 2, "left", room);
    if (pair.notTested) this.text(ctx, palette.warning, "no null", "600 10.5px", x0 + width, PAIR_HEAD / 2, "right");
    const values = this.divergence[p];
    if (!values) {
      paintAbsence(ctx, palette, missing("not comparable"), x0, PAIR_HEAD, width, tall);
      this.hit(x0, PAIR_HEAD, width, tall, pair.noRouting ?? "not measured");
      return;
    }
    const x = (value) => x0 + (value / this.end) * width;
    pair.layers.forEach((layer, i) => {
      const y = PAIR_HEAD + (i + 0.5) * this.row;
      this.line(ctx, palette.line, x0, y, x0 + width, y);
      if (this.band[p]) {
        ctx.fillStyle = palette.foot;
        ctx.fillRect(x0, y - this.row * 0.32, Math.max(1, x(this.band[p][i]) - x0), this.row * 0.64);
      }
      const here = layer === this.view.selection.layer;
      this.dot(ctx, palette, x(values[i]), y, Math.min(4, this.row * 0.28), this.isAbove(pair, values[i]));
      if (here) this.line(ctx, palette.ink, x0 - 3, y - this.row / 2, x0 - 3, y + this.row / 2, 2);
      const row = [x0, y - this.row / 2, width, this.row];
      this.hit(...row, this.words(p, i), () => this.view.select({ layer }));
    });
    this.paintThreshold(ctx, palette, pair, x, tall);
    this.text(ctx, palette.secondary, "0", "11px", x0, PAIR_HEAD + tall + PAIR_SCALE / 2);
    this.text(ctx, palette.secondary, String(this.end), "11px", x0 + width, PAIR_HEAD + tall + PAIR_SCALE / 2, "right");
  }

  isAbove({ threshold }, value) {
    return threshold !== null && value > threshold;
  }

  paintThreshold(ctx, palette, { threshold }, x, tall) {
    if (threshold === null) return;
    ctx.save();
    ctx.setLineDash([3, 2]);
    this.line(ctx, palette.dark, x(threshold), PAIR_HEAD, x(threshold), PAIR_HEAD + tall);
    ctx.restore();
  }

  words(p, i) {
    const pair = this.pairs[p];
    const band = this.band[p];
    const chance = band
      ? `chance below ${band[i].toFixed(4)} in this layer, ${pair.threshold.toFixed(4)} in every layer`
      : `not tested: ${pair.notTested}`;
    return `${pair.a} – ${pair.b}, layer ${pair.layers[i]}: ${this.divergence[p][i].toFixed(4)} nats; ${chance}`;
  }
}

export class ExpertsMultiple extends PairMultiple {
  constructor(view) {
    const note = "difference in choices per token; row = layer, column = expert";
    super(view, { name: "experts", title: "Experts that differ", note });
    this.delta = this.values("delta");
    this.p = this.values("p");
    const all = this.delta.filter(Boolean).flatMap((values) => Array.from(values, Math.abs));
    this.top = niceEnd(Math.max(...all, 1e-9));
    this.row = Math.max(8, Math.min(18, this.row));
    this.scale = h("span", { class: "moe-scale" });
    const [low, high] = [`−${this.top}`, `+${this.top}`];
    const outlined =
      "outlined: beyond the family-wise 5 % threshold of each pair's permutation test of whole rollouts. ";
    if (all.length) this.foot.append(low, " ", this.scale, ` ${high} per token · ${outlined}An association.`);
    else this.foot.append(this.pairs.length ? "no pair was tested" : "one group: nothing to compare");
  }

  draw(palette) {
    super.draw(palette);
    this.scale.style.background = `linear-gradient(to right, ${palette.diverging.join(", ")})`;
  }

  columns() {
    return Math.max(1, Math.min(this.pairs.length, 3, Math.floor((this.surface.width || 900) / 220)));
  }

  block() {
    return PAIR_HEAD + Math.max(2, this.layers.length) * this.row + 12;
  }

  resize(width) {
    this.surface.resize(width, this.height(width));
    this.painted = null;
  }

  height(width = this.surface.width) {
    const columns = Math.max(1, Math.min(this.pairs.length, 3, Math.floor(width / 220)));
    return Math.max(1, Math.ceil(this.pairs.length / columns)) * this.block();
  }

  state() {
    const { layer, expert } = this.view.selection;
    return `${layer}/${expert}`;
  }

  paint(ctx, palette) {
    const columns = this.columns();
    const each = this.surface.width / columns;
    this.pairs.forEach((pair, p) => {
      const [x, y] = [(p % columns) * each, Math.floor(p / columns) * this.block()];
      this.paintPair(ctx, palette, pair, p, x, y, each - 24);
    });
  }

  paintPair(ctx, palette, pair, p, x, y, width) {
    const delta = this.delta[p];
    const limit = delta ? `|Δ| > ${twoDigits(pair.deltaThreshold)}` : "";
    this.text(
      ctx,
      palette.text,
      pairName(pair),
      "600 11.5px",
      x + LAYER_LABELS,
      y + PAIR_HEAD / 2,
      "left",
      width - LAYER_LABELS - 60,
    );
    this.text(ctx, palette.secondary, limit, "11px", x + width, y + PAIR_HEAD / 2, "right");
    if (!delta) {
      const words = pair.noRouting ? "not comparable" : `not tested: ${pair.notTested}`;
      const state = pair.noRouting ? missing(words) : undefinedValue(words);
      const tall = Math.max(2, this.layers.length) * this.row;
      paintAbsence(ctx, palette, state, x + LAYER_LABELS, y + PAIR_HEAD, width - LAYER_LABELS, tall);
      this.hit(x + LAYER_LABELS, y + PAIR_HEAD, width - LAYER_LABELS, tall, pair.noRouting ?? words);
      return;
    }
    ctx.save();
    ctx.translate(x, 0);
    this.paintLayers(ctx, palette, y + PAIR_HEAD);
    ctx.restore();
    this.paintCells(ctx, palette, pair, p, { x: x + LAYER_LABELS, y: y + PAIR_HEAD, width: width - LAYER_LABELS });
  }

  // Cells of all layers and experts; those above the family-wise threshold are outlined.
  paintCells(ctx, palette, pair, p, { x, y, width }) {
    const [layers, experts] = pair.shape;
    const cell = Math.min(34, width / experts);
    const { selection } = this.view;
    for (let i = 0; i < layers; i++) {
      for (let e = 0; e < experts; e++) {
        const value = this.delta[p][i * experts + e];
        ctx.fillStyle = palette.diverge(value / this.top);
        ctx.fillRect(x + e * cell, y + i * this.row, Math.max(1, cell - 1), this.row - 1);
      }
    }
    const frame = (i, e, colour, outset, line) => {
      ctx.strokeStyle = colour;
      ctx.lineWidth = line;
      const at = [x + e * cell - outset, y + i * this.row - outset];
      ctx.strokeRect(...at, cell - 1 + 2 * outset, this.row - 1 + 2 * outset);
    };
    this.significant(p).forEach(([i, e]) => frame(i, e, palette.ink, -0.5, cell < 10 ? 1 : 1.5));
    const at = pair.layers.indexOf(selection.layer);
    if (at >= 0 && selection.expert < experts) frame(at, selection.expert, palette.warning, 1, 2);
    this.hits.push(this.cellHits(pair, p, x, y, cell));
  }

  // One region for all cells of a pair; which cell it is follows from the place.
  cellHits(pair, p, x, y, cell) {
    const [layers, experts] = pair.shape;
    const found = { x, y, width: experts * cell, height: layers * this.row, pair, p, cell };
    return found;
  }

  hitAt(event) {
    const found = super.hitAt(event);
    if (!found?.pair) return found;
    const box = this.surface.canvas.getBoundingClientRect();
    const [layers, experts] = found.pair.shape;
    const i = Math.min(layers - 1, Math.floor((event.clientY - box.top - found.y) / this.row));
    const expert = Math.min(experts - 1, Math.floor((event.clientX - box.left - found.x) / found.cell));
    const layer = found.pair.layers[i];
    return { words: this.words(found.p, i, expert), act: () => this.view.select({ layer, expert }) };
  }

  // [place of the layer, expert] above the threshold of a pair.
  significant(p) {
    const { shape, deltaThreshold } = this.pairs[p];
    const found = [];
    this.delta[p].forEach((value, at) => {
      if (Math.abs(value) > deltaThreshold) found.push([Math.floor(at / shape[1]), at % shape[1]]);
    });
    return found;
  }

  words(p, i, expert) {
    const pair = this.pairs[p];
    const at = i * pair.shape[1] + expert;
    const value = this.delta[p][at];
    const sign = value < 0 ? "−" : "+";
    const corrected = `corrected p = ${this.p[p][at].toPrecision(2)}`;
    return `${pairName(pair)}, layer ${pair.layers[i]}, expert ${expert}: ${sign}${Math.abs(value).toFixed(3)} per token, ${corrected}`;
  }
}
