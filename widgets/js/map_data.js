// What the map shows, cell by cell: counts, loads, contrasts and orders of every phase. No DOM here.

import { decode } from "./numerics.js";

export const SHOWS = ["load", "contrast", "token"];
export const PHASES = ["completion", "prompt", "all"];
export const ORDERS = ["index", "load", "cluster"];
export const PHASE_WORDS = { completion: "completion", prompt: "prompt", all: "prompt and completion" };

export class MapData {
  // `sent` are the buffers of widgets/routing_counts.py: counts/<phase> and so on.
  constructor(facts, sent) {
    this.facts = facts;
    this.sent = sent;
    this.numExperts = facts.counts.expert;
    this.row = new Map(facts.layers.map((layer, i) => [layer, i]));
    this.decoded = new Map();
    this.orders = new Map();
  }

  array(kind, phase, dtype = "float64") {
    const key = `${kind}/${phase}`;
    if (!this.decoded.has(key)) this.decoded.set(key, this.sent[key] ? decode(this.sent[key], dtype) : null);
    return this.decoded.get(key);
  }

  captured(layer) {
    return this.row.has(layer);
  }

  // {tokens, selection} of a phase that has tokens, or {missing: why}.
  phase(phase) {
    return this.facts.phases[phase];
  }

  // {a, b, aTokens, bTokens} of a contrast in a phase, or {missing: why}.
  contrastOf(phase) {
    return this.facts.contrasts[phase];
  }

  value(kind, phase, layer, expert) {
    const values = this.array(kind, phase);
    return values && this.captured(layer) ? values[this.row.get(layer) * this.numExperts + expert] : NaN;
  }

  // How often an expert was chosen: a number of tokens.
  chosen(phase, layer, expert) {
    return this.value("counts", phase, layer, expert);
  }

  // Share of routed slots, n / (T·k).
  load(phase, layer, expert) {
    return this.chosen(phase, layer, expert) / (this.phase(phase).tokens * this.facts.topK);
  }

  contrast(phase, layer, expert) {
    return this.value("contrast", phase, layer, expert);
  }

  // Whether the trace-level test finds a difference at corrected p < .05; false where no test was given.
  marked(phase, layer, expert) {
    return this.value("p", phase, layer, expert) < 0.05;
  }

  tested(phase) {
    return Boolean(this.facts.test?.phases.includes(phase));
  }

  // H(f)/ln E of a layer's load.
  entropy(phase, layer) {
    const values = this.array("entropy", phase);
    return values && this.captured(layer) ? values[this.row.get(layer)] : NaN;
  }

  get uniform() {
    return 1 / this.numExperts;
  }

  // Load at the dark end of the ramp: four times uniform, of few experts twice, or the most that an expert can have.
  get topLoad() {
    return Math.min((this.numExperts > 8 ? 4 : 2) / this.numExperts, 1 / this.facts.topK);
  }

  get canExceed() {
    return this.topLoad < 1 / this.facts.topK;
  }

  // The largest |Δ| of a phase, rounded up to two digits; the scale is the same on both sides of 0.
  topContrast(phase) {
    const values = this.array("contrast", phase) ?? [];
    const most = values.reduce((top, v) => Math.max(top, Math.abs(v) || 0), 0);
    return most ? Math.ceil(most * 100) / 100 : 0.01;
  }

  // Plug-in entropy is too low when there are few selections per expert.
  biased(phase) {
    const { tokens } = this.phase(phase);
    return tokens !== undefined && tokens < (20 * this.numExperts) / this.facts.topK;
  }

  // Experts of a layer from left to right.
  order(order, phase, layer) {
    if (order === "index" || !this.captured(layer) || !this.phase(phase).tokens) return this.indices();
    if (order === "load") return this.byLoad(phase, layer);
    const at = this.row.get(layer) * this.numExperts;
    return this.array("order", phase, "int32")?.subarray(at, at + this.numExperts) ?? this.indices();
  }

  indices() {
    return (this.ascending ??= Int32Array.from({ length: this.numExperts }, (_, i) => i));
  }

  byLoad(phase, layer) {
    const key = `${phase}/${layer}`;
    if (!this.orders.has(key)) {
      const counts = (e) => this.chosen(phase, layer, e);
      this.orders.set(
        key,
        Int32Array.from(this.indices()).sort((a, b) => counts(b) - counts(a) || a - b),
      );
    }
    return this.orders.get(key);
  }
}

// 2.7 %: one decimal, and more where that would show 0.0 for what is not 0.
export function shareWords(share) {
  if (!Number.isFinite(share)) return "undefined";
  const value = share * 100;
  const digits = value !== 0 && Math.abs(value) < 0.05 ? 3 : 1;
  return `${value.toFixed(digits).replace("-", "−")} %`;
}

// +3.1 points: a difference of two shares, in percentage points.
export function pointWords(difference) {
  if (!Number.isFinite(difference)) return "undefined";
  const value = difference * 100;
  const sign = value > 0 ? "+" : value < 0 ? "−" : "";
  return `${sign}${Math.abs(value).toFixed(Math.abs(value) < 0.05 && value ? 3 : 1)} points`;
}

export const grouped = (n) => n.toLocaleString("en");
