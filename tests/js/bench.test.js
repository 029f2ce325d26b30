import assert from "node:assert/strict";
import test from "node:test";

import { largestOf } from "../../widgets/js/bench_paint.js";
import {
  answerChange,
  described,
  doneWords,
  natsWords,
  parsePicks,
  parseTokens,
  picksText,
  rankWords,
  verdictWords,
  withPick,
} from "../../widgets/js/bench_words.js";

const EXPERTS = { of: "expert", numLayers: 4, count: 8, variant: "route around" };
const HEADS = { of: "head", numLayers: 4, count: 6, variant: "ablate head" };
const SHAPE = { numLayers: 4, numExperts: 8, numHeads: 6, numTokens: 75 };

test("what is typed is read by layer, and what cannot be is refused with an example", () => {
  assert.deepEqual(parsePicks("0: 4, 6; 3:1", EXPERTS), { picks: { 0: [4, 6], 3: [1] } });
  assert.deepEqual(parsePicks("2: all; 1: 0", HEADS), { picks: { 1: [0], 2: null } });
  assert.deepEqual(parsePicks("0: 4>6", { ...EXPERTS, variant: "swap" }), { picks: { 0: [[4, 6]] } });
  const problems = [
    ["", EXPERTS, /^expected layer: experts, such as 0: 4, 6; 1: 3; got “”$/],
    ["4", EXPERTS, /^expected layer: experts/],
    ["4: 1", EXPERTS, /^expected a layer below 4, got “4”$/],
    ["-1: 1", EXPERTS, /^expected a layer below 4, got “-1”$/],
    ["0: 8", EXPERTS, /^expected an expert below 8 in layer 0, got “8”$/],
    ["0: all", EXPERTS, /^expected an expert below 8 in layer 0, got “all”$/],
    ["0: 6", HEADS, /below 6 in layer 0/],
    ["0: 1; 0: 2", EXPERTS, /^layer 0 is named twice$/],
    ["0: 4", { ...EXPERTS, variant: "swap" }, /^expected pairs, such as 0: 4>6; got “4”$/],
  ];
  for (const [text, options, says] of problems) assert.match(parsePicks(text, options).problem, says);
});

test("the selected one is added once, and nothing that was typed is lost", () => {
  assert.equal(withPick("", 1, 3, EXPERTS), "1: 3");
  assert.equal(withPick("1: 3", 1, 5, EXPERTS), "1: 3, 5");
  assert.equal(withPick("1: 3, 5", 1, 5, EXPERTS), "1: 3, 5");
  assert.equal(withPick("1: 3", 0, 5, EXPERTS), "0: 5; 1: 3");
  assert.equal(withPick("not yet", 0, 5, EXPERTS), "not yet");
  assert.equal(withPick("2: all", 2, 1, HEADS), "2: all");
  assert.equal(picksText({ 0: [[4, 6]], 2: null }), "0: 4>6; 2: all");
});

test("a span is a name or tokens, of which the last may be left out", () => {
  assert.deepEqual(parseTokens(" analysis ", 75), { tokens: "analysis" });
  assert.deepEqual(parseTokens("40–60", 75), { tokens: [40, 60] });
  assert.deepEqual(parseTokens("40-", 75), { tokens: [40, null] });
  for (const text of ["60–40", "75-", "0-76", "4", "thinking", ""]) {
    assert.match(parseTokens(text, 75).problem, /^expected all, prompt, .*or tokens within 75, such as 40–60 or 40–; got/);
  }
});

test("a description is that of a trace's meta", () => {
  const wish = { variant: "scale", picks: "0: 4", tokens: "final", amount: 0.5 };
  assert.deepEqual(described(wish, SHAPE), {
    description: { variant: "scale", experts: { 0: [4] }, tokens: "final", factor: 0.5 },
  });
  assert.deepEqual(described({ ...wish, variant: "suppress span", picks: "3: all", tokens: "3-9" }, SHAPE), {
    description: { variant: "suppress span", heads: { 3: null }, tokens: [3, 9] },
  });
  assert.deepEqual(described({ ...wish, amount: NaN }, SHAPE), { problem: "expected a number as factor" });
  assert.match(described({ ...wish, picks: "0: 9" }, SHAPE).problem, /below 8/);
  assert.match(described({ ...wish, tokens: "some" }, SHAPE).problem, /got “some”/);
});

const RECORD = {
  done: [{ variant: "zero contribution", experts: { 0: [4, 6] }, tokens: "all" }],
  ...{ meanKl: 0.2719, compared: 74, changed: 75, generated: true, before: "171", answer: "200", keepsAnswer: false },
  ...{ rank: 2, kind: "load-matched", unmatched: 1, controls: 4, controlRows: [{}, {}, {}] },
};

test("what was done and what followed are said with n, controls and the rank", () => {
  assert.equal(doneWords(RECORD.done), "zero contribution: experts 4 and 6 of layer 0, all tokens");
  assert.equal(
    doneWords([
      { variant: "swap", experts: { 1: [[4, 6]] }, tokens: [3, 9] },
      { variant: "suppress span", heads: { 2: null }, tokens: [40, null] },
      { variant: "move sink", heads: { 2: [1] }, by: 2, tokens: "final" },
    ]),
    "swap: expert 4 → 6 of layer 1, tokens 3–8 + suppress span: all heads of layer 2, tokens from 40 on + " +
      "move sink by 2: head 1 of layer 2, final tokens",
  );
  assert.equal(
    verdictWords(RECORD),
    "answer 200 in place of 171 · mean KL 0.272 nats over the 74 tokens after the first changed one (75 changed) · " +
      "KL larger than 2 of 3 load-matched controls (rank 2 of 4, 4 were asked for and no more exist; 1 of them only " +
      "nearest in load) · n = 1 rollout",
  );
});

test("what is undefined is said to be, and is not 0", () => {
  assert.equal(natsWords(null), "undefined");
  assert.equal(natsWords(NaN), "undefined");
  assert.equal(natsWords(0), "0.000");
  assert.equal(natsWords(0.0000063), "6.3e-6");
  assert.match(verdictWords({ ...RECORD, meanKl: null, rank: 4 }), /KL undefined: .* rank undefined: /);
  assert.equal(rankWords({ ...RECORD, controlRows: [] }), "no controls: an effect without one says nothing of what was changed");
  assert.equal(answerChange({ ...RECORD, generated: false }), "read, not generated: no answer of its own");
  assert.equal(answerChange({ ...RECORD, keepsAnswer: null, answer: null }), "no answers to compare: 171 before, none after");
  assert.equal(answerChange({ ...RECORD, keepsAnswer: true, answer: "171" }), "answer kept: 171");
  const hostile = answerChange({ ...RECORD, answer: `\u202e${"x".repeat(200)}\n` });
  assert.match(hostile, /^answer ⟨202E⟩x{74}… in place of 171$/);
});

test("pooled KL keeps the largest of a stretch, and a stretch without any stays undefined", () => {
  assert.deepEqual([...largestOf([NaN, NaN, 1, 3, 2, NaN], 3)], [NaN, 3, 2]);
  assert.deepEqual([...largestOf([0.5, 0.25], 2)], [0.5, 0.25]);
});
