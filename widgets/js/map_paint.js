// Painting the map: layer numbers and entropy stand still on canvases of their own; the cells between may scroll.

import { twoDigits } from "./numerics.js";
import { Surface, UI_FONT, dottedFrame, hatch } from "./surface.js";

export const LABELS = 44;
export const ENTROPY = 86;
const HEAD = 24;
const SMALLEST = 7;
export const WRITTEN = 30; // width from which a cell holds its value

// Size of a cell for so much room: whole pixels, never under 7 wide.
export function cellSize(room, numExperts, numLayers) {
  const width = Math.min(120, Math.max(SMALLEST, Math.floor(room / numExperts)));
  const tall = Math.round(width * 1.5); // the card beside it is taller than square cells would make the map
  const height = numLayers <= 12 ? Math.min(36, Math.max(16, tall)) : Math.min(24, Math.max(13, tall));
  return { width, height };
}

// Every how many columns a number stands over the grid.
export function tickEvery(numExperts, width) {
  return [1, 2, 4, 8, 16, 32].find((n) => n * width >= (numExperts > 100 ? 26 : 20)) ?? 32;
}

export class MapPainter {
  constructor(numLayers, numExperts) {
    Object.assign(this, { numLayers, numExperts });
    this.labels = new Surface("");
    this.grid = new Surface("Experts by layer");
    this.entropy = new Surface("");
    for (const { canvas } of [this.labels, this.entropy]) {
      canvas.removeAttribute("role"); // the grid's label speaks for the row
      canvas.removeAttribute("aria-label");
      canvas.setAttribute("aria-hidden", "true");
    }
  }

  resize(room) {
    this.cell = cellSize(room, this.numExperts, this.numLayers);
    const height = HEAD + this.numLayers * this.cell.height;
    this.labels.resize(LABELS, height);
    this.grid.resize(this.numExperts * this.cell.width + 1, height);
    this.entropy.resize(ENTROPY, height);
  }

  // {layer, position} of a point; position is null beside the cells.
  at(x, y) {
    const clamped = (v, n) => Math.min(n - 1, Math.max(0, Math.floor(v)));
    const position = Math.floor(x / this.cell.width);
    return {
      layer: clamped((y - HEAD) / this.cell.height, this.numLayers),
      position: position >= 0 && position < this.numExperts ? position : null,
    };
  }

  // The middle of a cell, for whoever scrolls it into view.
  xOf(position) {
    return (position + 0.5) * this.cell.width;
  }

  top(layer) {
    return HEAD + layer * this.cell.height;
  }

  // `rows` are {cells: [{fill, text, ink, dot, mark, number, undefined}], words} per layer; `column` the selected
  // position, `corner` what columns are, counted from `first`; `entropies` of the layers.
  paint(palette, { rows, layer, column, corner, first, entropies }) {
    this.paintLabels(palette, layer, corner);
    this.paintGrid(palette, rows, layer, column, first);
    this.paintEntropy(palette, entropies, layer);
  }

  paintLabels(palette, layer, corner) {
    const ctx = this.labels.clear();
    this.text(ctx, palette.secondary, corner, "11px", LABELS - 6, HEAD / 2 + 1, "right");
    const every = this.cell.height >= 13 ? 1 : 2;
    for (let l = 0; l < this.numLayers; l++) {
      const middle = this.top(l) + this.cell.height / 2;
      if (l === layer) {
        this.text(ctx, palette.ink, String(l), "700 11.5px", LABELS - 12, middle, "right");
        this.dashes(ctx, palette, LABELS - 9, middle, LABELS, middle);
      } else if (l % every === 0) this.text(ctx, palette.secondary, String(l), "11px", LABELS - 12, middle, "right");
    }
  }

  paintGrid(palette, rows, layer, column, first) {
    const ctx = this.grid.clear();
    rows.forEach((row, l) => this.paintRow(ctx, palette, row, l));
    this.paintNumbers(ctx, palette, column, first);
    this.paintCross(ctx, palette, rows, layer, column);
    const { width, height } = this.cell;
    const [x, y] = [column * width, this.top(layer)];
    ctx.strokeStyle = palette.panel;
    ctx.lineWidth = 4;
    ctx.strokeRect(x - 0.25, y - 0.25, width, height);
    ctx.strokeStyle = palette.ink;
    ctx.lineWidth = 2;
    ctx.strokeRect(x - 0.25, y - 0.25, width, height);
  }

  // Dashes from the layer and the number over the column to the cell, but not through what is written in others.
  paintCross(ctx, palette, rows, layer, column) {
    const { width, height } = this.cell;
    const [x, y] = [(column + 0.5) * width, this.top(layer) + height / 2];
    const isBlank = (l, p) => !(rows[l].cells[p]?.text ?? rows[l].cells[p]?.number);
    for (let p = 0; p < column; p++) {
      if (isBlank(layer, p)) this.dashes(ctx, palette, p * width, y, (p + 1) * width, y);
    }
    this.dashes(ctx, palette, x, HEAD - 3, x, HEAD);
    for (let l = 0; l < layer; l++) {
      if (isBlank(l, column)) this.dashes(ctx, palette, x, this.top(l), x, this.top(l + 1));
    }
  }

