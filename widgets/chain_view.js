// Entry of the ChainView widget; widgets/bundle.py joins it with the modules it imports.

import { Chain } from "./js/chain.js";

function render({ model, el }) {
  const view = new Chain(model, el);
  return () => view.close();
}

export default { render };
