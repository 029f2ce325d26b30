import assert from "node:assert/strict";
import test from "node:test";

import { AttentionBlocks } from "../../widgets/js/attention_blocks.js";
import { AttentionReading, rowMasses, topKeys } from "../../widgets/js/attention_reading.js";

// 11 tokens, layers 1 (sliding 4) and 3 (full) of 5, 6 heads in 2 groups, d_head 3, head pages of 4 tokens, tiles of 3:
// every size differs, and no page ends where the trace ends.
const [T, H, KV, D] = [11, 6, 2, 3];
const LAYERS = [1, 3];
const PAGE = { token: 5, head: 4, tile: 3 };
const windows = [null, 4, null, null, null];
const scale = 0.5;

function build(length, seed) {
  let state = seed;
  return Float32Array.from({ length }, () => ((state = (state * 48271) % 2147483647) / 2147483647) * 4 - 2);
}

const queries = build(LAYERS.length * H * T * D, 7);
const keys = build(LAYERS.length * KV * T * D, 11);
const sinks = build(LAYERS.length * H, 13);

// The definition, written out: softmax over the scores seen and the sink, the sink then dropped.
function expected(layer, head, token, withSink = true) {
  const at = LAYERS.indexOf(layer);
  const kv = head < H / KV ? 0 : 1;
  const from = windows[layer] ? Math.max(0, token - windows[layer] + 1) : 0;
  const row = new Array(T).fill(0);
  let total = withSink ? Math.exp(sinks[at * H + head]) : 0;
  for (let j = from; j <= token; j++) {
    let score = 0;
    for (let d = 0; d < D; d++) {
      score += queries[((at * H + head) * T + token) * D + d] * keys[((at * KV + kv) * T + j) * D + d];
    }
    row[j] = Math.exp(score * scale);
    total += row[j];
  }
  const sink = withSink ? Math.exp(sinks[at * H + head]) / total : null;
  return { from, row: row.map((w) => w / total), sink, lse: Math.log(total) };
}

const slice = (array, start, stop) => array.subarray(start, stop);
const parts = {
  queries: (at, h, a, b) => slice(queries, ((at * H + h) * T + a) * D, ((at * H + h) * T + b) * D),
  keys: (at, kv, a, b) => slice(keys, ((at * KV + kv) * T + a) * D, ((at * KV + kv) * T + b) * D),
  attention_logsumexp: (at, h, a, b) =>
    Float32Array.from({ length: b - a }, (_, i) => expected(LAYERS[at], h, a + i).lse),
};

// The block of a key as the kernel cuts it.
function cut(key) {
  const [kind, name, ...numbers] = key.split("/");
  const [layer, ...rest] = numbers.map(Number);
  const page = rest.at(-1);
  const [a, b] = [page * PAGE[kind], Math.min(T, (page + 1) * PAGE[kind])];
  const at = LAYERS.indexOf(layer);
  if (kind === "head") return parts[name](at, rest[0], a, b);
  const heads = Array.from({ length: name === "keys" ? KV : H }, (_, h) => Array.from(parts[name](at, h, a, b)));
  return Float32Array.from(heads.flat());
}

// A kernel that answers when told to, and remembers what it was asked.
function connected({ without = [], answers = () => true } = {}) {
  const asked = [];
  let listener;
  const model = {
    get: () => ({ "all/sink_logits": new DataView(sinks.buffer) }),
    on: (_, f) => (listener = f),
    off: () => {},
    send: ({ fetch }) => asked.push(...fetch),
  };
  const names = { queries: LAYERS, keys: LAYERS, sink_logits: LAYERS, attention_logsumexp: LAYERS };
  const array = (layers) => ({ dtype: "float32", layers, shape: [LAYERS.length, H] });
  const facts = {
    numTokens: T,
    numHeads: H,
    numKvHeads: KV,
    dHead: D,
    page: PAGE,
    preloaded: false,
    attention: { scale, windows, layers: LAYERS },
    arrays: Object.fromEntries(
      Object.entries(names)
        .filter(([name]) => !without.includes(name))
        .map(([name, layers]) => [name, array(layers)]),
    ),
  };
  const blocks = new AttentionBlocks(model, facts, () => {});
  const reading = new AttentionReading(blocks, facts, {});
  // Read as often as it takes, answering what was wished for in between.
  const read = (what) => {
    let found = what(reading);
    for (let i = 0; i < 20 && blocks.wanted.size; i++) {
      blocks.flush();
      const keys = [...blocks.inFlight].filter(answers);
      const buffers = keys.map((key) => new DataView(Float32Array.from(cut(key)).buffer));
      listener({ blocks: keys, failed: {} }, buffers);
      found = what(reading);
    }
    return found;
  };
  return { reading, blocks, read, asked };
}

const near = (actual, wanted, within = 1e-5) =>
  assert.ok(Math.abs(actual - wanted) <= within, `${actual} is not ${wanted}`);

