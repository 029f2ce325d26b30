// The trace's arrays in the browser, block by block: sent with the widget, or fetched from the kernel when wanted.
// The keys are those of widgets/blocks.py. A block that is not here yet is null, and arrives with a redraw.

import { decode, itemBytes } from "./numerics.js";

const CACHE_BYTES = 256 << 20;
const PATIENCE_MS = 8000;

export class Blocks {
  constructor(model, facts, onArrive, cacheBytes = CACHE_BYTES) {
    this.model = model;
    this.facts = facts;
    this.onArrive = onArrive;
    this.mostBytes = cacheBytes;
    this.sent = model.get("_blocks") ?? {};
    this.cache = new Map(); // key → typed array, least recently used first
    this.cacheBytes = 0;
    this.wanted = new Set();
    this.inFlight = new Set();
    this.failed = new Map(); // key → what went wrong
    this.isLost = false; // whether the kernel that is asked does not answer
    this.timer = null;
    this.onMessage = (message, buffers) => this.receive(message, buffers);
    model.on("msg:custom", this.onMessage);
  }

  close() {
    clearTimeout(this.timer);
    this.model.off("msg:custom", this.onMessage);
  }

  has(name, layer) {
    const array = this.facts.arrays[name];
    return Boolean(array) && (layer === undefined || !array.layers || array.layers.includes(layer));
  }

  // The block as a typed array; null while it is waited for.
  get(key) {
    const cached = this.cache.get(key);
    if (cached) {
      this.cache.delete(key);
      this.cache.set(key, cached);
      return cached;
    }
    const view = this.sent[key];
    if (view) return this.keep(key, decode(view, this.dtypeOf(key)));
    if (!this.failed.has(key)) this.wanted.add(key);
    return null;
  }

  // Ask for a block that will be wanted soon, without anything waiting for it.
  prefetch(key) {
    if (!this.cache.has(key) && !this.sent[key] && !this.failed.has(key)) this.wanted.add(key);
  }

  dtypeOf(key) {
    return this.facts.arrays[key.split("/")[1]].dtype;
  }

  keep(key, values) {
    this.cache.set(key, values);
    this.cacheBytes += values.byteLength;
    for (const [old, dropped] of this.cache) {
      if (this.cacheBytes <= this.mostBytes || old === key) break;
      this.cache.delete(old);
      this.cacheBytes -= dropped.byteLength;
    }
    return values;
  }

  // Send what the last draw wanted and is not here: one message at a time, so that stale wishes are dropped.
  flush() {
    const keys = [...this.wanted].filter((key) => !this.inFlight.has(key));
    this.wanted.clear();
    if (!keys.length || this.inFlight.size) return;
    keys.slice(0, 24).forEach((key) => this.inFlight.add(key));
    this.model.send({ fetch: [...this.inFlight] });
    this.timer = setTimeout(() => {
      this.isLost = true;
      this.onArrive("no answer from the kernel: is it running?");
    }, PATIENCE_MS);
  }

  receive(message, buffers) {
    if (!message?.blocks && !message?.failed) return;
    clearTimeout(this.timer);
    this.isLost = Boolean(message.gone);
    this.inFlight.clear();
    (message.blocks ?? []).forEach((key, i) => this.keep(key, decode(viewOf(buffers[i]), this.dtypeOf(key))));
    for (const [key, why] of Object.entries(message.failed ?? {})) this.failed.set(key, why);
    this.onArrive(Object.values(message.failed ?? {})[0] ?? null);
  }

  // Values of one token: all layers of an array with a token axis first. Prefetches the next page near an edge.
  tokenRow(name, token) {
    const size = this.facts.page.token;
    const page = Math.floor(token / size);
    const block = this.get(`token/${name}/${page}`);
    const inPage = token - page * size;
    const last = Math.ceil(this.facts.numTokens / size) - 1;
    if (inPage > size * 0.6 && page < last) this.prefetch(`token/${name}/${page + 1}`);
    if (inPage < size * 0.4 && page > 0) this.prefetch(`token/${name}/${page - 1}`);
    const width = this.facts.arrays[name].shape.slice(1).reduce((a, b) => a * b, 1);
    return block && block.subarray(inPage * width, (inPage + 1) * width);
  }

