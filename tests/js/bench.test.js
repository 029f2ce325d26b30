import assert from "node:assert/strict";
import test from "node:test";

import { Amounts } from "../../widgets/js/bench_amounts.js";
import {
  described,
  kindOf,
  limitsOf,
  parsePicks,
  parseTokens,
  picksText,
  placesOf,
  toggled,
} from "../../widgets/js/bench_asked.js";
import { largestOf } from "../../widgets/js/bench_paint.js";
import { pickCell } from "../../widgets/js/bench_picker.js";
import { amountWords, answerChange, doneWords, natsWords, rankWords, tokensWords, verdictWords } from "../../widgets/js/bench_words.js";
import { viewAction } from "../../widgets/js/view_keys.js";

const EXPERTS = { of: "expert", numLayers: 4, count: 8, variant: "route around" };
const HEADS = { of: "head", numLayers: 4, count: 6, variant: "ablate head" };
const SHAPE = {
  ...{ numLayers: 4, numExperts: 8, numHeads: 6, numTokens: 75 },
  vectors: [{ name: "calm", norm: 2 }],
  sources: [{ name: "other", numTokens: 60, layers: [0, 2] }],
};

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

test("a click takes one in or out, and nothing that was typed is lost", () => {
  const click = (text, layer, one, limits = EXPERTS) => toggled(text, layer, one, limits).text;
  assert.equal(click("", 1, 3), "1: 3");
  assert.equal(click("1: 3", 1, 5), "1: 3, 5");
  assert.equal(click("1: 3, 5", 1, 3), "1: 5");
  assert.equal(click("0: 2; 1: 3", 1, 3), "0: 2");
  assert.equal(click("1: 3", 0, 5), "0: 5; 1: 3");
  assert.equal(click("not yet", 0, 5), "not yet");
  assert.equal(click("2: all", 2, 1, HEADS), "2: 0, 2, 3, 4, 5");
  assert.equal(picksText({ 0: [[4, 6]], 2: null }), "0: 4>6; 2: all");
});

test("a swap is picked by two clicks in a layer, and taken out by its first", () => {
  const swap = limitsOf("swap", SHAPE);
  const first = toggled("", 0, 4, swap);
  assert.deepEqual(first, { text: "", from: { layer: 0, one: 4 } });
  assert.deepEqual(toggled("", 0, 6, swap, first.from), { text: "0: 4>6", from: null });
  assert.deepEqual(toggled("", 0, 4, swap, first.from), { text: "", from: null });
  assert.deepEqual(toggled("", 2, 6, swap, first.from), { text: "", from: { layer: 2, one: 6 } });
  assert.deepEqual(toggled("0: 4>6, 1>2", 0, 4, swap), { text: "0: 1>2", from: null });
});

