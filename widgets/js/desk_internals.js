// What went on in the model, one key away: a view of its own below the desk. While the chain hides, it does too.

import { keepNothing, modelId } from "./desk_unsaved.js";
import { INTERNAL_VIEWS } from "./desk_words.js";
import { h, setText } from "./surface.js";
import { readingText } from "./tokens.js";

const SHOWN_MS = 200; // until it has its size
const named = (name) => name[0].toUpperCase() + name.slice(1);

export class DeskInternals {
  constructor(desk) {
    this.desk = desk;
    this.buttons = new Map(
      INTERNAL_VIEWS.map((name, i) => [
        name,
        h(
          "button",
          { type: "button", class: "moe-chip", "aria-pressed": "false", onclick: () => this.toggle(name) },
          `${named(name)} `,
          h("kbd", { text: `⇧${i + 1}` }),
        ),
      ]),
    );
    this.words = h("span", { class: "moe-secondary", role: "status" });
    this.bar = h(
      "div",
      { class: "moe-desk-internals", role: "group", "aria-label": "Internals" },
      ...this.buttons.values(),
      this.words,
    );
    this.element = h("div", { class: "moe-desk-inside" });
    this.name = null;
  }

  async toggle(name) {
    const { trace, closed, hidden } = this.desk.trace;
    if (!trace) return;
    if (hidden) {
      setText(this.words, readingText(closed || "The raw chain of thought of this trace is hidden. Reveal it first."));
      return;
    }
    const wanted = this.name === name ? null : name;
    setText(this.words, wanted ? "opening…" : "");
    const { error } = await this.desk.kernel.ask("internals", { trace, name: wanted });
    this.name = error ? null : wanted;
    setText(this.words, error ? readingText(error) : "");
    this.desk.schedule();
  }

  draw({ hidden, visit }) {
    if (visit !== this.visit || hidden !== this.hidden)
      setText(this.words, hidden ? "of the whole trace: reveal first" : "");
    if (visit !== this.visit) this.name = null;
    Object.assign(this, { visit, hidden });
    for (const [own, button] of this.buttons) button.setAttribute("aria-pressed", String(own === this.name));
  }

  async show(child) {
    if (child === this.child) return;
    this.child = child;
    this.view?.remove();
    this.view = null;
    this.element.replaceChildren();
    if (!child) return;
    const { widget_manager: manager } = this.desk.model;
    const model = await keepNothing(manager, modelId(child));
    const view = await manager.create_view(model);
    if (child !== this.child) {
      view.remove();
      return;
    }
    this.view = view;
    this.element.replaceChildren(view.el);
    setTimeout(() => this.element.scrollIntoView({ block: "nearest" }), SHOWN_MS);
  }

  close() {
    this.view?.remove();
  }
}
