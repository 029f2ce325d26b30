import assert from "node:assert/strict";
import test from "node:test";

import { spread } from "../../widgets/js/editor_tree.js";
import {
  borders,
  costOf,
  costWords,
  countWords,
  drawnWords,
  durationWords,
  editWords,
  lineOf,
  pairWords,
  putText,
  restWords,
  treeOrder,
  wholeText,
} from "../../widgets/js/editor_words.js";

test("a sentence keeps its own white space, whatever was typed", () => {
  assert.deepEqual(borders(" so 171\n\n"), { lead: " ", body: "so 171", tail: "\n\n" });
  assert.deepEqual(borders("\n"), { lead: "\n", body: "", tail: "" });
  assert.equal(putText("replace", "  so 199 ", "so 171\n"), "so 199\n");
  assert.equal(putText("replace", "Wait, no.", " Let me see."), " Wait, no.");
  assert.equal(putText("replace", "two\nlines", "one\n"), "two\nlines\n");
  assert.equal(putText("replace", "   ", "so 171\n"), "");
  for (const action of ["delete", "truncate"]) assert.equal(putText(action, "typed before", "so 171\n"), "");
});

test("a sentence that is inserted stands apart from its neighbours as they do", () => {
  assert.equal(putText("insert", "wait", "so 171\n", "check\n"), "wait\n");
  assert.equal(putText("insert", "Wait.", "Let me see.", " It is 3."), " Wait.");
  assert.equal(putText("insert", "Wait.", " It is 3."), " Wait.");
  assert.equal(putText("insert", "Wait.", "Alone."), " Wait.");
});

test("text over several tokens is whole, and white space is kept", () => {
  const bytes = (text) => Array.from(new TextEncoder().encode(text), (b) => String.fromCharCode(b)).join("");
  const texts = [" a\n", bytes("漢").slice(0, 2), bytes("漢").slice(2), "\u202e"];
  const tokens = { ids: [9, 4, 5, 2, 7], at: new Map([4, 5, 2, 7].map((id, i) => [id, i])), texts, raw: new Set([1, 2]) };
  assert.equal(wholeText(tokens, 1, 5), " a\n漢\u202e");
  assert.equal(wholeText(tokens, 0, 1), "");
});

test("an edit is told with its text in one line", () => {
  const edit = { action: "replace", sentence: 2, text: "so 199\n", rest: "anew" };
  assert.equal(editWords(edit), "sentence 3 replaced: so 199");
  assert.equal(editWords({ ...edit, action: "delete", text: "" }), "sentence 3 deleted");
  assert.equal(editWords({ ...edit, action: "insert", text: "a\nb" }), "inserted after sentence 3: a⏎b");
  assert.equal(editWords({ ...edit, action: "truncate", text: "" }), "truncated after sentence 3");
  assert.equal(lineOf("\u202egnp"), "⟨202E⟩gnp");
  assert.equal(lineOf("x".repeat(90)).length, 61);
  assert.equal(restWords(edit), "rest written anew");
  assert.equal(restWords({ ...edit, rest: "kept" }), "rest kept, answer anew");
  assert.equal(restWords({ action: "truncate", rest: "kept" }), "chain closed, answer anew");
});

test("counts have n and the interval, and greedy rollouts none", () => {
  assert.equal(countWords({ count: 3, n: 5, interval: [0.231, 0.882] }), "3 of 5 [.23–.88]");
  assert.equal(countWords({ count: 3, n: 3, interval: [0.4385, 1] }), "3 of 3 [.44–1.0]");
  assert.equal(countWords({ count: 0, n: 3, interval: [0, 0.56] }), "0 of 3 [.00–.56]");
  assert.equal(countWords({ count: 1, n: 1, interval: null }), "1 of 1");
  assert.equal(drawnWords({ temperature: 1, seed: 4, n: 5, wanted: 5 }), "T = 1, seeds 4–8");
  assert.equal(drawnWords({ temperature: 1, seed: 0, n: 2, wanted: 5 }), "T = 1, seeds 0–1, interrupted after 2 of 5");
  assert.equal(drawnWords({ temperature: 0.5, seed: 7, n: 1, wanted: 1 }), "T = 0.5, seed 7");
  assert.equal(drawnWords({ temperature: 0, seed: 0, n: 1, wanted: 1 }), "greedy");
  assert.equal(drawnWords({ temperature: null, n: 1, wanted: 1 }), "");
  assert.equal(spread([26, 20, 1031]), "20–1,031");
  assert.equal(spread([26, 26]), "26");
});

test("a branch hangs under the one that was edited", () => {
  const records = [null, 0, 0, 1, 3, 0].map((parent) => ({ parent }));
  assert.deepEqual(
    treeOrder(records).map(({ at, depth }) => [at, depth]),
    [
      [0, 0],
      [1, 1],
      [3, 2],
      [4, 3],
      [2, 1],
      [5, 1],
    ],
  );
  assert.deepEqual(treeOrder([]), []);
});

test("what is read and written depends on what is kept", () => {
  const sentence = { start: 48, stop: 59 };
  const lengths = { answerStart: 71, closing: 6, numTokens: 75 };
  const cost = (action, rest) => costOf({ action, rest }, sentence, lengths);
  assert.deepEqual(cost("replace", "anew"), { read: 48, written: 16 });
  assert.deepEqual(cost("insert", "anew"), { read: 59, written: 16 });
  assert.deepEqual(cost("delete", "kept"), { read: 48 + 12, written: 4 });
  assert.deepEqual(cost("insert", "kept"), { read: 59 + 12, written: 4 });
  assert.deepEqual(cost("truncate", "kept"), { read: 59 + 6, written: 4 });
});

test("the cost says how it was measured, or that it was not", () => {
  const cost = { read: 1048, written: 16 };
  assert.equal(
    costWords(cost, 3, { seconds: 0.0234, measured: "as measured in branch 2" }),
    "3 rollouts × about 16 tokens written, 1,048 read · about 1.1 s (0.023 s a token, as measured in branch 2)",
  );
  assert.match(costWords(cost, 1, undefined), /^1 rollout × .* · how long is not known: no speed was measured$/);
  assert.deepEqual([9.96, 100, 200, 9000].map(durationWords), ["10.0 s", "100 s", "3 min", "2.5 h"]);
});

test("a pair is told by answers, lengths and what differs; no answer is no other answer", () => {
  const pair = (is, was) =>
    pairWords(
      { shown: { answer: is, chainTokens: 1026 }, beside: { answer: was, chainTokens: 20 }, differ: 3 },
      ["original", "branch 1"],
    );
  assert.deepEqual(pair("191", "171"), [
    "answer 191 in place of 171",
    " · chain 1,026 tokens, 20 in original · 3 rows of tokens differ · one rollout each, the tree has the counts",
  ]);
  assert.equal(pair("171", "171")[0], "same answer: 171");
  assert.equal(pair(null, "171")[0], "no answers to compare: 171 in original, none in branch 1");
});
