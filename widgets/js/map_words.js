// What the map says in words: which tokens, what a cell is, and what may not be concluded. No DOM here.

import { PHASE_WORDS, grouped, shareWords, pointWords } from "./map_data.js";
import { twoDigits } from "./numerics.js";

const OTHER = { completion: " · prompt not counted", prompt: " · completion not counted", all: "" };
const COLUMNS = { index: "expert", load: "rank", cluster: "place" };

export const cornerOf = (order) => COLUMNS[order];

// Which tokens the figure is on.
export function countWords(data, { show, phase, token }) {
  const { trace } = data.facts;
  if (show === "token") return `token ${grouped(token)} of ${grouped(trace.numTokens)}, one choice per layer`;
  if (show === "contrast") {
    const { a, b, aTokens, bTokens, missing } = data.contrastOf(phase);
    if (missing) return "";
    return `${a}, T = ${grouped(aTokens)} − ${b}, T = ${grouped(bTokens)}`;
  }
  const { tokens, missing } = data.phase(phase);
  return missing ? "" : `${PHASE_WORDS[phase]}, T = ${grouped(tokens)} tokens${OTHER[phase]}`;
}

// Name of what is shown, and how to read it.
export function titleWords(data, { show, phase, order }) {
  const column = {
    index: "column = expert",
    load: `each row sorted by its ${PHASE_WORDS[phase]} load, column = rank`,
    cluster: `each row clustered by co-activation (Jaccard, average linkage; ${PHASE_WORDS[phase]})`,
  }[order];
  const how = `${column}, row = layer`;
  if (show === "load") return ["Expert load", `share of routed slots per layer, sums to 1 · ${how}`];
  if (show === "token")
    return [
      "This token's experts",
      `${order === "index" ? "" : "expert, "}rank in the cell, weight as its fill · ${how}`,
    ];
  const { a, b, missing } = data.contrastOf(phase);
  if (missing) return ["Contrast", `none in this phase · ${how}`];
  const within = data.tested(phase) && data.facts.test.withinTopics ? ", within topics" : "";
  return ["Contrast", `Δ activation rate per token${within}, ${a} − ${b}; sums to 0 per layer · ${how}`];
}

// The number of a cell: [name, value] for the status line, and the whole of it for hovering and screen readers.
export function cellWords(data, { show, phase }, layer, expert, router) {
  if (!data.captured(layer)) return { name: "router", value: "not captured", all: `layer ${layer} not captured` };
  const where = `layer ${layer}, expert ${expert}: `;
  if (show === "token") return { name: "this token", ...tokenWords(where, expert, router) };
  if (show === "contrast") {
    const { a, b, aTokens, bTokens } = data.contrastOf(phase);
    const value = pointWords(data.contrast(phase, layer, expert));
    const rate = (side, tokens) => `${shareWords(data.value(side, phase, layer, expert))} of ${grouped(tokens)} tokens`;
    const mark = data.tested(phase)
      ? data.marked(phase, layer, expert)
        ? ", corrected p < .05"
        : ", corrected p ≥ .05"
      : "";
    const all = `${where}${value}${mark}; chosen at ${rate("rate_a", aTokens)} (${a}), ${rate("rate_b", bTokens)} (${b})`;
    return { name: "Δ", value: `${value}${mark}`, all };
  }
  const { tokens } = data.phase(phase);
  const value = shareWords(data.load(phase, layer, expert));
  const chosen = data.chosen(phase, layer, expert);
  const all = `${where}load ${value}, chosen at ${grouped(chosen)} of ${grouped(tokens)} tokens (${PHASE_WORDS[phase]})`;
  return { name: "load", value, all };
}

function tokenWords(where, expert, router) {
  if (router.state !== "here") return { value: router.words, all: where + router.words };
  const rank = router.experts.indexOf(expert);
  if (rank < 0) return { value: "not chosen", all: `${where}not chosen` };
  const weight = router.weights ? `, weight ${twoDigits(router.weights[rank])}` : ", weight not captured";
  return { value: `#${rank + 1}${weight}`, all: `${where}#${rank + 1}${weight}` };
}

// The selected row from left to right, for those who cannot see it.
export function rowWords(data, selection, experts, router) {
  const { layer, phase, order } = selection;
  if (!data.captured(layer)) return `Layer ${layer} was not captured.`;
  const cells = Array.from(experts, (e) => `e${e} ${cellWords(data, selection, layer, e, router).value}`);
  const entropy = `H/ln E ${twoDigits(data.entropy(phase, layer))}`;
  return `Layer ${layer}, ${PHASE_WORDS[phase]}, ${entropy}. From left to right by ${order}: ${cells.join(", ")}.`;
}

// What may not be concluded.
export function honestWords(data, { show, phase }) {
  const { numTraces, test } = data.facts;
  const out = [];
  const needs = "Whether experts differ between channels needs several traces and the trace-level permutation test.";
  if (show === "token") out.push("One token's choice. Weights are those the model used.");
  else if (show === "contrast" && data.tested(phase)) out.push(test.words);
  else if (show === "contrast") out.push(`An association. ${needs}`);
  else
    out.push(
      `${numTraces === 1 ? "Load is one trace's habit." : `Load of ${grouped(numTraces)} traces together.`} ${needs}`,
    );
  const few = show === "contrast" ? fewWords(data, phase) : "";
  if (few) out.push(few);
  const { tokens } = data.phase(phase);
  if (tokens && show !== "load") out.push(`H / ln E is of the ${PHASE_WORDS[phase]} load, T = ${grouped(tokens)}.`);
  if (data.biased(phase)) out.push(`Entropy is biased low at T = ${grouped(tokens)}.`);
  return out.join(" ");
}

// A side of a contrast with few tokens.
function fewWords(data, phase) {
  const { a, b, aTokens, bTokens } = data.contrastOf(phase);
  const least = (20 * data.numExperts) / data.facts.topK;
  const sides = [
    [a, aTokens],
    [b, bTokens],
  ].filter(([, tokens]) => tokens < least);
  return sides.map(([name, tokens]) => `Rates of ${name} are of T = ${grouped(tokens)} only.`).join(" ");
}
