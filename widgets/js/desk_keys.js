// The keys of the review desk. None of them acts while something is typed into a field, but ctrl+enter and escape.

import { INTERNAL_VIEWS } from "./desk_words.js";

const PLAIN_KEYS = {
  j: (desk) => desk.goInList(1),
  k: (desk) => desk.goInList(-1),
  Enter: (desk) => desk.openWanted(),
  r: (desk) => desk.reveal(),
  e: (desk) => desk.verdict.mark(),
  b: (desk) => desk.form.behaviour.focus(),
  c: (desk) => desk.verdict.nextConfidence(),
  a: (desk) => desk.form.alternative.focus(),
  n: (desk) => desk.form.comment.focus(),
  t: (desk) => desk.verdict.openTest(),
  x: (desk) => desk.verdict.openSkip(),
  o: (desk) => desk.list.order.focus(),
  d: (desk) => desk.switchMode(),
  "/": (desk) => desk.list.openSearch(),
  "?": (desk) => desk.help.toggle(),
  Escape: (desk) => desk.escape(),
  ArrowLeft: (desk) => desk.step(-1, false),
  ArrowRight: (desk) => desk.step(1, false),
  ArrowUp: (desk) => desk.stepMessage(-1),
  ArrowDown: (desk) => desk.stepMessage(1),
  Home: (desk) => desk.stepEnd(-1, false),
  End: (desk) => desk.stepEnd(1, false),
};

const SHIFTED_KEYS = {
  ArrowLeft: (desk) => desk.step(-1, true),
  ArrowRight: (desk) => desk.step(1, true),
  Home: (desk) => desk.stepEnd(-1, true),
  End: (desk) => desk.stepEnd(1, true),
  "?": PLAIN_KEYS["?"],
  "/": PLAIN_KEYS["?"],
};

export const DESK_KEYS = [
  ["j k", "next, previous trace of the list; opens after a moment, or with enter"],
  ["/", "search the traces"],
  ["o", "order of the queue"],
  ["d", "disagreements, for who may adjudicate"],
  ["r", "reveal the chain"],
  ["← →", "token; with shift more of them"],
  ["↑ ↓", "message"],
  ["home end", "first, last token of the message; with shift up to it"],
  ["e", "mark what is chosen as evidence; again: take it back"],
  ["b", "behaviour"],
  ["0 – 4", "severity"],
  ["c", "confidence"],
  ["t", "enter a causal test"],
  ["a", "another explanation"],
  ["n", "comment"],
  ["⌃⏎", "save the verdict, from fields too"],
  ["x", "skip, with a reason"],
  ["⇧1 – ⇧4", "router, attention, entropy, experiments"],
  ["esc", "out of a field; close"],
  ["?", "this list"],
];

export const DESK_HINTS = [
  [["j", "k"], "queue"],
  [["r"], "reveal"],
  [["e"], "mark evidence"],
  [["b"], "behaviour"],
  [["0–4"], "severity"],
  [["⌃⏎"], "save"],
  [["?"], "all keys"],
];

// What a key does here, or undefined when it is not ours.
export function deskAction({ key, code = "", shiftKey, ctrlKey, metaKey, altKey }) {
  if ((ctrlKey || metaKey) && key === "Enter") return (desk) => desk.verdict.submit();
  if (ctrlKey || metaKey || altKey) return undefined;
  const digit = /^Digit([1-4])$/.exec(code); // the key, whatever shift makes of it on this keyboard
  if (shiftKey && digit) return (desk) => desk.showInternals(INTERNAL_VIEWS[digit[1] - 1]);
  if (shiftKey) return SHIFTED_KEYS[key];
  if (/^\d$/.test(key)) return (desk) => desk.verdict.setSeverity(Number(key));
  return PLAIN_KEYS[key];
}
