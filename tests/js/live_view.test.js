import assert from "node:assert/strict";
import { test } from "node:test";

import { shownText, tokensFrom } from "../../widgets/live_view.js";

test("specials in angle brackets, control characters as pictures, the rest as it is", () => {
  assert.equal(shownText("<|end|>", true), "⟨end⟩");
  assert.equal(shownText("<|end|>", false), "<|end|>");
  assert.equal(shownText("a\x1b[31m\x00\n\tb", false), "a␛[31m␀\n\tb");
});

test("the tokens that are not drawn yet, across the seam and within each part", () => {
  const earlier = ["t3", "t4", "t5"],
    recent = ["t6", "t7"];
  assert.deepEqual(tokensFrom(3, 3, earlier, recent), ["t3", "t4", "t5", "t6", "t7"]);
  assert.deepEqual(tokensFrom(5, 3, earlier, recent), ["t5", "t6", "t7"]);
  assert.deepEqual(tokensFrom(6, 3, earlier, recent), ["t6", "t7"]);
  assert.deepEqual(tokensFrom(7, 3, earlier, recent), ["t7"]);
  assert.deepEqual(tokensFrom(8, 3, earlier, recent), []);
  assert.deepEqual(tokensFrom(0, 0, [], ["t0"]), ["t0"]);
});
