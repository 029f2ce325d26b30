// The whole trace above the strip: channels, the quantity pooled by maximum, and where attention looked.

import { poolMax } from "./numerics.js";
import { messageName } from "./strip.js";
import { UI_FONT, hatch } from "./surface.js";

export const MINIMAP = { channel: [0, 12], quantity: [14, 18], attention: [35, 16], height: 53, funnel: 13 };

// Channel and quantity rows change rarely: painted once into a canvas of their own.
export class Minimap {
  constructor() {
    this.underlay = document.createElement("canvas");
    this.id = "";
  }

  // Paint at the origin of ctx. `row` is the attention found, `cells` those on the strip.
  paint(ctx, palette, { tokens, quantity, selection, row, cells, marks, width, scale }) {
    this.prepare(palette, tokens, quantity, width, scale);
    ctx.drawImage(this.underlay, 0, 0, width, MINIMAP.height);
    if (row.state === "here") this.paintAttention(ctx, palette, row, tokens.length, width);
    else if (row.state === "missing") hatch(ctx, palette, 0, MINIMAP.attention[0], width, MINIMAP.attention[1]);
    const x = (token) => (token / tokens.length) * width;
    ctx.fillStyle = palette.ink;
    for (const token of marks) {
      ctx.beginPath();
      ctx.moveTo(x(token + 0.5) - 4, 0);
      ctx.lineTo(x(token + 0.5) + 4, 0);
      ctx.lineTo(x(token + 0.5), 6);
      ctx.fill();
    }
    paintViewport(ctx, palette, x(cells[0].token), x(cells.at(-1).token + 1), x(selection.token + 0.5));
    paintFunnel(ctx, palette, x(cells[0].token), x(cells.at(-1).token + 1), width);
  }

  prepare(palette, tokens, quantity, width, scale) {
    const id = `${palette.id} ${width} ${scale} ${quantity.id} ${quantity.state}`;
    if (id === this.id) return;
    this.id = id;
    this.underlay.width = Math.round(width * scale);
    this.underlay.height = Math.round(MINIMAP.height * scale);
    const ctx = this.underlay.getContext("2d");
    ctx.setTransform(scale, 0, 0, scale, 0, 0);
    paintChannels(ctx, palette, tokens, width);
    paintQuantity(ctx, palette, tokens, quantity, width);
    ctx.fillStyle = palette.line;
    ctx.fillRect(0, MINIMAP.quantity[0] + MINIMAP.quantity[1], width, 1);
    ctx.fillRect(0, MINIMAP.attention[0] + MINIMAP.attention[1], width, 1);
  }

  paintAttention(ctx, palette, row, count, width) {
    const bins = Math.max(1, Math.min(count, Math.floor(width / 2)));
    const pooled = new Float32Array(bins);
    for (let j = 0; j < row.weights.length; j++) {
      const bin = Math.floor(((row.from + j) * bins) / count);
      if (row.weights[j] > pooled[bin]) pooled[bin] = row.weights[j];
    }
    const [y, height] = MINIMAP.attention;
    const step = width / bins;
    ctx.fillStyle = palette.bar;
    pooled.forEach((weight, bin) => {
      const tall = Math.sqrt(weight) * height;
      if (tall >= 0.75) ctx.fillRect(bin * step, y + height - tall, Math.max(1.5, step - 0.5), tall);
    });
    if (row.from > 0) paintEdge(ctx, palette, (row.from / count) * width, y, height);
  }
}

// The window's edge: the layer cannot see further back.
function paintEdge(ctx, palette, x, y, height) {
  ctx.strokeStyle = palette.ink;
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.moveTo(x + 4, y + 1.5);
  ctx.lineTo(x + 0.5, y + 1.5);
  ctx.lineTo(x + 0.5, y + height);
  ctx.stroke();
}

function paintChannels(ctx, palette, tokens, width) {
  const [y, height] = MINIMAP.channel;
  ctx.font = `600 10px ${UI_FONT}`;
  ctx.textBaseline = "middle";
  for (const message of tokens.messages) {
    const x = (message.start / tokens.length) * width;
    const right = (message.stop / tokens.length) * width;
    ctx.fillStyle = palette.channels[message.hue];
    ctx.fillRect(x, y, Math.max(1, right - x - 0.75), height);
    const name = messageName(message);
    if (ctx.measureText(name).width + 8 > right - x) continue;
    ctx.fillStyle = palette.onChannel[message.hue];
    ctx.fillText(name, x + 5, y + height / 2 + 0.5);
  }
}

// Prompt tokens are faded: they were read, not written.
function paintQuantity(ctx, palette, tokens, quantity, width) {
  const [y, height] = MINIMAP.quantity;
  if (quantity.state === "missing") hatch(ctx, palette, 0, y, width, height, quantity.words);
  if (quantity.state !== "here" || !quantity.values) return;
  const bins = Math.max(1, Math.min(tokens.length, Math.floor(width / 2)));
  const pooled = poolMax(quantity.values, bins);
  const step = width / bins;
  pooled.forEach((value, bin) => {
    if (Number.isNaN(value)) return;
    const amount = Math.min(1, Math.max(0, value / quantity.top));
    ctx.globalAlpha = ((bin + 1) * tokens.length) / bins <= tokens.numPrompt ? 0.4 : 1;
    ctx.fillStyle = palette.fill(0.25 + 0.75 * amount);
    const tall = Math.max(1, amount * height);
    ctx.fillRect(bin * step, y + height - tall, Math.max(1, step - 0.5), tall);
  });
  ctx.globalAlpha = 1;
}

function paintViewport(ctx, palette, left, right, current) {
  ctx.fillStyle = palette.shade;
  ctx.fillRect(left, 0, right - left, MINIMAP.height);
  ctx.strokeStyle = palette.ink;
  ctx.lineWidth = 1.25;
  ctx.strokeRect(left + 0.5, 0.5, Math.max(2, right - left - 1), MINIMAP.height - 1);
  ctx.fillStyle = palette.ink;
  ctx.fillRect(current - 0.5, 0, 1.25, MINIMAP.height);
}

function paintFunnel(ctx, palette, left, right, width) {
  ctx.fillStyle = palette.shade;
  ctx.beginPath();
  ctx.moveTo(left, MINIMAP.height);
  ctx.lineTo(right, MINIMAP.height);
  ctx.lineTo(width, MINIMAP.height + MINIMAP.funnel);
  ctx.lineTo(0, MINIMAP.height + MINIMAP.funnel);
  ctx.fill();
}
