// Entry of the RouterMap widget; widgets/bundle.py joins it with the modules it imports.

import { MapView } from "./js/map_view.js";

function render({ model, el }) {
  const view = new MapView(model, el);
  return () => view.close();
}

export default { render };
