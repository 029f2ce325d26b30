// How a guess and what was measured are put into words.

import { plain } from "./texts.js";

// A number with at most three digits after the point, and its unit; a choice as it is.
export function numberWords(value, unit) {
  if (typeof value !== "number") return value;
  const places = Math.abs(value) >= 100 ? 1 : 3;
  return `${value.toLocaleString("en", { maximumFractionDigits: places })}${unit ? ` ${unit}` : ""}`;
}

// What was typed, as a number is written in Python: a comma between thousands goes, one before decimals is a point.
export function typedNumber(text) {
  const bare = text.trim();
  return /^[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?$/.test(bare) ? bare.replaceAll(",", "") : bare.replace(",", ".");
}

// How far off a guess is: a difference, and a factor where it means something.
export function judged(guess, answer, say = plain) {
  if (guess === answer) return say("✓ as measured");
  if (typeof guess !== "number") return say("→ measured otherwise");
  const off = numberWords(Math.abs(guess - answer), "");
  const factor = guess / answer;
  const known = factor > 0 && Number.isFinite(factor);
  const times = known ? say(", {times} times", { times: numberWords(Math.max(factor, 1 / factor), "") }) : "";
  return (guess > answer ? say("→ {off} too high", { off }) : say("→ {off} too low", { off })) + times;
}

// What was read of a class, and how much of it could not be.
export function counted(questions, unreadable) {
  const guesses = questions.reduce((sum, { guesses }) => sum + guesses.length, 0);
  const read = guesses
    ? `${guesses} guess${guesses === 1 ? "" : "es"} at ${questions.length} question${questions.length === 1 ? "" : "s"}`
    : "nobody has guessed yet";
  return unreadable ? `${read}; ${unreadable} line${unreadable === 1 ? "" : "s"} could not be read` : read;
}
