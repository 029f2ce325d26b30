// Entry of the ChainEditor widget; widgets/bundle.py joins it with the modules it imports.

import { EditorView } from "./js/editor_view.js";

function render({ model, el }) {
  const view = new EditorView(model, el);
  return () => view.close();
}

export default { render };
