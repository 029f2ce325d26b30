// What is asked of an experiment: read from what was typed, or picked from a map.

export const EXPERT_VARIANTS = ["route around", "zero contribution", "mean output", "force", "scale", "swap"];
export const HEAD_VARIANTS = ["ablate head", "move sink", "suppress span"];
export const STREAM_VARIANTS = ["add vector", "patch residual"];
export const SPANS = ["all", "prompt", "completion", "analysis", "final"];

// What a variant is done to: experts, heads, or the residual stream after a layer.
export function kindOf(variant) {
  if (STREAM_VARIANTS.includes(variant)) return "stream";
  return HEAD_VARIANTS.includes(variant) ? "heads" : "experts";
}

export const AMOUNTS = { scale: "factor", "move sink": "by", "add vector": "factor" };

const number = (text) => (/^\d+$/.test(text.trim()) ? Number(text) : NaN);
const wrong = (what, example, got) => ({ problem: `expected ${what}, such as ${example}; got “${got}”` });

// What picks of a variant may be, in a model of this shape.
export function limitsOf(variant, { numLayers, numHeads, numExperts }) {
  const of = kindOf(variant) === "heads" ? "head" : "expert";
  return { of, numLayers, count: of === "head" ? numHeads : numExperts, variant };
}

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

export function picksText(picks) {
  const list = (of) => (of === null ? "all" : of.map((one) => (Array.isArray(one) ? one.join(">") : one)).join(", "));
  return Object.entries(picks)
    .map(([layer, of]) => `${layer}: ${list(of)}`)
    .join("; ");
}

// Layer and number of all that is named in the text, for a map; none where it cannot be read. A swap names two.
export function placesOf(text, limits) {
  const { picks = {} } = text.trim() ? parsePicks(text, limits) : {};
  return Object.entries(picks).flatMap(([layer, of]) =>
    (of ?? Array.from({ length: limits.count }, (_, i) => i)).flat().map((one) => ({ layer: Number(layer), one })),
  );
}

// Take one in or out of what was typed; what cannot be read is left as it is. The first of a swap waits as `from`,
// {layer, one}, for the second. Returns {text, from}.
export function toggled(text, layer, one, limits, from = null) {
  const found = text.trim() ? parsePicks(text, limits) : { picks: {} };
  if (found.problem) return { text, from: null };
  const all = Array.from({ length: limits.count }, (_, i) => i);
  const own = found.picks[layer] === null ? all : (found.picks[layer] ?? []);
  const changed = limits.variant === "swap" ? swapped(own, layer, one, from) : { own: flipped(own, one), from: null };
  const { [layer]: _, ...others } = found.picks;
  const picks = changed.own.length ? { ...others, [layer]: changed.own } : others;
  return { text: picksText(picks), from: changed.from };
}

const flipped = (own, one) => (own.includes(one) ? own.filter((each) => each !== one) : [...own, one]);

function swapped(own, layer, one, from) {
  if (from?.layer === layer) return { own: from.one === one ? own : [...own, [from.one, one]], from: null };
  if (own.some(([first]) => first === one)) return { own: own.filter(([first]) => first !== one), from: null };
  return { own, from: { layer, one } };
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

// The description of an intervention, as meta["intervention"] of a trace has it, or with the name of a vector or a
// source that Python holds; or {problem}.
export function described(change, facts) {
  const { variant, amount } = change;
  const span = parseTokens(change.tokens, facts.numTokens);
  const name = AMOUNTS[variant];
  const places = kindOf(variant) === "stream" ? streamPlace(change, facts) : pickedPlaces(change, facts);
  if (places.problem) return places;
  if (span.problem) return span;
  if (name && !Number.isFinite(amount)) return { problem: `expected a number as ${name}` };
  const description = { variant, ...places, tokens: span.tokens };
  if (variant === "patch residual") return patched(description, change, facts);
  return { description: name ? { ...description, [name]: amount } : description };
}

function pickedPlaces({ variant, picks }, facts) {
  const limits = limitsOf(variant, facts);
  const places = parsePicks(picks, limits);
  return places.problem ? places : { [`${limits.of}s`]: places.picks };
}

function streamPlace({ variant, layer, given }, { numLayers, vectors, sources }) {
  const kind = variant === "add vector" ? "vector" : "source";
  const known = (kind === "vector" ? vectors : sources).map(({ name }) => name);
  if (!known.includes(given)) {
    return { problem: `no ${kind} was handed in; make the bench with ${kind}s={"name": …}` };
  }
  if (!(Number.isInteger(layer) && layer >= 0 && layer < numLayers))
    return { problem: `expected a layer below ${numLayers}` };
  return { layer, [kind]: given };
}

// Patching is of positions on both sides.
function patched(description, { sourceStart }, { sources }) {
  const { tokens, source, layer } = description;
  if (!Array.isArray(tokens) || tokens[1] === null) {
    return { problem: "a patch is of positions: expected tokens with an end, such as 40–60" };
  }
  const { numTokens, layers } = sources.find(({ name }) => name === source);
  if (!layers.includes(layer)) {
    return { problem: `“${source}” has the residual stream of layers ${layers.join(", ")}, not of ${layer}` };
  }
  const start = sourceStart.trim() ? number(sourceStart) : tokens[0];
  if (!(start + tokens[1] - tokens[0] <= numTokens)) {
    return { problem: `expected a first token of “${source}” that leaves ${tokens[1] - tokens[0]} of its ${numTokens}` };
  }
  return { description: start === tokens[0] ? description : { ...description, source_start: start } };
}
