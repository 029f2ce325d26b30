import assert from "node:assert/strict";
import test from "node:test";

import { Blocks } from "../../widgets/js/blocks.js";
import { Reading } from "../../widgets/js/reading.js";
import { Tokens } from "../../widgets/js/tokens.js";

// A trace of 11 tokens, 2 layers (sliding 4, full), 4 heads in 2 groups, d_head 3, pages of 4 tokens for heads,
// 3 for tiles, 5 for rows: every size differs, and no page ends where the trace ends.
const [T, L, H, KV, D, E, K] = [11, 2, 4, 2, 3, 6, 2];
const PAGE = { token: 5, head: 4, tile: 3 };

function random(seed) {
  let state = seed;
  return () => ((state = (state * 48271) % 2147483647) / 2147483647) * 4 - 2;
}

function build(length, seed) {
  const next = random(seed);
  return Float32Array.from({ length }, next);
}

const queries = build(L * H * T * D, 7);
const keys = build(L * KV * T * D, 11);
const sinks = build(L * H, 13);
const logits = build(T * L * E, 17);
const windows = [4, null];
const scale = 0.5;

// The definition, written out: softmax over the scores seen and the sink, the sink then dropped.
function expectedRow(layer, head, token) {
  const kv = head < H / KV ? 0 : 1;
  const from = windows[layer] ? Math.max(0, token - windows[layer] + 1) : 0;
  const scores = [];
  for (let j = from; j <= token; j++) {
    let score = 0;
    for (let d = 0; d < D; d++) {
      score += queries[((layer * H + head) * T + token) * D + d] * keys[((layer * KV + kv) * T + j) * D + d];
    }
    scores.push(score * scale);
  }
  const sink = sinks[layer * H + head];
  const total = scores.reduce((sum, s) => sum + Math.exp(s), Math.exp(sink));
  return { from, weights: scores.map((s) => Math.exp(s) / total), sink: Math.exp(sink) / total, lse: Math.log(total) };
}

const lse = new Float32Array(T * L * H);
for (let t = 0; t < T; t++) {
  for (let l = 0; l < L; l++) for (let h = 0; h < H; h++) lse[(t * L + l) * H + h] = expectedRow(l, h, t).lse;
}

function cut(key) {
  const [kind, name, ...numbers] = key.split("/");
  const source = { queries, keys, sink_logits: sinks, attention_logsumexp: lse, router_logits: logits }[name];
  const heads = name === "queries" ? H : KV;
  if (kind === "all") return source;
  if (kind === "token") {
    const width = source.length / T;
    return source.slice(numbers[0] * PAGE.token * width, Math.min(T, (Number(numbers[0]) + 1) * PAGE.token) * width);
  }
  const [layer, ...rest] = numbers.map(Number);
  const rows = (head, page, size) => {
    const start = (layer * heads + head) * T;
    return source.slice((start + page * size) * D, (start + Math.min(T, (page + 1) * size)) * D);
  };
  if (kind === "head") return rows(rest[0], rest[1], PAGE.head);
  const parts = Array.from({ length: heads }, (_, head) => [...rows(head, rest[0], PAGE.tile)]);
  return Float32Array.from(parts.flat());
}

// A kernel on the other side: it answers when told to.
class Kernel {
  constructor(preload) {
    this.sent = [];
    this.listeners = [];
    this.blocks = Object.fromEntries(preload.map((key) => [key, new DataView(cut(key).buffer)]));
  }
  get() {
    return this.blocks;
  }
  on(name, listener) {
    this.listeners.push(listener);
  }
  off() {}
  send(message) {
    this.sent.push(message.fetch);
  }
  answer() {
    const wanted = this.sent.at(-1);
    const buffers = wanted.map((key) => new DataView(cut(key).buffer));
    this.listeners.forEach((listener) => listener({ blocks: wanted, failed: {} }, buffers));
  }
}

function facts(changes = {}) {
  const layered = (shape) => ({ dtype: "float32", shape, layers: [0, 1] });
  return {
    numTokens: T,
    numLayers: L,
    numHeads: H,
    numKvHeads: KV,
    numExperts: E,
    topK: K,
    dHead: D,
    nearTie: 0.1,
    page: PAGE,
    preloaded: false,
    attention: { scale, windows },
    arrays: {
      queries: layered([L, H, T, D]),
      keys: layered([L, KV, T, D]),
      sink_logits: layered([L, H]),
      attention_logsumexp: layered([T, L, H]),
      router_logits: layered([T, L, E]),
      ...changes,
    },
  };
}

function open(changes) {
  const known = facts(changes);
  const kernel = new Kernel(["all/sink_logits"]);
  const problems = [];
  const blocks = new Blocks(kernel, known, (problem) => problems.push(problem));
  return { kernel, blocks, problems, reading: new Reading(blocks, known, null) };
}

function near(actual, expected) {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, i) =>
    assert.ok(Math.abs(value - expected[i]) < 1e-5, `${i}: ${value} is not ${expected[i]}`),
  );
}

function settle({ kernel, blocks }, read) {
  for (let i = 0; i < 10; i++) {
    const found = read();
    if (found.state !== "waiting") return found;
    blocks.flush();
    kernel.answer();
  }
  return assert.fail("still waiting");
}

