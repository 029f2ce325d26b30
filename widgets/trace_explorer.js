// Entry of the TraceExplorer widget; widgets/bundle.py joins it with the modules it imports.

import { Explorer } from "./js/explorer.js";

function render({ model, el }) {
  const explorer = new Explorer(model, el);
  return () => explorer.close();
}

export default { render };
