import assert from "node:assert/strict";
import test from "node:test";

import { amountOf, lineBounds, pictureWords, progressWords, summaryPairs } from "../../widgets/js/training_words.js";

const FACTS = {
  ...{ done: 1200, experts: 4, load: [0.5, 0.01, 0.3, 0.19], entropy: 0.75, cv: 0.712, dead: [1], loss: 1.4056 },
  ...{ balance: 1.9, last: 50 },
};

test("the colour scale ends at four times uniform, whatever is above", () => {
  assert.equal(amountOf(0.25, 4), 0.25);
  assert.equal(amountOf(0.5, 8), 1);
  assert.equal(amountOf(1, 8), 1);
  assert.equal(amountOf(0, 8), 0);
});

test("a line's scale holds its values and what it must show, and is never empty", () => {
  assert.deepEqual(lineBounds([1.04, 3.56]), [1, 3.6]);
  assert.deepEqual(lineBounds([1.04, 1.2], [1, 2]), [1, 2]);
  assert.deepEqual(lineBounds([2, 2]), [2, 2.1]);
  assert.deepEqual(lineBounds([NaN, 0.5], [0.7]), [0.5, 0.7]);
});

test("progress says how far, and how it ended", () => {
  assert.equal(progressWords({}, 400, ""), "training · 0 of 400 steps");
  assert.equal(progressWords({ done: 1200 }, 1200, "finished"), "finished · 1,200 of 1,200 steps");
  assert.equal(progressWords({ done: 1 }, 400, "stopped"), "stopped after 1 step");
});

test("the summary names the dead experts", () => {
  const pairs = Object.fromEntries(summaryPairs(FACTS));
  assert.equal(pairs["dead experts"], "1 (1)");
  assert.equal(pairs["highest load"], ".50");
  assert.equal(pairs.loss, "1.41 nats");
  assert.equal(Object.fromEntries(summaryPairs({ ...FACTS, dead: [] }))["dead experts"], "0");
});

test("the picture is told in words", () => {
  assert.match(pictureWords(FACTS), /last 50 steps: expert 0 \.50, expert 1 \.01, .*; uniform \.25$/);
  assert.match(pictureWords({}), /no step yet/);
});
