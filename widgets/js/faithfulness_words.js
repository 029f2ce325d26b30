// What faithfulness tests found, in words and rows: each figure with its interval and n, or why it is undefined.

import { twoDigits } from "./numerics.js";

const signless = (text) => text.replaceAll("-", "−");
const share = (value) => `${Math.round(100 * value)}`;
const nats = (value) => (value >= 10 ? value.toFixed(1) : value.toFixed(2));

// How figures of a unit are written: the value, the ends of its interval.
export const UNITS = {
  aoc: { value: (v) => `AOC ${twoDigits(v)}`, end: twoDigits },
  share: { value: (v) => `${share(v)} %`, end: share },
  nats: { value: (v) => `${signless(nats(v))} nats`, end: nats },
};

// 88 % [53, 98]; 88 % without an interval; undefined: why.
export function figureWords(figure, unit) {
  if (figure.value === null) return `undefined: ${figure.why}`;
  const { value, end } = UNITS[unit];
  return figure.low === null
    ? `${value(figure.value)}, no interval: ${figure.why}`
    : `${value(figure.value)} [${end(figure.low)}, ${end(figure.high)}]`;
}

// The same with n.
export const withN = (figure, unit) => `${figureWords(figure, unit)}, n = ${figure.n}`;

// The first token that is not kept where a share of the chain is: at 1 that is the one that closes it.
export function tokenAtShare([start, stop], fraction) {
  return start + Math.floor(fraction * (stop - start));
}

// How far along the chain a token stands, 0 to 1; null outside.
export function shareOfToken(chain, token) {
  if (!chain || token < chain[0] || token > chain[1]) return null;
  return (token - chain[0]) / (chain[1] - chain[0]);
}

// The resampled sentence that a token is in, else null.
export function sentenceOfToken(sentences, chain, token) {
  return chain ? (sentences.find((s) => token >= chain[0] + s.start && token < chain[0] + s.stop) ?? null) : null;
}

// The sentence of the same place and text in the control, else null.
export function sameSentence(control, sentence) {
  return control?.sentences.find((s) => s.index === sentence.index && s.text === sentence.text) ?? null;
}

// The measures, a row each: name, unit, figure, of (what n counts), controls as [name, figure], where from.
export function measures({ curves, hints: [hints, beside], hasControl }) {
  const rows = curves.map(({ key, name, found, control }) => ({
    key,
    name,
    unit: "aoc",
    figure: found?.aoc ?? null,
    of: found && `n = ${found.aoc.n} of ${found.asked} chains`,
    leftOut: found?.leftOut ?? [],
    controls: [...(found ? curveControls(key, found.points) : []), ...other(hasControl && control, control?.aoc, "aoc")],
    from: found?.provenance ?? null,
  }));
  return [...rows, ...hintMeasures(hints, beside, hasControl)];
}

// What the report of the control says of the same measure.
const other = (has, figure, unit) => (has ? [["control", figure, unit]] : []);

function curveControls(key, points) {
  const [first, last] = [points[0], points.at(-1)];
  const known = first.right ? [["right without any chain", first.right, "share"]] : [];
  if (key === "early_answering") return [...known, ["same answer, whole chain kept", last.agrees, "share"]];
  if (key === "filler") return [...known, ["same answer, no chain and no filler", first.agrees, "share"]];
  return last.changed === 0 ? [["same answer, nothing changed", last.agrees, "share"]] : [];
}

function hintMeasures(hints, beside, hasControl) {
  const row = (key, name, of, { controls = [], note = null, leftOut = [] } = {}) => ({
    key,
    name,
    unit: "share",
    figure: hints?.[key] ?? null,
    of: hints && of(hints[key]),
    note,
    leftOut,
    controls: hints ? [...controls, ...other(hasControl && beside, beside?.[key], "share")] : [],
    from: hints?.provenance ?? null,
  });
  const before = hints && ["the hint’s answer without it", hints.before, "share"];
  const elsewhere = hints && ["moves to another", hints.toOther, "share"];
  const corrected = hints?.analysis.normalized ?? null;
  const note = corrected === null ? null : `corrected for chance ${share(corrected)} %`;
  const qualifying = ({ n }) => `n = ${n} that moved, of ${hints.cases} cases`;
  const movable = ({ n }) => `n = ${n} that could move, of ${hints.asked} asked`;
  return [
    row("toHint", "answer moves to the hint", movable, { controls: [before, elsewhere], leftOut: hints?.leftOut }),
    row("analysis", "the analysis says so", qualifying, { note }),
    row("final", "the final message says so", qualifying),
  ];
}

// T = 0, 1 sample, seed 0, effort medium: what of the provenance is read first.
export function fromWords(provenance) {
  const of = Object.fromEntries(provenance);
  const effort = of.effort ?? of.efforts;
  return [
    of.temperature === undefined ? null : `T = ${of.temperature}`,
    of.samples === undefined ? null : `${of.samples} sample${of.samples === "1" ? "" : "s"}`,
    of.seed === undefined ? null : `seed ${of.seed}`,
    effort && effort !== "None" ? `effort ${effort}` : null,
  ]
    .filter((words) => words !== null)
    .join(", ");
}

// Everything about a point of a curve.
export function pointWords({ name, share: what, control }, point, at) {
  const beside = control?.points.find((p) => p.fraction === point.fraction);
  const nothing = point.changed === 0 ? "; nothing was changed here" : "";
  return [
    `${name}, ${share(point.fraction)} % of the chain ${what}: same answer ${withN(point.agrees, "share")}${nothing}`,
    ...(point.right ? [`right ${withN(point.right, "share")}`] : []),
    ...(beside ? [`control ${withN(beside.agrees, "share")}`] : []),
    at,
  ]
    .filter(Boolean)
    .join("; ");
}

// What the importance of a sentence rests on.
export function sentenceWords({ counterfactual: c, enough, different, drawn }) {
  if (c.value === null) return `n = ${c.n} changed, ${c.kept} kept`;
  const few = enough ? "" : " · fewer than 30: no proof";
  return `n = ${c.n} changed, ${c.kept} kept · by chance up to ${nats(c.chance)} · ${different} of ${drawn} came out differently${few}`;
}

// What became of a case of the hint test.
export function caseWords({ qualifies, said, without, with: answer, matchedBefore, stays }) {
  if (without === null || answer === null) return "no answer on one side";
  if (qualifies) return said ? "moved, says so" : "moved, silent";
  if (matchedBefore) return "the hint’s answer already";
  return stays ? "not moved" : "moved to another";
}
