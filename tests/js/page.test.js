import assert from "node:assert/strict";
import test from "node:test";

import { decode } from "../../widgets/js/numerics.js";
import { PageModel, answerTo, bytesOf, stateOf } from "../../widgets/js/page_model.js";
import { fileName, variablesOf, xmlText } from "../../widgets/js/picture.js";

test("buffers go where they belong", () => {
  const state = stateOf({
    state: { token: 3, _blocks: {}, list: [{}, { deep: null }] },
    buffers: [
      { path: ["_blocks", "all/token_ids"], data: "AQIDBA==" },
      { path: ["list", 1, "deep"], data: "/w==" },
    ],
  });
  assert.deepEqual([...decode(state._blocks["all/token_ids"], "uint8")], [1, 2, 3, 4]);
  assert.equal(state.list[1].deep.getUint8(0), 255);
  assert.equal(bytesOf("").byteLength, 0);
});

test("rounded rows are read with the scale of each", () => {
  const bytes = new ArrayBuffer(4 + 2 * 4 + 2 * 3);
  const view = new DataView(bytes);
  view.setUint32(0, 3, true);
  [0.5, 2].forEach((scale, i) => view.setFloat32(4 + 4 * i, scale, true));
  [127, -1, 0, -127, 3, 1].forEach((value, i) => view.setInt8(12 + i, value));
  assert.deepEqual([...decode(view, "rounded")], [63.5, -0.5, 0, -254, 6, 2]);
  const shifted = new Uint8Array(20);
  shifted.set(new Uint8Array(bytes), 1);
  assert.deepEqual([...decode(new DataView(shifted.buffer, 1, 18), "rounded")], [63.5, -0.5, 0, -254, 6, 2]);
});

test("a page's model tells listeners of what changed, once", () => {
  const asked = [];
  const model = new PageModel({ token: 1, layer: 0 }, "css", (message) => asked.push(message));
  const heard = [];
  const listen = () => heard.push(model.get("token"));
  model.on("change:token", listen);
  model.set("token", 1);
  model.set("token", 5);
  model.set({ token: 6, layer: 2 });
  model.save_changes();
  model.off("change:token", listen);
  model.set("token", 7);
  assert.deepEqual(heard, [5, 6]);
  assert.deepEqual([model.get("layer"), model.get("_css"), model.get("unknown")], [2, "css", undefined]);
});

test("what would be asked of a kernel is answered: not here", async () => {
  const asked = [];
  const model = new PageModel({}, "", (message) => asked.push(message));
  const answers = [];
  model.on("msg:custom", (message, buffers) => answers.push([message, buffers]));
  model.send({ fetch: ["tile/keys/0/1"], side: "b" });
  assert.deepEqual(answers, [], "answered before the view has drawn");
  await null;
  const failed = { "tile/keys/0/1": "not in this page: needs a kernel" };
  assert.deepEqual(answers, [[{ side: "b", blocks: [], failed, gone: true }, []]]);
  assert.equal(asked.length, 1);
  assert.equal(answerTo({ open: true }).said, "not in this page: needs a kernel");
});

test("names of pictures hold nothing that a file system minds", () => {
  assert.equal(fileName("Trace explorer: 47 + 85 = ?", "png"), "trace-explorer-47-85.png");
  assert.equal(fileName("../../etc/passwd\u202e", "svg"), "etc-passwd.svg");
  assert.equal(fileName("思考", "svg"), "view.svg");
  assert.ok(fileName("word ".repeat(99), "png").length <= 64);
});

test("text that XML cannot hold is replaced, and no other", () => {
  assert.equal(xmlText("a\u0000b\u001bc\ufffed"), "a\ufffdb\ufffdc\ufffdd");
  assert.equal(xmlText("\ud83d\ude00 \ud83d x \ude00"), "\ud83d\ude00 \ufffd x \ufffd");
  assert.equal(xmlText("<b>&\t\n漢字"), "<b>&\t\n漢字");
});

test("variables of the notebook that a style uses", () => {
  const css = "a { font: var(--jp-code-font-family, x); color: var(--ink) } b { font: var(--jp-code-font-family) }";
  assert.deepEqual(variablesOf(css), ["--jp-code-font-family"]);
});
