// Entry of the LoadCurve widget; widgets/bundle.py joins it with the modules it imports.

import { CurveView } from "./js/curve_view.js";

function render({ model, el }) {
  const view = new CurveView(model, el);
  return () => view.close();
}

export default { render };
