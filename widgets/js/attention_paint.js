// Painting a matrix of amounts as one image, scaled up: what is undefined stays dotted.

import { twoDigits } from "./numerics.js";
import { UI_FONT } from "./surface.js";

const GRID_FROM = 9; // width from which cells are told apart by a line
const WRITTEN_FROM = 26; // width from which a cell holds its value

// The colour of a weight: roots, so that small weights are seen; said in the legend.
export function amountOf(value, top) {
  return top > 0 ? Math.sqrt(Math.min(1, Math.max(0, value / top))) : 0;
}

export class MatrixImage {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.ctx = this.canvas.getContext("2d", { willReadFrequently: true });
    this.id = "";
  }

  // Fill from `valueAt(row, column)`: NaN is undefined, undefined is waited for. Kept while `id` stays.
  fill(id, palette, { height, width, top }, valueAt) {
    const whole = `${id} ${palette.id}`;
    if (whole === this.id) return;
    this.id = whole;
    this.canvas.width = width;
    this.canvas.height = height;
    const image = this.ctx.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const track = pixelOf(palette.track);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const value = valueAt(row, column);
        const at = row * width + column;
        if (value === undefined) pixels[at] = track;
        else if (!Number.isNaN(value)) pixels[at] = palette.pixel(amountOf(value, top));
      }
    }
    this.ctx.putImageData(image, 0, 0);
  }

  // Paint at x, y with cells of a size; the undefined shows the dots below.
  paint(ctx, palette, { x, y, cell }) {
    const [width, height] = [this.canvas.width * cell.width, this.canvas.height * cell.height];
    paintDots(ctx, palette, x, y, width, height);
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(this.canvas, x, y, width, height);
    if (Math.min(cell.width, cell.height) >= GRID_FROM) paintGrid(ctx, palette, this.canvas, { x, y, cell });
  }
}

function pixelOf(hex) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

const patterns = new Map(); // theme → pattern

function paintDots(ctx, palette, x, y, width, height) {
  if (!patterns.has(palette.id)) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 5;
    const own = tile.getContext("2d");
    own.fillStyle = palette.grey;
    own.fillRect(2, 2, 1, 1);
    patterns.set(palette.id, ctx.createPattern(tile, "repeat"));
  }
  ctx.fillStyle = patterns.get(palette.id);
  ctx.fillRect(x, y, width, height);
}

function paintGrid(ctx, palette, { width, height }, { x, y, cell }) {
  ctx.fillStyle = palette.panel;
  for (let c = 1; c < width; c++) ctx.fillRect(x + c * cell.width - 0.5, y, 1, height * cell.height);
  for (let r = 1; r < height; r++) ctx.fillRect(x, y + r * cell.height - 0.5, width * cell.width, 1);
}

// The value in every cell, where there is room.
export function paintValues(ctx, palette, { x, y, cell, height, width, top }, valueAt) {
  if (cell.width < WRITTEN_FROM || cell.height < 15) return;
  ctx.font = `10.5px ${UI_FONT}`;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  for (let r = 0; r < height; r++) {
    for (let c = 0; c < width; c++) {
      const value = valueAt(r, c);
      if (value === undefined || Number.isNaN(value)) continue;
      ctx.fillStyle = palette.textOnFill(amountOf(value, top));
      ctx.fillText(twoDigits(value), x + (c + 0.5) * cell.width, y + (r + 0.5) * cell.height + 0.5);
    }
  }
}
