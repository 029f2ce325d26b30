// What the comparison says in words: outcomes, lengths, means, from the numbers of the analysis.

import { ranges } from "./reading.js";

export const MARKS = { right: "✓", other: "×", cut: "✂", none: "–", given: "" };

// What an outcome came to: right, other, cut, none (no answer), or given where nothing is scored.
export function outcomeKind({ cut, right, answer }) {
  if (cut !== null) return "cut";
  if (answer === null) return "none";
  if (right === null) return "given";
  return right ? "right" : "other";
}

export function chipText(outcome) {
  const kind = outcomeKind(outcome);
  const said = { cut: "cut", none: "none" }[kind] ?? outcome.answer;
  return `${MARKS[kind]} ${said}`.trim();
}

// Everything about a rollout, for its title and for those who do not see the mark.
export function outcomeWords(outcome, number, seed) {
  const kind = outcomeKind(outcome);
  const said = {
    right: `right answer: ${outcome.answer}`,
    other: `not the reference answer: ${outcome.answer}`,
    given: `answer: ${outcome.answer}`,
    none: outcome.right === false ? "ended without an answer, which counts as not right" : "ended without an answer",
    cut: `${outcome.cut}: not scored`,
  }[kind];
  const time = outcome.seconds === null ? "" : `, ${outcome.seconds.toFixed(1)} s`;
  const from = seed === null || seed === undefined ? "" : `, seed ${seed}`;
  return `rollout ${number}${from}: ${said}; ${lengthWords(outcome)}${time}`;
}

export const plain = (n) => n.toLocaleString("en");

export const lengthWords = ({ completionTokens, chainTokens }) =>
  `${plain(completionTokens)} tokens, ${plain(chainTokens)} in analysis`;

export function meanWords({ mean, low, high, n }) {
  if (!n) return "not recorded";
  const between = low === null ? "" : ` [${low.toFixed(1)}, ${high.toFixed(1)}]`;
  return `mean ${mean.toFixed(1)}${between}, n = ${n}`;
}

export function proportionWords({ successes, n, value, low, high }) {
  return `${successes}/${n} = ${Math.round(100 * value)} % [${Math.round(100 * low)}, ${Math.round(100 * high)}]`;
}

// 8 of 10, 2 cut.
export function countedWords({ numCompleted, numCut }) {
  return numCut ? `${numCompleted} of ${numCompleted + numCut}, ${numCut} ✂` : `n = ${numCompleted}`;
}

// What the completed rollouts answered, most frequent first.
export function answersWords({ answers, numUnanswered, numQuestions }, most = 4) {
  if (!answers) return `${numQuestions} questions`;
  const shown = answers.slice(0, most).map(([text, count]) => `${text} ×${count}`);
  if (answers.length > most) shown.push(`${answers.length - most} more`);
  if (numUnanswered) shown.push(`no answer ×${numUnanswered}`);
  return shown.join(", ");
}

// 8 rollouts each, T = 1, seeds 0–7; seeds that do not follow one another are not listed.
export function drawnWords(columns) {
  const counts = columns.map((c) => c.rollouts.length);
  const same = counts.every((n) => n === counts[0]);
  const rollouts = same ? `${counts[0]} rollouts each` : `${counts.join(", ")} rollouts`;
  const all = columns.flatMap((c) => c.rollouts);
  const temperatures = [...new Set(all.map((r) => r.temperature).filter((t) => t !== null && t !== undefined))];
  const seeds = [...new Set(all.map((r) => r.seed).filter((s) => Number.isInteger(s)))].sort((a, b) => a - b);
  return [
    rollouts,
    ...(temperatures.length ? [`T = ${temperatures.join(", ")}`] : []),
    ...(seeds.length ? [inARow(seeds) ? `seeds ${ranges(seeds)}` : "a seed of its own each"] : []),
  ].join(", ");
}

const inARow = (seeds) => seeds.at(-1) - seeds[0] === seeds.length - 1;

// The end of a scale: the smallest of 1, 2, 2.5, 5 times a power of ten that holds a value.
export function niceEnd(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((m) => m * power).find((end) => end >= value * (1 - 1e-9));
}

const minus = (text) => text.replaceAll("-", "−");
const signed = (n, digits) => minus(`${n < 0 ? "" : "+"}${n.toFixed(digits)}`);
const sides = ({ n, unit }) => `n = ${n.join(" + ")} ${unit}`;

// p of a test: two digits.
export const pWords = (p) => (p < 0.001 ? p.toExponential(0).replace("-", "−") : Number(p.toPrecision(2)).toString());

// What is claimed of a pair: [what, words, title], each with its n and its null.
export function claimsOf(pair) {
  const { accuracy, chain, chainNotTested, found, notTested, noRouting, overlap, unit, shape, layers } = pair;
  const points = accuracy?.map((v) => signed(100 * v, 0));
  const accuracyWords = points ? `${points[0]} points [${points[1]}, ${points[2]}]` : "no references";
  const chainWords = chain
    ? `${signed(chain.difference, 1)} tokens, p = ${pWords(chain.p_value)} (${sides({ n: [chain.n_a, chain.n_b], unit })})`
    : `not tested: ${chainNotTested}`;
  const foundWords = found
    ? `${found.experts} of ${shape[0] * shape[1]} experts, ${found.layers} of ${layers.length} layers ` +
      `(${sides({ n: found.n, unit })}; null of ${plain(found.labellings)} labellings)`
    : noRouting
      ? `not comparable: ${noRouting}`
      : `not tested: ${notTested}`;
  return [
    ["accuracy", accuracyWords, "Newcombe 95 % interval, as if all rollouts were independent"],
    ["length of the chain", chainWords, chain?.method],
    ["experts that differ", foundWords, found?.method],
    ["overlap on the shared prompt", overlap ? overlapWords(overlap) : "none", "|∩| / k, mean over layers"],
  ];
}

// Overlap of routing on the prompt that both share, averaged over layers.
export function overlapWords(overlap) {
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const parts = overlap.map(({ context, n, layers }) => `${mean(layers).toFixed(2)} in the ${context} (${n} tokens)`);
  return parts.join(", ");
}

// What else is known of the groups, a line for each measure that any of them has.
export function groupNotes(columns) {
  const notes = [
    ["two rollouts of a question answer alike", ({ agreement }) => agreement?.toFixed(2)],
    ["the chain's last result is the answer", ({ chainAgrees }) => chainAgrees && proportionWords(chainAgrees)],
    ["seconds of a rollout", ({ seconds }) => (seconds.n ? meanWords(seconds) : null)],
    [
      "attention of the answer to the chain, mean over layers and heads, an association",
      ({ attention }) => attention?.mean?.toFixed(3),
    ],
  ];
  return notes.flatMap(([what, read]) => {
    const values = columns.map(read);
    if (!values.some(Boolean)) return [];
    return [`${what}: ${columns.map(({ name }, i) => `${name} ${values[i] ?? "undefined"}`).join(" · ")}`];
  });
}
