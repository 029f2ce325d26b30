// Under the strip, on its cells: the attention row of the selected head, and the expert roll of the selected layer.

import { twoDigits } from "./numerics.js";
import { UI_FONT, paintAbsence } from "./surface.js";

// Bars of where the current token's head looked. Heights are relative to the row's largest weight, which is labelled
// on its bar, or at the left edge when it is further back.
export function paintAttentionLane(ctx, palette, cells, row, { token, y, height, width }) {
  ctx.fillStyle = palette.line;
  ctx.fillRect(0, y + height, width, 1);
  const current = cells.find((c) => c.token === token);
  const past = current ? current.x + current.width - 1 : width;
  if (paintAbsence(ctx, palette, row, 0, y + 4, Math.max(past, 240), height - 8)) return;
  const shown = cells.filter((c) => c.token >= row.from && c.token <= token);
  const weightOf = (c) => row.weights[c.token - row.from];
  const at = row.weights.reduce((best, w, j) => (w > row.weights[best] ? j : best), 0);
  const top = row.weights[at];
  ctx.font = `10px ${UI_FONT}`;
  ctx.textAlign = "center";
  for (const cell of shown) paintBar(ctx, palette, cell, weightOf(cell), top, y, height);
  paintCausal(ctx, palette, past, y, width);
  if (row.from + at < cells[0].token) paintFurther(ctx, palette, top, row.from + at, y);
  if (row.from > cells[0].token) paintWindowEdge(ctx, palette, cells, row.from, y, height);
}

function paintBar(ctx, palette, { x, width }, weight, top, y, height) {
  const tall = top > 0 ? (weight / top) * (height - 2) : 0;
  if (tall < 0.5) return;
  // The ramp shows the amount; its palest third would vanish on the page, so bars start above it.
  const amount = 0.35 + 0.65 * weight;
  ctx.fillStyle = palette.fill(amount);
  ctx.fillRect(x + 1, y + height - tall, width - 3, tall);
  if (weight < 0.045 && weight < top) return;
  const inside = height - tall < 11;
  ctx.fillStyle = inside ? palette.textOnFill(amount) : palette.text;
  ctx.textBaseline = inside ? "top" : "alphabetic";
  ctx.fillText(twoDigits(weight), x + (width - 1) / 2, inside ? y + height - tall + 3 : y + height - tall - 3);
}

function paintFurther(ctx, palette, weight, token, y) {
  ctx.font = `10.5px ${UI_FONT}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.fillStyle = palette.secondary;
  ctx.fillText(`◂ most, ${twoDigits(weight)}, on token ${token.toLocaleString("en")}`, 2, y + 10);
}

function paintCausal(ctx, palette, x, y, width) {
  if (width - x < 110) return;
  ctx.font = `10.5px ${UI_FONT}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.fillStyle = palette.secondary;
  ctx.fillText("later tokens (causal)", x + 9, y + 10);
}

function paintWindowEdge(ctx, palette, cells, from, y, height) {
  const edge = cells.find((c) => c.token === from);
  if (!edge) return;
  ctx.save();
  ctx.strokeStyle = palette.ink;
  ctx.setLineDash([3, 2]);
  ctx.beginPath();
  ctx.moveTo(edge.x + 0.5, y);
  ctx.lineTo(edge.x + 0.5, y + height);
  ctx.stroke();
  ctx.restore();
  if (edge.x < 110) return;
  ctx.font = `10.5px ${UI_FONT}`;
  ctx.textAlign = "right";
  ctx.textBaseline = "alphabetic";
  ctx.fillStyle = palette.secondary;
  ctx.fillText("outside the window", edge.x - 7, y + 10);
}

// Which experts each token used in the selected layer, their weight as fill. Nothing where none was chosen.
export function paintExpertRoll(
  ctx,
  palette,
  cells,
  { experts, weights, numExperts, topK, selected, y, rowHeight, width },
) {
  ctx.fillStyle = palette.line;
  const every = rowHeight >= 5 ? 1 : 8;
  for (let e = 0; e <= numExperts; e += every) ctx.fillRect(0, y + e * rowHeight, width, 0.75);
  if (selected !== null) {
    ctx.fillStyle = palette.shade;
    ctx.fillRect(0, y + selected * rowHeight, width, rowHeight);
  }
  const gap = rowHeight >= 5 ? 1 : 0.2;
  for (const { token, x, width: w } of cells) {
    for (let k = 0; k < topK; k++) {
      const at = token * topK + k;
      ctx.fillStyle = palette.fill(weights ? 0.15 + 0.85 * weights[at] : 0.6);
      ctx.fillRect(x, y + experts[at] * rowHeight + gap / 2, w - 1, rowHeight - gap);
    }
  }
}