  paintNumbers(ctx, palette, column, first) {
    const { width } = this.cell;
    const every = tickEvery(this.numExperts, width);
    for (let p = 0; p < this.numExperts; p += every) {
      if (Math.abs(p - column) * width >= 8 + 6 * String(column).length) {
        this.text(ctx, palette.secondary, String(p + first), "11px", this.tickAt(p), HEAD / 2 + 1, "center");
      }
    }
    this.text(ctx, palette.ink, String(column + first), "700 11.5px", this.tickAt(column), HEAD / 2 + 1, "center");
  }

  // Numbers at the edges stay whole.
  tickAt(position) {
    const half = String(position).length * 3.4;
    return Math.min(this.grid.width - half, Math.max(half, this.xOf(position)));
  }

  paintRow(ctx, palette, { cells, words }, layer) {
    const y = this.top(layer);
    const { width, height } = this.cell;
    const gap = width >= 10 ? 1.25 : 0.5;
    if (words) {
      hatch(ctx, palette, 0, y, this.numExperts * width - gap, height - 1.25, words);
      return;
    }
    cells.forEach((cell, p) => this.paintCell(ctx, palette, cell, p * width, y, width - gap, height - gap));
  }

  paintCell(ctx, palette, cell, x, y, width, height) {
    if (cell.undefined) {
      dottedFrame(ctx, palette, x, y, width, height);
      return;
    }
    ctx.fillStyle = cell.fill;
    ctx.fillRect(x, y, width, height);
    const middle = [x + width / 2, y + height / 2 + 0.5];
    if (cell.dot) {
      const radius = Math.min(2.2, width / 5);
      const [dx, dy] = cell.text || cell.number ? [x + width - 5, y + 5] : middle;
      ctx.fillStyle = cell.ink;
      ctx.beginPath();
      ctx.arc(dx, dy, radius, 0, 2 * Math.PI);
      ctx.fill();
    }
    if (cell.mark) this.corner(ctx, cell.ink, x, y, Math.min(7, width / 2));
    if (cell.number && cell.text && height >= 22) {
      const [above, below, inset] = height >= 30 ? ["10px", "11.5px", 10] : ["9px", "700 9.5px", 7];
      this.text(ctx, cell.ink, cell.number, above, middle[0], y + inset, "center");
      this.text(ctx, cell.ink, cell.text, below, middle[0], y + height - inset + 1, "center");
    } else if (cell.text || cell.number) {
      const written = cell.number ?? cell.text;
      this.text(ctx, cell.ink, written, width < 20 ? "9.5px" : "11.5px", ...middle, "center");
    }
  }

  corner(ctx, colour, x, y, size) {
    ctx.fillStyle = colour;
    ctx.beginPath();
    ctx.moveTo(x + 1, y + 1);
    ctx.lineTo(x + 1 + size, y + 1);
    ctx.lineTo(x + 1, y + 1 + size);
    ctx.fill();
  }

  paintEntropy(palette, values, layer) {
    const ctx = this.entropy.clear();
    this.text(ctx, palette.secondary, "H / ln E", "11px", 14, HEAD / 2 + 1, "left");
    const every = this.cell.height >= 13 ? 1 : 2;
    values.forEach((value, l) => {
      const middle = this.top(l) + this.cell.height / 2;
      if (Number.isNaN(value)) {
        if (l % every === 0) this.text(ctx, palette.secondary, "–", "10.5px", 14, middle, "left");
        return;
      }
      ctx.fillStyle = palette.track;
      ctx.fillRect(14, middle - 2.5, 44, 5);
      ctx.fillStyle = l === layer ? palette.ink : palette.dark;
      ctx.fillRect(14, middle - 2.5, 44 * value, 5);
      const colour = l === layer ? palette.ink : palette.secondary;
      const font = l === layer ? "700 10.5px" : "10.5px";
      if (l % every === 0 || l === layer) this.text(ctx, colour, twoDigits(value), font, 63, middle, "left");
    });
  }

  dashes(ctx, palette, x0, y0, x1, y1) {
    ctx.save();
    ctx.strokeStyle = palette.ink;
    ctx.lineWidth = 1;
    ctx.setLineDash([2, 2]);
    ctx.beginPath();
    ctx.moveTo(x0, y0);
    ctx.lineTo(x1, y1);
    ctx.stroke();
    ctx.restore();
  }

  text(ctx, colour, text, font, x, y, align) {
    ctx.font = `${font} ${UI_FONT}`;
    ctx.textAlign = align;
    ctx.textBaseline = "middle";
    ctx.fillStyle = colour;
    ctx.fillText(text, x, y);
  }
}
