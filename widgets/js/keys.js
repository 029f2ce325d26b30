// The keyboard: which key does what, and the overlay that lists them. Handled keys never reach the notebook.

import { savePicture } from "./picture.js";
import { h, setText } from "./surface.js";

const PLAIN = {
  ArrowLeft: (x) => x.step(-1),
  ArrowRight: (x) => x.step(1),
  ArrowUp: (x) => x.select({ layer: x.selection.layer - 1 }),
  ArrowDown: (x) => x.select({ layer: x.selection.layer + 1 }),
  Home: (x) => x.select({ token: 0 }),
  End: (x) => x.select({ token: x.facts.numTokens - 1 }),
  "[": (x) => x.stepFocus(-1),
  "]": (x) => x.stepFocus(1),
  e: (x) => x.setFocus("expert"),
  h: (x) => x.setFocus("head"),
  c: (x) => x.nextQuantity(),
  "/": (x) => x.find.open(),
  " ": (x) => x.togglePlay(),
  m: (x) => x.notes.toggleBookmark(),
  n: (x) => x.notes.edit(),
  "?": (x) => x.help.toggle(),
  Escape: (x) => x.help.close(),
};

const SHIFTED = {
  ArrowLeft: (x) => x.select({ token: x.tokens.sentenceStep(x.selection.token, -1) }),
  ArrowRight: (x) => x.select({ token: x.tokens.sentenceStep(x.selection.token, 1) }),
  "?": PLAIN["?"],
  "/": PLAIN["?"],
};

const ALL_KEYS = [
  ["← →", "token"],
  ["⇧ ← →", "sentence"],
  ["↑ ↓", "layer"],
  ["[ ]", "head, or expert when one is chosen"],
  ["h e", "let [ ] choose heads, experts"],
  ["home end", "first, last token"],
  ["c", "next quantity to colour by"],
  ["/", "find"],
  ["space", "play, pause"],
  ["m", "bookmark"],
  ["n", "note"],
  ["?", "this list"],
  ["esc", "close"],
];

// What a key does here, or undefined when it is not ours.
export function actionOf({ key, shiftKey, ctrlKey, metaKey, altKey }) {
  if (ctrlKey || metaKey || altKey) return undefined;
  return shiftKey ? (SHIFTED[key] ?? (key === "[" || key === "]" ? PLAIN[key] : undefined)) : PLAIN[key];
}

// Every view has these.
const PICTURES = { P: "png", S: "svg" };
const PICTURE_KEYS = ["⇧P ⇧S", "save a picture: PNG, SVG"];

// The kind of picture that a key saves, or undefined.
export function pictureKind({ key, shiftKey, ctrlKey, metaKey, altKey }) {
  return shiftKey && !ctrlKey && !metaKey && !altKey ? PICTURES[key] : undefined;
}

function pictureAction(event) {
  const kind = pictureKind(event);
  return kind && ((view) => view.help.save(kind));
}

// A view may stand where what is read is recorded; a picture would be a copy that no one knows of.
const NO_PICTURE = "[data-no-picture]";
const NO_PICTURE_WORDS = "no picture of the desk is saved: workbench.review exports, and records it";

const TYPED_INTO = "input, textarea, select";

// Do what a key means to a view; `find` gives the action, or undefined when the key is not the view's.
export function handleKey(view, event, find = actionOf) {
  if (event.target.closest?.(TYPED_INTO)) {
    event.stopPropagation(); // typing stays in the field
    return;
  }
  if (event.target.closest?.("button") && (event.key === " " || event.key === "Enter")) {
    event.stopPropagation();
    return;
  }
  const action = find(event) ?? pictureAction(event);
  if (!action) return;
  event.preventDefault();
  event.stopPropagation();
  action(view);
}

export class Help {
  constructor(view, keys = ALL_KEYS) {
    this.view = view;
    const rows = [...keys.slice(0, -2), PICTURE_KEYS, ...keys.slice(-2)].map(([caps, words]) =>
      h("tr", { class: words === PICTURE_KEYS[1] ? "moe-saver" : null }, h("td", {}, ...caps.split(" ").map((c) => h("kbd", { text: c }))), h("td", { text: words })),
    );
    const close = h("button", { type: "button", class: "moe-button", text: "Close", onclick: () => this.close() });
    this.element = h(
      "div",
      { class: "moe-overlay", role: "dialog", "aria-label": "All keys", hidden: true },
      h("b", { text: "All keys" }),
      h("table", {}, h("tbody", {}, ...rows)),
      h("div", { class: "moe-secondary", text: "Everything drawn can be clicked." }),
      h("div", { class: "moe-overlay-buttons" }, this.saver("PNG"), this.saver("SVG"), close),
      (this.said = h("div", { role: "status" })),
    );
  }

  saver(name) {
    const save = () => this.save(name.toLowerCase());
    return h("button", { type: "button", class: "moe-button moe-saver", text: `Save ${name}`, onclick: save });
  }

  // Save a picture of the view without this list in it; what goes wrong is said here.
  async save(kind) {
    if (this.view.root.closest(NO_PICTURE)) {
      setText(this.said, NO_PICTURE_WORDS);
      this.element.hidden = false;
      return;
    }
    this.close();
    try {
      await savePicture(this.view, kind);
    } catch (problem) {
      setText(this.said, `no ${kind.toUpperCase()} of this view: ${problem.message}`);
      this.element.hidden = false;
    }
  }

  toggle() {
    this.element.hidden = !this.element.hidden;
  }

  close() {
    if (this.element.hidden) return;
    this.element.hidden = true;
    this.view.root.focus();
  }
}
