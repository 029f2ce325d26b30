// What a notebook that is saved with its views' state keeps of the desk: nothing that was read at it. What leaves the
// desk leaves by an export, which is recorded.

import { Help } from "./keys.js";
import { setText } from "./surface.js";

const CLOSED_WORDS = "A saved notebook keeps nothing of what was open here. Run the cell again to open the desk.";
const EMPTY_ESM = "export default { render() {} }";

const EMPTY_DESK = {
  ...{ selected: "", internals: null, _messages: [], _draft: {}, _calibration: [], _log: {} },
  _list: { kind: "queue", order: "signals", start: 0, items: [], more: false },
  _trace: { trace: "none", visit: -1, problem: CLOSED_WORDS },
};

// Which of a widget's model the manager writes into the notebook, once it is known to it.
async function keepOf(manager, id, kept) {
  const model = await manager.get_model(id);
  const whole = model.get_state.bind(model);
  model.get_state = (drop) => kept(whole(drop));
  return model;
}

export const keepNothingRead = (manager, id) => keepOf(manager, id, (state) => ({ ...state, ...EMPTY_DESK }));

// Of a view of internals its module stays out too: without its arrays it would have nothing to show.
export const keepNothing = (manager, id) =>
  keepOf(manager, id, ({ _anywidget_id }) => ({ _anywidget_id, _esm: EMPTY_ESM, _css: "" }));

// The list of keys without the pictures that other views save: they would hold a raw chain, and no one would know.
export class DeskHelp extends Help {
  constructor(view, keys) {
    super(view, keys);
    for (const button of this.element.querySelectorAll(".moe-overlay-buttons button")) {
      if (button.textContent.startsWith("Save")) button.remove();
    }
    for (const row of this.element.querySelectorAll("tr")) {
      if (row.textContent.includes("save a picture")) row.remove();
    }
  }

  async save() {
    setText(this.view.said, "no picture of the desk is saved: workbench.review exports, and records it");
  }
}
