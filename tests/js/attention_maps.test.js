import assert from "node:assert/strict";
import test from "node:test";

import { movedCursor, withinMap } from "../../widgets/js/attention_cursor.js";
import { attentionAction } from "../../widgets/js/attention_keys.js";
import { AttentionMaps, decodeStripe, valueOfCode } from "../../widgets/js/attention_maps.js";
import { partly, restWords } from "../../widgets/js/attention_shown.js";

// A stripe of 2 × 3 bins from bin 17 on, as widgets/attention_maps.py packs it (test_attention_view.py has the same).
const MAX = [254, 255, 0, 16, 127, 255];
const MEAN = [254, 255, 51, 16, 180, 255];
function packed(first, scales, ...codes) {
  const head = new DataView(new ArrayBuffer(12));
  head.setUint32(0, first, true);
  scales.forEach((scale, i) => head.setFloat32(4 + 4 * i, scale, true));
  // At an odd offset, as it may come.
  const bytes = new Uint8Array(3 + 12 + codes.flat().length);
  bytes.set(new Uint8Array(head.buffer), 3);
  bytes.set(codes.flat(), 15);
  return bytes.subarray(3);
}

test("a stripe is read as it was packed", () => {
  const { first, scales, codes } = decodeStripe(packed(17, [0.5, 0.25], MAX, MEAN));
  assert.equal(first, 17);
  assert.deepEqual(scales, [0.5, 0.25]);
  assert.deepEqual(
    codes.map((c) => [...c]),
    [MAX, MEAN],
  );
  assert.equal(valueOfCode(254, 0.5), 0.5);
  assert.equal(valueOfCode(127, 0.5), 0.125);
  assert.equal(valueOfCode(0, 0.5), 0);
  assert.ok(Number.isNaN(valueOfCode(255, 0.5)));
});

// 40 tokens: 3 stretches, 5 bins of 8 tokens, 2 rows of either per stripe.
const facts = {
  numTokens: 40,
  attention: { layers: [1] },
  maps: {
    stretches: [
      [3, 9],
      [9, 20],
      [25, 40],
    ],
    sentences: [
      [0, 2],
      [2, 4],
      [4, 5],
    ],
    factor: 8,
    bins: 5,
    perStripe: { 1: { one: 2, mean: 1, overview: 2 } },
  },
};

function maps(here = {}) {
  const wishes = [];
  const blocks = {
    failed: new Map(),
    isHere: (key) => key in here,
    peek: (key) => here[key] ?? null,
    prefetch: (key) => wishes.push(key),
  };
  const absentLayer = (layer) => (layer === 1 ? null : { state: "missing", words: "no" });
  return { maps: new AttentionMaps(blocks, { absentLayer }, facts), wishes, blocks };
}

const AT = { token: 30, layer: 1, head: 7, show: "sentences", heads: "one", pool: "max" };

test("stretches are found by token and named by their sentences", () => {
  const { maps: m } = maps();
  assert.deepEqual(
    [2, 3, 8, 9, 20, 25, 39].map((t) => m.stretchAt(t)),
    [-1, 0, 0, 1, -1, 2, 2],
  );
  assert.deepEqual(
    [0, 2].map((s) => m.nameOf(s)),
    ["sentences 1–2", "sentence 5"],
  );
});

test("stripes are wished for, that of the selected token first", () => {
  const { maps: m, wishes } = maps({ "map/stretch_attention/1/7/1": [] });
  assert.equal(m.askForRow(AT), 0);
  assert.equal(m.askForRow({ ...AT, token: 4 }), 1);
  assert.equal(m.askForRest(AT), 1);
  m.askForRow({ ...AT, heads: "mean" });
  m.askForRow({ ...AT, show: "overview" });
  assert.deepEqual(wishes, [
    "map/stretch_attention/1/7/0",
    "map/stretch_attention/1/7/0",
    "map/stretch_attention_mean/1/2",
    "map/attention_overview/1/7/1",
  ]);
  assert.equal(m.askForRest({ ...AT, layer: 0 }), 0);
});

test("a quick kernel is asked for more stripes at once, a slow one for fewer, and the rest is estimated", () => {
  const { maps: m, wishes } = maps({});
  const mean = { ...AT, heads: "mean" };
  m.answered(1, 40);
  assert.equal(m.askForRest(mean), 2);
  assert.deepEqual(wishes.splice(0), ["map/stretch_attention_mean/1/0", "map/stretch_attention_mean/1/1"]);
  for (let i = 0; i < 9; i++) m.answered(2, 40);
  assert.equal(m.atOnce, 16);
  assert.equal(m.askForRest(mean), 3, "there are no more");
  m.answered(16, 200);
  assert.equal(m.atOnce, 16, "neither quick nor slow");
  for (let i = 0; i < 9; i++) m.answered(1, 900);
  assert.equal(m.atOnce, 1);
  assert.equal(partly({ done: 1, stripes: [0, 0, 0, 0] }, m.partMs), "1 of 4 parts so far, about 3 s more");
  assert.equal(partly({ done: 3, stripes: [0, 0, 0, 0] }, m.partMs), "3 of 4 parts so far");
  assert.equal(partly({ done: 1, stripes: [0, 0] }, NaN), "1 of 2 parts so far", "no pace is known yet");
  assert.equal(partly({ done: 2, stripes: [0, 0] }, m.partMs), "");
});

