// Entry of the ReviewDesk widget; widgets/bundle.py joins it with the modules it imports.

import { DeskView } from "./js/desk_view.js";

function render({ model, el }) {
  const view = new DeskView(model, el);
  return () => view.close();
}

export default { render };
