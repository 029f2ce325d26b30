import assert from "node:assert/strict";
import test from "node:test";

import { agreementWords, chainBadges } from "../../widgets/js/chain.js";
import {
  ChainData,
  answerWords,
  columnsOf,
  firedWords,
  neighbour,
  pooledMax,
  sharePerColumn,
  shownLabels,
  switched,
} from "../../widgets/js/chain_data.js";
import { chainAction } from "../../widgets/js/chain_keys.js";

const LABELS = ["setup", "plan", "check", "unknown"];
const FIRED = [
  ["plan", "let us", " let us ", 10, 12],
  ["check", "verify", "verify", 13, 14],
  ["check", "same", "same.", 14, 15],
];
const SENTENCE = { start: 10, stop: 15, labels: ["plan", "check"], fired: FIRED };

test("labels of the rules say which rules fired and what they matched", () => {
  assert.deepEqual(shownLabels(SENTENCE, {}, "Ada"), [
    { label: "plan", own: false, words: "rule let us: “let us”" },
    { label: "check", own: false, words: "rule verify: “verify”, rule same: “same.”" },
  ]);
  assert.equal(firedWords([]), "no rule fired");
});

test("own labels replace those of the rules, and none means the rules again", () => {
  assert.deepEqual(shownLabels(SENTENCE, { 10: ["setup"] }, "Ada"), [{ label: "setup", own: true, words: "by Ada" }]);
  assert.equal(shownLabels(SENTENCE, { 10: [] }, "Ada").length, 2);
  assert.equal(shownLabels(SENTENCE, { 11: ["setup"] }, "Ada").length, 2);
  assert.deepEqual(switched(["check"], LABELS, "setup"), ["setup", "check"]);
  assert.deepEqual(switched(["setup", "check"], LABELS, "check"), ["setup"]);
});

test("a neighbour is the next number, or null", () => {
  assert.equal(neighbour([3, 7, 9], 7, 1), 9);
  assert.equal(neighbour([3, 7, 9], 7, -1), 3);
  assert.equal(neighbour([3, 7, 9], 9, 1), null);
  assert.equal(neighbour([], 9, -1), null);
});

test("pooling keeps the largest of each column and what no token says", () => {
  const values = [9, 9, 1, NaN, 3, 2, NaN, NaN];
  assert.deepEqual(Array.from(pooledMax(values, 2, 8, 3)), [1, 3, NaN]);
  // More columns than tokens: each token takes its own.
  assert.deepEqual(Array.from(pooledMax([5, 4], 0, 2, 4)), [5, 5, 4, 4]);
  assert.deepEqual(columnsOf(1, 0, 2, 5), [2, 4]);
});

test("the share of a column's tokens", () => {
  assert.deepEqual(Array.from(sharePerColumn([2, 4, 5], 2, 8, 3)), [0.5, 1, 0]);
  assert.deepEqual(Array.from(sharePerColumn([3], 2, 5, 3)), [0, 1, 0]);
});

function bytes(array) {
  return new DataView(array.buffer);
}

function data() {
  const chain = {
    labels: LABELS,
    sentences: [
      SENTENCE,
      { start: 15, stop: 17, labels: ["unknown"], fired: [] },
      { start: 19, stop: 20, labels: [], fired: [] },
    ],
    turns: [{ token: 15, words: "wait", from: 1, to: 0, similarity: 0.5 }],
    markers: [[15, 17, "backtracking", "wait"]],
    forks: { threshold: 0.2, n: 9, share: 0.2 },
    entropy: true,
    // Layers 1 and 4 of tokens 8, 9, 10.
    answer: { begin: 8, start: 11, stop: 12, layers: [1, 4] },
  };
  const arrays = {
    forks: bytes(Int32Array.of(11, 16)),
    sentences: bytes(Float32Array.of(0.5, 1.25, NaN, NaN, 0.125, 0.25)),
    answer: bytes(Uint8Array.of(0, 1, 3, 0, 0, 0)),
  };
  return new ChainData(chain, arrays, { numPromptTokens: 9, numTokens: 21 });
}

test("a token's sentence, and the way to the next", () => {
  const d = data();
  assert.deepEqual(
    [9, 10, 14, 15, 17, 18, 19, 20].map((t) => d.sentenceAt(t)),
    [-1, 0, 0, 1, -1, -1, 2, -1],
  );
  assert.equal(d.sentenceStep(12, -1), 10);
  assert.equal(d.sentenceStep(12, 1), 15);
  assert.equal(d.sentenceStep(19, 1), 20);
  assert.equal(d.sentenceStep(10, -1), 9);
});

test("entropy of sentences, forks, markers, turns", () => {
  const d = data();
  assert.deepEqual(d.entropyOf(0), { mean: 0.5, max: 1.25 });
  assert.ok(Number.isNaN(d.entropyOf(1).mean));
  assert.equal(d.topEntropy, 1.25);
  assert.ok(d.isFork.has(16) && !d.isFork.has(15));
  assert.deepEqual(d.markerAt.get(16), { kind: "backtracking", rule: "wait" });
  assert.equal(d.turnOf.get(1).to, 0);
});

test("the rank of the answer in the lens, by token and layer", () => {
  const d = data();
  assert.deepEqual(
    [
      [8, 1],
      [8, 4],
      [9, 1],
      [9, 4],
      [8, 2],
      [7, 1],
      [11, 1],
    ].map(([token, layer]) => d.answerRank(token, layer)),
    [-1, 0, 2, -1, -1, -1, -1],
  );
});

test("where the answer shows, in words", () => {
  const answer = { first: [40, 2], written: 43, numPredicting: 9, numLenses: 1776, start: 90 };
  assert.equal(
    answerWords(answer),
    "first at token 40, layer 2; written first at token 43; predicted by 9 of 1,776 lenses (tokens × layers)",
  );
  assert.match(
    answerWords({ ...answer, first: null, written: null }),
    /^no lens predicts it .* token 90; the chain never/,
  );
  assert.equal(answerWords({ missing: "lens not captured" }), "lens not captured");
});

test("what is missing is no disagreement, and is a badge", () => {
  assert.equal(
    agreementWords({ result: "3", answer: "4", agree: false }),
    "chain concludes 3, answer 4: they differ (by rule)",
  );
  assert.equal(
    agreementWords({ result: null, answer: "4", agree: null }),
    "chain concludes nothing, answer 4: nothing to compare",
  );
  const badges = chainBadges({ arrays: { entropy: { source: "replay" } }, dtype: "", truncated: "cut at 8 tokens" });
  assert.deepEqual(
    badges.map((b) => `${b.kind} ${b.text}`),
    [
      "warning ↻ replay",
      "plain ✓ entropy",
      "missing alternatives not captured",
      "missing lens not captured",
      "warning ✂ cut at 8 tokens",
    ],
  );
});

test("keys that are not ours are left alone", () => {
  assert.equal(chainAction({ key: "b" }), undefined);
  assert.equal(chainAction({ key: "f", ctrlKey: true }), undefined);
  assert.ok(chainAction({ key: "Enter" }));
  assert.ok(chainAction({ key: "9" }));
  assert.equal(chainAction({ key: "Enter", shiftKey: true }), undefined);
});
