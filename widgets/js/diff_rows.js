// The rows of an alignment: tokens of two traces side by side, and what is known of each row.

export const SIDES = ["a", "b"];

export class DiffRows {
  // rows [row, side] with −1 where a side has none, same [row] (1 the same token, 2 the same text in other tokens, else
  // 0), shared and tie [pair, layer] or null.
  constructor({ rows, same, shared = null, tie = null }, { numShared, layers, topK }) {
    Object.assign(this, { rows, same, shared, tie, numShared, layers, topK });
    this.length = same.length;
    this.pairs = new Int32Array(this.length).fill(-1);
    this.nearest = new Int32Array(rows.length);
    this.places = [[], []];
    this.numAlike = 0;
    const last = [0, 0];
    for (let row = 0; row < this.length; row++) {
      if (same[row] === 1) this.pairs[row] = this.numAlike++;
      for (const side of [0, 1]) {
        const token = rows[2 * row + side];
        if (token >= 0) this.places[side][(last[side] = token)] = row;
        this.nearest[2 * row + side] = last[side];
      }
    }
  }

  // The token of a side in a row; −1 where it has none.
  token(row, side) {
    return this.rows[2 * row + side];
  }

  // The token of a side in a row, or the last before it.
  tokenBefore(row, side) {
    return this.nearest[2 * row + side];
  }

  rowOf(side, token) {
    return this.places[side][token] ?? 0;
  }

  isSame(row) {
    return this.same[row] === 1;
  }

  // Whether a row's stretch says something else.
  differs(row) {
    return this.same[row] === 0;
  }

  // Whether all that came before a row's tokens is the same too.
  sameContext(row) {
    return row < this.numShared;
  }

  within(row) {
    return Math.max(0, Math.min(this.length - 1, Math.trunc(row) || 0));
  }

  // The first row of the next stretch that is the same, or that is not; of the one before for −1.
  nextStretch(row, by) {
    let at = row;
    if (by > 0) {
      while (at < this.length - 1 && this.same[at] === this.same[row]) at++;
      return at;
    }
    const starts = (r) => r === 0 || this.same[r - 1] !== this.same[r];
    do at--;
    while (at > 0 && !starts(at));
    return Math.max(0, at);
  }

  // Experts that both chose of k, in a row and layer; null where the tokens differ or the layer is not in both.
  sharedExperts(row, layer) {
    const at = this.layers.indexOf(layer);
    if (!this.shared || at < 0 || this.pairs[row] < 0) return null;
    return this.shared[this.pairs[row] * this.layers.length + at];
  }

  isNearTie(row, layer) {
    const at = this.layers.indexOf(layer);
    return Boolean(this.tie && at >= 0 && this.pairs[row] >= 0 && this.tie[this.pairs[row] * this.layers.length + at]);
  }

  // Share of experts that differ, mean over layers; NaN where the tokens differ or there is no router.
  difference(row) {
    const [pair, count] = [this.pairs[row], this.layers.length];
    if (!this.shared || pair < 0) return NaN;
    let sum = 0;
    for (let i = pair * count; i < (pair + 1) * count; i++) sum += this.shared[i];
    return 1 - sum / (count * this.topK);
  }

  // Of each of `bins` equal stretches of rows: the share whose text differs, and the mean difference of experts.
  pooled(bins) {
    const text = new Float32Array(bins);
    const experts = new Float32Array(bins);
    for (let b = 0; b < bins; b++) {
      const from = Math.floor((b * this.length) / bins);
      const to = Math.max(from + 1, Math.floor(((b + 1) * this.length) / bins));
      let [differ, sum, known] = [0, 0, 0];
      for (let row = from; row < Math.min(to, this.length); row++) {
        differ += this.differs(row) ? 1 : 0;
        const difference = this.difference(row);
        if (!Number.isNaN(difference)) [sum, known] = [sum + difference, known + 1];
      }
      text[b] = differ / (to - from);
      experts[b] = known ? sum / known : NaN;
    }
    return { text, experts };
  }
}
