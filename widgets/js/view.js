// What every view of routing has in common: a focusable root in the notebook's theme, the one selection, keys that
// stay in the view, and drawing once per frame. TraceExplorer has its own for its many panels.

import { Help, handleKey } from "./keys.js";
import { adoptPalette, watchTheme } from "./palette.js";
import { Selection, withinCounts } from "./selection.js";
import { h, setData } from "./surface.js";

const SETTLE_MS = 80;

// A subclass gives keys (event → action or undefined), keyList, build(), resize(width), draw() and settle().
export class View {
  constructor(model, el, { label, className, own = {} }) {
    this.model = model;
    this.facts = model.get("_facts");
    this.own = own;
    this.join(model);
    this.root = h("div", {
      class: `moe-root ${className}`,
      tabindex: "0",
      role: "application",
      "aria-label": label,
      "data-lm-suppress-shortcuts": "true",
    });
    el.classList.add("moe-host");
    this.box = h("div", { class: "moe-box" }, this.root);
    this.help = new Help(this, this.keyList());
    this.root.append(...this.build(), this.help.element);
    el.append(this.box);
    this.adoptTheme();
    this.listen();
    this.remeasure();
    this.frame();
  }

  // Take part in the one selection; a view of several traces gives a model of the one that is chosen.
  join(model) {
    this.selected = new Selection(model, {
      clamp: (wanted) => this.clamp(wanted),
      moved: () => this.schedule(),
      own: Object.fromEntries(Object.keys(this.own).map((name) => [name, name])),
    });
  }

  get selection() {
    return this.selected.values;
  }

  // `own` gives the values that a trait of this view may have.
  clamp(wanted) {
    const own = Object.entries(this.own).map(([name, allowed]) => [
      name,
      allowed.includes(wanted[name]) ? wanted[name] : allowed[0],
    ]);
    return { ...withinCounts(wanted, this.facts.counts), ...Object.fromEntries(own) };
  }

  select(changes) {
    this.selected.move(changes);
    this.schedule();
  }

  listen() {
    this.root.addEventListener("keydown", (event) => handleKey(this, event, (e) => this.actionOf(e)));
    this.root.addEventListener("pointerdown", (event) => {
      if (!event.target.closest("input, select, button, [tabindex='0']:not(.moe-root)"))
        this.root.focus({ preventScroll: true });
    });
    this.observer = new ResizeObserver(() => this.remeasure() && this.schedule());
    this.observer.observe(this.box);
    this.stopTheme = watchTheme(() => {
      this.adoptTheme();
      this.schedule();
    });
  }

  close() {
    this.selected.close();
    this.observer.disconnect();
    this.stopTheme();
    cancelAnimationFrame(this.pending);
    clearTimeout(this.settleTimer);
  }

  adoptTheme() {
    this.palette = adoptPalette(this.root, this.box);
  }

  remeasure() {
    const width = this.root.clientWidth;
    if (!width || width === this.width) return false;
    this.width = width;
    this.resize(width);
    return true;
  }

  schedule() {
    this.pending ??= requestAnimationFrame(() => this.frame());
  }

  frame() {
    this.pending = null;
    if (!this.width) return; // not on the page yet: the first resize draws
    this.draw();
    clearTimeout(this.settleTimer);
    this.settleTimer = setTimeout(() => {
      this.settle();
      for (const [name, value] of Object.entries(this.selection)) setData(this.root, name, value);
    }, SETTLE_MS);
  }
}
