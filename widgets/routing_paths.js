// Entry of the RoutingPaths widget; widgets/bundle.py joins it with the modules it imports.

import { PathsView } from "./js/paths_view.js";

function render({ model, el }) {
  const view = new PathsView(model, el);
  return () => view.close();
}

export default { render };
