import assert from "node:assert/strict";
import test from "node:test";

import { nWords } from "../../widgets/js/behaviour_multiples.js";
import {
  answersWords,
  chipText,
  claimsOf,
  countedWords,
  drawnWords,
  groupNotes,
  meanWords,
  niceEnd,
  outcomeKind,
  outcomeWords,
  pWords,
  proportionWords,
} from "../../widgets/js/effort_words.js";
import { chainPlace, linkedToken, tokenAlong } from "../../widgets/js/linked_place.js";
import { pairValues, rowOf } from "../../widgets/js/routing_multiples.js";
import { Tokens } from "../../widgets/js/tokens.js";
import { mountedRange, mustRemount } from "../../widgets/js/transcript.js";

// A prompt of 4 tokens, then a chain and an answer of so many content tokens, with headers of 2 and a closing token.
function rollout(chain, answer) {
  const spans = [["message", 0, 1, 4, "user", null]];
  let at = 4;
  for (const [channel, length] of [
    ["analysis", chain],
    ["final", answer],
  ]) {
    if (length === null) continue;
    spans.push(["message", at, at + 2, at + 2 + length + 1, "assistant", channel]);
    at += length + 3;
  }
  const vocabulary = { ids: [1], texts: ["a"], raw: [], special: [] };
  return new Tokens({ numTokens: at, numPromptTokens: 4, vocabulary, spans }, new Int32Array(at).fill(1));
}

test("the same place is as far along the same channel", () => {
  const [a, b] = [rollout(10, 1), rollout(20, 3)];
  assert.equal(linkedToken(a, 6, b), 6, "first of the chain");
  assert.equal(linkedToken(a, 16, b), 26, "its closing token");
  assert.equal(linkedToken(a, 11, b), 16, "half way");
  assert.equal(linkedToken(a, 4, b), 4, "the header");
  assert.equal(linkedToken(a, 19, b), 29, "first of the answer");
  assert.equal(linkedToken(a, 20, b), 32, "the end");
  assert.equal(linkedToken(a, 2, b), null, "a token of the prompt");
  assert.equal(linkedToken(a, 6, rollout(null, 2)), null, "no chain");
  assert.equal(linkedToken(a, 11, a), 11);
});

test("places in the chain go from 0 to 1", () => {
  const a = rollout(10, 1);
  assert.equal(chainPlace(a, 6), 0);
  assert.equal(chainPlace(a, 11), 0.5);
  assert.equal(chainPlace(a, 16), 1);
  for (const token of [0, 5, 19]) assert.equal(chainPlace(a, token), null);
  const chain = a.messages[1];
  assert.equal(tokenAlong(a, chain, true, 0.5), 11);
  assert.equal(tokenAlong(a, chain, true, 2), 16);
  assert.equal(chainPlace(rollout(0, 1), 6), 0, "an empty chain has its closing token");
});

test("outcomes are told apart by marks and words, cut ones are never wrong", () => {
  const given = {
    question: "q",
    answer: "295",
    cut: null,
    right: true,
    chainTokens: 1200,
    completionTokens: 1213,
    seconds: 2.04,
  };
  assert.equal(chipText(given), "✓ 295");
  assert.equal(
    outcomeWords(given, 3, 7),
    "rollout 3, seed 7: right answer: 295; 1,213 tokens, 1,200 in analysis, 2.0 s",
  );
  assert.equal(chipText({ ...given, right: false }), "× 295");
  assert.equal(chipText({ ...given, right: null }), "295");
  const cut = { ...given, answer: null, right: null, cut: "cut at 9 tokens", seconds: null };
  assert.equal(outcomeKind(cut), "cut");
  assert.equal(chipText(cut), "✂ cut");
  assert.equal(outcomeWords(cut, 0, null), "rollout 0: cut at 9 tokens: not scored; 1,213 tokens, 1,200 in analysis");
  assert.equal(chipText({ ...given, answer: null, right: false }), "– none");
  assert.match(
    outcomeWords({ ...given, answer: null, right: false }, 0),
    /ended without an answer, which counts as not right/,
  );
});