for (const [name, changes] of [
  ["with the stored log-sum-exp", {}],
  ["without it", { attention_logsumexp: undefined }],
]) {
  test(`attention rows across pages are exact ${name}`, (t) => {
    const view = open(changes);
    t.after(() => view.blocks.close());
    for (const [layer, head, token] of [
      [1, 3, 10],
      [1, 0, 4],
      [0, 2, 8],
      [0, 1, 0],
      [1, 2, 7],
    ]) {
      const found = settle(view, () => view.reading.attention({ token, layer, head }));
      const expected = expectedRow(layer, head, token);
      assert.equal(found.from, expected.from);
      near([...found.weights], expected.weights);
      near([found.sink], [expected.sink]);
    }
  });

  test(`the wall's last tokens are exact for every head ${name}`, (t) => {
    const view = open(changes);
    t.after(() => view.blocks.close());
    for (const [layer, token] of [
      [1, 9],
      [0, 9],
      [1, 2],
    ]) {
      const found = settle(view, () => view.reading.wall({ token, layer }, 5));
      found.heads.forEach((head, h) => {
        const expected = expectedRow(layer, h, token);
        near([...head.weights], expected.weights.slice(found.from - expected.from));
        near([head.sink], [expected.sink]);
      });
    }
  });
}

test("one message is on its way at a time and stale wishes are dropped", (t) => {
  const { kernel, blocks, reading } = open();
  t.after(() => blocks.close());
  reading.attention({ token: 2, layer: 1, head: 0 });
  blocks.flush();
  reading.attention({ token: 2, layer: 0, head: 0 });
  blocks.flush();
  reading.attention({ token: 2, layer: 1, head: 3 });
  blocks.flush();
  assert.equal(kernel.sent.length, 1);
  kernel.answer();
  reading.attention({ token: 2, layer: 1, head: 3 });
  blocks.flush();
  assert.ok(kernel.sent[1].every((key) => key.startsWith("token/") || key.includes("/1/3/") || key.includes("/1/1/")));
});

test("a block the kernel refuses is not asked for again, and why is said", (t) => {
  const { kernel, blocks, problems } = open();
  t.after(() => blocks.close());
  blocks.get("head/keys/1/0/0");
  blocks.flush();
  kernel.listeners[0]({ blocks: [], failed: { "head/keys/1/0/0": "it is gone" } }, []);
  assert.deepEqual(problems, ["it is gone"]);
  assert.equal(blocks.get("head/keys/1/0/0"), null);
  blocks.flush();
  assert.equal(kernel.sent.length, 1);
});

test("what waits says for what and how much", (t) => {
  const { blocks, reading } = open();
  t.after(() => blocks.close());
  const found = reading.attention({ token: 10, layer: 1, head: 3 });
  assert.deepEqual(found, { state: "waiting", words: "waiting for keys of layer 1, 0.0 of 0.0 MB" });
});

test("sink mass per head, and families without sinks", (t) => {
  const view = open();
  t.after(() => view.blocks.close());
  const found = settle(view, () => view.reading.sinks(6, 1));
  near(
    found.masses,
    [0, 1, 2, 3].map((h) => expectedRow(1, h, 6).sink),
  );
  const without = open({ sink_logits: undefined });
  t.after(() => without.blocks.close());
  assert.deepEqual(without.reading.sinks(6, 1), { state: "missing", words: "family without sinks" });
});

test("a layer that was not captured is named with those that were", () => {
  const { reading } = open({ queries: { dtype: "float32", shape: [1, H, T, D], layers: [1] } });
  const found = reading.attention({ token: 3, layer: 0, head: 0 });
  assert.deepEqual(found, { state: "missing", words: "attention captured in layers 1 only" });
});

test("nothing precedes the first token", () => {
  const known = {
    ...facts(),
    numPromptTokens: 1,
    vocabulary: { ids: [1, 2], texts: ["a", "b"], raw: [], special: [] },
    spans: [],
  };
  known.arrays.top_token_ids = { dtype: "int32", shape: [T, 2] };
  known.arrays.top_logprobs = { dtype: "float32", shape: [T, 2] };
  const tokens = new Tokens(known, Int32Array.of(1, 2));
  const rows = { top_token_ids: [Int32Array.of(-1, -1), Int32Array.of(1, 9)] };
  rows.top_logprobs = [Float32Array.of(NaN, NaN), Float32Array.from([0.5, 0.25], Math.log)];
  const blocks = {
    has: (name) => name !== "router_logits",
    tokenRow: (name, token) => rows[name][token],
    get: () => Float32Array.from([NaN, Math.log(0.125)]),
  };
  const reading = new Reading(blocks, known, tokens);
  assert.deepEqual(reading.alternatives(0), { state: "undefined", words: "undefined: nothing precedes token 0" });
  const found = reading.alternatives(1).rows;
  assert.deepEqual(
    found.map((r) => [r.id, r.actual]),
    [
      [1, false],
      [9, false],
      [2, true],
    ],
  );
  near(
    found.map((r) => r.prob),
    [0.5, 0.25, 0.125],
  );
});
