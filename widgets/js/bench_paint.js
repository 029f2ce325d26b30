// KL along the baseline's tokens: how far the predictions of the changed model are from its own.

import { natsWords } from "./bench_words.js";
import { Surface, UI_FONT, dottedFrame } from "./surface.js";

const LABEL = 64;
const HEIGHT = 96;
const BARS = { top: 16, bottom: 78 };

// Of each of `bins` equal stretches of tokens the largest value; NaN where none is defined.
export function largestOf(values, bins) {
  const found = new Float32Array(bins).fill(NaN);
  for (let i = 0; i < values.length; i++) {
    const b = Math.floor((i * bins) / values.length);
    if (!Number.isNaN(values[i]) && !(found[b] >= values[i])) found[b] = values[i];
  }
  return found;
}

export class KlAxis {
  constructor() {
    this.surface = new Surface("KL along the tokens");
  }

  // kl [token]; `first` is the first token that was changed, `parting` the one where the texts part, or null.
  show({ kl, first, parting, numPrompt }) {
    Object.assign(this, { kl, first, parting, numPrompt });
    this.most = kl.reduce((most, value) => (value > most ? value : most), 0);
    if (this.width) this.resize(this.width);
  }

  resize(width) {
    this.width = width;
    this.surface.resize(width, HEIGHT);
    if (this.kl) this.bars = largestOf(this.kl, Math.max(1, Math.min(this.kl.length, Math.floor(width - LABEL))));
  }

  x(token) {
    return LABEL + (token / this.kl.length) * (this.width - LABEL);
  }

  tokenAt(x) {
    const token = Math.floor(((x - LABEL) / (this.width - LABEL)) * this.kl.length);
    return Math.max(0, Math.min(this.kl.length - 1, token));
  }

  paint(palette, token) {
    if (!this.bars) return;
    const ctx = this.surface.clear();
    ctx.fillStyle = palette.track;
    ctx.fillRect(LABEL, BARS.bottom, this.width - LABEL, 1);
    this.paintUnchanged(ctx, palette);
    this.paintBars(ctx, palette);
    this.paintLabels(ctx, palette);
    ctx.fillStyle = palette.ink;
    ctx.fillRect(this.x(token + 0.5) - 1, BARS.top - 4, 2, BARS.bottom - BARS.top + 8);
  }

  // Up to the first changed token no prediction can differ.
  paintUnchanged(ctx, palette) {
    ctx.fillStyle = palette.shade;
    ctx.fillRect(LABEL, BARS.top, this.x(this.first + 1) - LABEL, BARS.bottom - BARS.top);
  }

  paintBars(ctx, palette) {
    const { bars, most } = this;
    const edge = (b) => LABEL + (b / bars.length) * (this.width - LABEL);
    const room = BARS.bottom - BARS.top;
    bars.forEach((value, b) => {
      const [x, width] = [edge(b), Math.max(1, edge(b + 1) - edge(b) - 0.5)];
      if (Number.isNaN(value)) {
        dottedFrame(ctx, palette, x, BARS.top, Math.max(3, width), room);
        return;
      }
      const height = most > 0 ? Math.sqrt(value / most) * room : 0;
      ctx.fillStyle = palette.bar;
      ctx.fillRect(x, BARS.bottom - height, width, height);
    });
  }

  paintLabels(ctx, palette) {
    const write = (text, x, y, align) => {
      ctx.textAlign = align;
      ctx.fillText(text, x, y);
    };
    ctx.font = `10.5px ${UI_FONT}`;
    ctx.textBaseline = "middle";
    ctx.fillStyle = palette.secondary;
    write(natsWords(this.most), LABEL - 6, BARS.top + 4, "right");
    write("KL, nats", LABEL - 6, (BARS.top + BARS.bottom) / 2, "right");
    write("0", LABEL - 6, BARS.bottom - 4, "right");
    this.mark(ctx, palette.secondary, this.numPrompt, "completion", 6);
    if (this.parting !== null) this.mark(ctx, palette.warning, this.parting, "parting", BARS.bottom + 10);
  }

  mark(ctx, colour, token, words, y) {
    const x = this.x(token);
    const left = x > this.width - 70;
    ctx.fillStyle = colour;
    ctx.fillRect(x - 0.5, y < BARS.top ? 2 : BARS.top, 1, BARS.bottom + 16 - BARS.top);
    ctx.textAlign = left ? "right" : "left";
    ctx.fillText(words, x + (left ? -3 : 3), y);
  }
}
