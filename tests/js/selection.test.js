import assert from "node:assert/strict";
import test from "node:test";

import { SHARED, Selection, publish } from "../../widgets/js/selection.js";

// What a view's Python side is to JavaScript: values, announcements of changes, and what was sent to the kernel.
class Model {
  constructor(values) {
    this.values = { token: 0, layer: 0, head: 0, expert: 0, _selection_key: "a", _selection_told: [], ...values };
    this.handlers = {};
    this.saved = [];
  }

  get(name) {
    return this.values[name];
  }

  set(name, value) {
    this.values[name] = value;
    for (const call of this.handlers[`change:${name}`] ?? []) call();
  }

  on(event, call) {
    (this.handlers[event] ??= new Set()).add(call);
  }

  off(event, call) {
    this.handlers[event].delete(call);
  }

  save_changes() {
    this.saved.push(SHARED.map((name) => this.values[name]));
  }
}

const within = (sizes) => (wanted) =>
  Object.fromEntries(SHARED.map((name) => [name, Math.min(sizes[name] - 1, Math.max(0, wanted[name]))]));
const SIZES = { token: 11, layer: 5, head: 3, expert: 7 };
const settled = () => new Promise((resolve) => setTimeout(resolve, 90));

function view(t, values = {}, sizes = SIZES) {
  const model = new Model(values);
  const made = { model, moves: 0 };
  made.selection = new Selection(model, { clamp: within(sizes), moved: () => (made.moves += 1) });
  t.after(() => made.selection.close());
  return made;
}

const where = ({ selection }) => SHARED.map((name) => selection.values[name]);

test("a step moves every other view of the trace at once, and each tells its own Python, once", async (t) => {
  const [a, b, other] = [view(t), view(t), view(t, { _selection_key: "another trace" })];
  await settled();
  for (const { model } of [a, b, other]) model.saved = [];
  a.selection.move({ token: 4, layer: 3 });
  a.selection.move({ token: 5 });
  assert.deepEqual([where(b), b.moves, a.moves], [[5, 3, 0, 0], 2, 0]);
  assert.deepEqual(where(other), [0, 0, 0, 0]);
  await settled();
  assert.deepEqual(a.model.saved, [[5, 3, 0, 0]]);
  assert.deepEqual(b.model.saved, [[5, 3, 0, 0]]);
  assert.deepEqual([a.moves, b.moves, other.model.saved], [0, 2, []]); // what was adopted came not back
});

test("a view opened later adopts what is selected, but for what it was told", async (t) => {
  const a = view(t);
  a.selection.move({ token: 4, layer: 3, head: 2, expert: 6 });
  const later = view(t);
  assert.deepEqual(where(later), [4, 3, 2, 6]);
  const told = view(t, { layer: 1, expert: 0, _selection_told: ["layer", "expert"] });
  assert.deepEqual(
    [where(told), where(a), where(later)],
    [
      [4, 1, 2, 0],
      [4, 1, 2, 0],
      [4, 1, 2, 0],
    ],
  );
  await settled();
  assert.deepEqual(told.model.get("_selection_told"), []); // shown again, it adopts
  assert.deepEqual(told.model.saved, [[4, 1, 2, 0]]);
});

test("Python moves all views", async (t) => {
  const [a, b] = [view(t), view(t)];
  await settled();
  a.model.set("token", 9);
  assert.deepEqual([where(a), where(b), a.moves, b.moves], [[9, 0, 0, 0], [9, 0, 0, 0], 1, 1]);
  await settled();
  assert.equal(b.model.get("token"), 9);
});

test("Python's word from before a step does not undo the step", async (t) => {
  const a = view(t);
  a.selection.move({ token: 6 });
  a.model.set("token", 2); // sent before it heard of the step
  assert.equal(a.selection.values.token, 6);
  await settled();
  assert.equal(a.model.get("token"), 6);
});

test("a view with fewer layers goes as far as it can and moves nobody", (t) => {
  const large = view(t);
  const small = view(t, {}, { ...SIZES, layer: 2 });
  large.selection.move({ layer: 4 });
  assert.deepEqual([where(large)[1], where(small)[1]], [4, 1]);
});

test("without a key nothing is shared, and a closed view hears nothing", (t) => {
  const [alone, apart] = [view(t, { _selection_key: "" }), view(t, { _selection_key: "" })];
  alone.selection.move({ token: 3 });
  assert.equal(apart.selection.values.token, 0);
  const [a, b] = [view(t), view(t)];
  b.selection.close();
  a.selection.move({ token: 3 });
  assert.equal(b.selection.values.token, 0);
  a.selection.close();
  assert.equal(view(t).selection.values.token, 0); // the last one left, and the selection went with it
});

test("a view of several traces sends the views of one of them to a token", (t) => {
  const a = view(t);
  publish("a", { token: 7, layer: 2 });
  publish("shown nowhere", { token: 8 });
  assert.deepEqual([where(a), a.moves], [[7, 2, 0, 0], 1]);
});

test("values of one view alone are told to Python and to no other view", async (t) => {
  const own = { clamp: (wanted) => wanted, moved: () => {}, own: { colorBy: "color_by" } };
  const a = new Selection(new Model({ color_by: "channel" }), own);
  const b = new Selection(new Model({ color_by: "channel" }), own);
  t.after(() => [a, b].forEach((s) => s.close()));
  a.move({ colorBy: "entropy" });
  await settled();
  assert.deepEqual([a.model.get("color_by"), b.values.colorBy], ["entropy", "channel"]);
});
