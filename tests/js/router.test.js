import assert from "node:assert/strict";
import { test } from "node:test";

import { chosenWeights, comparison, formula, marginOf, signed, topExperts } from "../../widgets/js/router_words.js";
import { inLanguage, plain } from "../../widgets/js/texts.js";

test("the highest logits are chosen, in rank order, the lower number first where they are alike", () => {
  assert.deepEqual(topExperts([0.1, 2, -3, 1.5, 2], 3), [1, 4, 3]);
  assert.deepEqual(topExperts([1, 1, 1], 2), [0, 1]);
});

test("weights are a softmax over the chosen alone, and the others do not matter", () => {
  const [first, second] = chosenWeights([Math.log(3), 0, -9], [0, 1]);
  assert.ok(Math.abs(first - 0.75) < 1e-12 && Math.abs(second - 0.25) < 1e-12);
  assert.deepEqual(chosenWeights([Math.log(3), 0, 5], [0, 1]), [first, second]);
  assert.deepEqual(chosenWeights([1000, 0], [0, 1]), [1, 0]); // no overflow
});

test("the margin is what separates the last chosen from the next", () => {
  assert.equal(marginOf([4, 1, 2.5, 0], 2), 1.5);
  assert.equal(marginOf([4, 1], 2), null);
});

test("words", () => {
  assert.equal(signed(-1.005), "−1.00");
  assert.equal(formula([1.2, -0.5, 0], [0, 1], 1), "e^−0.50 / (e^1.20 + e^−0.50)");
  assert.equal(comparison([1, 0], [0.75, 0.25], null), "given by hand: there is no model to compare with");
  const captured = { experts: [1, 0], weights: [0.75, 0.25] };
  assert.match(comparison([1, 0], [0.7501, 0.2499], captured), /^✓ as in the model: .* differ by 1e−4 at most$/);
  assert.equal(comparison([1, 0], [0.8, 0.2], captured), "→ the model chose the same experts; weights differ by up to 0.050");
  assert.equal(comparison([0, 1], [0.8, 0.2], captured), "→ the model chose otherwise: 1, 0");
});

test("names in a text are replaced, others and what is inherited stay", () => {
  assert.equal(plain("{a} of {b}, {c}", { a: 1, b: "{a}" }), "1 of {a}, {c}");
  assert.equal(plain("{toString}"), "{toString}");
});

test("a view is drawn anew in another language", () => {
  const heard = {};
  let known = { yes: "是", "{n} left": "剩 {n}" };
  const model = { get: () => known, on: (name, call) => (heard[name] = call), off: (name) => delete heard[name] };
  const drawn = [];
  const stop = inLanguage(({ say }) => {
    drawn.push([say("yes"), say("{n} left", { n: 2 }), say("toString")]);
    return () => drawn.push("stopped");
  })({ model, el: { replaceChildren: () => drawn.push("emptied") } });
  known = {};
  heard["change:_texts"]();
  stop();
  const expected = [["是", "剩 2", "toString"], "stopped", "emptied", ["yes", "2 left", "toString"], "stopped"];
  assert.deepEqual(drawn, expected);
  assert.deepEqual(heard, {});
});
