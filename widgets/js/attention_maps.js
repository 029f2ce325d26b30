// The maps that the kernel computes: sentences × sentences of a head or of the mean of its layer's, and the overview of
// the whole length in stripes. They are asked for one at a time, when nothing else is waited for.

import { here, missing, waiting } from "./reading.js";

const UNDEFINED = 255;
const HEADER = 12; // first bin, scale of the maxima, scale of the means

// {first, scales, codes: [maxima, means]} of a stripe; a value is scale · (code / 254)², code 255 is undefined.
export function decodeStripe(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER);
  const half = (bytes.length - HEADER) / 2;
  return {
    first: view.getUint32(0, true),
    scales: [view.getFloat32(4, true), view.getFloat32(8, true)],
    codes: [bytes.subarray(HEADER, HEADER + half), bytes.subarray(HEADER + half)],
  };
}

export function valueOfCode(code, scale) {
  return code === UNDEFINED ? NaN : scale * (code / 254) ** 2;
}

export class AttentionMaps {
  constructor(blocks, reading, facts) {
    Object.assign(this, { blocks, reading, facts });
    Object.assign(this, facts.maps);
    this.kept = { id: null };
    this.sum = { id: null };
  }

  // The stretch that holds a token; -1 for one in none, such as a header token.
  stretchAt(token) {
    let [low, high] = [0, this.stretches.length - 1];
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (token < this.stretches[middle][0]) high = middle - 1;
      else if (token >= this.stretches[middle][1]) low = middle + 1;
      else return middle;
    }
    return -1;
  }

  // "sentence 12", "sentences 13–14", or "tokens 17–32" where there are no sentences.
  nameOf(stretch) {
    if (!this.sentences.length) {
      const [start, stop] = this.stretches[stretch];
      return `tokens ${start.toLocaleString("en")}–${(stop - 1).toLocaleString("en")}`;
    }
    const [first, stop] = this.sentences[stretch];
    return stop - first === 1 ? `sentence ${first + 1}` : `sentences ${first + 1}–${stop}`;
  }

  keysOf({ layer, head, show, heads }) {
    if (show === "overview") {
      const stripes = Math.ceil(this.bins / this.stripe);
      return Array.from({ length: stripes }, (_, s) => `map/attention_overview/${layer}/${head}/${s}`);
    }
    if (heads === "one") return [`map/stretch_attention/${layer}/${head}`];
    return Array.from({ length: this.facts.numKvHeads }, (_, g) => `map/stretch_attention_mean/${layer}/${g}`);
  }

  // Wish for what the shown map lacks first; returns whether there was something.
  ask(selection) {
    if (this.absence(selection)) return false;
    const lacking = this.keysOf(selection).find((key) => !this.blocks.isHere(key));
    if (lacking) this.blocks.prefetch(lacking);
    return Boolean(lacking);
  }

  absence(selection) {
    const absent = this.reading.absentLayer(selection.layer);
    if (absent) return absent;
    const noMean = selection.show === "sentences" && selection.heads === "mean" && this.noMean[selection.layer];
    if (noMean) return missing(noMean);
    const failed = this.keysOf(selection).find((key) => this.blocks.failed.has(key));
    return failed ? missing(this.blocks.failed.get(failed)) : null;
  }

  // Sentences × sentences: {values [stretch, stretch + 2], count, done, of}; the two last columns are the sink and
  // the first token. A mean that is not complete says of how many heads it is.
  sentencesMap(selection) {
    const absent = this.absence(selection);
    if (absent) return absent;
    if (!this.stretches.length) return missing("no tokens but the first");
    const parts = this.keysOf(selection).map((key) => this.blocks.peek(key));
    const done = parts.filter(Boolean);
    if (!done.length) return waiting("the kernel to sum over sentences");
    const perPart = selection.heads === "mean" ? this.facts.numHeads / this.facts.numKvHeads : 1;
    const id = `${this.keysOf(selection)[0]} ${done.length}`;
    if (this.sum.id !== id) this.sum = { id, values: mean(done), of: perPart * done.length };
    return here({ ...this.sum, count: this.stretches.length, wanted: perPart * parts.length });
  }

  // The overview: {stripes: [decoded or null], top, done, wanted}. `top` is the largest value of the pool found.
  overview(selection) {
    const absent = this.absence(selection);
    if (absent) return absent;
    const keys = this.keysOf(selection);
    const blocks = keys.map((key) => this.blocks.peek(key));
    const done = blocks.filter(Boolean).length;
    if (!done) return waiting("the kernel to pool the whole length");
    const id = `${keys[0]} ${done}`;
    if (this.kept.id !== id) this.kept = { id, stripes: blocks.map((bytes) => bytes && decodeStripe(bytes)) };
    const pool = selection.pool === "max" ? 0 : 1;
    const top = this.kept.stripes.reduce((most, stripe) => Math.max(most, stripe?.scales[pool] ?? 0), 0);
    return here({ ...this.kept, id: `${id} ${pool}`, pool, top, done, wanted: keys.length });
  }

  // Value of a bin of an overview; NaN where undefined, undefined while waited for.
  binValue({ stripes, pool }, row, column) {
    const stripe = stripes[Math.floor(row / this.stripe)];
    if (!stripe) return undefined;
    const rows = Math.min(this.stripe, this.bins - Math.floor(row / this.stripe) * this.stripe);
    const width = stripe.codes[0].length / rows;
    const at = column - stripe.first;
    if (at < 0 || at >= width) return NaN;
    return valueOfCode(stripe.codes[pool][(row % this.stripe) * width + at], stripe.scales[pool]);
  }
}

function mean(parts) {
  if (parts.length === 1) return parts[0];
  const out = new Float32Array(parts[0].length);
  for (const part of parts) for (let i = 0; i < out.length; i++) out[i] += part[i] / parts.length;
  return out;
}
