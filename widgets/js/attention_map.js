// The map panel: sentences × sentences or the whole length, and a click deeper the tokens of two stretches.

import { MapCursor } from "./attention_cursor.js";
import { MatrixImage, paintValues } from "./attention_paint.js";
import { shownBlock, shownOverview, shownSentences } from "./attention_shown.js";
import { Choice } from "./parts.js";
import { twoDigits } from "./numerics.js";
import { CODE_FONT, Surface, UI_FONT, fitText, h, paintAbsence, setData, setText } from "./surface.js";

const LARGEST = 540;
const LARGEST_CELL = { width: 64, height: 34 };
const BAND = 5;
const NUMBERS = { left: 46, top: 24 };
const TEXTS = { left: 92, top: 66 };
const LEGIBLE = 10; // size of a cell from which its token is written
const LABEL_STEPS = [1, 2, 5, 10, 20, 25, 50, 100, 200, 500];

export const MAP_CHOICES = { show: ["sentences", "overview"], pool: ["max", "mean"], heads: ["one", "mean"] };

export class AttentionMap {
  constructor(view) {
    this.view = view;
    this.image = new MatrixImage();
    this.surface = new Surface("Map of attention");
    this.opened = null; // {rows, keys, words} of the token block
    this.title = h("b");
    this.note = h("span", { class: "moe-secondary" });
    this.back = h("button", {
      type: "button",
      class: "moe-button",
      text: "‹ back to the map",
      hidden: true,
      onclick: () => this.close(),
    });
    this.row = h("div", { class: "moe-map-row", hidden: true }); // an element, so that a step paints no canvas
    this.hint = h("div", { class: "moe-map-hint", "aria-live": "polite" });
    this.cursor = new MapCursor(this);
    this.top = h("span");
    this.how = h("span", { class: "moe-secondary" });
    this.legend = h(
      "div",
      { class: "moe-map-legend" },
      h("span", { class: "moe-map-scale" }, "0 ", h("span", { class: "moe-scale moe-ramp" }), " ", this.top, " (√)"),
      this.how,
    );
    this.element = h(
      "section",
      { class: "moe-attention-map", "aria-label": "Map of attention" },
      h("div", { class: "moe-map-controls" }, ...this.buildChoices(), this.back),
      h("div", { class: "moe-panel-title moe-map-title" }, this.title, " ", this.note),
      h("div", { class: "moe-map-canvas" }, this.surface.canvas, this.row, this.cursor.element),
      this.hint,
      this.legend,
    );
    this.listen();
  }

  buildChoices() {
    const choose = (name) => (value) => {
      this.opened = null;
      this.view.select({ [name]: value });
    };
    const words = { one: "this head", mean: "mean of heads" };
    this.choices = {
      show: new Choice(
        "map",
        MAP_CHOICES.show.map((value) => ({ value, text: value })),
        choose("show"),
      ),
      heads: new Choice(
        "of",
        MAP_CHOICES.heads.map((value) => ({ value, text: words[value] })),
        choose("heads"),
      ),
      pool: new Choice(
        "pooled by",
        MAP_CHOICES.pool.map((value) => ({ value, text: value })),
        choose("pool"),
      ),
    };
    return Object.values(this.choices).map((choice) => choice.element);
  }

  listen() {
    const { canvas } = this.surface;
    canvas.addEventListener("pointerdown", (event) => {
      const cell = this.at(event);
      if (cell) this.shown.open(cell.row, cell.column);
    });
    canvas.addEventListener("pointermove", (event) => this.writeHint(this.at(event)));
    canvas.addEventListener("pointerleave", () => this.writeHint(null));
  }

  at(event) {
    if (!this.box) return null;
    const bounds = this.surface.canvas.getBoundingClientRect();
    const { x, y, cell } = this.box;
    const row = Math.floor((event.clientY - bounds.top - y) / cell.height);
    const column = Math.floor((event.clientX - bounds.left - x) / cell.width);
    return row >= 0 && row < this.shown.height && column >= 0 && column < this.shown.width ? { row, column } : null;
  }

  // The next of a choice.
  next(name) {
    const values = MAP_CHOICES[name];
    this.opened = null;
    this.view.select({ [name]: values[(values.indexOf(this.view.selection[name]) + 1) % values.length] });
  }

