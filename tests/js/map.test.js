import assert from "node:assert/strict";
import test from "node:test";

import { MapData, pointWords, shareWords } from "../../widgets/js/map_data.js";
import { mapAction } from "../../widgets/js/map_keys.js";
import { MapPainter, cellSize, tickEvery } from "../../widgets/js/map_paint.js";
import { cellWords, countWords, honestWords, rowWords, titleWords } from "../../widgets/js/map_words.js";
import { withinCounts } from "../../widgets/js/selection.js";

const bytes = (array) => new DataView(array.buffer);
const floats = (...values) => bytes(Float64Array.from(values));

// Layers 1 and 4 of five were captured; three experts, two a token; 30 completion tokens, 2 of the prompt.
const facts = () => ({
  counts: { token: 32, layer: 5, head: 4, expert: 3 },
  layers: [1, 4],
  topK: 2,
  numTraces: 1,
  trace: { numTokens: 32 },
  phases: { completion: { tokens: 30 }, prompt: { tokens: 2 }, all: { missing: "there are none" } },
  contrasts: { completion: { a: "final", b: "analysis", aTokens: 10, bTokens: 20 }, prompt: { missing: "no final" } },
  orders: {},
  test: null,
});

const data = (changes = {}) =>
  new MapData(
    { ...facts(), ...changes },
    {
      "counts/completion": floats(10, 30, 20, 0, 30, 30),
      "counts/prompt": floats(2, 1, 1, 2, 2, 0),
      "entropy/completion": floats(0.5, 0.25),
      "order/completion": bytes(Int32Array.from([2, 0, 1, 1, 2, 0])),
      "contrast/completion": floats(0.25, -0.5, 0.25, 0, 0, 0),
      "rate_a/completion": floats(0.5, 0.6, 0.9, 0, 1, 1),
      "rate_b/completion": floats(0.25, 1.1, 0.65, 0, 1, 1),
      "p/completion": floats(0.04, 0.2, 0.05, 1, 1, 1),
    },
  );

const selection = (changes = {}) => ({
  ...{ show: "load", phase: "completion", order: "index", layer: 4, expert: 1, token: 3 },
  ...changes,
});

test("load is the share of routed slots, of the layer asked for", () => {
  assert.equal(data().load("completion", 4, 1), 30 / 60);
  assert.equal(data().load("completion", 1, 0), 10 / 60);
  assert.equal(data().load("prompt", 4, 2), 0);
  assert.ok(Number.isNaN(data().load("completion", 2, 1)));
  assert.equal(data().entropy("completion", 4), 0.25);
});

test("rows are ordered each by itself", () => {
  const experts = (order, layer) => Array.from(data().order(order, "completion", layer));
  assert.deepEqual(experts("index", 1), [0, 1, 2]);
  assert.deepEqual(experts("load", 1), [1, 2, 0]);
  assert.deepEqual(experts("load", 4), [1, 2, 0]); // equal loads by index
  assert.deepEqual(experts("cluster", 1), [2, 0, 1]);
  assert.deepEqual(experts("cluster", 4), [1, 2, 0]);
  assert.deepEqual(experts("load", 2), [0, 1, 2]); // not captured
});

test("the scale has its top at four times uniform, for few experts at twice, and never above what can be", () => {
  const top = (expert, topK) => {
    const { topLoad, canExceed } = data({ counts: { ...facts().counts, expert }, topK });
    return [topLoad, canExceed];
  };
  assert.deepEqual(top(32, 4), [4 / 32, true]);
  assert.deepEqual(top(8, 2), [2 / 8, true]);
  assert.deepEqual(top(16, 8), [1 / 8, false]);
  assert.equal(data().topContrast("completion"), 0.5);
  assert.equal(data().topContrast("prompt"), 0.01);
});

test("entropy of few selections per expert is said to be biased", () => {
  assert.equal(data().biased("prompt"), true); // 2 < 20·3/2
  assert.equal(data().biased("completion"), false); // 30 is not below 30
  assert.match(honestWords(data(), selection({ phase: "prompt" })), /Entropy is biased low at T = 2\./);
  assert.doesNotMatch(honestWords(data(), selection()), /biased/);
});

test("every number says of what it is", () => {
  const words = (changes, expert = 1) => cellWords(data(), selection(changes), 4, expert, null);
  assert.deepEqual(words({}), {
    name: "load",
    value: "50.0 %",
    all: "layer 4, expert 1: load 50.0 %, chosen at 30 of 30 tokens (completion)",
  });
  assert.equal(words({}, 0).value, "0.0 %");
  assert.equal(words({ layer: 2 }).value, "50.0 %");
  assert.equal(cellWords(data(), selection(), 2, 1, null).all, "layer 2 not captured");
  const contrast = cellWords(data(), selection({ show: "contrast" }), 1, 1, null);
  assert.equal(contrast.value, "−50.0 points");
  assert.match(contrast.all, /chosen at 60\.0 % of 10 tokens \(final\), 110\.0 % of 20 tokens \(analysis\)/);
  assert.equal(countWords(data(), selection()), "completion, T = 30 tokens · prompt not counted");
  assert.equal(countWords(data(), selection({ show: "contrast" })), "final, T = 10 − analysis, T = 20");
  assert.equal(countWords(data(), selection({ show: "token" })), "token 3 of 32, one choice per layer");
  assert.equal(
    rowWords(data(), selection(), [1, 2, 0], null),
    "Layer 4, completion, H/ln E .25. From left to right by index: e1 50.0 %, e2 50.0 %, e0 0.0 %.",
  );
  assert.match(
    titleWords(data(), selection({ order: "load" }))[1],
    /each row sorted by its completion load, column = rank/,
  );
});

