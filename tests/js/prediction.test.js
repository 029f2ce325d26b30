import assert from "node:assert/strict";
import { test } from "node:test";

import { counted, judged, numberWords, typedNumber } from "../../widgets/js/prediction_words.js";

test("numbers are shown with their unit, choices as they are", () => {
  assert.equal(numberWords(2, "experts"), "2 experts");
  assert.equal(numberWords(0.12345, ""), "0.123");
  assert.equal(numberWords(20914757184, "parameters"), "20,914,757,184 parameters");
  assert.equal(numberWords("high", "experts"), "high");
});

test("how far off", () => {
  assert.equal(judged(4, 4), "✓ as measured");
  assert.equal(judged(8, 4), "→ 4 too high, 2 times");
  assert.equal(judged(1, 4), "→ 3 too low, 4 times");
  assert.equal(judged(0, 4), "→ 4 too low");
  assert.equal(judged(-1, 4), "→ 5 too low");
  assert.equal(judged(3, 0), "→ 3 too high");
  assert.equal(judged("yes", "no"), "→ measured otherwise");
});

test("how much was read of a class", () => {
  const of = (n) => ({ guesses: Array(n).fill(["ada", 1, ""]) });
  assert.equal(counted([], 0), "nobody has guessed yet");
  assert.equal(counted([of(1)], 0), "1 guess at 1 question");
  assert.equal(counted([of(2), of(3)], 1), "5 guesses at 2 questions; 1 line could not be read");
  assert.equal(counted([], 2), "nobody has guessed yet; 2 lines could not be read");
});

test("commas in what is typed", () => {
  assert.equal(typedNumber(" 1,234 "), "1234");
  assert.equal(typedNumber("-21,000,000.5"), "-21000000.5");
  assert.equal(typedNumber("1,5"), "1.5");
  assert.equal(typedNumber("0,125"), "0.125");
  assert.equal(typedNumber("many"), "many");
});
