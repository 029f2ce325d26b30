// Entry of the EffortComparison widget; widgets/bundle.py joins it with the modules it imports.

import { EffortView } from "./js/effort_view.js";

function render({ model, el }) {
  const view = new EffortView(model, el);
  return () => view.close();
}

export default { render };
