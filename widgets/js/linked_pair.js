// Two transcripts beside each other by the rows of an alignment: what differs is marked, and they scroll together.

import { LinkedTranscript } from "./linked_transcript.js";

const NO_ATTENTION = { attention: () => ({ state: "missing" }) };

export class LinkedPair {
  // `tokens` and `labels` of both sides; `onRow` is called with the row of a token that was clicked.
  constructor(rows, tokens, labels, onRow) {
    this.rows = rows;
    this.sides = [0, 1].map((side) => {
      const explorer = {
        tokens: tokens[side],
        facts: { numTokens: tokens[side].length },
        reading: NO_ATTENTION,
        select: ({ token }) => onRow(rows.rowOf(side, token)),
      };
      return new LinkedTranscript(explorer, {
        label: labels[side],
        classOf: (token) => (rows.differs(rows.rowOf(side, token)) ? "moe-differs" : null),
        onScroll: () => this.scrollOther(side),
      });
    });
  }

  // The reader scrolled one side: the other shows the same row at the same height.
  scrollOther(side) {
    const [from, to] = [this.sides[side], this.sides[1 - side]];
    const { token, below } = from.firstSeen;
    const beside = this.rows.tokenBefore(this.rows.rowOf(side, token), 1 - side);
    if (to.top(beside) === null) this.mount(1 - side, beside);
    const top = to.top(beside);
    if (top !== null) to.scrollHere(Math.max(0, top - below));
  }

  // Tokens that are far from the selected one; it keeps its mark if it is among them.
  mount(side, token) {
    const one = this.sides[side];
    one.mount(token);
    one.mark(this.places[side].selection, one.explorer.tokens);
  }

  // Show a row: geometry is read before anything is written, `paint` among it.
  draw(row, paint = () => {}) {
    this.places = this.sides.map((_, side) => ({
      selection: { token: this.rows.token(row, side), layer: 0, head: 0 },
    }));
    this.sides.forEach((one, side) => one.measure(this.places[side]));
    paint();
    this.sides.forEach((one, side) => one.draw(this.places[side]));
  }
}
