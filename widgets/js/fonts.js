// Characters that no font of this machine has, which browsers show as a box: told, so that a box is not read as text.

import { CODE_FONT, h } from "./surface.js";

const SIZE = 24;
const NOBODYS = "\u{10FFFD}"; // for private use, the last one: drawn as the box that stands for any missing character
const MOST = 400; // looking for a font takes a browser up to a millisecond
const COMMON = /[\u0000-\u024f\ud800-\udfff\p{M}\p{Z}\p{Cc}\p{Cf}]/u; // Latin, and what has no picture of its own

// The characters of some texts that may lack a font, each once.
export function uncommon(texts) {
  const found = new Set();
  for (const text of texts) {
    for (const character of text) if (!COMMON.test(character)) found.add(character);
    if (found.size >= MOST) break;
  }
  return [...found];
}

// Those of the characters that look as one does that has no font.
export function fontless(characters) {
  const canvas = h("canvas", { width: SIZE * 2, height: SIZE * 2 });
  const ctx = canvas.getContext("2d", { willReadFrequently: true });
  ctx.font = `${SIZE}px ${CODE_FONT}`;
  ctx.textBaseline = "top";
  const look = (character) => {
    ctx.clearRect(0, 0, canvas.width, canvas.height);
    ctx.fillText(character, 4, 4);
    return ctx.getImageData(0, 0, canvas.width, canvas.height).data.join();
  };
  const box = characters.length ? look(NOBODYS) : "";
  return characters.filter((character) => look(character) === box);
}

// What is said of them, or null.
export function fontlessBadge(characters) {
  if (!characters.length) return null;
  const codes = characters.slice(0, 8).map((one) => `U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`);
  const more = characters.length > 8 ? ` and ${characters.length - 8} more` : "";
  return {
    text: `${characters.length} ${characters.length === 1 ? "character" : "characters"} without a font here`,
    kind: "warning",
    title: `boxes stand for ${codes.join(", ")}${more}: install a font that has them, such as Noto Sans CJK for Chinese`,
  };
}
