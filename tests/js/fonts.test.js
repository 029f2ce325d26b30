import assert from "node:assert/strict";
import test from "node:test";

import { fontlessBadge, uncommon } from "../../widgets/js/fonts.js";

test("only characters that may lack a font are looked at, each once", () => {
  assert.deepEqual(uncommon(["7+5=12\n", "é ü\u0301", "思考", "思 😀"]), ["思", "考", "😀"]);
  assert.deepEqual(uncommon(["\u202e\ud83d"]), [], "no picture of their own, and half a pair");
  assert.ok(uncommon(Array.from({ length: 9000 }, (_, i) => String.fromCodePoint(0x4e00 + i))).length <= 400);
});

test("what has no font is counted and named by code point", () => {
  assert.equal(fontlessBadge([]), null);
  const one = fontlessBadge(["思"]);
  assert.equal(one.text, "1 character without a font here");
  assert.match(one.title, /U\+601D: install a font/);
  const many = fontlessBadge(Array.from({ length: 11 }, (_, i) => String.fromCodePoint(0x20000 + i)));
  assert.equal(many.text, "11 characters without a font here");
  assert.match(many.title, /U\+20000, .*U\+20007 and 3 more/);
});
