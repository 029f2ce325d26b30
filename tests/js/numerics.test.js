import assert from "node:assert/strict";
import test from "node:test";

import {
  attentionPart,
  decode,
  largest,
  poolMax,
  routingMargin,
  rowLogSumExp,
  softmax,
  threeDigits,
  twoDigits,
  windowStart,
} from "../../widgets/js/numerics.js";

const view = (array) => new DataView(array.buffer);
const near = (actual, expected, within = 1e-6) =>
  assert.ok(Math.abs(actual - expected) <= within, `${actual} is not ${expected}`);

test("16-bit floats are read exactly", () => {
  const halves = decode(
    view(new Uint16Array([0x3c00, 0xc000, 0x3555, 0x7bff, 0x0001, 0x7c00, 0x7e00, 0x8000])),
    "float16",
  );
  assert.deepEqual([...halves.slice(0, 2)], [1, -2]);
  near(halves[2], 0.333251953125, 0);
  assert.equal(halves[3], 65504);
  assert.equal(halves[4], 2 ** -24);
  assert.equal(halves[5], Infinity);
  assert.ok(Number.isNaN(halves[6]));
  assert.ok(Object.is(halves[7], -0));
  const brains = decode(view(new Uint16Array([0x3f80, 0xc000, 0x4049])), "bfloat16");
  assert.deepEqual([...brains], [1, -2, 3.140625]);
});

test("a view that is not aligned is read all the same", () => {
  const bytes = new Uint8Array(9);
  new DataView(bytes.buffer).setFloat32(1, 2.5, true);
  new DataView(bytes.buffer).setFloat32(5, -1, true);
  assert.deepEqual([...decode(new DataView(bytes.buffer, 1, 8), "float32")], [2.5, -1]);
  assert.throws(() => decode(view(new Uint8Array(8)), "int64"), /expected one of the dtypes .* got int64/);
});

// Three keys of two dims, one query: scores 1, 2 and 3 at scale .5.
const query = Float32Array.of(2, 4);
const keys = Float32Array.of(1, 0, 0, 1, 1, 1);

test("an attention row with its sink sums to one", () => {
  const sink = 0.5;
  const lse = rowLogSumExp(query, keys, 0, 0, 3, 0.5, sink);
  near(lse, Math.log(Math.exp(1) + Math.exp(2) + Math.exp(3) + Math.exp(0.5)));
  const weights = attentionPart(query, keys, 0, 0, 3, 0.5, lse);
  near(weights.reduce((a, b) => a + b, 0) + Math.exp(sink - lse), 1);
  near(weights[2] / weights[0], Math.exp(2), 1e-4);
});

test("a part of a row is exact, not renormalised, and keys may start later", () => {
  const lse = rowLogSumExp(query, keys, 0, 0, 3, 0.5, null);
  const whole = attentionPart(query, keys, 0, 0, 3, 0.5, lse);
  const part = attentionPart(query, keys.subarray(2), 1, 1, 3, 0.5, lse);
  assert.deepEqual([...part], [...whole.slice(1)]);
});

test("an odd number of dims is multiplied to the end", () => {
  near(rowLogSumExp(Float32Array.of(1, 1, 1), Float32Array.of(1, 2, 4), 0, 0, 1, 1, null), 7);
});

test("a window counts the token itself", () => {
  assert.equal(windowStart(200, 128), 73);
  assert.equal(windowStart(5, 128), 0);
  assert.equal(windowStart(200, null), 0);
});

test("the margin is from the weakest chosen expert to the best one left out", () => {
  const { runnerUp, margin } = routingMargin(Float32Array.of(0.5, 3, 2, 1.75), [1, 2]);
  assert.equal(runnerUp, 3);
  near(margin, 0.25);
  assert.equal(routingMargin(Float32Array.of(1, 2), [0, 1]).runnerUp, -1);
});

test("softmax survives large logits", () => {
  const probs = softmax(Float32Array.of(1000, 1000, 0));
  near(probs[0], 0.5);
  near(probs[2], 0);
});

test("pooling keeps maxima and tells undefined from zero", () => {
  const pooled = poolMax(Float32Array.of(NaN, NaN, 0, -1, 5, NaN), 3);
  assert.ok(Number.isNaN(pooled[0]));
  assert.deepEqual([...pooled.slice(1)], [0, 5]);
});

test("the largest come first, those under the floor not at all", () => {
  assert.deepEqual(largest(Float32Array.of(0.1, 0.5, 0.02, 0.4), 3, 0.05), [1, 3, 0]);
  assert.deepEqual(largest(Float32Array.of(0.1, 0.5, 0.6), 1, 0.05), [2]);
});

test("numbers are written as in print", () => {
  assert.deepEqual([0.834, 0.999, 0.004, 1, 0, NaN].map(twoDigits), [".83", "1.0", ".00", "1.0", ".00", "–"]);
  assert.deepEqual([0.4744, 0.0001, 1, 0.053].map(threeDigits), [".474", "<.001", "1.00", ".053"]);
});
