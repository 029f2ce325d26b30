import assert from "node:assert/strict";
import test from "node:test";

import { labelRows } from "../../widgets/js/curve_paint.js";
import { biasWords, bounds } from "../../widgets/js/curve_view.js";
import { ribbon, segments } from "../../widgets/js/paths_paint.js";
import { flowsOf, gapWords } from "../../widgets/js/paths_view.js";

test("experts share the width as they share the tokens, and ribbons fill them", () => {
  const [above, below] = [segments([2, 3, 0], 5, 100), segments([3, 0, 2], 5, 100)];
  assert.deepEqual(above, [
    { x: 0, width: 40 },
    { x: 40, width: 60 },
    { x: 100, width: 0 },
  ]);
  const flows = flowsOf(Int32Array.from([0, 0, 2, 2, 0, 0, 0, 1, 0, 3, 0, 0]));
  assert.deepEqual(flows[1], { pair: 0, from: 1, to: 0, count: 3, leaving: 0, coming: 0 });
  assert.deepEqual(ribbon(flows[0], above, below, 5, 100), { top: [0, 40], bottom: [60, 100] });
  assert.deepEqual(ribbon(flows[1], above, below, 5, 100), { top: [40, 100], bottom: [0, 60] });
  const shifted = { from: 1, to: 2, count: 1, leaving: 2, coming: 1 };
  assert.deepEqual(ribbon(shifted, above, below, 5, 100), { top: [80, 100], bottom: [80, 100] });
});

test("what is not drawn is counted in words", () => {
  const gap = { information: 0.6642, null: 0.1, flows: 42 };
  assert.deepEqual(gapWords(gap, [{ count: 30 }, { count: 20 }], 100), [
    "I = .664 nats",
    "shuffled tokens: .100",
    "2 drawn: 50.0 %",
    "40 smaller not drawn: 50.0 %",
  ]);
  assert.equal(gapWords({ ...gap, flows: 1 }, [{ count: 100 }], 100)[3], "all flows are drawn");
});

test("scales hold every value in tenths", () => {
  assert.deepEqual(bounds([0.83, 0.97, NaN], { high: 1 }), [0.8, 1]);
  assert.deepEqual(bounds([0.999], { high: 1 }), [0.9, 1]);
  assert.deepEqual(bounds([0.31, 1.2], { low: 0 }), [0, 1.3]);
});

test("leaders cross no label: the rightmost end is highest", () => {
  assert.deepEqual(labelRows([10, 90, 50]), [2, 0, 1]);
  assert.deepEqual(labelRows([10, 10]), [0, 1]);
});

test("few tokens are named", () => {
  const lines = [
    { label: "analysis", tokens: 1134 },
    { label: "user", tokens: 19 },
  ];
  assert.equal(biasWords(lines, 8, 2), "Entropy is biased low, Gini and CV high, where tokens are few: user, T = 19.");
  assert.equal(biasWords(lines.slice(0, 1), 8, 2), "");
});
