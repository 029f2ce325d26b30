// Entry of the ExpertCard widget: one expert of one layer, in a view of its own.

import { Cards } from "./js/cards.js";
import { ExpertPanel, count, percent } from "./js/expert_panel.js";
import { pictureKind } from "./js/keys.js";
import { adoptPalette, watchTheme } from "./js/palette.js";
import { savePicture } from "./js/picture.js";
import { Selection, publish } from "./js/selection.js";
import { h, setData, setText } from "./js/surface.js";

const CARD_STEPS = {
  ArrowUp: ["layer", -1],
  ArrowDown: ["layer", 1],
  "[": ["expert", -1],
  "]": ["expert", 1],
};

const HINTS_OF_CARD = [
  [["↑", "↓"], "layer"],
  [["[", "]"], "expert"],
  [["⇥"], "partners, examples"],
  [["⏎"], "go there"],
  [["⇧P", "⇧S"], "PNG, SVG"],
];

class ExpertCard {
  constructor(model, el) {
    this.model = model;
    this.facts = model.get("_facts");
    this.selected = new Selection(model, { clamp: (wanted) => this.clamp(wanted), moved: () => this.draw() });
    this.cards = new Cards(model, () => this.draw());
    this.panel = new ExpertPanel({
      onJump: (trace, token, key) => this.jump(token, key),
      onExpert: (expert) => this.select({ expert }),
    });
    this.build(el);
    this.stopTheme = watchTheme(() => this.adoptTheme());
    this.adoptTheme();
  }

  clamp(wanted) {
    const within = (value, size) => Math.min(Math.max(0, size - 1), Math.max(0, Math.trunc(value) || 0));
    const sizes = this.facts.counts;
    return Object.fromEntries(Object.keys(sizes).map((name) => [name, within(wanted[name], sizes[name])]));
  }

  build(el) {
    const { facts } = this;
    this.choosers = { layer: this.chooser("layer"), expert: this.chooser("expert") };
    this.where = h("span");
    this.said = h("span");
    const line = h("div", { class: "moe-status-line", role: "status" }, this.where, this.said);
    const hints = HINTS_OF_CARD.map(([caps, words]) =>
      h("span", {}, ...caps.map((c) => h("kbd", { text: c })), ` ${words}`),
    );
    this.root = h(
      "div",
      {
        class: "moe-root",
        tabindex: "0",
        role: "group",
        "aria-label": `Expert card: ${facts.title}`,
        "data-lm-suppress-shortcuts": "true",
      },
      h(
        "header",
        { class: "moe-header" },
        h("div", { class: "moe-question", role: "heading", "aria-level": "2", text: facts.title, title: facts.title }),
        h(
          "div",
          { class: "moe-header-row" },
          h("div", { class: "moe-facts moe-secondary" }, h("b", { text: facts.model }), shapeWords(facts)),
          h("div", { class: "moe-expert-choose" }, ...Object.values(this.choosers).map((c) => c.parentElement)),
        ),
      ),
      this.panel.element,
      h("footer", { class: "moe-status" }, line, h("div", { class: "moe-hints", "aria-hidden": "true" }, ...hints)),
    );
    this.root.addEventListener("keydown", (event) => this.key(event));
    el.classList.add("moe-host");
    this.box = h("div", { class: "moe-box" }, this.root);
    el.append(this.box);
  }

  chooser(name) {
    const options = Array.from({ length: this.facts.counts[name] }, (_, i) => h("option", { value: i, text: i }));
    const select = h("select", { onchange: () => this.select({ [name]: Number(select.value) }) }, ...options);
    h("label", {}, `${name} `, select);
    return select;
  }

  key(event) {
    const step =
      event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select") ? null : CARD_STEPS[event.key];
    const kind = pictureKind(event);
    if (!step && !kind) return;
    event.preventDefault();
    event.stopPropagation();
    if (kind) savePicture(this, kind).catch((problem) => setText(this.said, `no picture: ${problem.message}`));
    else this.select({ [step[0]]: this.selected.values[step[0]] + step[1] });
  }

  select(changes) {
    setText(this.said, "");
    this.selected.move(changes);
    this.draw();
  }

  // An example lies in one trace: that trace's views go there, and to this layer and expert.
  jump(token, key) {
    if (key === this.selected.key) this.select({ token });
    else {
      const { layer, expert } = this.selected.values;
      publish(key, { token, layer, expert });
    }
    const whose = this.facts.numTraces > 1 ? "that trace" : "the trace";
    setText(this.said, `views of ${whose} went to token ${count(token)}`);
  }

  adoptTheme() {
    this.palette = adoptPalette(this.root, this.box);
    this.draw();
  }

  cardOf({ layer, expert }) {
    const { layers } = this.facts;
    if (layers.includes(layer)) return this.cards.get(`${layer}/${expert}`);
    return { error: `The router of layer ${layer} is not in these traces. Captured: ${layers.join(", ")}.` };
  }

  draw() {
    const { values } = this.selected;
    const card = this.cardOf(values);
    this.panel.draw(card, values, this.palette);
    const rate = card.tokens ? `: chosen at ${percent(card.chosen / card.tokens)} of ${count(card.tokens)} tokens` : "";
    setText(this.where, `layer ${values.layer}, expert ${values.expert}${rate}`);
    for (const [name, select] of Object.entries(this.choosers)) {
      if (select.value !== String(values[name])) select.value = values[name];
    }
    for (const [name, value] of Object.entries(values)) setData(this.root, name, value);
  }

  close() {
    this.selected.close();
    this.cards.close();
    this.stopTheme();
  }
}

function shapeWords({ embedded, counts, topK }) {
  const said = embedded ? " (embedded: says nothing about gpt-oss)" : "";
  return `${said}, ${counts.layer} layers × ${counts.expert} experts, top-${topK}`;
}

function render({ model, el }) {
  const card = new ExpertCard(model, el);
  return () => card.close();
}

export default { render };