  // Values of one token in one layer; null while waited for. Ask `has` first.
  layerRow(name, token, layer) {
    const row = this.tokenRow(name, token);
    const { layers, shape } = this.facts.arrays[name];
    const width = row && row.length / shape[1];
    const at = layers.indexOf(layer);
    return row && row.subarray(at * width, (at + 1) * width);
  }

  // All tokens of one layer.
  layerColumn(name, layer) {
    return this.get(`layer/${name}/${layer}`);
  }

  sinkLogit(layer, head) {
    const { layers, shape } = this.facts.arrays.sink_logits;
    return this.get("all/sink_logits")[layers.indexOf(layer) * shape[1] + head];
  }

  // Values of one head for tokens [from, to) and the token they start at; null while waited for.
  headSpan(name, layer, head, from, to) {
    const size = this.facts.page.head;
    const first = Math.floor(from / size);
    const last = Math.floor((to - 1) / size);
    const key = (page) => `head/${name}/${layer}/${head}/${page}`;
    if (first === last) {
      const values = this.get(key(first));
      return values && { values, start: first * size };
    }
    const pages = [];
    for (let page = first; page <= last; page++) pages.push(this.get(key(page)));
    if (pages.includes(null)) return null;
    return { values: this.joined(`joined:${key(first)}:${last}`, () => pages), start: first * size };
  }

  joined(key, parts) {
    return this.cache.get(key) ?? this.keep(key, join(parts()));
  }

  // How much of a head's tokens [from, to) is here, for a panel that waits: "7.1 of 12.3 MB".
  progress(name, layer, head, from, to) {
    const size = this.facts.page.head;
    const { dtype } = this.facts.arrays[name];
    const bytes = (tokens) => tokens * this.facts.dHead * itemBytes(dtype);
    let [loaded, total] = [0, 0];
    for (let page = Math.floor(from / size); page * size < to; page++) {
      const part = bytes(Math.min(size, this.facts.numTokens - page * size));
      total += part;
      if (this.cache.has(`head/${name}/${layer}/${head}/${page}`)) loaded += part;
    }
    const mb = (n) => (n / 1e6).toFixed(1);
    return `${mb(loaded)} of ${mb(total)} MB`;
  }

  query(layer, head, token) {
    const d = this.facts.dHead;
    const span = this.headSpan("queries", layer, head, token, token + 1);
    return span && span.values.subarray((token - span.start) * d, (token - span.start + 1) * d);
  }

  // Query and recent keys of every head, for the wall: from the heads' own blocks where all was sent, else tiles.
  recent(layer, head, token, from) {
    const { dHead: d, page, preloaded, numHeads, numKvHeads, numTokens } = this.facts;
    const kv = Math.floor((head * numKvHeads) / numHeads);
    if (preloaded) {
      const keys = this.headSpan("keys", layer, kv, from, token + 1);
      const query = this.query(layer, head, token);
      return keys && query && { query, keys: keys.values, start: keys.start };
    }
    const size = page.tile;
    const rows = (p) => Math.min(size, numTokens - p * size);
    const [first, last] = [Math.floor(from / size), Math.floor(token / size)];
    const tiles = [];
    for (let p = first; p <= last; p++) tiles.push(this.get(`tile/keys/${layer}/${p}`));
    const queries = this.get(`tile/queries/${layer}/${last}`);
    if (!queries || tiles.includes(null)) return null;
    const at = (head * rows(last) + token - last * size) * d;
    const parts = () => tiles.map((t, i) => t.subarray(kv * rows(first + i) * d, (kv + 1) * rows(first + i) * d));
    const keys = this.joined(`recent:${layer}/${kv}/${first}/${last}`, parts);
    return { query: queries.subarray(at, at + d), keys, start: first * size };
  }
}

function join(parts) {
  if (parts.length === 1) return parts[0];
  const out = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function viewOf(buffer) {
  return buffer instanceof DataView
    ? buffer
    : new DataView(buffer.buffer ?? buffer, buffer.byteOffset ?? 0, buffer.byteLength);
}