for (const layer of LAYERS) {
  test(`a row and its masses are the definition, layer ${layer}`, () => {
    const { read } = connected();
    for (const [token, head] of [
      [0, 0],
      [2, 5],
      [7, 3],
      [10, 4],
    ]) {
      const { from, row, sink } = expected(layer, head, token);
      const found = read((r) => r.attention({ token, layer, head }));
      assert.equal(found.from, from);
      found.weights.forEach((w, j) => near(w, row[from + j]));
      near(found.sink, sink);
      const masses = rowMasses(found, 4);
      near(masses.sum, 1);
      if (from) assert.equal(masses.first, null);
      else near(masses.first, row[0]);
      near(
        masses.further,
        row.slice(Math.max(from, 1), 4).reduce((a, b) => a + b, 0),
      );
      near(
        masses.shown,
        row.slice(4).reduce((a, b) => a + b, 0),
      );
    }
  });

  test(`who reads a key is its column, page by page, layer ${layer}`, () => {
    const { read } = connected();
    for (const [token, head] of [
      [0, 1],
      [5, 4],
    ]) {
      const found = read((r) => r.readers({ token, layer, head }));
      const last = windows[layer] ? Math.min(T - 1, token + windows[layer] - 1) : T - 1;
      assert.equal(found.count, last - token);
      assert.equal(found.waitingFor, null);
      const column = Array.from({ length: T }, (_, i) => expected(layer, head, i).row[token]);
      const wanted = [...column.keys()].slice(token + 1, last + 1).sort((a, b) => column[b] - column[a]);
      assert.deepEqual(
        found.rows.map((r) => r.token),
        wanted.slice(0, 8),
      );
      for (const { token: i, weight, distance } of found.rows) {
        near(weight, column[i]);
        assert.equal(distance, i - token);
      }
    }
  });
}

test("readers on a page that has not come are said to be waited for, not left out silently", () => {
  const { read } = connected({ answers: (key) => !key.endsWith("/2") && key.startsWith("head") });
  const found = read((r) => r.readers({ token: 1, layer: 3, head: 2 }));
  assert.deepEqual(found.waitingFor, [8, 11]);
  assert.ok(found.rows.length && found.rows.every((r) => r.token < 8));
});

test("the last token has no readers, which is not zero", () => {
  const { read } = connected();
  assert.equal(read((r) => r.readers({ token: 10, layer: 3, head: 0 })).state, "undefined");
});

test("another head of the layer is read from the tiles that the wall brought", () => {
  const { read, blocks, asked } = connected();
  read((r) => r.wall({ token: 7, layer: 3, head: 0 }, 4));
  read((r) => r.attention({ token: 7, layer: 3, head: 0 }));
  asked.length = 0;
  assert.equal(blocks.wanted.size, 0);
  const found = read((r) => r.attention({ token: 7, layer: 3, head: 2 })); // same kv group as head 0
  found.weights.forEach((w, j) => near(w, expected(3, 2, 7).row[j]));
  assert.deepEqual(asked, []);
});

test("the wall shows every head's own row", () => {
  const { read } = connected();
  const wall = read((r) => r.wall({ token: 9, layer: 1, head: 0 }, 6));
  assert.equal(wall.from, 6);
  wall.heads.forEach((head, h) => {
    near(head.sink, expected(1, h, 9).sink);
    head.weights.forEach((w, j) => near(w, expected(1, h, 9).row[6 + j]));
  });
});

test("a token block holds the rows' weights, and what none sees is NaN", () => {
  const { read } = connected();
  const found = read((r) => r.tokenBlock({ layer: 1, head: 4 }, [5, 9], [2, 7]));
  assert.deepEqual([found.height, found.width, found.perRow, found.perKey], [4, 5, 1, 1]);
  for (let i = 5; i < 9; i++) {
    for (let j = 2; j < 7; j++) {
      const value = found.values[(i - 5) * 5 + j - 2];
      if (j > i || j < i - 3) assert.ok(Number.isNaN(value), `${i} ${j}`);
      else near(value, expected(1, 4, i).row[j]);
    }
  }
});

test("a family without sinks or log-sum-exps is computed, and has no sink", () => {
  const { read } = connected({ without: ["sink_logits", "attention_logsumexp"] });
  const { row } = expected(3, 5, 8, false);
  const found = read((r) => r.attention({ token: 8, layer: 3, head: 5 }));
  found.weights.forEach((w, j) => near(w, row[j]));
  assert.equal(found.sink, null);
  near(rowMasses(found, 0).sum, 1);
  const readers = read((r) => r.readers({ token: 6, layer: 3, head: 5 }));
  for (const { token, weight } of readers.rows) near(weight, expected(3, 5, token, false).row[6]);
  assert.equal(read((r) => r.sinkMasses({ layer: 3, head: 5 })).values, null);
});

test("sink masses along the trace", () => {
  const { read } = connected();
  const { values } = read((r) => r.sinkMasses({ layer: 1, head: 5 }));
  assert.equal(values.length, T);
  values.forEach((mass, i) => near(mass, expected(1, 5, i).sink));
});

test("a layer that was not captured says which were", () => {
  const { reading } = connected();
  for (const found of [
    reading.attention({ token: 4, layer: 2, head: 0 }),
    reading.wall({ token: 4, layer: 2, head: 0 }, 6),
    reading.readers({ token: 4, layer: 2, head: 0 }),
    reading.tokenBlock({ layer: 2, head: 0 }, [0, 2], [0, 2]),
  ]) {
    assert.deepEqual(found, { state: "missing", words: "attention of layer 2 not captured: layers 1, 3 were" });
  }
});

test("top keys are the largest, with their distance; the first token is one of them", () => {
  const row = { from: 3, weights: Float32Array.of(0.1, 0.0001, 0.5, 0.2) };
  const found = topKeys(row, 6);
  assert.deepEqual(
    found.map(({ token, distance }) => [token, distance]),
    [
      [5, -1],
      [6, 0],
      [3, -3],
    ],
  );
});
