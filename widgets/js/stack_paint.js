// Painting the rows of the layer stack on its canvas.

import { HeadImage } from "./head_image.js";
import { twoDigits } from "./numerics.js";
import { here, missing } from "./reading.js";
import { stackColumns } from "./stack_layout.js";
import { CODE_FONT, UI_FONT, dashedFrame, fitText, hatch } from "./surface.js";

export const MARGIN_FULL = 2; // logits that fill the margin's bar

export class StackPainter {
  constructor({ facts, blocks, tokens }, surface) {
    Object.assign(this, { facts, blocks, tokens, surface });
    this.rowHeight = facts.numLayers <= 12 ? 44 : 13;
    this.big = this.rowHeight > 20;
    this.headImage = new HeadImage(facts.numLayers, facts.numHeads);
  }

  resize(width) {
    this.surface.resize(width, this.facts.numLayers * this.rowHeight);
    this.columns = stackColumns(width, this.facts, this.big);
    this.underlay = null;
  }

  // One row per layer of {router, lens, sinks}; `nextId` is the token that really follows.
  paint(palette, rows, selection, nextId, focus) {
    const ctx = this.surface.clear();
    this.paintUnderlay(ctx, palette);
    this.paintSelectedLayer(ctx, palette, selection.layer);
    rows.forEach((row, layer) => {
      const y = layer * this.rowHeight;
      const selectedExpert = focus === "expert" && layer === selection.layer ? selection.expert : null;
      this.paintLens(ctx, palette, row.lens, y, nextId);
      this.paintRouter(ctx, palette, row.router, y, selectedExpert);
      this.paintMargin(ctx, palette, row.router, y);
    });
    this.paintHeads(ctx, palette, rows, selection);
    this.paintWords(ctx, palette, rows);
  }

  // What no step changes: layer numbers, how far each sees, empty cells and bars. Painted once per size and theme.
  paintUnderlay(ctx, palette) {
    const { width, height, scale } = this.surface;
    if (this.underlay?.name !== palette.id) {
      const canvas = document.createElement("canvas");
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      const below = canvas.getContext("2d");
      below.setTransform(scale, 0, 0, scale, 0, 0);
      for (let layer = 0; layer < this.facts.numLayers; layer++) this.paintEmptyRow(below, palette, layer);
      this.underlay = { name: palette.id, canvas };
    }
    if (width && height) ctx.drawImage(this.underlay.canvas, 0, 0, width, height);
  }

  paintEmptyRow(ctx, palette, layer) {
    const { blocks, facts } = this;
    const y = layer * this.rowHeight;
    const { router, margin } = this.columns;
    this.paintLabel(ctx, palette, layer, y, false);
    if (this.big) {
      ctx.fillStyle = palette.line;
      ctx.fillRect(0, y + this.rowHeight - 1, this.surface.width, 0.75);
    }
    if (!blocks.has("expert_indices", layer)) return;
    for (let e = 0; e < facts.numExperts; e++) {
      const left = router.x + e * router.cell;
      ctx.fillStyle = palette.track;
      ctx.fillRect(left, y + this.inset, router.cell - 1.5, this.cellHeight);
      if (this.big && router.cell >= 18) {
        this.paintCentred(
          ctx,
          palette.secondary,
          `e${e}`,
          "400 10px",
          left + (router.cell - 1.5) / 2,
          y + this.inset + 9,
        );
      }
    }
    ctx.fillStyle = palette.track;
    ctx.fillRect(margin.x, y + this.rowHeight / 2 - 2.5, margin.width - 32, 5);
  }

  get inset() {
    return this.big ? 1.5 : 1;
  }

  get cellHeight() {
    return this.rowHeight - (this.big ? 4 : 2);
  }

  paintSelectedLayer(ctx, palette, layer) {
    const y = layer * this.rowHeight;
    const height = this.rowHeight - (this.big ? 1 : 0);
    ctx.clearRect(0, y, 36, height);
    ctx.fillStyle = palette.shade;
    ctx.fillRect(0, y, this.surface.width, height);
    ctx.fillStyle = palette.ink;
    ctx.fillRect(0, y, 2.5, height);
    this.paintLabel(ctx, palette, layer, y, true);
  }

