// The token strip: which tokens fit, where they stand, and how they are painted. The current token stands at 80 %.

import { CODE_FONT, UI_FONT, dottedFrame, fitText, hatch } from "./surface.js";

const CURRENT_AT = 0.8;
const MIN_CELL = 22;
const MAX_CELL = 168;

// Cells {token, x, width} that fit `width`: around the current token, from the left edge near the start.
export function stripLayout(token, count, width, cellWidth) {
  const anchor = Math.round(width * CURRENT_AT - cellWidth(token) / 2);
  let x = anchor;
  let first = token;
  while (first > 0 && x > 0) x -= cellWidth(--first);
  if (x > 0) x = 0; // the start of the trace: nothing is left blank before it
  const cells = [];
  for (let i = first; i < count && x < width; i++) {
    const w = cellWidth(i);
    cells.push({ token: i, x, width: w });
    x += w;
  }
  return cells;
}

// Width of every token's cell, measured once per text.
export class CellWidths {
  constructor(tokens) {
    this.tokens = tokens;
    this.widths = new Map();
    this.ctx = document.createElement("canvas").getContext("2d");
    this.ctx.font = `13px ${CODE_FONT}`;
  }

  of(token) {
    const id = this.tokens.ids[token];
    let width = this.widths.get(id);
    if (width === undefined) {
      width = Math.min(
        MAX_CELL,
        Math.max(MIN_CELL, Math.ceil(this.ctx.measureText(this.tokens.cell(token)).width) + 8),
      );
      this.widths.set(id, width);
    }
    return width;
  }
}

export function cellAt(cells, x) {
  return cells.find((c) => x >= c.x && x < c.x + c.width);
}

// Names of the messages over their tokens, with the line in the channel's colour.
export function paintBand(ctx, palette, cells, tokens, y, width) {
  let at = 0;
  while (at < cells.length) {
    const message = tokens.messageAt(cells[at].token);
    const stop = message?.stop ?? cells[at].token + 1;
    let end = at;
    while (end + 1 < cells.length && cells[end + 1].token < stop) end++;
    const from = Math.max(0, cells[at].x);
    const to = Math.min(width, cells[end].x + cells[end].width);
    if (message) paintMessage(ctx, palette, message, from, to, y, message.start < cells[at].token);
    at = end + 1;
  }
}

function paintMessage(ctx, palette, message, from, to, y, started) {
  ctx.fillStyle = palette.channels[message.hue];
  ctx.fillRect(from, y + 13, to - from - 1, 3);
  ctx.font = `600 11px ${UI_FONT}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  const name = fitText(ctx, messageName(message) + (started ? " …" : ""), Math.max(0, to - from - 4));
  if (to - from > 20) ctx.fillText(name, from + 2, y + 9);
}

// "analysis", "commentary to=functions.x", and of its output "functions.x"; malformed messages say so.
export function messageName(message) {
  const said = message.role === "assistant";
  const name = said ? (message.channel ?? "assistant") : message.role;
  const recipient = message.recipient && (said || message.recipient !== "assistant") ? ` to=${message.recipient}` : "";
  return `${name}${recipient}${message.malformed ? " (malformed)" : ""}`;
}

// What a message is beside its name, such as "tool call (json)" or "raw chain, tool output"; or nothing.
export function messageNote({ role, channel, recipient, type, hue }) {
  const form = type ? ` (${type.replace("<|constrain|>", "")})` : "";
  const tool = role === "assistant" && recipient ? `tool call${form}` : hue === "tool" ? "tool output" : "";
  if (channel !== "analysis") return tool;
  return tool ? `raw chain, ${tool}` : "raw chain of thought";
}

// The cells, coloured by the quantity, with marks for bookmarks and notes.
export function paintStrip(ctx, palette, cells, { tokens, quantity, selection, marks, y, height }) {
  ctx.font = `13px ${CODE_FONT}`;
  ctx.textAlign = "center";
  for (const { token, x, width } of cells) {
    const textColour = paintCell(ctx, palette, quantity, tokens, token, x, y, width - 1, height);
    ctx.textBaseline = "middle";
    ctx.fillStyle = textColour;
    ctx.fillText(fitText(ctx, tokens.cell(token), width - 4), x + (width - 1) / 2, y + height / 2 + 0.5);
    if (marks.has(token)) paintMark(ctx, textColour, x + width - 1, y);
  }
  const current = cells.find((c) => c.token === selection.token);
  if (!current) return;
  ctx.strokeStyle = palette.ink;
  ctx.lineWidth = 2;
  ctx.strokeRect(current.x, y, current.width - 1, height);
}

function paintCell(ctx, palette, quantity, tokens, token, x, y, width, height) {
  if (quantity.state !== "here") {
    if (quantity.state === "missing") hatch(ctx, palette, x, y, width, height);
    else fillRect(ctx, palette.track, x, y, width, height);
    return palette.text;
  }
  if (!quantity.values) return paintChannelCell(ctx, palette, tokens.messageAt(token)?.hue, x, y, width, height);
  const value = quantity.values[token];
  if (Number.isNaN(value)) {
    dottedFrame(ctx, palette, x, y, width, height);
    return palette.text;
  }
  fillRect(ctx, palette.fill(value / quantity.top), x, y, width, height);
  return palette.textOnFill(value / quantity.top);
}

function paintChannelCell(ctx, palette, hue, x, y, width, height) {
  const colour = palette.channels[hue] ?? palette.secondary;
  ctx.globalAlpha = 0.13;
  fillRect(ctx, colour, x, y, width, height);
  ctx.globalAlpha = 1;
  fillRect(ctx, colour, x, y + height - 3, width, 3);
  return palette.text;
}

function fillRect(ctx, colour, x, y, width, height) {
  ctx.fillStyle = colour;
  ctx.fillRect(x, y, width, height);
}

function paintMark(ctx, colour, right, y) {
  ctx.fillStyle = colour;
  ctx.beginPath();
  ctx.moveTo(right - 7, y);
  ctx.lineTo(right, y);
  ctx.lineTo(right, y + 7);
  ctx.fill();
}

// Every tenth index under its cell, and the pointer under the current one.
export function paintIndex(ctx, palette, cells, selection, y) {
  ctx.font = `10px ${UI_FONT}`;
  ctx.textAlign = "center";
  ctx.textBaseline = "alphabetic";
  ctx.fillStyle = palette.secondary;
  let free = 0;
  for (const { token, x, width } of cells) {
    const label = token.toLocaleString("en");
    if (token % 10 || token === selection.token || x < free || x + width / 2 < 10) continue;
    ctx.fillText(label, x + width / 2, y + 10);
    free = x + width / 2 + label.length * 6 + 4;
  }
  const current = cells.find((c) => c.token === selection.token);
  if (!current) return;
  const middle = current.x + (current.width - 1) / 2;
  ctx.fillStyle = palette.ink;
  ctx.beginPath();
  ctx.moveTo(middle - 5, y + 8);
  ctx.lineTo(middle + 5, y + 8);
  ctx.lineTo(middle, y + 2);
  ctx.fill();
}
