// Entry of the ReviewDesk widget; widgets/bundle.py joins it with the modules it imports.

import { guardSaving } from "./js/desk_unsaved.js";
import { DeskView } from "./js/desk_view.js";

function initialize({ model }) {
  return guardSaving(model);
}

function render({ model, el }) {
  const view = new DeskView(model, el);
  return () => view.close();
}

export default { initialize, render };