test("a map outlines what is named, and nothing where it cannot be read", () => {
  assert.deepEqual(placesOf("0: 4; 3: 1", EXPERTS), [
    { layer: 0, one: 4 },
    { layer: 3, one: 1 },
  ]);
  assert.equal(placesOf("2: all", HEADS).length, 6);
  assert.deepEqual(
    placesOf("1: 4>6", limitsOf("swap", SHAPE)).map(({ one }) => one),
    [4, 6],
  );
  assert.deepEqual(placesOf("0: 99", EXPERTS), []);
  assert.deepEqual(["swap", "move sink", "add vector"].map(kindOf), ["experts", "heads", "stream"]);
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

test("a vector and a source are named; a patch is of positions that both sides have", () => {
  const blank = { picks: "", tokens: "12–15", amount: 3, layer: 2, sourceStart: "" };
  const vector = { ...blank, variant: "add vector", given: "calm" };
  const patch = { ...blank, variant: "patch residual", given: "other" };
  assert.deepEqual(described({ ...vector, tokens: "all" }, SHAPE).description, {
    ...{ variant: "add vector", layer: 2, vector: "calm", tokens: "all", factor: 3 },
  });
  const plain = { variant: "patch residual", layer: 2, source: "other", tokens: [12, 15] };
  assert.deepEqual(described(patch, SHAPE).description, plain);
  assert.deepEqual(described({ ...patch, sourceStart: " 12 " }, SHAPE).description, plain);
  assert.deepEqual(described({ ...patch, sourceStart: "57" }, SHAPE).description, { ...plain, source_start: 57 });
  const problems = [
    [{ ...patch, sourceStart: "58" }, /^expected a first token of “other” that leaves 3 of its 60$/],
    [{ ...patch, sourceStart: "x" }, /^expected a first token of “other”/],
    [{ ...patch, tokens: "12-" }, /^a patch is of positions: expected tokens with an end, such as 40–60$/],
    [{ ...patch, tokens: "all" }, /^a patch is of positions/],
    [{ ...patch, layer: 1 }, /^“other” has the residual stream of layers 0, 2, not of 1$/],
    [{ ...vector, layer: 4 }, /^expected a layer below 4$/],
    [{ ...vector, layer: NaN }, /^expected a layer below 4$/],
    [{ ...vector, amount: NaN }, /^expected a number as factor$/],
    [{ ...vector, given: "loud" }, /^no vector was handed in; make the bench with vectors=\{"name": …\}$/],
  ];
  for (const [change, says] of problems) assert.match(described(change, SHAPE).problem, says);
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

test("what Python holds is said by its name, else by what is known of it", () => {
  const added = { variant: "add vector", layer: 1, norm: 2.5, factor: 1, tokens: "all", sha256: "0" };
  assert.equal(doneWords([{ ...added, name: "calm", factor: -2 }]), "add vector × -2: “calm” after layer 1, all tokens");
  assert.equal(doneWords([added]), "add vector: a vector of length 2.50 after layer 1, all tokens");
  const patch = { variant: "patch residual", layer: 1, tokens: [4, 6], source_tokens: [7, 9], source: { question: "2+3" } };
  const words = "patch residual: “2+3” from its token 7 on after layer 1, tokens 4–5";
  assert.equal(doneWords([patch]), words);
  assert.equal(
    doneWords([{ ...patch, variant: "random patch" }]),
    "random patch: as far as “2+3” from its token 7 on, in a random direction, after layer 1, tokens 4–5",
  );
  assert.equal(doneWords([{ ...patch, name: "other", source_tokens: [4, 6] }]), "patch residual: “other” after layer 1, tokens 4–5");
});

test("amounts of named tokens are there, those of others are asked for once", () => {
  const sent = [];
  const heard = [];
  const bytes = (values) => new DataView(Float32Array.from(values).buffer);
  const model = {
    get: () => ({ all: { tokens: 9, load: bytes([0.5, 0.5, 0, 1, 0, 0]) }, final: { tokens: 0 } }),
    send: (message) => sent.push(message),
    on: (_, callback) => heard.push(callback),
  };
  let drawn = 0;
  const amounts = new Amounts(model, { pickLayers: { experts: [0, 2], heads: [] } }, () => drawn++);
  const { state, tokens, values } = amounts.of("load", "experts", "all");
  assert.deepEqual([state, tokens, [...values(2)], values(1)], ["here", 9, [1, 0, 0], null]);
  assert.equal(amounts.of("weight", "experts", "all").state, "missing");
  assert.equal(amounts.of("sink", "heads", "all").state, "missing");
  assert.equal(amounts.of("load", "experts", "final").state, "undefined");
  assert.equal(amounts.of("load", "experts", [4, null]).state, "waiting");
  amounts.of("load", "experts", [4, null]);
  assert.deepEqual(sent, [{ amounts: [4, null] }]);
  heard[0]({ amounts: [4, null], tokens: 5, names: ["load"] }, [bytes([1, 0, 0, 0, 0, 1])]);
  assert.deepEqual([...amounts.of("load", "experts", [4, null]).values(0)], [1, 0, 0]);
  assert.equal(drawn, 1);
});

test("what a map shows is said with n, tokens and source, and so is what it does not", () => {
  const found = { state: "here", tokens: 1204, top: 0.125, uniform: 1 / 32, span: [40, null], source: "live" };
  assert.equal(
    amountWords("load", found),
    "load: share of routed slots, 0 to ≥ 0.13 •, uniform 0.031 · 1,204 tokens: tokens from 40 on · live",
  );
  assert.match(amountWords("sink", { ...found, span: "final" }), /^sink mass: .*, 0 to 1 · 1,204 tokens: final tokens · live$/);
  assert.match(amountWords("sink", { ...found, state: "missing" }), /: not captured; all can be picked$/);
  assert.match(amountWords("load", { ...found, state: "undefined", tokens: 0 }), /^undefined: the baseline has none/);
  assert.deepEqual(pickCell(900, 128, 36), { width: 7, height: 11 });
  assert.deepEqual(pickCell(900, 8, 4), { width: 46, height: 24 });
});

test("keys of a view come before those of every view, and shifted arrows are its own", () => {
  const done = [];
  const view = { selection: { layer: 3 }, select: (s) => done.push(s), help: { toggle: () => done.push("help") } };
  viewAction(view, { key: "ArrowUp" }, {})();
  viewAction(view, { key: "?" }, {})();
  viewAction(view, { key: "ArrowUp" }, { ArrowUp: () => done.push("own") })();
  viewAction(view, { key: "/", shiftKey: true }, {})();
  assert.deepEqual(done, [{ layer: 2 }, "help", "own", "help"]);
  assert.equal(viewAction(view, { key: "r", ctrlKey: true }, { r: () => {} }), undefined);
  assert.equal(viewAction(view, { key: "ArrowLeft", shiftKey: true }, { ArrowLeft: () => {} }), undefined);
  assert.equal(viewAction(view, { key: "x" }, {}), undefined);
});

test("tokens are said with their last one", () => {
  const said = ["final", "all", [4, 6], [4, 5], [4, null]].map(tokensWords);
  assert.deepEqual(said, ["final tokens", "all tokens", "tokens 4–5", "token 4", "tokens from 4 on"]);
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