  focus() {
    this.surface.canvas.focus();
  }

  // Open the tokens of the selected row and the column it reads most.
  zoom() {
    if (this.opened || !this.box || this.shown.row < 0) return;
    const column = this.shown.best(this.shown.row);
    if (column >= 0) this.shown.open(this.shown.row, column);
  }

  open(opened) {
    this.opened = opened;
    this.view.settleMap();
  }

  // Back from the tokens; returns whether they were open.
  close() {
    if (!this.opened) return false;
    this.opened = null;
    this.view.settleMap();
    return true;
  }

  resize(width) {
    const side = Math.min(LARGEST, Math.max(200, width - NUMBERS.left));
    this.surface.resize(width, side + NUMBERS.top); // a square has its numbers above and at the left
  }

  find() {
    const { view } = this;
    const { maps, reading, selection } = view;
    const open = (opened) => this.open(opened);
    if (this.opened) {
      const found = this.tokenBlock(reading, selection);
      const select = (changes) => view.select(changes);
      const context = { tokens: view.tokens, selection, select };
      return found.state === "here" ? { found, shown: shownBlock(context, found, this.opened) } : { found };
    }
    const overview = selection.show === "overview";
    const found = overview ? maps.overview(selection) : maps.sentencesMap(selection);
    if (found.state !== "here") return { found };
    return { found, shown: (overview ? shownOverview : shownSentences)(view, found, open) };
  }

  // The tokens of what is open; kept, because a step computes nothing new.
  tokenBlock(reading, selection) {
    const { rows, keys } = this.opened;
    const id = `${selection.layer}/${selection.head} ${rows} ${keys}`;
    if (this.block?.id === id) return this.block.found;
    const found = reading.tokenBlock(selection, rows, keys);
    if (found.state === "here") this.block = { id, found };
    return found;
  }

  settle() {
    const { view } = this;
    const { selection } = view;
    for (const [name, choice] of Object.entries(this.choices)) choice.draw(selection[name]);
    this.choices.heads.element.hidden = Boolean(this.opened) || selection.show !== "sentences";
    this.choices.pool.element.hidden = Boolean(this.opened) || selection.show !== "overview";
    this.choices.show.element.hidden = Boolean(this.opened);
    this.back.hidden = !this.opened;
    const { found, shown = null } = this.find();
    this.shown = shown;
    setData(this.element, "state", found.state);
    setData(this.element, "shows", this.opened ? "tokens" : selection.show);
    this.paint(found);
    this.describe(found);
  }

  // Paint what changed: while only the token moves, the canvas stays and the row's frame follows.
  paint(found) {
    const { palette } = this.view;
    const { shown, surface } = this;
    const id = `${shown?.id ?? found.words} ${palette.id} ${surface.width} ${surface.scale}`;
    if (id !== this.painted) {
      this.painted = id;
      this.legend.hidden = !shown;
      this.box = shown ? this.layout() : null;
      const ctx = surface.clear();
      if (shown) this.paintShown(ctx, palette);
      else paintAbsence(ctx, palette, found, 0, 8, surface.width, 80);
    }
    this.placeRow();
  }

  paintShown(ctx, palette) {
    const { shown, box } = this;
    this.image.fill(shown.id, palette, shown, shown.valueAt);
    this.image.paint(ctx, palette, box);
    paintValues(ctx, palette, { ...shown, ...box }, shown.valueAt);
    this.paintAxes(ctx, palette);
  }

  placeRow() {
    const { shown, box, row } = this;
    row.hidden = !shown || shown.row < 0;
    if (row.hidden) return;
    const { x, y, cell } = box;
    setData(row, "small", cell.height < 5);
    row.style.left = `${x}px`;
    row.style.top = `${y + shown.row * cell.height}px`;
    row.style.width = `${shown.width * cell.width}px`;
    row.style.height = `${cell.height}px`;
  }

