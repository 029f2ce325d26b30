// A view without a selection in the page: in the notebook's theme, drawn anew when one of its traits changes.

import { adoptPalette, watchTheme } from "./palette.js";

// Returns what takes the view away. `events` are the model's, as "change:_facts change:_error".
export function mount(root, { model, el, events, draw }) {
  const adoptTheme = () => adoptPalette(root, el);
  model.on(events, draw);
  el.classList.add("moe-host");
  el.append(root);
  adoptTheme();
  draw();
  const stopTheme = watchTheme(adoptTheme);
  return () => {
    model.off(events, draw);
    stopTheme();
  };
}
