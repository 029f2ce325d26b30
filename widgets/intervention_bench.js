// Entry of the InterventionBench widget; widgets/bundle.py joins it with the modules it imports.

import { BenchView } from "./js/bench_view.js";

function render({ model, el }) {
  const view = new BenchView(model, el);
  return () => view.close();
}

export default { render };
