// Entropy, Gini and CV of the load per layer: layers run down, three scales stand side by side.

import { CurvePainter } from "./curve_paint.js";
import { RoutingHeader } from "./map_parts.js";
import { StatusLine } from "./parts.js";
import { decode, twoDigits } from "./numerics.js";
import { h, setData, setText } from "./surface.js";
import { View } from "./view.js";

export const CHARTS = [
  { name: "entropy", title: "H / ln E", note: "1 = uniform", high: 1 },
  { name: "gini", title: "Gini", note: "0 = uniform", low: 0 },
  { name: "cv", title: "CV", note: "σ / μ, 0 = uniform", low: 0 },
];

// Bounds of a scale in tenths around all values; NaN counts for nothing.
export function bounds(values, { low, high }) {
  const known = values.filter((v) => Number.isFinite(v));
  const least = low ?? Math.floor(Math.min(1, ...known) * 10 - 1e-9) / 10;
  const most = high ?? Math.ceil(Math.max(0, ...known) * 10 + 1e-9) / 10;
  return [Math.max(0, least), Math.max(most, least + 0.1)];
}

// What few tokens do to entropy, by line.
export function biasWords(lines, numExperts, topK) {
  const few = lines.filter(({ tokens }) => tokens < (20 * numExperts) / topK);
  const of = few.map(({ label, tokens }) => `${label}, T = ${tokens.toLocaleString("en")}`);
  return few.length ? `Entropy is biased low, Gini and CV high, where tokens are few: ${of.join("; ")}.` : "";
}

export class CurveView extends View {
  constructor(model, el) {
    super(model, el, { label: `Load per layer: ${model.get("_facts").title}`, className: "moe-curve" });
  }

  build() {
    const { facts } = this;
    const sent = this.model.get("_arrays");
    this.rows = new Map(facts.layers.map((layer, i) => [layer, i]));
    this.charts = CHARTS.map((chart) => {
      const lines = facts.lines.map((_, i) => decode(sent[`${chart.name}/${i}`], "float64"));
      return {
        ...chart,
        lines,
        bounds: bounds(
          lines.flatMap((l) => Array.from(l)),
          chart,
        ),
      };
    });
    this.painter = new CurvePainter(facts, this.rows);
    this.row = h("p", { class: "moe-unseen" });
    this.panel = h(
      "section",
      { class: "moe-map-panel", "aria-label": "Load per layer" },
      this.painter.surface.canvas,
      this.row,
      h("p", {
        class: "moe-secondary moe-curve-note",
        text: [...facts.lines.map((l) => `${l.label}: ${l.selection}, T = ${l.tokens.toLocaleString("en")}`)].join(
          " · ",
        ),
      }),
      h("p", { class: "moe-secondary moe-curve-note", text: biasWords(facts.lines, facts.counts.expert, facts.topK) }),
    );
    this.header = new RoutingHeader(facts);
    this.header.write(
      facts.lines.map(({ label, tokens }) => `${label}, T = ${tokens.toLocaleString("en")} tokens`).join(" · "),
    );
    this.status = new StatusLine([
      [["↑", "↓"], "layer"],
      [["?"], "all keys"],
    ]);
    const { canvas } = this.painter.surface;
    canvas.addEventListener("pointerdown", (event) => this.select({ layer: this.layerAt(event) }));
    canvas.addEventListener("pointermove", (event) => (canvas.title = this.words(this.layerAt(event))));
    return [this.header.element, this.panel, this.status.element];
  }

  actionOf({ key, shiftKey, ctrlKey, metaKey, altKey }) {
    if (ctrlKey || metaKey || altKey) return undefined;
    const to = { ArrowUp: this.selection.layer - 1, ArrowDown: this.selection.layer + 1, Home: 0, End: Infinity };
    if (key in to) return () => this.select({ layer: Math.min(this.facts.counts.layer - 1, to[key]) });
    if (key === "?" || (shiftKey && key === "/")) return () => this.help.toggle();
    return key === "Escape" ? () => this.help.close() : undefined;
  }

  keyList() {
    return [
      ["↑ ↓", "layer"],
      ["home end", "first, last layer"],
      ["?", "this list"],
      ["esc", "close"],
    ];
  }

  layerAt(event) {
    const box = this.painter.surface.canvas.getBoundingClientRect();
    return this.painter.layerAt(event.clientY - box.top);
  }

  resize(width) {
    this.painter.resize(width - 28);
  }

  // [name, value] of every line at a layer.
  pairs(layer) {
    if (!this.rows.has(layer)) return [["router", "not captured"]];
    const many = this.facts.lines.length > 1;
    const at = this.rows.get(layer);
    const label = (i) => (many ? `${this.facts.lines[i].label} ` : "");
    return this.charts.map(({ title, lines }) => [
      title,
      lines.map((values, i) => `${label(i)}${twoDigitsOrMore(values[at])}`).join(", "),
    ]);
  }

  words(layer) {
    return `layer ${layer}: ${this.pairs(layer)
      .map(([name, value]) => `${name} ${value}`)
      .join(", ")}`;
  }

  draw() {
    const { layer } = this.selection;
    this.painter.paint(this.palette, this.charts, layer);
    this.status.write([["layer", layer], ...this.pairs(layer)]);
  }

  settle() {
    const { layer } = this.selection;
    this.painter.surface.label(this.words(layer));
    setText(
      this.row,
      this.charts
        .map(
          (c) =>
            `${c.title}: ${this.facts.layers.map((l, i) => `layer ${l} ${c.lines.map((v) => twoDigits(v[i])).join(", ")}`).join("; ")}`,
        )
        .join(". "),
    );
    for (const { name, lines } of this.charts) {
      setData(this.panel, name, lines.map((values) => Array.from(values, (v) => v.toFixed(6)).join(",")).join(" "));
    }
  }
}

const twoDigitsOrMore = (value) => (value >= 1.005 ? value.toFixed(2) : twoDigits(value));
