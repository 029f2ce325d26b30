// What the view of a training says, and the scales of its lines. No DOM here.

import { twoDigits } from "./numerics.js";

// The colour scale ends at so many times the uniform load, so that two trainings have the same colours.
export const TIMES_UNIFORM = 4;

// Amount within 0–1 of a load on the colour scale.
export const amountOf = (load, experts) => Math.min(1, (load * experts) / TIMES_UNIFORM);

// Bounds of a line's scale, in tenths around its values and what it must show.
export function lineBounds(values, shown = []) {
  const known = [...values, ...shown].filter((v) => Number.isFinite(v));
  const low = Math.floor(Math.min(...known) * 10 + 1e-6) / 10;
  const high = Math.ceil(Math.max(...known) * 10 - 1e-6) / 10;
  return [low, Math.max(high, low + 0.1)];
}

const count = (number, unit) => `${number.toLocaleString("en")} ${unit}${number === 1 ? "" : "s"}`;

// How far a training is, and how it ended.
export function progressWords({ done = 0 }, planned, ended) {
  const of = `${done.toLocaleString("en")} of ${count(planned, "step")}`;
  return ended === "stopped" ? `stopped after ${count(done, "step")}` : `${ended || "training"} · ${of}`;
}

// [name, value] of the summary of the last steps.
export function summaryPairs({ load, entropy, cv, dead, loss, balance }) {
  return [
    ["highest load", twoDigits(Math.max(...load))],
    ["dead experts", dead.length ? `${dead.length} (${dead.join(", ")})` : "0"],
    ["H / ln E", twoDigits(entropy)],
    ["CV", cv.toFixed(2)],
    ["loss", `${loss.toFixed(2)} nats`],
    ["balance loss", balance.toFixed(2)],
  ];
}

// The picture in words, for those who do not see it.
export function pictureWords(facts) {
  if (!facts.load) return "Load of the experts by step: no step yet";
  const loads = facts.load.map((load, expert) => `expert ${expert} ${twoDigits(load)}`).join(", ");
  return `Load of the experts by step. Mean of the last ${count(facts.last, "step")}: ${loads}; uniform ${twoDigits(1 / facts.experts)}`;
}
