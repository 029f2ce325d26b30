// Maps to pick from: experts by layer with their load, heads by layer with their sink mass.

import { MEASURES } from "./bench_amounts.js";
import { placesOf } from "./bench_asked.js";
import { amountWords } from "./bench_words.js";
import { LABELS, MapPainter, WRITTEN } from "./map_paint.js";
import { twoDigits } from "./numerics.js";
import { Choice } from "./parts.js";
import { dashedFrame, h, setText } from "./surface.js";

const WIDEST = 46;
const NAMES = { experts: "expert", heads: "head" };

// Size of a cell: as wide as there is room for, lower than the map's own, for the bench holds more than the map.
export function pickCell(room, count, numLayers) {
  const width = Math.min(WIDEST, Math.max(7, Math.floor(room / count)));
  return { width, height: numLayers <= 12 ? 24 : numLayers <= 24 ? 14 : 11 };
}

class PickPainter extends MapPainter {
  resize(room) {
    this.cell = pickCell(room, this.numExperts, this.numLayers);
    this.labels.resize(LABELS, this.top(this.numLayers));
    this.grid.resize(this.numExperts * this.cell.width + 1, this.top(this.numLayers));
  }

  // `picked` and `others` are {layer, one}, of the change that is made and of those beside it; `from` of a swap waits.
  paintPicks(palette, { rows, layer, one, picked, others, from, perGroup }) {
    const ctx = this.grid.clear();
    rows.forEach((row, l) => this.paintRow(ctx, palette, row, l));
    this.paintNumbers(ctx, palette, one, 0);
    this.paintCross(ctx, palette, rows, layer, one);
    this.paintGroups(ctx, palette, perGroup);
    for (const place of others) this.frame(ctx, palette, place, palette.grey, 1);
    for (const place of picked) this.frame(ctx, palette, place, palette.ink, 2);
    for (const place of from ? [from, { layer, one }] : [{ layer, one }]) {
      const { width, height } = this.cell;
      dashedFrame(ctx, palette.ink, place.one * width - 1, this.top(place.layer) - 1, width + 1, height + 1);
    }
  }

  frame(ctx, palette, { layer, one }, colour, line) {
    const { width, height } = this.cell;
    const box = [one * width + 0.5, this.top(layer) + 0.5, width - 2, height - 2];
    ctx.strokeStyle = palette.panel;
    ctx.lineWidth = line + 2;
    ctx.strokeRect(...box);
    ctx.strokeStyle = colour;
    ctx.lineWidth = line;
    ctx.strokeRect(...box);
  }

  // Heads that share keys and values stand together.
  paintGroups(ctx, palette, perGroup) {
    ctx.fillStyle = palette.grey;
    for (let at = perGroup; perGroup > 1 && at < this.numExperts; at += perGroup) {
      ctx.fillRect(at * this.cell.width - 1.25, this.top(0), 1, this.numLayers * this.cell.height);
    }
  }
}

export class Picker {
  // `onPick` is given {layer, one}; the view has facts, selection, select and amounts.
  constructor(view, kind, onPick) {
    Object.assign(this, { view, kind, onPick, name: NAMES[kind], measure: MEASURES[kind][0] });
    const { numLayers, numExperts, numHeads, numKvHeads } = view.facts;
    this.count = kind === "experts" ? numExperts : numHeads;
    this.perGroup = kind === "heads" && numKvHeads ? numHeads / numKvHeads : 0;
    this.painter = new PickPainter(numLayers, this.count);
    this.grid = h(
      "div",
      { class: "moe-bench-grid", tabindex: "0", role: "group", onkeydown: (event) => this.key(event) },
      this.painter.grid.canvas,
    );
    this.painter.grid.canvas.addEventListener("pointerdown", (event) => this.click(event));
    this.measures = new Choice(
      "show",
      MEASURES[kind].map((value) => ({ value, text: value })),
      (value) => this.setMeasure(value),
    );
    this.measures.element.hidden = MEASURES[kind].length === 1;
    this.words = h("div", { class: "moe-secondary" });
    this.element = h(
      "section",
      { class: "moe-bench-picker", "aria-label": `Pick ${this.name}s by layer`, "data-kind": kind },
      h("div", { class: "moe-bench-map" }, this.painter.labels.canvas, this.grid),
      h("div", { class: "moe-bench-legend" }, this.measures.element, h("i", { class: "moe-bench-ramp" }), this.words),
    );
  }

