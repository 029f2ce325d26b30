// What is asked of an experiment, read from what was typed; and what is said of one that was done.

import { readingText } from "./tokens.js";

export const EXPERT_VARIANTS = ["route around", "zero contribution", "mean output", "force", "scale", "swap"];
export const HEAD_VARIANTS = ["ablate head", "move sink", "suppress span"];
export const SPANS = ["all", "prompt", "completion", "analysis", "final"];

const LONGEST = 80;

// Text from a model or a file in one line: hidden characters shown, cut when very long.
function plainWords(text) {
  const whole = readingText(String(text)).replaceAll("\n", "⏎");
  return whole.length > LONGEST ? `${Array.from(whole).slice(0, LONGEST).join("")}…` : whole;
}

// What a variant puts in place of what.
const IN_PLACE = {
  "route around": "the next expert runs in place of it",
  "zero contribution": "0 in place of what it gives",
  "mean output": "its mean output in place of what it gives",
  force: "it runs in place of the last expert chosen",
  scale: "its weight times the factor in place of its weight",
  swap: "the second runs in place of the first",
  "ablate head": "0 in place of what the head gives",
  "move sink": "a moved sink logit in place of its own",
  "suppress span": "the span is hidden from the tokens after it",
};

export const inPlaceWords = (variant) => IN_PLACE[variant] ?? "";

const number = (text) => (/^\d+$/.test(text.trim()) ? Number(text) : NaN);
const wrong = (what, example, got) => ({ problem: `expected ${what}, such as ${example}; got “${got}”` });

// "0: 4, 6; 1: 3" → {picks: {0: [4, 6], 1: [3]}}, or {problem}. `of` is expert or head; a head list may be "all" (null),
// and of a swap each is "4>6".
export function parsePicks(text, { of, numLayers, count, variant }) {
  const swap = variant === "swap";
  const example = of === "head" ? "2: 0, 3; 3: all" : swap ? "0: 4>6" : "0: 4, 6; 1: 3";
  const picks = {};
  for (const part of text.split(";").filter((p) => p.trim())) {
    const [layer, rest, ...more] = part.split(":");
    if (rest === undefined || more.length) return wrong(`layer: ${of}s`, example, part.trim());
    const at = number(layer);
    if (!(at < numLayers)) return { problem: `expected a layer below ${numLayers}, got “${layer.trim()}”` };
    const all = of === "head" && rest.trim() === "all";
    const named = all ? null : rest.split(",").map((one) => (swap ? one.split(">").map(number) : number(one)));
    for (const one of (named ?? []).flat()) {
      if (!(one < count)) return { problem: `expected an ${of} below ${count} in layer ${at}, got “${rest.trim()}”` };
    }
    if (swap && named.some((pair) => pair.length !== 2)) return wrong("pairs", example, rest.trim());
    if (at in picks) return { problem: `layer ${at} is named twice` };
    picks[at] = named;
  }
  return Object.keys(picks).length ? { picks } : wrong(`layer: ${of}s`, example, text.trim());
}

// Add an expert or head to what was typed; what cannot be read is left as it is.
export function withPick(text, layer, one, options) {
  const found = text.trim() ? parsePicks(text, options) : { picks: {} };
  if (found.problem) return text;
  const own = found.picks[layer];
  if (own === null || own?.includes(one)) return text;
  return picksText({ ...found.picks, [layer]: [...(own ?? []), one] });
}

export function picksText(picks) {
  const list = (of) => (of === null ? "all" : of.map((one) => (Array.isArray(one) ? one.join(">") : one)).join(", "));
  return Object.entries(picks)
    .map(([layer, of]) => `${layer}: ${list(of)}`)
    .join("; ");
}

// "40–60", "40-" or one of SPANS → {tokens}, or {problem}; stop is not part of the span, and may be left out.
export function parseTokens(text, numTokens) {
  const plain = text.trim();
  if (SPANS.includes(plain)) return { tokens: plain };
  const found = /^(\d+)\s*[-–]\s*(\d*)$/.exec(plain);
  const [start, stop] = found ? [Number(found[1]), found[2] ? Number(found[2]) : null] : [];
  if (!found || start >= (stop ?? numTokens) || (stop ?? 0) > numTokens)
    return wrong(`${SPANS.join(", ")}, or tokens within ${numTokens}`, "40–60 or 40–", plain);
  return { tokens: [start, stop] };
}

