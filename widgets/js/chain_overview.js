// The whole completion across: arcs where the chain turns back, channels, entropy with forking tokens, and where the
// lens predicts the answer. What does not change with a step is painted once; a line shows the selected token.

import { answerWords, columnsOf, pooledMax, sharePerColumn } from "./chain_data.js";
import { hueOf } from "./tokens.js";
import { Surface, h, hatch, setText } from "./surface.js";

const OVERVIEW_GUTTER = 112;
const OVERVIEW_PADDING = 14;
const LANES = { turns: 30, channel: 6, entropy: 36, forks: 7, gap: 6 };

export class ChainOverview {
  constructor(view) {
    this.view = view;
    const { data } = view;
    const layers = data.answer.layers?.length ?? 0;
    this.answerRow = Math.max(2, Math.min(8, Math.floor(72 / Math.max(1, layers))));
    this.y = this.layout(layers);
    this.surface = new Surface("");
    this.cursor = h("div", { class: "moe-chain-cursor", "aria-hidden": "true" });
    this.top = h("span");
    const label = (top, ...children) => h("div", { class: "moe-chain-gutter", style: `top:${top}px` }, ...children);
    const turning = data.turns.length;
    this.words = answerWords(data.answer);
    this.element = h(
      "section",
      { class: "moe-chain-overview", "aria-label": "The whole completion" },
      h(
        "div",
        { class: "moe-chain-canvas", style: `height:${this.y.height}px` },
        label(this.y.turns + 8, h("b", { text: "turns back" }), ` ${turning}`),
        label(this.y.entropy + 2, h("b", { text: "entropy" }), " max", h("br"), this.top),
        label(this.y.answer + Math.max(0, this.answerHeight / 2 - 16), ...this.answerLabel(layers)),
        this.surface.canvas,
        this.cursor,
      ),
      h("div", { class: "moe-chain-answer" }, ...this.answerLine()),
    );
    this.surface.canvas.addEventListener("pointerdown", (event) => this.click(event));
    this.surface.canvas.addEventListener("pointermove", (event) => {
      this.surface.canvas.title = this.hint(this.at(event));
    });
  }

  layout(layers) {
    this.answerHeight = layers ? layers * this.answerRow : 18;
    const y = { turns: 0, channel: LANES.turns };
    y.entropy = y.channel + LANES.channel + LANES.gap;
    y.forks = y.entropy + LANES.entropy;
    y.answer = y.forks + LANES.forks + LANES.gap;
    y.height = y.answer + this.answerHeight + 4;
    return y;
  }

  answerLabel(layers) {
    const name = h("b", { text: "answer in lens" });
    const { layers: shown } = this.view.data.answer;
    return layers > 1 ? [name, h("br"), `L${shown[0]} … L${shown.at(-1)} ↓`] : [name];
  }

  // What the answer is, where it first shows, and the way there.
  answerLine() {
    const { answer } = this.view.data;
    if (answer.missing) return [h("span", { class: "moe-secondary", text: `answer in the lens: ${answer.missing}` })];
    const definition =
      "The lens of a layer predicts the answer at a token where its highest predictions there and at the tokens after " +
      "spell it, while the text read meanwhile is the answer's. It speaks of the next token.";
    return [
      "answer ",
      h("b", { class: "moe-code", text: answer.text }),
      " in the lens: ",
      h("span", { class: "moe-chain-first", text: this.words, title: definition }),
      " ",
      answer.first &&
        h("button", { type: "button", class: "moe-button", text: "go there", onclick: () => this.view.toAnswer() }),
    ].filter(Boolean);
  }

  resize(width) {
    this.surface.resize(Math.max(60, width - OVERVIEW_GUTTER - OVERVIEW_PADDING), this.y.height);
    this.painted = null;
  }

  draw() {
    const { palette, selection, data } = this.view;
    const id = `${palette.id} ${this.surface.width}`;
    if (id !== this.painted) this.paint(palette);
    this.painted = id;
    const inside = selection.token >= data.start;
    this.cursor.hidden = !inside;
    if (inside) this.cursor.style.left = `${OVERVIEW_GUTTER + this.x(selection.token + 0.5) - 1}px`;
    if (inside) this.cursor.style.height = `${this.y.height}px`;
  }

  x(token) {
    const { start, stop } = this.view.data;
    return ((token - start) / (stop - start)) * this.surface.width;
  }

  paint(palette) {
    const ctx = this.surface.clear();
    this.paintTurns(ctx, palette);
    this.paintChannels(ctx, palette);
    this.paintEntropy(ctx, palette);
    this.paintAnswer(ctx, palette);
    const { data } = this.view;
    const forks = data.forks ? `${data.forkTokens.length} forking tokens` : "entropy not captured";
    this.surface.label(
      `Completion of ${(data.stop - data.start).toLocaleString("en")} tokens: ${data.turns.length} turns back, ${forks}; answer in the lens: ${this.words}`,
    );
  }

