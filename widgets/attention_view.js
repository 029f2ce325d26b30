// Entry of the AttentionView widget; widgets/bundle.py joins it with the modules it imports.

import { AttentionPanels } from "./js/attention_panels.js";

function render({ model, el }) {
  const view = new AttentionPanels(model, el);
  return () => view.close();
}

export default { render };
