// Entry of the TraceDiff widget; widgets/bundle.py joins it with the modules it imports.

import { DiffView } from "./js/diff_view.js";

function render({ model, el }) {
  const view = new DiffView(model, el);
  return () => view.close();
}

export default { render };
