// The card of the selected expert beside the map: one per phase, sent with the map or asked of the kernel.

import { Cards } from "./cards.js";
import { ExpertPanel } from "./expert_panel.js";
import { ranges } from "./reading.js";
import { publish } from "./selection.js";
import { h } from "./surface.js";

export class MapCard {
  constructor(view) {
    this.view = view;
    this.cards = new Cards(view.model, () => this.settle(view.selection));
    this.panel = new ExpertPanel({
      onJump: (trace, token, key) => this.jump(token, key),
      onExpert: (expert) => view.select({ expert }),
    });
    this.element = h("div", { class: "moe-map-card" }, this.panel.element);
  }

  close() {
    this.cards.close();
  }

  focus() {
    this.panel.name?.focus({ preventScroll: true });
  }

  // Of one trace its token; of several, the views of the example's trace go there.
  jump(token, key) {
    const { layer, expert } = this.view.selection;
    if (this.view.hasTokens) this.view.select({ token });
    else publish(key, { token, layer, expert });
  }

  settle(selection) {
    this.panel.draw(this.cardOf(selection), selection, this.view.palette);
  }

  cardOf({ phase, layer, expert }) {
    const { data, facts } = this.view;
    if (data.phase(phase).missing) return { error: data.phase(phase).missing };
    if (!data.captured(layer)) {
      return { error: `The router of layer ${layer} was not captured. Captured: layers ${ranges(facts.layers)}.` };
    }
    return this.cards.get(`${phase}/${layer}/${expert}`);
  }
}
