import assert from "node:assert/strict";
import test from "node:test";

import { expertAt, headAt, stackColumns } from "../../widgets/js/stack_layout.js";
import { stripLayout } from "../../widgets/js/strip.js";
import { mountedRange, mustRemount } from "../../widgets/js/transcript.js";
import { shownRows } from "../../widgets/js/alternatives.js";
import { clampSelection } from "../../widgets/js/explorer.js";
import { actionOf } from "../../widgets/js/keys.js";
import { badges } from "../../widgets/js/header.js";
import { ranges } from "../../widgets/js/reading.js";
import { Quantities } from "../../widgets/js/quantities.js";

const ten = () => 10;

test("the current token stands at 80 % of the strip", () => {
  const cells = stripLayout(500, 1000, 100, ten);
  const current = cells.find((c) => c.token === 500);
  assert.equal(current.x + current.width / 2, 80);
  assert.ok(cells[0].x <= 0 && cells.at(-1).x + 10 >= 100);
});

test("the strip starts at the first token and never leaves the current one out", () => {
  assert.deepEqual(stripLayout(2, 1000, 100, ten).slice(0, 2), [
    { token: 0, x: 0, width: 10 },
    { token: 1, x: 10, width: 10 },
  ]);
  assert.ok(stripLayout(999, 1000, 100, ten).some((c) => c.token === 999));
  assert.deepEqual(stripLayout(0, 1, 100, ten), [{ token: 0, x: 0, width: 10 }]);
});

test("a point in the stack is the expert or head drawn there", () => {
  const facts = { numExperts: 7, numHeads: 6, numKvHeads: 2 };
  const columns = stackColumns(700, facts, true);
  for (let e = 0; e < 7; e++)
    assert.equal(expertAt(columns, facts, columns.router.x + (e + 0.5) * columns.router.cell), e);
  const { x, cell, gap, perGroup } = columns.heads;
  for (let h = 0; h < 6; h++)
    assert.equal(headAt(columns, facts, x + (h + 0.5) * cell + Math.floor(h / perGroup) * gap), h);
  assert.equal(expertAt(columns, facts, columns.margin.x), null);
  assert.equal(headAt(columns, facts, columns.router.x), null);
  assert.ok(columns.heads.x + columns.heads.width <= 701);
});

test("columns of 32 experts and 64 heads fit", () => {
  const facts = { numExperts: 32, numHeads: 64, numKvHeads: 8 };
  const columns = stackColumns(667, facts, false);
  assert.ok(columns.router.cell >= 7);
  assert.ok(columns.heads.x + columns.heads.width <= 668);
  assert.equal(headAt(columns, facts, columns.heads.x + columns.heads.width - 0.5), 63);
});

test("the transcript mounts what is near and mounts anew near its ends", () => {
  const range = mountedRange(6000, 12_010);
  assert.deepEqual(range, { from: 5580, to: 6421 });
  assert.equal(mustRemount(range, 6100, 12_010), false);
  assert.equal(mustRemount(range, 6350, 12_010), true);
  assert.equal(mustRemount(range, 100, 12_010), true);
  assert.equal(mustRemount(mountedRange(3, 200), 0, 200), false);
  assert.equal(mustRemount(null, 0, 200), true);
});

test("the token itself is among the alternatives wherever it ranks", () => {
  const rows = [0, 1, 2, 3, 4, 5, 6].map((id) => ({ id, prob: 0.1, actual: id === 6 }));
  assert.deepEqual(
    shownRows(rows).map((r) => r.id),
    [0, 1, 2, 3, 4, 6],
  );
  assert.deepEqual(
    shownRows(rows.slice(0, 3)).map((r) => r.id),
    [0, 1, 2],
  );
});

test("a selection stays within the trace", () => {
  const facts = { numTokens: 5, numLayers: 3, numHeads: 6, numExperts: 0 };
  const clamped = clampSelection({ token: 9, layer: -1, head: 5, expert: 4, colorBy: "nonsense" }, facts);
  assert.deepEqual(clamped, { token: 4, layer: 0, head: 5, expert: 0, colorBy: "channel" });
});

test("keys with ctrl, alt or meta belong to others, b and r too", () => {
  assert.equal(actionOf({ key: "ArrowLeft", ctrlKey: true }), undefined);
  assert.equal(actionOf({ key: "b" }), undefined);
  assert.ok(actionOf({ key: "ArrowLeft" }));
  assert.notEqual(actionOf({ key: "ArrowLeft", shiftKey: true }), actionOf({ key: "ArrowLeft" }));
});

test("badges name the source, what is there and what is not", () => {
  const array = (layers) => ({ source: "replay", layers });
  const arrays = {
    expert_indices: array([0, 1, 2]),
    expert_weights: array([0, 1, 2]),
    queries: array([1]),
    keys: array([1]),
  };
  const found = badges({ arrays, numLayers: 3, dtype: "bfloat16", truncated: "cut at 400 tokens" }).map((b) => b.text);
  assert.deepEqual(found, [
    "↻ replay",
    "bf16",
    "✓ router",
    "✓ attention 1/3 layers",
    "lens not captured",
    "residual not captured",
    "✂ cut at 400 tokens",
  ]);
});

test("numbers in a row are written as a range", () => {
  assert.equal(ranges([0, 1, 2, 5]), "0–2, 5");
});

test("an expert's weight is zero where it was not chosen and missing where nothing was captured", () => {
  const columns = {
    expert_indices: Uint8Array.of(3, 1, 0, 3, 2, 1),
    expert_weights: Float32Array.of(0.75, 0.25, 0.5, 0.5, 1, 0),
  };
  const blocks = { has: (name, layer) => layer === 1, layerColumn: (name) => columns[name] };
  const quantities = new Quantities({ blocks, facts: { numTokens: 3, topK: 2, numExperts: 4 } });
  assert.deepEqual([...quantities.of({ colorBy: "expert_weight", layer: 1, expert: 3 }).values], [0.75, 0.5, 0]);
  assert.equal(quantities.of({ colorBy: "expert_weight", layer: 0, expert: 3 }).state, "missing");
});
