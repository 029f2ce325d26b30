// What a notebook that is saved with its views' state keeps of the desk: nothing that was read at it. What leaves the
// desk leaves by an export, which is recorded.

const CLOSED_WORDS = "A saved notebook keeps nothing of what was open here. Run the cell again to open the desk.";
const EMPTY_ESM = "export default { render() {} }";

const EMPTY_DESK = {
  ...{ selected: "", internals: null, _messages: [], _draft: {}, _calibration: [], _log: {} },
  _list: { kind: "queue", order: "signals", start: 0, items: [], more: false },
  _trace: { trace: "none", visit: -1, problem: CLOSED_WORDS },
};

const guarded = new WeakSet();

// What of a widget's model the manager writes into the notebook, once it is known to it.
async function keepOf(manager, id, kept) {
  const model = await manager.get_model(id);
  if (guarded.has(model)) return model;
  guarded.add(model);
  const whole = model.get_state.bind(model);
  model.get_state = (drop) => kept(whole(drop));
  return model;
}

const keepNothingRead = (manager, id) => keepOf(manager, id, (state) => ({ ...state, ...EMPTY_DESK }));

// Of a view of internals its module stays out too: without its arrays it would have nothing to show.
export const keepNothing = (manager, id) =>
  keepOf(manager, id, ({ _anywidget_id }) => ({ _anywidget_id, _esm: EMPTY_ESM, _css: "" }));

export const modelId = (child) => (typeof child === "string" ? child.replace("IPY_MODEL_", "") : child.model_id);

// From the desk's beginning, whether or not it is ever shown: a manager saves every model there is.
export function guardSaving(model) {
  const guard = () => {
    const manager = model.widget_manager;
    if (model.get("_id")) keepNothingRead(manager, model.get("_id"));
    if (model.get("internals")) keepNothing(manager, modelId(model.get("internals")));
  };
  model.on("change:_id change:internals", guard); // Python tells the id after the model is there
  guard();
  return () => model.off("change:_id change:internals", guard);
}