  paintTurns(ctx, palette) {
    const { turns, sentences } = this.view.data;
    const floor = LANES.turns - 1;
    ctx.lineWidth = 1.5;
    for (const turn of turns) {
      const x = this.x(turn.token + 0.5);
      ctx.strokeStyle = ctx.fillStyle = palette.warning;
      if (turn.to === null) {
        ctx.setLineDash([2, 2]); // takes up no earlier sentence
        line(ctx, x, floor, x, floor - 10);
        ctx.setLineDash([]);
        continue;
      }
      const to = this.x(sentences[turn.to].start + 0.5);
      const height = Math.min(LANES.turns - 4, 8 + Math.abs(x - to) / 8);
      ctx.beginPath();
      ctx.ellipse((x + to) / 2, floor, Math.abs(x - to) / 2, height, 0, Math.PI, 2 * Math.PI);
      ctx.stroke();
      ctx.beginPath();
      ctx.moveTo(to - 3, floor - 5);
      ctx.lineTo(to + 3, floor - 5);
      ctx.lineTo(to, floor);
      ctx.fill();
    }
  }

  paintChannels(ctx, palette) {
    const { data, tokens } = this.view;
    for (const message of tokens.messages) {
      if (message.stop <= data.start) continue;
      const from = this.x(Math.max(data.start, message.start));
      ctx.fillStyle = palette.channels[hueOf(message.role, message.channel)] ?? palette.secondary;
      ctx.fillRect(from, this.y.channel, Math.max(1, this.x(message.stop) - from - 0.5), LANES.channel);
    }
  }

  paintEntropy(ctx, palette) {
    const { data, blocks } = this.view;
    const { width } = this.surface;
    if (!data.entropy) {
      hatch(ctx, palette, 0, this.y.entropy, width, LANES.entropy, "entropy not captured");
      return;
    }
    const columns = Math.min(Math.floor(width), data.stop - data.start);
    const values = pooledMax(blocks.get("all/entropy"), data.start, data.stop, columns);
    const top = values.reduce((most, v) => (v > most ? v : most), 0);
    setText(this.top, `0 to ${top.toFixed(2)} nats`);
    const each = width / columns;
    values.forEach((value, c) => {
      if (Number.isNaN(value)) return;
      const height = top ? Math.max(0.5, (value / top) * (LANES.entropy - 2)) : 0.5;
      ctx.fillStyle = palette.fill(0.35 + 0.6 * (top ? value / top : 0));
      ctx.fillRect(c * each, this.y.entropy + LANES.entropy - height, Math.max(0.7, each - (each > 3 ? 1 : 0)), height);
    });
    this.paintForks(ctx, palette, columns);
  }

  // As high as the share of a column's tokens that are forking tokens: where each token has a column, all or nothing.
  paintForks(ctx, palette, columns) {
    const { start, stop, forkTokens } = this.view.data;
    const each = this.surface.width / columns;
    ctx.fillStyle = palette.warning;
    sharePerColumn(forkTokens, start, stop, columns).forEach((share, c) => {
      const height = share * (LANES.forks - 1);
      if (share) ctx.fillRect((c + 0.5) * each - 1, this.y.forks + 1, Math.min(2, each), height);
    });
  }

  // One row per layer: full where the answer is the highest prediction, pale where it is a lower one.
  paintAnswer(ctx, palette) {
    const { data } = this.view;
    const { width } = this.surface;
    const y = this.y.answer;
    if (data.answer.missing) {
      hatch(ctx, palette, 0, y, width, this.answerHeight, data.answer.missing);
      return;
    }
    ctx.fillStyle = palette.track;
    ctx.fillRect(0, y, width, this.answerHeight);
    const { begin, layers } = data.answer;
    const columns = Math.floor(width);
    for (const wanted of ["lower", "highest"]) {
      data.ranks.forEach((rank, i) => {
        if (!rank || (rank === 1) !== (wanted === "highest")) return;
        const token = begin + Math.floor(i / layers.length);
        const [first, last] = columnsOf(Math.max(token, data.start), data.start, data.stop, columns);
        ctx.fillStyle = palette.fill(wanted === "highest" ? 0.85 : 0.35);
        ctx.fillRect(
          first,
          y + (i % layers.length) * this.answerRow,
          Math.max(2, last - first),
          this.answerRow - (this.answerRow > 3 ? 1 : 0),
        );
      });
    }
  }

  at(event) {
    const box = this.surface.canvas.getBoundingClientRect();
    const { data } = this.view;
    const share = (event.clientX - box.left) / box.width;
    const token = Math.min(
      data.stop - 1,
      Math.max(data.start, data.start + Math.floor(share * (data.stop - data.start))),
    );
    const row = Math.floor((event.clientY - box.top - this.y.answer) / this.answerRow);
    const layer = data.answer.layers?.[row];
    return { token, layer };
  }

  click(event) {
    const { token, layer } = this.at(event);
    this.view.select(layer === undefined ? { token } : { token, layer });
  }

  hint({ token, layer }) {
    const { data, tokens, reading } = this.view;
    const sentence = data.sentenceAt(token);
    const { entropy } = reading.draw(token);
    const words = [`token ${token} ${tokens.cell(token)}`, sentence >= 0 && `sentence ${sentence + 1}`];
    if (entropy !== null && !Number.isNaN(entropy)) words.push(`entropy ${entropy.toFixed(2)} nats`);
    const rank = layer === undefined ? -1 : data.answerRank(token, layer);
    if (rank >= 0) words.push(`layer ${layer} predicts the answer next, rank ${rank + 1}`);
    return words.filter(Boolean).join(" · ");
  }
}

function line(ctx, x0, y0, x1, y1) {
  ctx.beginPath();
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
}