  setMeasure(value) {
    this.measure = value;
    this.view.schedule();
  }

  click(event) {
    const { layer, position } = this.painter.at(event.offsetX, event.offsetY);
    if (position === null) return;
    this.grid.focus({ preventScroll: true });
    this.view.select({ layer, [this.name]: position });
    this.onPick({ layer, one: position });
  }

  // Inside the map the arrows choose one; space and enter pick it.
  key(event) {
    const { layer, [this.name]: one } = this.view.selection;
    const action = {
      ArrowLeft: () => this.view.select({ [this.name]: one - 1 }),
      ArrowRight: () => this.view.select({ [this.name]: one + 1 }),
      ArrowUp: () => this.view.select({ layer: layer - 1 }),
      ArrowDown: () => this.view.select({ layer: layer + 1 }),
      Home: () => this.view.select({ [this.name]: 0 }),
      End: () => this.view.select({ [this.name]: this.count - 1 }),
      " ": () => this.onPick({ layer, one }),
      Enter: () => this.onPick({ layer, one }),
      Escape: () => this.view.root.focus(),
    }[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  resize(width) {
    this.painter.resize(Math.max(0, width - LABELS));
    this.drawn = null;
  }

  // `shown` is {span, text, limits, from, others}: the tokens, what is picked, and what the other changes name.
  draw(palette, shown) {
    const { layer, [this.name]: one } = this.view.selection;
    const found = this.view.amounts.of(this.measure, this.kind, shown.span);
    const key = JSON.stringify([layer, one, shown, this.measure, found.state, palette.id]);
    if (key === this.drawn) return;
    this.drawn = key;
    const rows = Array.from({ length: this.view.facts.numLayers }, (_, l) => this.row(palette, found, l));
    const picked = placesOf(shown.text, shown.limits);
    const { others, from } = shown;
    this.painter.paintLabels(palette, layer, this.name);
    this.painter.paintPicks(palette, { rows, layer, one, picked, others, from, perGroup: this.perGroup });
    this.measures.draw(this.measure);
    this.writeWords(found, shown.span);
    this.say(found, picked, layer, one);
  }

  get uniform() {
    return 1 / this.count;
  }

  // The amount at the dark end of the ramp: 1 for sinks; of experts as on the router's map.
  get top() {
    if (this.kind === "heads") return 1;
    return Math.min((this.count > 8 ? 4 : 2) / this.count, 1 / Math.max(1, this.view.facts.topK));
  }

  row(palette, found, layer) {
    const blank = (cell) => ({ cells: Array.from({ length: this.count }, () => cell) });
    if (found.state === "waiting") return blank({ fill: palette.track, ink: palette.secondary });
    if (found.state === "undefined") return blank({ undefined: true });
    const values = found.values?.(layer);
    if (!values) return { cells: [], words: `${this.kind === "heads" ? "sink mass" : "router"} not captured` };
    const written = this.painter.cell.width >= WRITTEN;
    return { cells: Array.from(values, (value) => this.cell(palette, value, written)) };
  }

  cell(palette, value, written) {
    const share = value / this.top;
    const ink = palette.textOnFill(share);
    return { fill: palette.fill(share), ink, text: written ? twoDigits(value) : undefined, dot: share > 1.0005 };
  }

  writeWords(found, span) {
    const { top, uniform } = this;
    const source = this.view.facts.pickSources[this.kind] ?? "";
    setText(this.words, amountWords(this.measure, { ...found, top, uniform, span, source }));
  }

  // The cell in words, for whoever does not see it.
  say(found, picked, layer, one) {
    const isPicked = picked.some((place) => place.layer === layer && place.one === one);
    const value = found.values?.(layer)?.[one];
    const amount = value === undefined ? found.state : `${this.measure} ${twoDigits(value)}`;
    this.said = `${amount}${isPicked ? ", picked" : ""}`;
    this.grid.setAttribute("aria-label", `${this.name} ${one} of layer ${layer}: ${this.said}; space picks`);
    this.painter.grid.label(`${this.count} ${this.name}s by layer, ${picked.length} picked`);
  }
}
