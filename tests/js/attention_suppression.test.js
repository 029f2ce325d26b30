import assert from "node:assert/strict";
import test from "node:test";

import { suppressionWords } from "../../widgets/js/attention_suppression.js";

const textOf = (token) => `‹${token}›`;

test("what hiding a sentence changed is said with its counts", () => {
  const result = {
    answer: { kl: 1.234, count: 4 },
    later: { kl: 0.0051, count: 1200 },
    most: { token: 4321, kl: 6 },
  };
  assert.equal(
    suppressionWords("sentence 3", result, textOf),
    "sentence 3 hidden from all later tokens, all heads and layers, KL: answer 1.23 nats (mean of 4) · " +
      "all later tokens 5.1e-3 (mean of 1,200) · most 6.00 at 4,321 ‹4321›",
  );
  assert.match(suppressionWords("sentence 3", { ...result, answer: null }, textOf), /KL: no answer after it · all later/);
});

test("what could not be had is said, and is not 0", () => {
  assert.equal(
    suppressionWords("sentence 9", { answer: null, later: null, most: null }, textOf),
    "sentence 9 hidden: no later token has a prediction to compare",
  );
  assert.equal(
    suppressionWords("sentence 9", { problem: "ModelError: no" }, textOf),
    "sentence 9 could not be hidden: ModelError: no",
  );
});