  paintLabel(ctx, palette, layer, y, selected) {
    const middle = y + this.rowHeight / 2;
    ctx.font = `${selected ? "700" : "400"} 11px ${UI_FONT}`;
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    ctx.fillStyle = selected ? palette.ink : palette.secondary;
    ctx.fillText(String(layer), 19, middle + 0.5);
    // How far back the layer sees: all of the line, or its end.
    ctx.fillStyle = palette.grey;
    ctx.fillRect(23, middle - 1, 11, 2);
    ctx.fillStyle = palette.dark;
    const window = this.facts.attention.windows[layer];
    if (window !== undefined) ctx.fillRect(window ? 31 : 23, middle - 1.5, window ? 3 : 11, 3);
  }

  paintLens(ctx, palette, lens, y, nextId) {
    const { x, width } = this.columns.lens;
    if (lens.state !== "here") return this.absent(ctx, palette, lens, x, y, width);
    const lines = this.big ? Math.min(3, lens.ids.length) : 1;
    const line = this.big ? 13 : this.rowHeight;
    const top = this.big ? y + (this.rowHeight - 1 - lines * line) / 2 : y;
    const text = Math.min(64, width * 0.42);
    for (let r = 0; r < lines; r++) {
      const middle = top + r * line + line / 2;
      const isNext = lens.ids[r] === nextId;
      ctx.font = `${isNext ? "700" : "400"} 11px ${CODE_FONT}`;
      ctx.textAlign = "left";
      ctx.textBaseline = "middle";
      ctx.fillStyle = r === 0 || isNext ? palette.text : palette.secondary;
      ctx.fillText(fitText(ctx, this.tokens.cellOf(lens.ids[r]), text - 2), x, middle + 0.5);
      const bar = width - text - 30;
      ctx.fillStyle = palette.track;
      ctx.fillRect(x + text, middle - 3, bar, 6);
      ctx.fillStyle = isNext ? palette.bar : palette.grey;
      ctx.fillRect(x + text, middle - 3, Math.max(0.75, bar * lens.probs[r]), 6);
      ctx.font = `10.5px ${UI_FONT}`;
      ctx.textAlign = "right";
      ctx.fillStyle = r === 0 || isNext ? palette.text : palette.secondary;
      ctx.fillText(twoDigits(lens.probs[r]), x + width, middle + 0.5);
    }
    return undefined;
  }

  paintRouter(ctx, palette, router, y, selectedExpert) {
    const { x, width, cell } = this.columns.router;
    if (router.state !== "here") return this.absent(ctx, palette, router, x, y, width);
    const { cellHeight: height } = this;
    const top = y + this.inset;
    if (router.probs) {
      ctx.fillStyle = palette.foot;
      for (let e = 0; e < router.probs.length; e++) {
        const foot = Math.max(1, router.probs[e] * height);
        ctx.fillRect(x + e * cell, top + height - foot, cell - 1.5, foot);
      }
    }
    router.experts.forEach((e, rank) =>
      this.paintChosen(ctx, palette, x + e * cell, top, cell - 1.5, height, rank, router.weights?.[rank]),
    );
    if (router.nearTie) {
      const at = x + router.runnerUp * cell;
      dashedFrame(ctx, palette.warning, at, top, cell - 1.5, height, this.big ? [3, 1.5] : [2, 1.5]);
    }
    if (selectedExpert !== null) {
      ctx.strokeStyle = palette.ink;
      ctx.lineWidth = 2;
      ctx.strokeRect(x + selectedExpert * cell, top, cell - 1.5, height);
    }
    return undefined;
  }

  paintCentred(ctx, colour, text, font, x, y) {
    ctx.font = `${font} ${UI_FONT}`;
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.fillStyle = colour;
    ctx.fillText(text, x, y);
  }

  // Rank in the cell, weight as its fill; the weight as text where there is room.
  paintChosen(ctx, palette, x, y, width, height, rank, weight) {
    const amount = weight === undefined ? 0.5 : 0.15 + 0.85 * weight;
    ctx.fillStyle = palette.fill(amount);
    ctx.fillRect(x, y, width, height);
    const colour = palette.textOnFill(amount);
    if (!this.big || width < 15) {
      this.paintCentred(ctx, colour, String(rank + 1), "700 9.5px", x + width / 2, y + height / 2 + 0.5);
      return;
    }
    this.paintCentred(ctx, colour, `#${rank + 1}`, "700 10.5px", x + width / 2, y + 10);
    if (weight !== undefined)
      this.paintCentred(ctx, colour, twoDigits(weight), width < 24 ? "400 10px" : "400 12px", x + width / 2, y + 26);
  }