  // Where the cells stand; token texts take more room than numbers, where they fit at all.
  layout() {
    const texts = this.shown.columns && this.cellWithin(TEXTS);
    this.isWritten = { rows: texts && texts.height >= LEGIBLE, columns: texts && texts.width >= LEGIBLE };
    const margin = {
      left: this.isWritten.rows ? TEXTS.left : NUMBERS.left,
      top: this.isWritten.columns ? TEXTS.top : NUMBERS.top,
    };
    const cell = this.cellWithin(margin);
    if (!this.shown.columns) cell.width = cell.height = Math.min(cell.width, cell.height);
    return { x: margin.left, y: margin.top, cell };
  }

  cellWithin({ left, top }) {
    const { surface, shown } = this;
    return {
      width: Math.min(LARGEST_CELL.width, (surface.width - left - 2) / shown.width),
      height: Math.min(LARGEST_CELL.height, (surface.height - top - 2) / shown.height),
    };
  }

  paintAxes(ctx, palette) {
    const { shown, box } = this;
    const { x, y, cell } = box;
    const columns = shown.columns ?? shown.axis;
    const colour = (hue) => palette.channels[hue] ?? palette.secondary;
    shown.axis.forEach(({ hue }, r) => {
      ctx.fillStyle = colour(hue);
      ctx.fillRect(x - BAND - 2, y + r * cell.height, BAND, Math.max(1, cell.height));
    });
    columns.forEach(({ hue }, c) => {
      ctx.fillStyle = colour(hue);
      ctx.fillRect(x + c * cell.width, y - BAND - 2, Math.max(1, cell.width), BAND);
    });
    const { isWritten } = this;
    this.paintLabels(ctx, palette, shown.axis, cell.height, isWritten.rows, (words, r) => this.rowLabel(ctx, words, r));
    this.paintLabels(ctx, palette, columns, cell.width, isWritten.columns, (words, c) =>
      this.columnLabel(ctx, words, c),
    );
  }

  // Token texts where they fit, else numbers, as many as fit.
  paintLabels(ctx, palette, axis, size, isWritten, paint) {
    ctx.textBaseline = "middle";
    ctx.font = isWritten ? `11px ${CODE_FONT}` : `10px ${UI_FONT}`;
    ctx.fillStyle = palette.secondary;
    const every = isWritten ? 1 : (LABEL_STEPS.find((n) => n * size >= 34) ?? axis.length);
    axis.forEach((at, i) => {
      if (i % every === 0) paint(isWritten ? fitText(ctx, at.text, 80) : at.number.toLocaleString("en"), i);
    });
  }

  rowLabel(ctx, words, row) {
    const { x, y, cell } = this.box;
    ctx.textAlign = "right";
    ctx.fillText(words, x - BAND - 5, y + (row + 0.5) * cell.height);
  }

  columnLabel(ctx, words, column) {
    const { x, y, cell } = this.box;
    const isWritten = this.isWritten.columns;
    ctx.save();
    ctx.translate(x + (column + 0.5) * cell.width, y - BAND - (isWritten ? 6 : 10));
    if (isWritten) ctx.rotate(-Math.PI / 2);
    ctx.textAlign = isWritten ? "left" : "center";
    ctx.fillText(words, 0, 0);
    ctx.restore();
  }

  describe(found) {
    const { shown } = this;
    setText(this.title, shown?.title ?? "Map of attention");
    setText(this.note, shown?.note ?? "");
    if (shown) {
      setText(this.top, twoDigitsOrSmall(shown.top));
      setText(this.how, shown.how);
    }
    this.surface.label(shown ? `${shown.title}. ${shown.note} ${this.selectedWords()}` : found.words);
    setData(this.element, "id", shown?.id ?? "");
    this.writeHint(null);
    this.cursor.place();
  }

  // What the row of the selected token reads most.
  selectedWords() {
    const { shown } = this;
    if (shown.row < 0) return `token ${this.view.selection.token.toLocaleString("en")} is in none of the rows`;
    const column = shown.best(shown.row);
    return column < 0 ? "" : `most: ${shown.hint(shown.row, column)}`;
  }

  // What is in a cell: the one pointed at, else the cursor's, else what the selected row reads most.
  writeHint(cell) {
    const at = cell ?? this.cursor.cell;
    const words = !this.shown ? "" : at ? this.shown.hint(at.row, at.column) : this.selectedWords();
    setText(this.hint, words);
  }
}

function twoDigitsOrSmall(value) {
  return value > 0 && value < 0.01 ? value.toExponential(1) : twoDigits(value);
}
