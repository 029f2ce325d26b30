// The keys of the chain view.

const CHAIN_PLAIN = {
  ArrowLeft: (x) => x.select({ token: x.selection.token - 1 }),
  ArrowRight: (x) => x.select({ token: x.selection.token + 1 }),
  ArrowUp: (x) => x.select({ layer: x.selection.layer - 1 }),
  ArrowDown: (x) => x.select({ layer: x.selection.layer + 1 }),
  Home: (x) => x.select({ token: x.data.start }),
  End: (x) => x.select({ token: x.data.stop - 1 }),
  f: (x) => x.toFork(1),
  g: (x) => x.toAnswer(),
  t: (x) => x.toTurn(),
  "[": (x) => x.alternatives.step(-1),
  "]": (x) => x.alternatives.step(1),
  Enter: (x) => x.alternatives.goOn(),
  o: (x) => x.alternatives.input.focus(),
  ",": (x) => x.branches.step(-1),
  ".": (x) => x.branches.step(1),
  "/": (x) => x.find.open(),
  "?": (x) => x.help.toggle(),
  Escape: (x) => x.escape(),
};
for (let n = 1; n <= 9; n++) CHAIN_PLAIN[n] = (x) => x.labels.switch(n - 1);

const CHAIN_SHIFTED = {
  ArrowLeft: (x) => x.select({ token: x.data.sentenceStep(x.selection.token, -1) }),
  ArrowRight: (x) => x.select({ token: x.data.sentenceStep(x.selection.token, 1) }),
  F: (x) => x.toFork(-1),
  "?": CHAIN_PLAIN["?"],
  "/": CHAIN_PLAIN["?"],
  "[": CHAIN_PLAIN["["],
  "]": CHAIN_PLAIN["]"],
};

export const CHAIN_KEYS = [
  ["← →", "token"],
  ["⇧ ← →", "sentence"],
  ["↑ ↓", "layer"],
  ["home end", "first, last token of the completion"],
  ["f ⇧ f", "next, previous forking token"],
  ["t", "from where the chain turns back to what it takes up, and on"],
  ["g", "where the answer first shows in the lens"],
  ["[ ]", "alternative"],
  ["enter", "continue from it"],
  ["o", "type other text in place of the token"],
  [", .", "branch"],
  ["1 … 9", "own labels of the sentence"],
  ["/", "find"],
  ["?", "this list"],
  ["esc", "close"],
];

// What a key does, or undefined when it is not ours.
export function chainAction({ key, shiftKey, ctrlKey, metaKey, altKey }) {
  if (ctrlKey || metaKey || altKey) return undefined;
  return (shiftKey ? CHAIN_SHIFTED : CHAIN_PLAIN)[key];
}
