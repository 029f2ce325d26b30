// What the chain editor puts where, and what it says of branches, answers and costs. Texts are shown by readingText.

import { readingText } from "./tokens.js";

export const ACTIONS = ["replace", "delete", "insert", "truncate"];
export const takesText = (action) => action === "replace" || action === "insert";

const LONGEST_QUOTE = 60;

// Text from a model or a file in one line: hidden characters shown, cut when very long.
export function lineOf(text) {
  const whole = readingText(String(text)).trim().replaceAll("\n", "⏎");
  return whole.length > LONGEST_QUOTE ? `${Array.from(whole).slice(0, LONGEST_QUOTE).join("")}…` : whole;
}

// The text of tokens [start, stop) as it is, whole characters over several tokens too.
export function wholeText(tokens, start, stop) {
  const pieces = [];
  for (let i = start; i < stop; i++) {
    const at = tokens.at.get(tokens.ids[i]);
    const text = at === undefined ? "" : tokens.texts[at];
    pieces.push(tokens.raw.has(at) ? Uint8Array.from(text, (c) => c.charCodeAt(0)) : new TextEncoder().encode(text));
  }
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let offset = 0;
  for (const piece of pieces) {
    bytes.set(piece, offset);
    offset += piece.length;
  }
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

// White space before and after a sentence, and its text between.
export function borders(text) {
  const body = text.trim();
  const at = body ? text.indexOf(body) : text.length;
  return { lead: text.slice(0, at), body, tail: text.slice(at + body.length) };
}

// What is put there for what was typed: a sentence keeps its own white space and line end; one that is inserted stands
// apart from its neighbours as they do from each other. "" where nothing was typed.
export function putText(action, typed, sentence, next = "") {
  const body = typed.trim();
  if (!body || !takesText(action)) return "";
  const own = borders(sentence);
  if (action === "replace") return own.lead + body + own.tail;
  if (own.tail) return body + own.tail;
  const lead = borders(next).lead || own.lead;
  return (lead || " ") + body;
}

const VERBS = { replace: "replaced", delete: "deleted", insert: "inserted after", truncate: "truncated after" };

// "sentence 3 replaced: so 199".
export function editWords({ action, sentence, text }) {
  const where =
    action === "insert" || action === "truncate"
      ? `${VERBS[action]} sentence ${sentence + 1}`
      : `sentence ${sentence + 1} ${VERBS[action]}`;
  return text ? `${where}: ${lineOf(text)}` : where;
}

export function restWords({ action, rest }) {
  if (rest === "anew") return "rest written anew";
  return action === "truncate" ? "chain closed, answer anew" : "rest kept, answer anew";
}

const share = (value) => (value >= 0.995 ? "1.0" : value.toFixed(2).slice(1));

// "3 of 5 [.23–.88]"; greedy rollouts are no sample, and have no interval.
export function countWords({ count, n, interval }) {
  const base = `${count} of ${n}`;
  return interval ? `${base} [${share(interval[0])}–${share(interval[1])}]` : base;
}

export function drawnWords({ temperature, seed, n, wanted }) {
  if (temperature === null || temperature === undefined) return "";
  const seeds = n > 1 ? `seeds ${seed}–${seed + n - 1}` : `seed ${seed}`;
  const how = temperature === 0 ? "greedy" : `T = ${temperature}, ${seeds}`;
  return n < wanted ? `${how}, interrupted after ${n} of ${wanted}` : how;
}

// Branches as they hang together: [{at, depth}], each under the one that was edited.
export function treeOrder(records) {
  const out = [];
  const add = (at, depth) => {
    out.push({ at, depth });
    records.forEach((record, child) => {
      if (child > 0 && record.parent === at) add(child, depth + 1);
    });
  };
  if (records.length) add(0, 0);
  return out;
}

// Tokens that are read and, if the model writes as many as there were, written by each rollout. `closing` tokens close the
// chain and open the answer.
export function costOf({ action, rest }, sentence, { answerStart, closing, numTokens }) {
  const from = action === "insert" || action === "truncate" ? sentence.stop : sentence.start;
  if (rest === "anew") return { read: from, written: numTokens - sentence.stop };
  const kept = action === "truncate" ? closing : answerStart - sentence.stop;
  return { read: from + kept, written: numTokens - answerStart };
}

export function durationWords(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

// "5 rollouts × about 27 tokens written, 39 read each · about 0.7 s (0.005 s a token, as measured …)".
export function costWords({ read, written }, samples, speed) {
  const count = (n) => n.toLocaleString("en");
  const rollouts = samples === 1 ? "1 rollout" : `${count(samples)} rollouts`;
  const base = `${rollouts} × about ${count(written)} tokens written, ${count(read)} read`;
  if (!speed) return `${base} · how long is not known: no speed was measured`;
  const took = durationWords(samples * written * speed.seconds);
  return `${base} · about ${took} (${speed.seconds.toPrecision(2)} s a token, ${speed.measured})`;
}

// What two rollouts that stand side by side come to: of the answers, and the rest.
export function pairWords({ shown, beside, differ }, names) {
  const [is, was] = [shown.answer, beside.answer];
  const answers =
    is === null || was === null
      ? `no answers to compare: ${lineOf(was ?? "none")} in ${names[0]}, ${lineOf(is ?? "none")} in ${names[1]}`
      : is === was
        ? `same answer: ${lineOf(is)}`
        : `answer ${lineOf(is)} in place of ${lineOf(was)}`;
  const lengths = `chain ${shown.chainTokens.toLocaleString("en")} tokens, ${beside.chainTokens.toLocaleString("en")} in ${names[0]}`;
  const rows = `${differ.toLocaleString("en")} rows of tokens differ`;
  return [answers, ` · ${lengths} · ${rows} · one rollout each, the tree has the counts`];
}
