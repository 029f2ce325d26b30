// How much each expert and head does over some tokens: of named tokens sent at once, of others asked of Python.

import { decode } from "./numerics.js";

export const MEASURES = { experts: ["load", "weight"], heads: ["sink"] };

export class Amounts {
  // `changed` is called when an answer came.
  constructor(model, facts, changed) {
    Object.assign(this, { model, facts, changed });
    this.found = new Map(Object.entries(model.get("_amounts") ?? {}));
    this.asked = new Set();
    this.decoded = new Map();
    this.onMessage = (message, buffers) => this.heard(message, buffers);
    model.on("msg:custom", this.onMessage);
  }

  close() {
    this.model.off("msg:custom", this.onMessage);
  }

  heard({ amounts, tokens, names } = {}, buffers = []) {
    if (!amounts) return;
    const sent = Object.fromEntries((names ?? []).map((name, i) => [name, buffers[i]]));
    this.found.set(String(amounts), { tokens, ...sent });
    this.changed();
  }

  // {state: "here", tokens, values(layer) → row or null} of a measure over the tokens of an intervention; or
  // "waiting", "undefined" where there are no such tokens, "missing" where it was not captured.
  of(measure, kind, span) {
    const key = String(span);
    const found = this.found.get(key);
    if (!found) {
      if (!this.asked.has(key)) this.model.send({ amounts: span });
      this.asked.add(key);
      return { state: "waiting", tokens: 0 };
    }
    const layers = this.facts.pickLayers[kind];
    if (!layers.length) return { state: "missing", tokens: found.tokens };
    if (!found.tokens) return { state: "undefined", tokens: 0 };
    if (!found[measure]) return { state: "missing", tokens: found.tokens };
    const rows = this.rows(`${key}/${measure}`, found[measure], layers.length);
    return { state: "here", tokens: found.tokens, values: (layer) => rows[layers.indexOf(layer)] ?? null };
  }

  rows(key, bytes, numLayers) {
    if (!this.decoded.has(key)) {
      const all = decode(bytes, "float32");
      const width = all.length / numLayers;
      const rows = Array.from({ length: numLayers }, (_, i) => all.subarray(i * width, (i + 1) * width));
      this.decoded.set(key, rows);
    }
    return this.decoded.get(key);
  }
}
