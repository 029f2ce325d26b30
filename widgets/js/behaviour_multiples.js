// What groups of rollouts came to, a row each: length of the chain, accuracy, entropy along the chain.

import { countedWords, meanWords, niceEnd, outcomeWords, plain, proportionWords } from "./effort_words.js";
import { Multiple } from "./multiple.js";
import { missing, undefinedValue } from "./reading.js";
import { paintAbsence } from "./surface.js";

const GROUP_ROW = 42;
const NAMES = 78;
const MARGIN_RIGHT = 14;
const GROUP_SCALE = 20;

class Rows extends Multiple {
  get columns() {
    return this.view.facts.columns;
  }

  height() {
    return this.columns.length * GROUP_ROW + GROUP_SCALE;
  }

  state() {
    return `${this.view.column}/${this.view.rollouts.join()}`;
  }

  middle(i) {
    return i * GROUP_ROW + GROUP_ROW / 2;
  }

  // The name of each row, what stands below it, and where the row's numbers go.
  paintNames(ctx, palette, below) {
    this.columns.forEach((column, i) => {
      const chosen = i === this.view.column;
      const font = chosen ? "700 12px" : "12px";
      this.text(ctx, chosen ? palette.ink : palette.text, column.name, font, 0, this.middle(i) - 7, "left", NAMES - 8);
      this.text(ctx, palette.secondary, below(column), "10.5px", 0, this.middle(i) + 8, "left", NAMES - 6);
      this.hit(0, i * GROUP_ROW, NAMES, GROUP_ROW, column.name, () => this.view.choose(i, this.view.rollouts[i]));
    });
  }

  paintTicks(ctx, palette, end, x, words = plain) {
    const y = this.columns.length * GROUP_ROW + GROUP_SCALE / 2;
    const ticks = [
      [0, "left"],
      [0.5, "center"],
      [1, "right"],
    ];
    const narrow = x(end) - x(0) < 120;
    for (const [share, align] of narrow ? [ticks[0], ticks[2]] : ticks) {
      this.text(ctx, palette.secondary, words(share * end), "11px", x(share * end), y, align);
    }
  }
}

export class LengthMultiple extends Rows {
  constructor(view) {
    super(view, { name: "length", title: "Length of the chain", note: "tokens on analysis, mean, bootstrap 95 %" });
    const all = this.columns.flatMap((c) => c.outcomes.map((o) => o.chainTokens));
    this.end = niceEnd(Math.max(...all, 1));
    const cut = this.columns.reduce((n, c) => n + c.numCut, 0);
    this.foot.textContent = cut
      ? `✂ ${cut} cut: at least that long (▷), counted in no mean`
      : "each circle is a rollout";
  }

  paint(ctx, palette) {
    const width = this.surface.width - NAMES - MARGIN_RIGHT;
    const x = (tokens) => NAMES + (tokens / this.end) * width;
    this.paintNames(ctx, palette, (c) => `mean ${c.chainTokens.mean.toFixed(1)}`);
    this.columns.forEach((column, i) => {
      const y = this.middle(i);
      this.line(ctx, palette.line, NAMES, y, NAMES + width, y);
      this.paintInterval(ctx, palette, column.chainTokens, x, y + 13);
      this.paintRollouts(ctx, palette, column, i, x, y);
    });
    this.paintTicks(ctx, palette, this.end, x);
  }

  paintInterval(ctx, palette, { mean, low, high, n }, x, y) {
    if (low !== null) this.line(ctx, palette.ink, x(low), y, Math.max(x(high), x(low) + 1), y, 2);
    this.line(ctx, palette.ink, x(mean), y - 4, x(mean), y + 4, 2);
    this.hit(x(low ?? mean) - 4, y - 5, x(high ?? mean) - x(low ?? mean) + 8, 10, meanWords({ mean, low, high, n }));
  }

  // Equal ones lie beside each other.
  paintRollouts(ctx, palette, column, i, x, y) {
    const taken = new Map();
    const place = (r) => {
      const at = Math.round(x(column.outcomes[r].chainTokens) / 7);
      taken.set(at, (taken.get(at) ?? 0) + 1);
      const n = taken.get(at) - 1;
      return [x(column.outcomes[r].chainTokens), y + (n % 2 ? 1 : -1) * Math.min(9, Math.ceil(n / 2) * 3)];
    };
    const chosen = this.view.rollouts[i];
    const order = column.outcomes.map((_, r) => r).sort((a, b) => (a === chosen) - (b === chosen));
    for (const r of order) {
      const [cx, cy] = place(r);
      const outcome = column.outcomes[r];
      if (outcome.cut === null) this.dot(ctx, palette, cx, cy, 3.5, r === chosen);
      else this.paintCut(ctx, palette, cx, cy, r === chosen);
      const words = `${column.name}, ${outcomeWords(outcome, r, column.rollouts[r].seed)}`;
      this.hit(cx - 5, cy - 5, 10, 10, words, () => this.view.choose(i, r));
    }
  }

  paintCut(ctx, palette, x, y, filled) {
    ctx.beginPath();
    ctx.moveTo(x - 3, y - 4);
    ctx.lineTo(x + 5, y);
    ctx.lineTo(x - 3, y + 4);
    ctx.closePath();
    ctx.strokeStyle = ctx.fillStyle = palette.warning;
    if (filled) ctx.fill();
    ctx.stroke();
  }
}