// The description of an intervention, as meta["intervention"] of a trace has it; or {problem}.
export function described({ variant, picks, tokens, amount }, { numLayers, numHeads, numExperts, numTokens }) {
  const of = HEAD_VARIANTS.includes(variant) ? "head" : "expert";
  const count = of === "head" ? numHeads : numExperts;
  const places = parsePicks(picks, { of, numLayers, count, variant });
  if (places.problem) return places;
  const span = parseTokens(tokens, numTokens);
  if (span.problem) return span;
  const name = { scale: "factor", "move sink": "by" }[variant];
  if (name && !Number.isFinite(amount)) return { problem: `expected a number as ${name}` };
  const description = { variant, [`${of}s`]: places.picks, tokens: span.tokens };
  return { description: name ? { ...description, [name]: amount } : description };
}

const listed = (of) => (of.length > 1 ? `${of.slice(0, -1).join(", ")} and ${of.at(-1)}` : String(of[0]));

export function tokensWords(tokens) {
  if (!Array.isArray(tokens)) return tokens === "all" ? "all tokens" : `${tokens} tokens`;
  const [start, stop] = tokens;
  return stop === null ? `tokens from ${start} on` : `tokens ${start}–${stop - 1}`;
}

function placesWords(description) {
  const heads = description.heads ?? null;
  const places = description.experts ?? heads;
  if (places === null) return "all heads";
  const name = description.experts ? "expert" : "head";
  return Object.entries(places)
    .map(([layer, of]) => {
      if (of === null) return `all heads of layer ${layer}`;
      const one = (x) => (Array.isArray(x) ? `${x[0]} → ${x[1]}` : x);
      return `${name}${of.length > 1 ? "s" : ""} ${listed(of.map(one))} of layer ${layer}`;
    })
    .join(", ");
}

// "zero contribution: expert 4 of layer 0, all tokens".
export function doneWords(done) {
  const words = done.map((one) => {
    const amount = "factor" in one ? ` × ${one.factor}` : "by" in one ? ` by ${one.by}` : "";
    return `${one.variant}${amount}: ${placesWords(one)}, ${tokensWords(one.tokens)}`;
  });
  return readingText(words.join(" + "));
}

export function natsWords(kl) {
  if (kl === null || Number.isNaN(kl)) return "undefined";
  return kl > 0 && kl < 0.01 ? kl.toExponential(1) : kl.toFixed(3);
}

// Where the experiment stands among its controls; a control that ties counts as larger.
export function rankWords({ rank, meanKl, controlRows, kind, unmatched, controls }) {
  const n = controlRows.length;
  if (!n) return "no controls: an effect without one says nothing of what was changed";
  if (meanKl === null) return "rank undefined: no token comes after the change";
  const fewer = n < controls ? `, ${controls} were asked for and no more exist` : "";
  const nearest = unmatched ? `; ${unmatched} of them only nearest in load` : "";
  return `KL larger than ${n + 1 - rank} of ${n} ${kind} controls (rank ${rank} of ${n + 1}${fewer}${nearest})`;
}

export function answerChange({ generated, before, answer, keepsAnswer }) {
  if (!generated) return "read, not generated: no answer of its own";
  const [was, is] = [before ?? "none", answer ?? "none"].map(plainWords);
  if (keepsAnswer === null) return `no answers to compare: ${was} before, ${is} after`;
  return keepsAnswer ? `answer kept: ${is}` : `answer ${is} in place of ${was}`;
}

// What came of it, with how many tokens and controls it stands on.
export function verdictWords(record) {
  const { meanKl, compared, changed } = record;
  const kl = meanKl === null ? "KL undefined: no token comes after the change" : `mean KL ${natsWords(meanKl)} nats`;
  const over = meanKl === null ? "" : ` over the ${compared} tokens after the first changed one`;
  return `${answerChange(record)} · ${kl}${over} (${changed} changed) · ${rankWords(record)} · n = 1 rollout`;
}