test("numbers come with their n", () => {
  assert.equal(meanWords({ mean: 12.25, low: 11, high: 13.5, n: 8 }), "mean 12.3 [11.0, 13.5], n = 8");
  assert.equal(meanWords({ mean: 12, low: null, high: null, n: 1 }), "mean 12.0, n = 1");
  assert.equal(meanWords({ mean: null, low: null, high: null, n: 0 }), "not recorded");
  const share = { successes: 7, n: 8, value: 0.875, low: 0.5291, high: 0.9776 };
  assert.equal(proportionWords(share), "7/8 = 88 % [53, 98]");
  assert.equal(countedWords({ numCompleted: 6, numCut: 2 }), "6 of 8, 2 ✂");
  assert.equal(nWords([3, 8, 8]), "n = 3–8");
  assert.equal(nWords([8, 8]), "n = 8");
  assert.deepEqual([0, 3, 13, 0.07, 250].map(niceEnd), [1, 5, 20, 0.1, 250]);
  assert.equal(pWords(0.00031), "3e−4");
  assert.equal(pWords(0.0022), "0.0022");
});

test("answers and how they were drawn", () => {
  const answers = [
    ["5", 4],
    ["7", 2],
    ["1", 1],
  ];
  assert.equal(answersWords({ answers, numUnanswered: 1 }, 2), "5 ×4, 7 ×2, 1 more, no answer ×1");
  assert.equal(answersWords({ answers: null, numQuestions: 12 }), "12 questions");
  const rollouts = [0, 1, 2].map((seed) => ({ seed, temperature: 1 }));
  assert.equal(drawnWords([{ rollouts }, { rollouts }]), "3 rollouts each, T = 1, seeds 0–2");
  assert.equal(drawnWords([{ rollouts }, { rollouts: [{ seed: null }] }]), "3, 1 rollouts, T = 1, seeds 0–2");
  const hashed = [281, 4096, 70].map((seed) => ({ seed, temperature: 1 }));
  assert.equal(drawnWords([{ rollouts: hashed }]), "3 rollouts each, T = 1, a seed of its own each");
});

test("claims carry n and the null, and what was not tested says why", () => {
  const pair = {
    accuracy: [-1, -1, -0.54],
    chain: { difference: -159.66, p_value: 0.00216, n_a: 6, n_b: 7, method: "labels permuted" },
    found: { experts: 4, layers: 3, n: [6, 7], labellings: 1716, method: "max" },
    overlap: [{ context: "same context", n: 12, layers: [1, 0.5] }],
    unit: "rollouts",
    shape: [4, 8],
    layers: [0, 1, 2, 3],
  };
  assert.deepEqual(
    claimsOf(pair).map(([, words]) => words),
    [
      "−100 points [−100, −54]",
      "−159.7 tokens, p = 0.0022 (n = 6 + 7 rollouts)",
      "4 of 32 experts, 3 of 4 layers (n = 6 + 7 rollouts; null of 1,716 labellings)",
      "0.75 in the same context (12 tokens)",
    ],
  );
  const why = "needs at least 6 rollouts a side, got 3 and 2";
  const untested = claimsOf({
    ...pair,
    accuracy: null,
    chain: null,
    chainNotTested: why,
    found: null,
    notTested: why,
    overlap: null,
  });
  assert.deepEqual(
    untested.map(([, words]) => words),
    ["no references", `not tested: ${why}`, `not tested: ${why}`, "none"],
  );
});

test("arrays of pairs are those that the analysis has", () => {
  const sent = { "delta/1": new DataView(Float64Array.from([0.5, -1]).buffer) };
  assert.deepEqual(pairValues(sent, "delta", 2), [null, Float64Array.from([0.5, -1])]);
  assert.deepEqual([4, 12, 24, 60].map(rowOf), [20, 14, 10, 7]);
});

test("a transcript may start at the completion", () => {
  assert.deepEqual(mountedRange(50, 2000, 39), { from: 39, to: 471 });
  assert.equal(mustRemount({ from: 39, to: 471 }, 50, 2000, 39), false);
  assert.equal(mustRemount({ from: 39, to: 471 }, 400, 2000, 39), true);
});

test("measures of groups are lines, and what a group lacks is undefined", () => {
  const none = { mean: null, low: null, high: null, n: 0 };
  const low = { name: "low", agreement: 1, chainAgrees: null, seconds: none, attention: null };
  const share = { successes: 7, n: 8, value: 0.875, low: 0.5291, high: 0.9776 };
  const high = { ...low, name: "high", agreement: null, chainAgrees: share, attention: { mean: 0.1234 } };
  assert.deepEqual(groupNotes([low, high]), [
    "two rollouts of a question answer alike: low 1.00 · high undefined",
    "the chain's last result is the answer: low undefined · high 7/8 = 88 % [53, 98]",
    "attention of the answer to the chain, mean over layers and heads, an association: low undefined · high 0.123",
  ]);
});