export class AccuracyMultiple extends Rows {
  constructor(view) {
    super(view, { name: "accuracy", title: "Accuracy", note: view.facts.scored ? "Wilson 95 %" : "" });
    const cut = this.columns.filter((c) => c.numCut).map((c) => `${c.name} ${c.numCut}`);
    this.foot.textContent = cut.length ? `✂ cut and not scored: ${cut.join(", ")}` : "of completed rollouts";
  }

  paint(ctx, palette) {
    const width = this.surface.width - NAMES - MARGIN_RIGHT;
    const x = (share) => NAMES + share * width;
    this.paintNames(ctx, palette, (c) => countedWords(c));
    this.columns.forEach((column, i) => {
      const y = this.middle(i);
      if (!column.accuracy) {
        paintAbsence(ctx, palette, undefinedValue("no references"), NAMES, y - 12, width, 24);
        this.hit(NAMES, y - 12, width, 24, "accuracy needs reference answers: EffortComparison(runs, references=…)");
        return;
      }
      const { value, low, high, successes, n } = column.accuracy;
      ctx.fillStyle = palette.track;
      ctx.fillRect(NAMES, y + 1, width, 6);
      this.line(ctx, palette.ink, x(low), y + 4, x(high), y + 4, 2);
      this.dot(ctx, palette, x(value), y + 4, 4.5, true);
      this.text(ctx, palette.text, `${successes}/${n} = ${Math.round(100 * value)} %`, "11px", x(1), y - 9, "right");
      this.hit(NAMES, y - 16, width, 32, `${column.name}: ${proportionWords(column.accuracy)}`, () =>
        this.view.choose(i, this.view.rollouts[i]),
      );
    });
    if (this.view.facts.scored) this.paintTicks(ctx, palette, 1, x, (share) => `${100 * share} %`);
  }
}

export class EntropyMultiple extends Rows {
  constructor(view) {
    const bins = view.facts.columns[0].entropy.length;
    const title = { name: "entropy", title: "Entropy along the chain", note: `nats, mean in ${bins} parts` };
    super(view, title);
    const known = this.columns.flatMap((c) => c.entropy.filter((v) => v !== null));
    this.end = niceEnd(Math.max(...known, 0));
  }

  state() {
    const places = this.view.chainPlaces().map((p) => (p === null ? "" : p.toFixed(3)));
    return `${super.state()}/${places}`;
  }

  paint(ctx, palette) {
    const width = this.surface.width - NAMES - 34;
    this.paintNames(ctx, palette, (c) => nWords(c.entropyN));
    const places = this.view.chainPlaces();
    this.columns.forEach((column, i) => {
      const [top, height] = [i * GROUP_ROW + 6, GROUP_ROW - 12];
      const absence = entropyAbsence(column);
      if (absence) paintAbsence(ctx, palette, absence, NAMES, top, width, height);
      else this.paintProfile(ctx, palette, column, i, { top, height, width });
      if (absence) this.hit(NAMES, top, width, height, column.noEntropy ?? absence.words);
      if (places[i] !== null) {
        const x = NAMES + places[i] * width;
        this.line(ctx, palette.ink, x, top - 3, x, top + height + 3, 1.5);
      }
    });
    const y = this.columns.length * GROUP_ROW + GROUP_SCALE / 2;
    this.text(ctx, palette.secondary, "start of chain", "11px", NAMES, y);
    this.text(ctx, palette.secondary, "end", "11px", NAMES + width, y, "right");
  }

  paintProfile(ctx, palette, { name, entropy, entropyN }, i, { top, height, width }) {
    const bin = width / entropy.length;
    this.line(ctx, palette.line, NAMES, top + height, NAMES + width, top + height);
    ctx.fillStyle = i === this.view.column ? palette.ink : palette.grey;
    entropy.forEach((value, b) => {
      const x = NAMES + b * bin;
      if (value !== null) {
        const tall = Math.max(1, (value / this.end) * height);
        ctx.fillRect(x, top + height - tall, Math.max(1, bin - 1), tall);
      }
      const said = value === null ? "no token with an entropy" : `${value.toFixed(3)} nats, n = ${entropyN[b]}`;
      const words = `${name}, part ${b + 1} of ${entropy.length} of the chain: ${said}`;
      this.hit(x, top, bin, height, words, () => this.view.goAlongChain(i, (b + 0.5) / entropy.length));
    });
    this.text(ctx, palette.secondary, String(this.end), "11px", NAMES + width + 5, top + 4);
    this.text(ctx, palette.secondary, "0", "11px", NAMES + width + 5, top + height - 3);
  }
}

// Rollouts with a token in a part of the chain: one number, or from the least to the most.
export function nWords(counts) {
  const [low, high] = [Math.min(...counts), Math.max(...counts)];
  return low === high ? `n = ${high}` : `n = ${low}–${high}`;
}

function entropyAbsence({ noEntropy, entropy }) {
  if (noEntropy) return missing("entropy not captured");
  return entropy.every((v) => v === null) ? undefinedValue("undefined: no chain") : null;
}
