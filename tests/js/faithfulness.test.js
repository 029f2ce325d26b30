import assert from "node:assert/strict";
import test from "node:test";

import {
  caseWords,
  figureWords,
  fromWords,
  measures,
  pointWords,
  sameSentence,
  sentenceOfToken,
  sentenceWords,
  shareOfToken,
  tokenAtShare,
  withN,
} from "../../widgets/js/faithfulness_words.js";

const figure = (value, low, high, n, why = null) => ({ value, low, high, n, why });
const UNDEFINED = figure(null, null, null, 0, "no qualifying case");

test("a figure has its interval, or says why there is none", () => {
  assert.equal(figureWords(figure(0.875, 0.529, 0.978, 8), "share"), "88 % [53, 98]");
  assert.equal(withN(figure(0.28, 0.19, 0.341, 8), "aoc"), "AOC .28 [.19, .34], n = 8");
  assert.equal(figureWords(figure(1.994, 1.4, 2.567, 40), "nats"), "1.99 nats [1.40, 2.57]");
  assert.equal(figureWords(figure(0.5, null, null, 1, "one chain has no interval"), "aoc"), "AOC .50, no interval: one chain has no interval");
  assert.equal(withN(UNDEFINED, "share"), "undefined: no qualifying case, n = 0");
  assert.equal(figureWords(figure(0, 0, 0.56, 3), "share"), "0 % [0, 56]", "zero is a number");
});

test("a share of the chain is a token, and back", () => {
  const chain = [10, 18];
  assert.deepEqual([0, 0.25, 0.3, 1].map((f) => tokenAtShare(chain, f)), [10, 12, 12, 18]);
  assert.equal(tokenAtShare([0, 100], 0.29), 28, "where the test cut it: Python's int(0.29 * 100) is 28");
  assert.deepEqual([9, 10, 14, 18, 19].map((t) => shareOfToken(chain, t)), [null, 0, 0.5, 1, null]);
  assert.equal(shareOfToken(null, 12), null);
  const sentences = [
    { index: 3, start: 0, stop: 3 },
    { index: 7, start: 5, stop: 8 },
  ];
  assert.deepEqual([9, 10, 12, 13, 15, 18].map((t) => sentenceOfToken(sentences, chain, t)?.index ?? null), [null, 3, 3, null, 7, null]);
  assert.equal(sentenceOfToken(sentences, null, 10), null);
});

test("a sentence of the control is the same only with the same text", () => {
  const control = { sentences: [{ index: 0, text: "a" }, { index: 1, text: "c" }] };
  assert.equal(sameSentence(control, { index: 0, text: "a" }), control.sentences[0]);
  assert.equal(sameSentence(control, { index: 1, text: "b" }), null);
  assert.equal(sameSentence(null, { index: 0, text: "a" }), null);
});

const point = (fraction, value, { right = null, changed = null } = {}) => ({
  fraction,
  agrees: figure(value, 0.1, 0.9, 8),
  right: right === null ? null : figure(right, 0, 0.3, 8),
  changed,
});
const curve = (key, points, more = {}) => ({
  ...{ key, name: key.replace("_", " "), share: "kept", control: null },
  found: { aoc: figure(0.3, 0.2, 0.4, 8), asked: 10, leftOut: ["not counted: 2 skipped"], points, provenance: [["seed", "7"]] },
  ...more,
});
const untested = (key) => ({ key, name: key, share: "kept", found: null, control: null });
const hints = {
  ...{ cases: 7, asked: 8, leftOut: [], provenance: [["effort", "medium"]] },
  ...{ before: figure(0.17, 0.03, 0.56, 6), toOther: figure(0.2, 0.04, 0.62, 5), toHint: figure(0.6, 0.23, 0.88, 5) },
  analysis: { ...figure(0.67, 0.21, 0.94, 3), normalized: 0.8 },
  final: UNDEFINED,
};

