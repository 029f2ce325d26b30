import assert from "node:assert/strict";
import test from "node:test";

import { expertsWords } from "../../widgets/js/diff_layers.js";
import { DiffRows } from "../../widgets/js/diff_rows.js";
import { answerWords, overlapLines, rowWords, textWords } from "../../widgets/js/diff_words.js";

// a: 0 1 2 3 4, b: 0 1 2 3 4 5; token 2 of a stands beside 2 of b, 3 of b is only there.
const arrays = {
  rows: Int32Array.from([0, 0, 1, 1, 2, 2, -1, 3, 3, 4, 4, 5]),
  same: Uint8Array.from([1, 1, 0, 0, 1, 1]),
  shared: Uint8Array.from([2, 2, 2, 1, 0, 2, 1, 1]),
  tie: Uint8Array.from([0, 0, 0, 1, 0, 0, 0, 0]),
};
const facts = { numShared: 2, layers: [1, 4], topK: 2 };
const rows = new DiffRows(arrays, facts);

test("rows know their tokens and tokens their rows", () => {
  assert.equal(rows.length, 6);
  assert.deepEqual([rows.token(3, 0), rows.token(3, 1)], [-1, 3]);
  assert.deepEqual([rows.tokenBefore(3, 0), rows.tokenBefore(3, 1)], [2, 3]);
  assert.deepEqual([rows.rowOf(0, 3), rows.rowOf(1, 3), rows.rowOf(1, 99)], [4, 3, 0]);
  assert.deepEqual([rows.within(-3), rows.within(99), rows.within(2.7)], [0, 5, 2]);
});

test("experts are compared where tokens are the same, in layers that both captured", () => {
  assert.equal(rows.sharedExperts(1, 4), 1);
  assert.equal(rows.sharedExperts(4, 1), 0);
  assert.equal(rows.sharedExperts(2, 1), null, "other tokens");
  assert.equal(rows.sharedExperts(1, 2), null, "a layer that is not in both");
  assert.deepEqual([rows.isNearTie(1, 4), rows.isNearTie(1, 1), rows.isNearTie(3, 4)], [true, false, false]);
  assert.equal(rows.difference(1), 0.25);
  assert.equal(rows.difference(4), 0.5);
  assert.ok(Number.isNaN(rows.difference(2)));
  const bare = new DiffRows({ rows: arrays.rows, same: arrays.same }, { numShared: 2, layers: [], topK: 0 });
  assert.equal(bare.sharedExperts(1, 4), null);
  assert.ok(Number.isNaN(bare.difference(1)));
});

test("only the tokens before anything differs have the same context", () => {
  assert.deepEqual(
    [0, 1, 2, 4].map((row) => rows.sameContext(row)),
    [true, true, false, false],
  );
  assert.equal(rowWords(rows, 1, ["low", "high"]), "same token, same context");
  assert.equal(rowWords(rows, 4, ["low", "high"]), "same token, on different text");
  assert.equal(rowWords(rows, 2, ["low", "high"]), "other tokens");
  assert.equal(rowWords(rows, 3, ["low", "high"]), "only in high");
});

test("stretches are stepped through in both directions", () => {
  assert.deepEqual(
    [0, 2, 4].map((row) => rows.nextStretch(row, 1)),
    [2, 4, 5],
  );
  assert.deepEqual(
    [5, 4, 3, 1].map((row) => rows.nextStretch(row, -1)),
    [4, 2, 2, 0],
  );
});

test("the overview pools rows, and what is not known stays unknown", () => {
  const { text, experts } = rows.pooled(3);
  assert.deepEqual(Array.from(text), [0, 1, 0]);
  assert.deepEqual(Array.from(experts), [0.125, NaN, 0.5]);
});

test("what is said carries its numbers", () => {
  const labels = ["low", "high"];
  const counted = "4 of 6 rows are the same token, the first 2 in the same context";
  assert.equal(
    textWords({ parting: 2, numShared: 2 }, rows, labels),
    `the completions part at token 2 of low, at token 2 of high; ${counted}`,
  );
  assert.equal(
    textWords({ parting: 3, numShared: 2 }, rows, labels),
    `the completions part before token 3 of low, at token 3 of high; ${counted}`,
  );
  assert.match(
    textWords({ parting: null, numShared: 6 }, rows, labels),
    /^the completions say the same; 4 of 6 rows are the same token$/,
  );
  assert.equal(
    answerWords({ answers: ["4", null], sameAnswer: null, labels }),
    "low: 4 · high: no answer — nothing to compare",
  );
  assert.equal(answerWords({ answers: ["4", "5"], sameAnswer: false, labels }), "low: 4 · high: 5 — they differ");
  const overlaps = [{ phase: "completion", sameContext: false, n: 1200, layers: [1, 0.5] }];
  assert.deepEqual(overlapLines({ overlaps, topK: 4 }), [
    "completion, on different text: 0.75 of the 4 experts alike, mean over 2 layers (1,200 tokens)",
  ]);
  assert.equal(expertsWords([3, 5], [5, 1]), "3′ 5");
  assert.equal(expertsWords([3, 5], undefined), "3 5");
});

test("text that is split otherwise is the same text in other tokens", () => {
  const split = new DiffRows({ ...arrays, same: Uint8Array.from([1, 1, 2, 2, 1, 1]) }, facts);
  assert.equal(rowWords(split, 2, ["low", "high"]), "same text, other tokens");
  assert.deepEqual([split.isSame(2), split.differs(2), rows.differs(2)], [false, false, true]);
  assert.equal(split.sharedExperts(2, 1), null);
  assert.equal(split.sharedExperts(4, 1), 0, "pairs are of the same tokens only");
  assert.deepEqual(Array.from(split.pooled(3).text), [0, 0, 0]);
});