test("the keyboard's cell moves by one, by ten and to the ends, and stays on the map", () => {
  const size = { height: 30, width: 12 };
  const moved = (row, column, key, shiftKey = false) => movedCursor({ row, column }, { key, shiftKey }, size);
  assert.deepEqual(moved(3, 4, "ArrowDown"), { row: 4, column: 4 });
  assert.deepEqual(moved(3, 4, "ArrowLeft"), { row: 3, column: 3 });
  assert.deepEqual(moved(3, 4, "ArrowDown", true), { row: 13, column: 4 });
  assert.deepEqual(moved(3, 4, "ArrowRight", true), { row: 3, column: 11 });
  assert.deepEqual(moved(0, 4, "ArrowUp"), { row: 0, column: 4 });
  assert.deepEqual(moved(3, 4, "End"), { row: 3, column: 11 });
  assert.deepEqual(moved(3, 4, "Home"), { row: 3, column: 0 });
  assert.equal(moved(3, 4, "]"), undefined);
  assert.deepEqual(withinMap({ row: 40, column: 2 }, size), { row: 29, column: 2 });
});

test("cells of stripes that are here are read, others are waited for", () => {
  const stripe = Float32Array.of(0.1, 0.2, 0.3, 0.05, 0.35);
  const { maps: m } = maps({ "map/stretch_attention/1/7/1": stripe });
  const found = m.sentencesMap(AT);
  assert.equal(found.done, 1);
  assert.equal(m.cellOf(found, 0, 0), undefined);
  assert.deepEqual(
    [0, 1, 2, 3, 4].map((c) => m.cellOf(found, 2, c)),
    [...stripe],
  );
  assert.equal(m.sentencesMap({ ...AT, head: 3 }).state, "waiting");
});

test("bins are found in their stripe; what it does not hold is out of sight", () => {
  const { maps: m } = maps({ "map/attention_overview/1/7/1": packed(1, [0.5, 0.25], MAX, MEAN) });
  const selection = { ...AT, show: "overview" };
  const found = m.overview(selection);
  assert.equal(found.top, 0.5);
  assert.ok(Number.isNaN(m.binOf(found, 2, 0))); // before the first bin of the stripe
  assert.equal(m.binOf(found, 2, 1), 0.5);
  assert.ok(Number.isNaN(m.binOf(found, 2, 2)));
  assert.equal(m.binOf(found, 3, 2), 0.125);
  assert.equal(m.binOf(found, 1, 1), undefined);
  const mean = m.overview({ ...selection, pool: "mean" });
  assert.equal(mean.top, 0.25);
  assert.notEqual(mean.id, found.id);
  assert.equal(m.binOf(mean, 2, 3), 0.25 * (51 / 254) ** 2);
});

test("a map that the kernel refused says why", () => {
  const { maps: m, blocks } = maps();
  blocks.failed.set("map/stretch_attention/1/7/0", "no room");
  assert.deepEqual(m.sentencesMap(AT), { state: "missing", words: "no room" });
});

test("what a row gave beside the stretches", () => {
  assert.equal(restWords([0.2, 0.3, NaN, 0.1, 0.25], true), " · sink .25, first token .10, elsewhere .15");
  assert.equal(restWords([0.5, NaN, NaN, 0.5], true), " · sink .50, first token outside the window, elsewhere .00");
  assert.equal(restWords([0.5, 0.25, 0.25, 0], false), " · sink none, first token .25, elsewhere .00");
  assert.equal(restWords([undefined, undefined, undefined]), "");
});

test("keys are those of the view, and others stay the notebook's", () => {
  const moved = [];
  const view = { selection: { token: 5, layer: 2, head: 4 }, facts: { numTokens: 40 }, select: (s) => moved.push(s) };
  for (const key of ["ArrowLeft", "ArrowDown", "]", "End"]) attentionAction({ key })(view);
  assert.deepEqual(moved, [{ token: 4 }, { layer: 3 }, { head: 5 }, { token: 39 }]);
  assert.equal(attentionAction({ key: "b" }), undefined);
  assert.equal(attentionAction({ key: "a", ctrlKey: true }), undefined);
});
