import assert from "node:assert/strict";
import test from "node:test";

import { Cards } from "../../widgets/js/cards.js";
import {
  contextText,
  factsOf,
  neverWords,
  noLiftsWords,
  nullWords,
  percent,
  times,
} from "../../widgets/js/expert_panel.js";

const CARD = {
  tokens: 11914,
  chosen: 1293,
  uniform: 0.125,
  meanWeight: 0.2149,
  lifts: { minCount: 10, numIds: 41, numAbove: 12, null: { lift: 1.9, shuffles: 200 } },
};

test("a share says as much as it holds", () => {
  assert.equal(percent(1293 / 11914), "10.9 %");
  assert.equal(percent(0.0004), "<0.1 %");
  assert.equal(percent(0), "0 %");
  assert.equal(percent(1), "100 %");
});

test("lifts are factors", () => {
  assert.equal(times(9.21), "9.2×");
  assert.equal(times(0.04), "0.0×");
  assert.equal(times(9.96), "10×");
});

test("the facts state how many of how many, and what uniform would be", () => {
  assert.equal(factsOf(CARD), "chosen at 1,293 of 11,914 tokens (10.9 %; uniform 12.5 %) · mean weight .21");
  assert.match(factsOf({ ...CARD, meanWeight: null }), /· weights not captured$/);
  assert.equal(factsOf({ ...CARD, meanWeight: null, chosen: 0 }), "chosen at 0 of 11,914 tokens (0 %; uniform 12.5 %)");
});

test("the null is named with what it is of", () => {
  assert.equal(
    nullWords(CARD.lifts),
    "shuffled tokens, 97.5 %: 1.9× (highest of all ids, 200 shuffles) · 12 of 41 ids above it, the others hollow",
  );
  assert.match(nullWords({ ...CARD.lifts, numAbove: 0 }), /· none of 41 ids above it$/);
  assert.match(nullWords({ ...CARD.lifts, numIds: 1, numAbove: 0 }), /· none of 1 id above it$/);
});

test("an empty list says why", () => {
  assert.equal(
    noLiftsWords({ ...CARD, tokens: 126, lifts: { minCount: 10, numIds: 0 } }),
    "no token id was seen 10 times in T = 126 tokens",
  );
  assert.equal(noLiftsWords({ ...CARD, chosen: 0 }), "no token chose this expert in T = 11,914 tokens");
  assert.equal(
    noLiftsWords(CARD),
    "of 41 ids seen ≥ 10 times in T = 11,914 tokens, none is chosen more often than the base rate",
  );
  assert.equal(neverWords({ tokens: 79 }), "no token chose this expert in T = 79 tokens");
});

test("context is one line, cut at its far end, with hidden characters shown", () => {
  assert.equal(contextText("so 162\ncheck\t\u202e"), "so 162⏎check⇥⟨202E⟩");
  assert.equal(contextText("abcdef", 3), "…def");
  assert.equal(contextText("a😀b", 2), "…😀b");
  assert.equal(contextText("<img src=x>"), "<img src=x>");
});

// A model as anywidget gives it, whose kernel answers when told to.
function aModel(cards = {}) {
  const model = {
    sent: [],
    get: (name) => (name === "_cards" ? cards : undefined),
    on: (_, callback) => (model.answer = callback),
    off: () => {},
    send: (message) => model.sent.push(message),
  };
  return model;
}

test("cards that came with the view are there at once", () => {
  const model = aModel({ "1/3": { expert: 3 } });
  assert.deepEqual(new Cards(model, () => {}).get("1/3"), { expert: 3 });
  assert.deepEqual(model.sent, []);
});

test("of cards passed by while the kernel answers, only the last is asked for", () => {
  const model = aModel();
  let arrived = 0;
  const cards = new Cards(model, () => arrived++);
  for (const key of ["0/0", "0/1", "0/2"]) assert.deepEqual(cards.get(key), { waiting: "waiting for the kernel" });
  assert.deepEqual(model.sent, [{ card: "0/0" }]);
  model.answer({ key: "0/0", card: { expert: 0 } });
  assert.deepEqual(model.sent, [{ card: "0/0" }, { card: "0/2" }]);
  model.answer({ key: "0/2", card: { error: "not there" } });
  assert.deepEqual(cards.get("0/2"), { error: "not there" });
  assert.deepEqual(cards.get("0/0"), { expert: 0 });
  assert.equal(arrived, 2);
  assert.equal(model.sent.length, 2);
  model.answer({ said: "another view's message" });
  cards.close();
});

test("a kernel that does not answer is named", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const model = aModel();
  let arrived = 0;
  const cards = new Cards(model, () => arrived++);
  cards.get("2/1");
  t.mock.timers.tick(8000);
  assert.equal(arrived, 1);
  assert.deepEqual(cards.get("2/1"), { waiting: "no answer from the kernel: is it running?" });
  model.answer({ key: "2/1", card: { expert: 1 } });
  assert.deepEqual(cards.get("2/1"), { expert: 1 });
});
