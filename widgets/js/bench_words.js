// What is said of an experiment: what is done, what came of it, and where it stands among its controls.

import { readingText } from "./tokens.js";

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
  "add vector": "the residual stream after the layer and the vector in place of the stream",
  "patch residual": "the source's residual stream after the layer in place of its own",
};

export const inPlaceWords = (variant) => IN_PLACE[variant] ?? "";

const listed = (of) => (of.length > 1 ? `${of.slice(0, -1).join(", ")} and ${of.at(-1)}` : String(of[0]));

export function tokensWords(tokens) {
  if (!Array.isArray(tokens)) return tokens === "all" ? "all tokens" : `${tokens} tokens`;
  const [start, stop] = tokens;
  if (stop === null) return `tokens from ${start} on`;
  return stop - start === 1 ? `token ${start}` : `tokens ${start}–${stop - 1}`;
}

// The vector or source by the name it was handed in under; by what is known of it where it has none.
function streamWords(one) {
  const name = one.name ?? one.vector ?? (typeof one.source === "string" ? one.source : null);
  const first = one.source_start ?? one.source_tokens?.[0];
  const moved = first === undefined || first === one.tokens?.[0] ? "" : ` from its token ${first} on`;
  if (name) return `“${plainWords(name)}”${moved} after layer ${one.layer}`;
  if (one.norm !== undefined) return `a vector of length ${Number(one.norm).toFixed(2)} after layer ${one.layer}`;
  const { question = "another trace" } = one.source ?? {};
  if (one.variant === "random patch") {
    return `as far as “${plainWords(question)}”${moved}, in a random direction, after layer ${one.layer}`;
  }
  return `“${plainWords(question)}”${moved} after layer ${one.layer}`;
}

function placesWords(description) {
  if (description.layer !== undefined) return streamWords(description);
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
    const amount = (one.factor ?? 1) !== 1 ? ` × ${one.factor}` : "by" in one ? ` by ${one.by}` : "";
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

const SHOWN = {
  load: "load: share of routed slots",
  weight: "weight: mean over the tokens, 0 where it is not chosen",
  sink: "sink mass: mean over the tokens",
};

// What a map to pick from shows, over which tokens, and from where; or why it shows nothing.
export function amountWords(measure, { top, uniform, state, tokens, span, source }) {
  const over = `${tokens.toLocaleString("en")} tokens: ${tokensWords(span)}`;
  if (state === "waiting") return `waiting for the kernel: ${SHOWN[measure]}, ${tokensWords(span)}`;
  if (state === "undefined") return `undefined: the baseline has none of these tokens (${tokensWords(span)})`;
  if (state === "missing") return `${SHOWN[measure]}: not captured; all can be picked`;
  const even = measure === "load" ? `, uniform ${uniform.toFixed(3)}` : "";
  const scale = measure === "sink" ? "0 to 1" : `0 to ≥ ${top.toFixed(2)} •${even}`;
  return `${SHOWN[measure]}, ${scale} · ${over} · ${source}`;
}
