// The maps that the kernel computes: sentences × sentences of a head or of the mean of its layer's, and the overview of
// the whole length in stripes. They are asked for one at a time, when nothing else is waited for.

import { here, missing, waiting } from "./reading.js";

const UNDEFINED = 255;
const [QUICK_MS, SLOW_MS, MOST_AT_ONCE] = [100, 250, 16];
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
    this.atOnce = 1; // parts asked for in one message
    this.partMs = NaN; // that the last parts took each
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

  // The shown map as {keys, perStripe, row}: its stripes, rows in each, and the row of the selected token.
  plan({ token, layer, head, show, heads }) {
    const sizes = this.perStripe[layer];
    const [rows, perStripe, row, path] =
      show === "overview"
        ? [this.bins, sizes.overview, Math.floor(token / this.factor), `attention_overview/${layer}/${head}`]
        : [
            this.stretches.length,
            sizes[heads],
            Math.max(0, this.stretchAt(token)),
            heads === "one" ? `stretch_attention/${layer}/${head}` : `stretch_attention_mean/${layer}`,
          ];
    const keys = Array.from({ length: Math.ceil(rows / perStripe) }, (_, s) => `map/${path}/${s}`);
    return { keys, perStripe, row };
  }

  // Wish for the stripe of the selected token; returns how many stripes that is, 0 where it is here.
  askForRow(selection) {
    return this.ask(selection, ({ keys, perStripe, row }) => [keys[Math.floor(row / perStripe)]]);
  }

  // Wish for stripes that the shown map lacks, as many as the kernel makes in a fraction of a second; returns how many.
  askForRest(selection) {
    return this.ask(selection, ({ keys }) => keys, this.atOnce);
  }

  // The kernel took so long for so many stripes.
  answered(count, ms) {
    this.partMs = ms / count;
    if (ms < QUICK_MS) this.atOnce = Math.min(MOST_AT_ONCE, 2 * this.atOnce);
    if (ms > SLOW_MS) this.atOnce = Math.max(1, this.atOnce >> 1);
  }

  ask(selection, choose, most = 1) {
    if (this.absence(selection)) return 0;
    const lacking = choose(this.plan(selection)).filter((key) => key && !this.blocks.isHere(key));
    const asked = lacking.slice(0, most);
    for (const key of asked) this.blocks.prefetch(key);
    return asked.length;
  }

  absence(selection) {
    const absent = this.reading.absentLayer(selection.layer);
    if (absent) return absent;
    const failed = this.plan(selection).keys.find((key) => this.blocks.failed.has(key));
    return failed ? missing(this.blocks.failed.get(failed)) : null;
  }

  // The stripes of the shown map as {id, stripes: [block or null], perStripe, done}, or what it waits for.
  stripes(selection, read, what) {
    const absent = this.absence(selection);
    if (absent) return absent;
    const { keys, perStripe } = this.plan(selection);
    if (!keys.length) return missing("no tokens but the first");
    const blocks = keys.map((key) => this.blocks.peek(key));
    if (!blocks.some(Boolean)) return this.blocks.isLost ? missing(`${what}: needs a kernel`) : waiting(what);
    const id = `${keys[0]} ${blocks.map((block) => (block ? 1 : 0)).join("")}`;
    if (this.kept.id !== id) {
      const stripes = blocks.map((block) => block && read(block));
      this.kept = { id, stripes, perStripe, done: blocks.filter(Boolean).length };
    }
    return here(this.kept);
  }

  // Sentences × sentences; see cellOf.
  sentencesMap(selection) {
    return this.stripes(selection, (block) => block, "the kernel to sum over sentences");
  }

  // What a stretch gave: to the stretch of a column, and in the two columns after them to the first token and the sink.
  // NaN where undefined, undefined while waited for.
  cellOf({ stripes, perStripe }, row, column) {
    const stripe = stripes[Math.floor(row / perStripe)];
    return stripe ? stripe[(row % perStripe) * (this.stretches.length + 2) + column] : undefined;
  }

  // The overview, decoded, with the largest value found as `top`; see binOf.
  overview(selection) {
    const found = this.stripes(selection, decodeStripe, "the kernel to pool the whole length");
    if (found.state !== "here") return found;
    const pool = selection.pool === "max" ? 0 : 1;
    const top = found.stripes.reduce((most, stripe) => Math.max(most, stripe?.scales[pool] ?? 0), 0);
    return { ...found, id: `${found.id} ${pool}`, pool, top };
  }

  // Value of a bin of an overview; NaN where undefined, undefined while waited for.
  binOf({ stripes, perStripe, pool }, row, column) {
    const at = Math.floor(row / perStripe);
    const stripe = stripes[at];
    if (!stripe) return undefined;
    const width = stripe.codes[0].length / Math.min(perStripe, this.bins - at * perStripe);
    const place = column - stripe.first;
    if (place < 0 || place >= width) return NaN;
    return valueOfCode(stripe.codes[pool][(row % perStripe) * width + place], stripe.scales[pool]);
  }
}
