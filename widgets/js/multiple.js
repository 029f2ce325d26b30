// One of the small multiples: a titled canvas whose marks can be pointed at and clicked.

import { Surface, UI_FONT, fitText, h } from "./surface.js";

// A subclass gives height(), state() (what a repaint depends on) and paint(ctx, palette).
export class Multiple {
  constructor(view, { name, title, note }) {
    Object.assign(this, { view, name, hits: [] });
    this.surface = new Surface(title);
    this.note = h("span", { class: "moe-secondary", text: note });
    this.foot = h("div", { class: "moe-multiple-foot moe-secondary" });
    this.element = h(
      "section",
      { class: "moe-multiple", "data-panel": name, "aria-label": title },
      h("div", { class: "moe-multiple-title" }, h("b", { text: title }), " ", this.note),
      h("div", { class: "moe-multiple-canvas" }, this.surface.canvas),
      this.foot,
    );
    const { canvas } = this.surface;
    canvas.addEventListener("pointerdown", (event) => this.hitAt(event)?.act?.());
    canvas.addEventListener("pointermove", (event) => {
      const hit = this.hitAt(event);
      canvas.title = hit?.words ?? "";
      canvas.style.cursor = hit?.act ? "pointer" : "default";
    });
  }

  resize(width) {
    this.surface.resize(Math.max(this.least ?? 0, width), this.height());
    this.painted = null;
  }

  draw(palette) {
    const state = `${palette.id}|${this.state()}`;
    if (state === this.painted || !this.surface.width) return;
    this.painted = state;
    this.hits = [];
    this.paint(this.surface.clear(), palette);
  }

  // What is drawn at a place: {words, act}.
  hit(x, y, width, height, words, act) {
    this.hits.push({ x, y, width, height, words, act });
  }

  hitAt(event) {
    const box = this.surface.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    return this.hits.findLast((r) => x >= r.x && x < r.x + r.width && y >= r.y && y < r.y + r.height);
  }

  text(ctx, colour, text, font, x, y, align = "left", room = Infinity) {
    ctx.font = `${font} ${UI_FONT}`;
    ctx.textAlign = align;
    ctx.textBaseline = "middle";
    ctx.fillStyle = colour;
    ctx.fillText(room === Infinity ? text : fitText(ctx, text, room), x, y);
  }

  line(ctx, colour, x0, y0, x1, y1, width = 1) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.beginPath();
    ctx.moveTo(x0, y0);
    ctx.lineTo(x1, y1);
    ctx.stroke();
  }

  dot(ctx, palette, x, y, radius, filled) {
    ctx.beginPath();
    ctx.arc(x, y, radius, 0, 2 * Math.PI);
    ctx.fillStyle = filled ? palette.ink : palette.panel;
    ctx.fill();
    ctx.strokeStyle = filled ? palette.ink : palette.dark;
    ctx.lineWidth = 1.25;
    ctx.stroke();
  }
}
