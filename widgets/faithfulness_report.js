// Entry of the FaithfulnessReport widget; widgets/bundle.py joins it with the modules it imports.

import { FaithfulnessView } from "./js/faithfulness_view.js";

function render({ model, el }) {
  const view = new FaithfulnessView(model, el);
  return () => view.close();
}

export default { render };