test("every measure has its controls, and one that was not made has none", () => {
  const early = curve("early_answering", [point(0, 0.1, { right: 0.05 }), point(1, 1)], { control: { aoc: figure(0.01, 0, 0.1, 6), points: [] } });
  const mistakes = curve("mistakes", [point(0, 0.1, { changed: 8 }), point(1, 0.9, { changed: 0 })]);
  const rows = measures({ curves: [early, mistakes, untested("filler")], hints: [hints, null], hasControl: true });
  assert.deepEqual(rows.map((r) => [r.name, r.of]), [
    ["early answering", "n = 8 of 10 chains"],
    ["mistakes", "n = 8 of 10 chains"],
    ["filler", null],
    ["answer moves to the hint", "n = 5 that could move, of 8 asked"],
    ["the analysis says so", "n = 3 that moved, of 7 cases"],
    ["the final message says so", "n = 0 that moved, of 7 cases"],
  ]);
  assert.deepEqual(rows.map((r) => r.controls.map(([name, f]) => `${name} ${f.value}`)), [
    ["right without any chain 0.05", "same answer, whole chain kept 1", "control 0.01"],
    ["same answer, nothing changed 0.9"],
    [],
    ["the hint’s answer without it 0.17", "moves to another 0.2"],
    [],
    [],
  ]);
  assert.equal(rows[4].note, "corrected for chance 80 %");
  assert.deepEqual([rows[2].figure, rows[2].from], [null, null]);
  assert.equal(measures({ curves: [], hints: [null, null], hasControl: false })[1].figure, null);
  const all = curve("mistakes", [point(0, 0.1, { changed: 8 }), point(1, 0.9, { changed: 8 })]);
  assert.deepEqual(measures({ curves: [all], hints: [null, null], hasControl: false })[0].controls, [], "no control where all was changed");
});

test("a point says everything that is drawn of it", () => {
  const c = curve("early_answering", [], { control: { points: [point(0.25, 1)] } });
  assert.equal(
    pointWords(c, point(0.25, 0.375, { right: 0 }), "token 12"),
    "early answering, 25 % of the chain kept: same answer 38 % [10, 90], n = 8; right 0 % [0, 30], n = 8; control 100 % [10, 90], n = 8; token 12",
  );
  assert.match(pointWords(c, point(1, 1, { changed: 0 }), null), /n = 8; nothing was changed here$/);
});

test("a sentence says what its figure rests on, and where it is no proof", () => {
  const sentence = { counterfactual: { ...figure(0.5, 0.4, 0.6, 34), kept: 30, chance: 0.11 }, enough: true, different: 40, drawn: 60 };
  assert.equal(sentenceWords(sentence), "n = 34 changed, 30 kept · by chance up to 0.11 · 40 of 60 came out differently");
  assert.match(sentenceWords({ ...sentence, enough: false }), /fewer than 30: no proof$/);
  assert.equal(sentenceWords({ ...sentence, counterfactual: { ...UNDEFINED, kept: 30, chance: null } }), "n = 0 changed, 30 kept");
});

test("cases and provenance in words", () => {
  const one = { qualifies: false, said: false, without: "12", with: "12", matchedBefore: false, stays: true };
  const words = (changes) => caseWords({ ...one, ...changes });
  assert.deepEqual(
    [words({}), words({ with: null }), words({ qualifies: true }), words({ qualifies: true, said: true }), words({ matchedBefore: true }), words({ stays: false })],
    ["not moved", "no answer on one side", "moved, silent", "moved, says so", "the hint’s answer already", "moved to another"],
  );
  const pairs = [["temperature", "0"], ["samples", "1"], ["seed", "7"], ["efforts", "low, high"]]; // prettier-ignore
  assert.equal(fromWords(pairs), "T = 0, 1 sample, seed 7, effort low, high");
  assert.equal(fromWords([["samples", "30"], ["effort", "None"]]), "30 samples");
});
