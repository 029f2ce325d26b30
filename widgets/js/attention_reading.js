// What the attention view shows at a selection, beside what all views read: where a row's mass went, the keys it reads
// most, the rows that read a key, and the tokens of two stretches against one another. Nothing is renormalised.

import { dot, largest, rowLogSumExp, windowStart } from "./numerics.js";
import { Reading, here, missing, ranges, undefinedValue } from "./reading.js";

const LISTED = 8;
const WORTH_LISTING = 0.0005;
const ROWS_COMPUTED = 2_000_000; // scores that may be computed at once where no log-sum-exp was stored
const BLOCK = 256; // cells on a side of a token block
const BLOCK_TOKENS = 1024; // tokens on a side; a longer stretch is cut, which is said

// Where the mass of a row went: {sink, first, shown, further, sum}. `first` is null where token 0 is out of sight,
// `sink` in a family without sinks. `shown` are the tokens [from, to] but for token 0, `further` those before.
export function rowMasses(row, from) {
  const total = (start, stop) => {
    let sum = 0;
    for (let j = Math.max(0, start); j < Math.min(stop, row.weights.length); j++) sum += row.weights[j];
    return sum;
  };
  const first = row.from === 0 ? row.weights[0] : null;
  const cut = Math.max(from - row.from, first === null ? 0 : 1);
  const [further, shown] = [total(first === null ? 0 : 1, cut), total(cut, row.weights.length)];
  return { sink: row.sink, first, shown, further, sum: (row.sink ?? 0) + (first ?? 0) + further + shown };
}

// The keys a row reads most, largest first.
export function topKeys(row, token) {
  return largest(row.weights, LISTED, WORTH_LISTING).map((j) => ({
    token: row.from + j,
    weight: row.weights[j],
    distance: row.from + j - token,
  }));
}

export class AttentionReading extends Reading {
  constructor(blocks, facts, tokens) {
    super(blocks, facts, tokens);
    this.lastLse = { id: null };
  }

  get layers() {
    return this.facts.attention.layers;
  }

  kvHead(head) {
    return Math.floor((head * this.facts.numKvHeads) / this.facts.numHeads);
  }

  // Why a layer has no attention here; null when it has.
  absentLayer(layer) {
    if (this.layers.includes(layer)) return null;
    return missing(`attention of layer ${layer} not captured: layers ${ranges(this.layers)} were`);
  }

  attention(selection) {
    return this.absentLayer(selection.layer) ?? super.attention(selection);
  }

  wall(selection, count) {
    return this.absentLayer(selection.layer) ?? super.wall(selection, count);
  }

  logSumExp(token, layer, head, query, keys, from) {
    if (this.blocks.has("attention_logsumexp", layer)) return this.blocks.logSumExp(layer, head, token);
    return super.logSumExp(token, layer, head, query, keys, from);
  }

  // Log-sum-exps of the rows of a page of a head; {values} or what is in the way.
  pageLse(layer, head, page) {
    const { blocks, facts } = this;
    if (blocks.has("attention_logsumexp", layer)) {
      const values = blocks.get(`head/attention_logsumexp/${layer}/${head}/${page}`);
      return values ? here({ values }) : this.wait("log-sum-exps");
    }
    const window = facts.attention.windows[layer] ?? facts.numTokens;
    if (facts.numTokens * Math.min(window, facts.numTokens) > ROWS_COMPUTED) {
      return missing("attention_logsumexp not captured, and too many rows to compute it");
    }
    const values = this.computedLse(layer, head);
    return values ? here({ values: values.subarray(page * facts.page.head) }) : this.wait("queries and keys");
  }

  computedLse(layer, head) {
    const { blocks, facts } = this;
    const id = `${layer}/${head}`;
    if (this.lastLse.id === id) return this.lastLse.values;
    const keys = blocks.headSpan("keys", layer, this.kvHead(head), 0, facts.numTokens);
    const queries = blocks.headSpan("queries", layer, head, 0, facts.numTokens);
    if (!keys || !queries) return null;
    const { dHead: d, attention } = facts;
    const sink = blocks.has("sink_logits", layer) ? blocks.sinkLogit(layer, head) : null;
    const values = Float32Array.from({ length: facts.numTokens }, (_, i) => {
      const query = queries.values.subarray(i * d, (i + 1) * d);
      return rowLogSumExp(
        query,
        keys.values,
        0,
        windowStart(i, attention.windows[layer]),
        i + 1,
        attention.scale,
        sink,
      );
    });
    this.lastLse = { id, values };
    return values;
  }