test("a phase without the contrast says so and names no number", () => {
  const without = selection({ show: "contrast", phase: "prompt" });
  assert.match(titleWords(data(), without)[1], /^none in this phase/);
  assert.equal(countWords(data(), without), "");
  assert.doesNotMatch(honestWords(data(), without), /undefined/);
  assert.doesNotMatch(honestWords(data(), selection({ phase: "all" })), /undefined|biased/);
  assert.deepEqual(Array.from(data().order("load", "all", 1)), [0, 1, 2]);
});

test("rank and weight of this token's choice", () => {
  const router = { state: "here", experts: [2, 0], weights: [0.7, 0.3] };
  const words = (expert, r = router) => cellWords(data(), selection({ show: "token" }), 4, expert, r).value;
  assert.deepEqual([words(2), words(0), words(1)], ["#1, weight .70", "#2, weight .30", "not chosen"]);
  assert.equal(words(2, { ...router, weights: null }), "#1, weight not captured");
  assert.equal(words(2, { state: "waiting", words: "waiting for router" }), "waiting for router");
});

test("significance is spoken of only with a test of this phase", () => {
  const tested = data({ test: { words: "Corrected p < .05 in 1 of 2 × 3 cells; …", phases: ["completion"] } });
  const contrast = selection({ show: "contrast" });
  assert.match(honestWords(tested, contrast), /^Corrected p < \.05 in 1 of 2 × 3 cells/);
  assert.match(cellWords(tested, contrast, 1, 0, null).value, /corrected p < \.05/);
  assert.match(cellWords(tested, contrast, 1, 2, null).value, /corrected p ≥ \.05/);
  assert.match(honestWords(data(), contrast), /^An association\. .* needs several traces and the trace-level/);
  assert.match(
    honestWords(data(), contrast),
    /Rates of final are of T = 10 only\. Rates of analysis are of T = 20 only/,
  );
  assert.doesNotMatch(cellWords(data(), contrast, 1, 0, null).value, /corrected/);
  assert.match(honestWords(data(), selection()), /^Load is one trace's habit\./);
  assert.match(honestWords(data({ numTraces: 12 }), selection()), /^Load of 12 traces together\./);
});

test("shares and differences keep small ones apart from nothing", () => {
  assert.deepEqual([0, 0.0002, 0.027, 1, NaN].map(shareWords), ["0.0 %", "0.020 %", "2.7 %", "100.0 %", "undefined"]);
  assert.deepEqual([0, 0.031, -0.0001].map(pointWords), ["0.0 points", "+3.1 points", "−0.010 points"]);
});

test("cells are whole pixels, at least 7 wide, and a point is the cell drawn there", () => {
  assert.deepEqual(cellSize(510, 32, 24), { width: 15, height: 23 });
  assert.deepEqual(cellSize(300, 128, 36), { width: 7, height: 13 });
  assert.deepEqual(cellSize(900, 8, 4), { width: 112, height: 36 });
  assert.deepEqual([tickEvery(8, 56), tickEvery(32, 15), tickEvery(128, 7)], [1, 2, 4]);
  const painter = Object.assign(Object.create(MapPainter.prototype), { numLayers: 24, numExperts: 32 });
  painter.cell = { width: 15, height: 19 };
  const middle = (layer, position) => [painter.xOf(position), painter.top(layer) + 9];
  for (const [layer, position] of [
    [0, 0],
    [13, 7],
    [23, 31],
  ]) {
    assert.deepEqual(painter.at(...middle(layer, position)), { layer, position });
  }
  assert.deepEqual(painter.at(15 * 32 + 1, 40), { layer: 0, position: null });
});

test("arrows step the token of one trace, and experts where there are several", () => {
  const pressed = (key, hasTokens, shiftKey = false) => {
    const told = [];
    const view = {
      selection: { token: 5, layer: 2 },
      facts: facts(),
      select: (changes) => told.push(changes),
      stepExpert: (by) => told.push({ by }),
      next: (name) => told.push({ next: name }),
      tokens: { sentenceStep: (token, by) => token + by * 10 },
    };
    mapAction({ key, shiftKey }, hasTokens)?.(view);
    return told[0];
  };
  assert.deepEqual(pressed("ArrowRight", true), { token: 6 });
  assert.deepEqual(pressed("ArrowRight", true, true), { token: 15 });
  assert.deepEqual(pressed("End", true), { token: 31 });
  assert.deepEqual(pressed("ArrowRight", false), { by: 1 });
  assert.deepEqual(pressed("ArrowUp", false), { layer: 1 });
  assert.deepEqual(pressed("[", true), { by: -1 });
  assert.deepEqual(
    ["s", "p", "o"].map((key) => pressed(key, true).next),
    ["show", "phase", "order"],
  );
  assert.equal(mapAction({ key: "b" }, true), undefined);
  assert.equal(mapAction({ key: "s", ctrlKey: true }, true), undefined);
});

test("a selection stays within what there is", () => {
  const counts = { token: 0, layer: 5, head: 1, expert: 3 };
  assert.deepEqual(withinCounts({ token: 9, layer: 9, head: -1, expert: NaN }, counts), {
    ...{ token: 0, layer: 4, head: 0, expert: 0 },
  });
});
