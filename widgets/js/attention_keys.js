// The keys of the attention view.

const ATTENTION_PLAIN = {
  ArrowLeft: (x) => x.select({ token: x.selection.token - 1 }),
  ArrowRight: (x) => x.select({ token: x.selection.token + 1 }),
  ArrowUp: (x) => x.select({ layer: x.selection.layer - 1 }),
  ArrowDown: (x) => x.select({ layer: x.selection.layer + 1 }),
  Home: (x) => x.select({ token: 0 }),
  End: (x) => x.select({ token: x.facts.numTokens - 1 }),
  "[": (x) => x.select({ head: x.selection.head - 1 }),
  "]": (x) => x.select({ head: x.selection.head + 1 }),
  m: (x) => x.map.next("show"),
  p: (x) => x.map.next("pool"),
  a: (x) => x.map.next("heads"),
  z: (x) => x.map.zoom(),
  Enter: (x) => x.map.focus(),
  "/": (x) => x.find.open(),
  "?": (x) => x.help.toggle(),
  Escape: (x) => x.escape(),
};

const ATTENTION_SHIFTED = {
  ArrowLeft: (x) => x.select({ token: x.tokens.sentenceStep(x.selection.token, -1) }),
  ArrowRight: (x) => x.select({ token: x.tokens.sentenceStep(x.selection.token, 1) }),
  "?": ATTENTION_PLAIN["?"],
  "/": ATTENTION_PLAIN["?"],
  "[": ATTENTION_PLAIN["["],
  "]": ATTENTION_PLAIN["]"],
};

export const ATTENTION_KEYS = [
  ["← →", "token"],
  ["⇧ ← →", "sentence"],
  ["↑ ↓", "layer"],
  ["[ ]", "head"],
  ["home end", "first, last token"],
  ["m", "map: sentences, overview"],
  ["a", "map of this head, mean of the heads"],
  ["p", "overview by max, mean"],
  ["z", "tokens of this sentence and the one it reads most"],
  ["⏎", "into the map: ← → ↑ ↓ and home end by cell, ⇧ by ten, ⏎ opens, esc leaves"],
  ["/", "find"],
  ["?", "this list"],
  ["esc", "back, close"],
];

// What a key does, or undefined when it is not ours.
export function attentionAction({ key, shiftKey, ctrlKey, metaKey, altKey }) {
  if (ctrlKey || metaKey || altKey) return undefined;
  return (shiftKey ? ATTENTION_SHIFTED : ATTENTION_PLAIN)[key];
}
