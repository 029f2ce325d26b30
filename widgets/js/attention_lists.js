// Two lists beside the map: the keys that the selected token reads, and the later tokens that read it. A row jumps.

import { topKeys } from "./attention_reading.js";
import { Suppression } from "./attention_suppression.js";
import { threeDigits, twoDigits } from "./numerics.js";
import { h, setData, setText } from "./surface.js";

const ROWS = 8;
const AROUND = 12; // tokens before one that are shown with it, and half as many from it on

class TokenList {
  constructor(view, name, what) {
    this.view = view;
    this.title = h("b");
    this.note = h("span", { class: "moe-secondary" });
    this.absence = h("div", { class: "moe-list-absence" });
    this.rows = Array.from({ length: ROWS }, () => this.buildRow());
    this.foot = h("div", { class: "moe-secondary moe-foot" });
    this.element = h(
      "section",
      { class: "moe-token-list", "data-list": name, "aria-label": what },
      h("div", { class: "moe-panel-title" }, this.title, " ", this.note),
      this.absence,
      h("div", { class: "moe-list-rows" }, ...this.rows.map((row) => row.element)),
      this.foot,
    );
  }

  buildRow() {
    const row = {
      place: h("span", { class: "moe-number moe-secondary" }),
      text: h("span", { class: "moe-code moe-list-text" }),
      fill: h("i"),
      weight: h("span", { class: "moe-number" }),
      distance: h("span", { class: "moe-number moe-secondary" }),
    };
    row.element = h(
      "button",
      { type: "button", class: "moe-list-row", onclick: () => this.view.select({ token: row.token }) },
      row.place,
      row.text,
      h("span", { class: "moe-bar" }, row.fill),
      row.weight,
      row.distance,
    );
    row.element.addEventListener("pointerenter", () => (row.element.title = this.contextOf(row.token)));
    return row;
  }

  // The text around a token, for the pointer.
  contextOf(token) {
    const { tokens } = this.view;
    const pieces = tokens.pieces(Math.max(0, token - AROUND), Math.min(tokens.length, token + AROUND / 2));
    return `… ${pieces.map((piece) => piece.text).join("")} …`;
  }

  // `found` are {token, weight, distance}; `state` and `words` where there are none.
  write({ state, words, found = [], foot = "" }) {
    this.absence.hidden = state === "here";
    this.absence.className = `moe-list-absence moe-${state}`;
    setText(this.absence, words ?? "");
    setData(this.element, "state", state);
    setText(this.foot, foot);
    this.rows.forEach((row, i) => this.writeRow(row, found[i]));
    setData(this.element, "found", found.map((f) => `${f.token}:${f.weight.toFixed(4)}`).join(" "));
  }

  writeRow(row, found) {
    row.element.hidden = !found;
    if (!found) return;
    const { tokens } = this.view;
    row.token = found.token;
    setText(row.place, found.token.toLocaleString("en"));
    setText(row.text, tokens.cell(found.token));
    row.fill.style.width = `${(100 * found.weight).toFixed(1)}%`;
    setText(row.weight, threeDigits(found.weight));
    setText(row.distance, distanceWords(found.distance));
  }
}

// −10, +23; "here" for the token itself.
function distanceWords(distance) {
  if (!distance) return "itself";
  return distance < 0 ? `−${(-distance).toLocaleString("en")}` : `+${distance.toLocaleString("en")}`;
}

export class AttentionLists {
  constructor(view) {
    this.view = view;
    this.keys = new TokenList(view, "keys", "Keys this token reads");
    this.readers = new TokenList(view, "readers", "Tokens that read this key");
    setText(this.keys.title, "Keys this token reads");
    setText(this.readers.title, "Tokens that read this key");
    this.suppression = new Suppression(view);
    this.element = h(
      "div",
      { class: "moe-lists" },
      h("div", { class: "moe-list-pair" }, this.keys.element, this.readers.element),
      this.suppression.element,
    );
  }

  // Each step: what the token reads.
  draw(row) {
    const { token } = this.view.selection;
    const found = row.state === "here" ? topKeys(row, token) : [];
    const together = found.reduce((sum, { weight }) => sum + weight, 0);
    const count = row.state === "here" ? row.weights.length : 0;
    this.keys.write({
      state: row.state,
      words: row.words,
      found,
      foot: count ? `${listedWords(found, count, "in sight")}, together ${twoDigits(together)}` : "",
    });
  }

  // When stepping pauses: who reads it.
  settle() {
    const { reading, selection, tokens } = this.view;
    this.suppression.settle();
    const readers = reading.readers(selection);
    setText(this.readers.note, `${selection.token.toLocaleString("en")} ${tokens.cell(selection.token)}`);
    const here = readers.state === "here";
    this.readers.write({
      state: readers.state,
      words: readers.words,
      found: readers.rows,
      foot: here ? footOf(readers) : "",
    });
  }
}

// "8 of 5,881 in sight", with why the others are not listed where there was room.
function listedWords(rows, count, what) {
  const words = `${rows.length} of ${count.toLocaleString("en")} ${what}`;
  return rows.length < Math.min(ROWS, count) ? `${words}, no other above .0005` : words;
}

function footOf({ rows, count, waitingFor }) {
  const what = "later tokens in sight";
  if (!waitingFor) return listedWords(rows, count, what);
  const [from, to] = [waitingFor[0], waitingFor[1] - 1].map((n) => n.toLocaleString("en"));
  return `${rows.length} of ${count.toLocaleString("en")} ${what}; waiting for rows ${from}–${to}`;
}
