// The keys of the map.

const MAP_KEYS = {
  ArrowUp: (x) => x.select({ layer: x.selection.layer - 1 }),
  ArrowDown: (x) => x.select({ layer: x.selection.layer + 1 }),
  "[": (x) => x.stepExpert(-1),
  "]": (x) => x.stepExpert(1),
  s: (x) => x.next("show"),
  p: (x) => x.next("phase"),
  o: (x) => x.next("order"),
  Enter: (x) => x.card.focus(),
  "?": (x) => x.help.toggle(),
  Escape: (x) => {
    x.help.close();
    x.root.focus();
  },
};

const WITH_TOKENS = {
  ArrowLeft: (x) => x.select({ token: x.selection.token - 1 }),
  ArrowRight: (x) => x.select({ token: x.selection.token + 1 }),
  Home: (x) => x.select({ token: 0 }),
  End: (x) => x.select({ token: x.facts.counts.token - 1 }),
};

const WITHOUT_TOKENS = {
  ArrowLeft: MAP_KEYS["["],
  ArrowRight: MAP_KEYS["]"],
  Home: (x) => x.stepExpert(-Infinity),
  End: (x) => x.stepExpert(Infinity),
};

const SENTENCES = {
  ArrowLeft: (x) => x.select({ token: x.tokens.sentenceStep(x.selection.token, -1) }),
  ArrowRight: (x) => x.select({ token: x.tokens.sentenceStep(x.selection.token, 1) }),
};

// What a key does, or undefined when it is not ours. Several traces have no one token to step.
export function mapAction({ key, shiftKey, ctrlKey, metaKey, altKey }, hasTokens) {
  if (ctrlKey || metaKey || altKey) return undefined;
  if (shiftKey && key === "/") return MAP_KEYS["?"];
  if (shiftKey && hasTokens && SENTENCES[key]) return SENTENCES[key];
  return MAP_KEYS[key] ?? (hasTokens ? WITH_TOKENS : WITHOUT_TOKENS)[key];
}

export const mapKeyList = (hasTokens) => [
  ["↑ ↓", "layer"],
  ["[ ]", "expert, as they stand in the row"],
  ...(hasTokens
    ? [
        ["← →", "token"],
        ["⇧ ← →", "sentence"],
        ["home end", "first, last token"],
      ]
    : [
        ["← →", "expert"],
        ["home end", "first, last expert of the row"],
      ]),
  ["s", "show load, contrast, this token"],
  ["p", "phase"],
  ["o", "order of the experts"],
  ["⏎", "to the expert's card"],
  ["?", "this list"],
  ["esc", "close"],
];
