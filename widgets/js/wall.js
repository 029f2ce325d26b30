// The wall: every head of the selected layer at once, the last tokens of its row and its sink mass.

import { twoDigits } from "./numerics.js";
import { Surface, UI_FONT, h, paintAbsence, setData, setText } from "./surface.js";

const RECENT = 96;

export class Wall {
  constructor(explorer) {
    this.explorer = explorer;
    this.surface = new Surface("Heads");
    this.title = h("b");
    this.note = h("span", { class: "moe-secondary" });
    const { numHeads, numKvHeads } = explorer.facts;
    this.rows = Math.max(1, numKvHeads);
    this.columns = Math.max(1, Math.ceil(numHeads / this.rows));
    this.small = numHeads > 16;
    this.rowHeight = this.small ? 26 : 62;
    this.element = h(
      "section",
      { class: "moe-wall", "aria-label": "Heads of the selected layer" },
      h("div", { class: "moe-panel-title" }, this.title, " ", this.note),
      this.surface.canvas,
    );
    this.element.title = "Bars are relative to each head's largest in view; the left bar is sink mass within 0–1.";
    this.surface.canvas.addEventListener("pointerdown", (event) => this.pick(event));
  }

  pick(event) {
    const box = this.surface.canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / this.surface.width) * this.columns);
    const row = Math.floor((event.clientY - box.top) / this.rowHeight);
    const head = row * this.columns + column;
    if (head < this.explorer.facts.numHeads) this.explorer.select({ head }, "head");
  }

  resize(width) {
    this.surface.resize(width, this.rows * this.rowHeight);
  }

  // Titles follow every step; the heads follow when stepping pauses.
  drawTitle({ selection }) {
    setText(this.title, `Heads of layer ${selection.layer}`);
    setText(this.note, `h${selection.head} · row = kv group · last ${RECENT} tokens · left bar = sink mass`);
  }

  draw({ selection, palette }) {
    const ctx = this.surface.clear();
    const wall = this.explorer.reading.wall(selection, RECENT);
    setData(this.element, "state", wall.state);
    setData(this.element, "token", selection.token);
    this.surface.label(
      `Heads of layer ${selection.layer} at token ${selection.token}; head ${selection.head} is selected`,
    );
    if (paintAbsence(ctx, palette, wall, 0, 0, this.surface.width, Math.min(60, this.surface.height))) return;
    wall.heads.forEach((head, i) =>
      this.paintHead(ctx, palette, wall, head, i, i === selection.head, selection.token),
    );
  }

  box(i) {
    const width = this.surface.width / this.columns;
    return {
      x: (i % this.columns) * width,
      y: Math.floor(i / this.columns) * this.rowHeight,
      width: width - 6,
      height: this.rowHeight - 4,
    };
  }

  paintHead(ctx, palette, wall, head, i, selected, token) {
    const { x, y, width, height } = this.box(i);
    if (selected) paintSelected(ctx, palette, x, y, width, height);
    const top = this.small ? 2 : 14;
    const base = y + height - 3;
    const tall = height - top - 3;
    if (!this.small) paintHeadName(ctx, palette, `h${i}`, head.sink, x, y, width, selected);
    const bar = this.small ? 4 : 6;
    ctx.fillStyle = palette.track;
    ctx.fillRect(x + 3, base - tall, bar, tall);
    if (head.sink !== null) {
      ctx.fillStyle = palette.dark;
      ctx.fillRect(x + 3, base - tall * head.sink, bar, tall * head.sink);
    }
    const from = x + bar + 5;
    const step = (x + width - 4 - from) / RECENT;
    const at = (j) => from + (RECENT - 1 - (token - (wall.from + j))) * step;
    ctx.fillStyle = palette.line;
    ctx.fillRect(from, base, x + width - 4 - from, 1);
    paintBars(ctx, palette, head.weights, at, step, base, tall);
    if (wall.edge !== null) paintWindow(ctx, palette, at(0), base, tall);
  }
}

function paintBars(ctx, palette, weights, at, step, base, tall) {
  const top = weights.reduce((most, w) => Math.max(most, w), 0);
  if (top < 0.0005) return;
  ctx.fillStyle = palette.bar;
  weights.forEach((weight, j) => {
    const high = (weight / top) * tall;
    if (high >= 0.5) ctx.fillRect(at(j), base - high, Math.max(1.25, step - 0.4), high);
  });
}

function paintSelected(ctx, palette, x, y, width, height) {
  ctx.fillStyle = palette.shade;
  ctx.fillRect(x, y, width, height);
  ctx.strokeStyle = palette.ink;
  ctx.lineWidth = 2;
  ctx.strokeRect(x + 1, y + 1, width - 2, height - 2);
}

function paintHeadName(ctx, palette, name, sink, x, y, width, selected) {
  ctx.textBaseline = "alphabetic";
  ctx.font = `${selected ? "700" : "400"} 11px ${UI_FONT}`;
  ctx.textAlign = "left";
  ctx.fillStyle = palette.text;
  ctx.fillText(name, x + 3, y + 11);
  ctx.font = `10.5px ${UI_FONT}`;
  ctx.textAlign = "right";
  ctx.fillStyle = palette.secondary;
  ctx.fillText(sink === null ? "no sink" : `sink ${twoDigits(sink)}`, x + width - 4, y + 11);
}

function paintWindow(ctx, palette, x, base, tall) {
  ctx.save();
  ctx.strokeStyle = palette.text;
  ctx.setLineDash([2, 2]);
  ctx.beginPath();
  ctx.moveTo(x - 0.5, base - tall);
  ctx.lineTo(x - 0.5, base);
  ctx.stroke();
  ctx.restore();
}