  // Later rows that read a key most; exact where their pages are here. `waitingFor` are rows whose page is not.
  readers({ token, layer, head }) {
    const absent = this.absentLayer(layer);
    if (absent) return absent;
    const { blocks, facts } = this;
    const window = facts.attention.windows[layer];
    const stop = window ? Math.min(facts.numTokens, token + window) : facts.numTokens;
    if (stop <= token + 1) return undefinedValue("undefined: no later token sees this one");
    const keys = blocks.headSpan("keys", layer, this.kvHead(head), token, token + 1);
    if (!keys) return this.wait(`keys of layer ${layer}`);
    const at = (token - keys.start) * facts.dHead;
    const key = keys.values.subarray(at, at + facts.dHead);
    const found = { weights: new Float32Array(stop - token - 1), waitingFor: null };
    const size = facts.page.head;
    for (let page = Math.floor((token + 1) / size); page * size < stop; page++) {
      const problem = this.readersOfPage({ token, layer, head }, key, page, stop, found);
      if (problem) return problem;
    }
    const rows = largest(found.weights, LISTED, WORTH_LISTING).map((i) => ({
      token: token + 1 + i,
      weight: found.weights[i],
      distance: i + 1,
    }));
    return here({ rows, count: stop - token - 1, waitingFor: found.waitingFor });
  }

  readersOfPage({ token, layer, head }, key, page, stop, found) {
    const { blocks, facts } = this;
    const size = facts.page.head;
    const [from, to] = [Math.max(token + 1, page * size), Math.min(stop, (page + 1) * size)];
    const queries = blocks.get(`head/queries/${layer}/${head}/${page}`);
    const lse = this.pageLse(layer, head, page);
    if (lse.state === "missing") return lse;
    if (!queries || lse.state !== "here") {
      found.waitingFor = [found.waitingFor?.[0] ?? from, to];
      return null;
    }
    const { dHead: d, attention } = facts;
    for (let i = from; i < to; i++) {
      const score = dot(key, queries, (i - page * size) * d, d) * attention.scale;
      found.weights[i - token - 1] = Math.exp(score - lse.values[i - page * size]);
    }
    return null;
  }

  // The weights of rows × keys, each [start, stop): cells on a side are at most 256, the largest of the tokens in one
  // where there are more; NaN where none of a cell's rows sees one of its keys.
  tokenBlock({ layer, head }, rows, keys) {
    const absent = this.absentLayer(layer);
    if (absent) return absent;
    const { blocks, facts } = this;
    const cut = ([start, stop]) => [start, Math.min(stop, start + BLOCK_TOKENS)];
    const [[r0, r1], [k0, k1]] = [cut(rows), cut(keys)];
    const queries = blocks.headSpan("queries", layer, head, r0, r1);
    const span = blocks.headSpan("keys", layer, this.kvHead(head), k0, k1);
    const lse = this.rowsLse(layer, head, r0, r1);
    if (lse.state === "missing") return lse;
    if (!queries || !span || lse.state !== "here") return this.wait(`queries and keys of layer ${layer}`);
    const [perRow, perKey] = [Math.ceil((r1 - r0) / BLOCK), Math.ceil((k1 - k0) / BLOCK)];
    const [height, width] = [Math.ceil((r1 - r0) / perRow), Math.ceil((k1 - k0) / perKey)];
    const values = new Float32Array(height * width).fill(NaN);
    const { dHead: d, attention } = facts;
    for (let i = r0; i < r1; i++) {
      const query = queries.values.subarray((i - queries.start) * d, (i - queries.start + 1) * d);
      const first = Math.max(k0, windowStart(i, attention.windows[layer]));
      for (let j = first; j < Math.min(k1, i + 1); j++) {
        const score = dot(query, span.values, (j - span.start) * d, d) * attention.scale;
        const weight = Math.exp(score - lse.values[i - r0]);
        const at = Math.floor((i - r0) / perRow) * width + Math.floor((j - k0) / perKey);
        if (!(values[at] >= weight)) values[at] = weight;
      }
    }
    return here({ values, height, width, perRow, perKey, rows: [r0, r1], keys: [k0, k1] });
  }

  rowsLse(layer, head, from, to) {
    const size = this.facts.page.head;
    const values = new Float32Array(to - from);
    for (let page = Math.floor(from / size); page * size < to; page++) {
      const found = this.pageLse(layer, head, page);
      if (found.state !== "here") return found;
      const [a, b] = [Math.max(from, page * size), Math.min(to, (page + 1) * size)];
      values.set(found.values.subarray(a - page * size, b - page * size), a - from);
    }
    return here({ values });
  }

  // Sink mass of every token of a head; null values in a family without sinks.
  sinkMasses({ layer, head }) {
    const absent = this.absentLayer(layer);
    if (absent) return absent;
    const { blocks, facts } = this;
    if (!blocks.has("sink_logits", layer)) return here({ values: null });
    if (!blocks.has("attention_logsumexp", layer)) return missing("log-sum-exp not captured");
    const span = blocks.headSpan("attention_logsumexp", layer, head, 0, facts.numTokens);
    if (!span) return this.wait("sink mass");
    const sink = blocks.sinkLogit(layer, head);
    return here({ values: span.values.map((lse) => Math.exp(sink - lse)) });
  }
}
