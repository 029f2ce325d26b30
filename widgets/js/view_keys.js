// Keys that do the same in every view, beside those of its own.

// What a key does in a view that says so by `own`, key → action; the layer, the list of keys and escape do the same in
// all. A key with control, alt or meta is the browser's; with shift it is `shifted`.
export function viewAction(view, { key, shiftKey, ctrlKey, metaKey, altKey }, own, shifted = {}) {
  if (ctrlKey || metaKey || altKey) return undefined;
  if (shiftKey && key.startsWith("Arrow")) return shifted[key];
  const { layer } = view.selection;
  const everywhere = {
    ArrowUp: () => view.select({ layer: layer - 1 }),
    ArrowDown: () => view.select({ layer: layer + 1 }),
    Escape: () => view.help.close(),
    "?": () => view.help.toggle(),
    "/": shiftKey ? () => view.help.toggle() : undefined,
  };
  return own[key] ?? everywhere[key];
}

export const EVERYWHERE = [
  ["?", "this list"],
  ["esc", "close; leave a field"],
];