  paintMargin(ctx, palette, router, y) {
    const { x, width } = this.columns.margin;
    if (router.state !== "here") return this.absent(ctx, palette, router, x, y, width);
    if (router.margin === null) return hatch(ctx, palette, x, y + 1, width, this.rowHeight - 3);
    const middle = y + this.rowHeight / 2;
    const bar = width - 32;
    ctx.fillStyle = router.nearTie ? palette.warning : palette.dark;
    if (Number.isFinite(router.margin))
      ctx.fillRect(x, middle - 2.5, Math.max(1, Math.min(1, router.margin / MARGIN_FULL) * bar), 5);
    ctx.font = `${router.nearTie ? "700" : "400"} 11px ${UI_FONT}`;
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    ctx.fillStyle = router.nearTie ? palette.warning : palette.text;
    ctx.fillText((router.nearTie ? "≈" : "") + twoDigitsOrMore(router.margin), x + bar + 4, middle + 0.5);
    return undefined;
  }

  paintHeads(ctx, palette, rows, selection) {
    const { x, width, cell, gap, perGroup } = this.columns.heads;
    const { rowHeight, big } = this;
    if (!big) {
      const masses = rows.map((row) => row.sinks.masses ?? null);
      this.headImage.paint(ctx, palette, masses, { x, cell, gap, perGroup, rowHeight });
    }
    rows.forEach(({ sinks }, layer) => {
      if (sinks.state !== "here") this.absent(ctx, palette, sinks, x, layer * rowHeight, width);
      else if (big) this.paintHeadRow(ctx, palette, sinks.masses, layer * rowHeight + this.inset);
    });
    if (rows[selection.layer].sinks.state !== "here") return;
    const left = x + selection.head * cell + Math.floor(selection.head / perGroup) * gap;
    ctx.strokeStyle = palette.ink;
    ctx.lineWidth = 2;
    ctx.strokeRect(
      left - 0.5,
      selection.layer * rowHeight + (big ? 1.5 : 0),
      cell + (big ? 0 : 1),
      rowHeight - (big ? 4 : 0),
    );
  }

  paintHeadRow(ctx, palette, masses, top) {
    const { x, cell, gap, perGroup } = this.columns.heads;
    masses.forEach((mass, head) => {
      const left = x + head * cell + Math.floor(head / perGroup) * gap;
      ctx.fillStyle = palette.fill(mass);
      ctx.fillRect(left, top, cell - 1, this.cellHeight);
      if (cell < 16) return;
      const middle = left + (cell - 1) / 2;
      this.paintCentred(
        ctx,
        palette.textOnFill(mass),
        twoDigits(mass),
        "400 9.5px",
        middle,
        top + this.cellHeight / 2 + 0.5,
      );
    });
  }

  absent(ctx, palette, found, x, y, width) {
    if (found.state === "missing") hatch(ctx, palette, x, y + 1, width, this.rowHeight - 3);
    else {
      ctx.fillStyle = palette.track;
      ctx.fillRect(x, y + this.rowHeight / 2 - 2, width * 0.8, 4);
    }
  }

  // One sentence over each column that is absent, in the middle of the rows that lack it.
  paintWords(ctx, palette, rows) {
    for (const name of ["lens", "router", "margin", "sinks"]) {
      const lacking = rows
        .map((row, layer) => ({ layer, found: name === "margin" ? marginOf(row.router) : row[name] }))
        .filter(({ found }) => found.state !== "here");
      if (!lacking.length) continue;
      const { x, width } = this.columns[name === "sinks" ? "heads" : name];
      const { layer, found } = lacking[Math.floor(lacking.length / 2)];
      ctx.font = `600 11px ${UI_FONT}`;
      ctx.textAlign = "left";
      ctx.textBaseline = "middle";
      const middle = layer * this.rowHeight + this.rowHeight / 2;
      const textWidth = Math.min(width - 4, ctx.measureText(found.words).width);
      ctx.fillStyle = palette.panel;
      ctx.fillRect(x + 2, middle - 8, textWidth + 8, 16);
      ctx.fillStyle = palette.text;
      ctx.fillText(fitText(ctx, found.words, width - 8), x + 6, middle);
    }
  }
}

function marginOf(router) {
  return router.margin === null ? missing("no logits") : here();
}

// .54, 1.3, 12: a margin in logits.
function twoDigitsOrMore(margin) {
  if (Number.isNaN(margin)) return "–";
  return margin < 0.995 ? twoDigits(margin) : margin < 9.95 ? margin.toFixed(1) : margin.toFixed(0);
}
