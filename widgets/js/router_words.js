// A router's arithmetic, as gpt-oss does it, and how it is put into words.

import { plain } from "./texts.js";

// Experts by falling logit, the first `topK` of them; of two that are alike the one with the lower number.
export function topExperts(logits, topK) {
  return logits
    .map((_, expert) => expert)
    .sort((a, b) => logits[b] - logits[a] || a - b)
    .slice(0, topK);
}

// A softmax over the logits of the chosen alone.
export function chosenWeights(logits, chosen) {
  const highest = Math.max(...chosen.map((expert) => logits[expert]));
  const powers = chosen.map((expert) => Math.exp(logits[expert] - highest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

// The lowest logit that got in minus the highest that did not; null where all are chosen.
export function marginOf(logits, topK) {
  if (topK >= logits.length) return null;
  const order = topExperts(logits, topK + 1);
  return logits[order[topK - 1]] - logits[order[topK]];
}

// How the weight of a chosen expert comes about: e^1.20 / (e^1.20 + e^0.70).
export function formula(logits, chosen, expert) {
  const power = (each) => `e^${signed(logits[each])}`;
  return `${power(expert)} / (${chosen.map(power).join(" + ")})`;
}

// What is computed here beside what the model did with its own logits.
export function comparison(chosen, weights, captured, say = plain) {
  if (!captured) return say("given by hand: there is no model to compare with");
  const differs = chosen.some((expert, rank) => expert !== captured.experts[rank]);
  if (differs) return say("→ the model chose otherwise: {experts}", { experts: captured.experts.join(", ") });
  const most = Math.max(...weights.map((weight, rank) => Math.abs(weight - captured.weights[rank])));
  return most < 0.0005
    ? say("✓ as in the model: the same experts, and weights that differ by {most} at most", { most: small(most) })
    : say("→ the model chose the same experts; weights differ by up to {most}", { most: most.toFixed(3) });
}

export function signed(logit) {
  return logit < 0 ? `−${(-logit).toFixed(2)}` : logit.toFixed(2);
}

function small(number) {
  return number === 0 ? "0" : number.toExponential(0).replace("-", "−");
}
