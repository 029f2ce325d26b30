// How a guess and what was measured are put into words.

// A number with at most three digits after the point, and its unit; a choice as it is.
export function numberWords(value, unit) {
  if (typeof value !== "number") return value;
  const places = Math.abs(value) >= 100 ? 1 : 3;
  return `${value.toLocaleString("en", { maximumFractionDigits: places })}${unit ? ` ${unit}` : ""}`;
}

// How far off a guess is: a difference, and a factor where it means something.
export function judged(guess, answer) {
  if (guess === answer) return "✓ as measured";
  if (typeof guess !== "number") return "→ measured otherwise";
  const off = numberWords(Math.abs(guess - answer), "");
  const factor = guess / answer;
  const times = factor > 0 && Number.isFinite(factor) ? `, ${numberWords(Math.max(factor, 1 / factor), "")} times` : "";
  return `→ ${off} too ${guess > answer ? "high" : "low"}${times}`;
}

// What was read of a class, and how much of it could not be.
export function counted(questions, unreadable) {
  const guesses = questions.reduce((sum, { guesses }) => sum + guesses.length, 0);
  const read = guesses
    ? `${guesses} guess${guesses === 1 ? "" : "es"} at ${questions.length} question${questions.length === 1 ? "" : "s"}`
    : "nobody has guessed yet";
  return unreadable ? `${read}; ${unreadable} line${unreadable === 1 ? "" : "s"} could not be read` : read;
}
