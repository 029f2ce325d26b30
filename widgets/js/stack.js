// The layer stack: one row per layer with logit lens, router, margin and the heads' sink mass of the current token.

import { twoDigits } from "./numerics.js";
import { expertAt, headAt } from "./stack_layout.js";
import { MARGIN_FULL, StackPainter } from "./stack_paint.js";
import { Surface, h, setData, setText } from "./surface.js";

export class Stack {
  constructor(explorer) {
    this.explorer = explorer;
    this.surface = new Surface("Layers");
    this.painter = new StackPainter(explorer, this.surface);
    this.next = h("span");
    this.titles = ["layer", "lens", "router", "margin", "heads"].map((name) =>
      h("div", { class: `moe-title moe-title-${name}` }),
    );
    this.detail = h("div", { class: "moe-detail" });
    this.facts = h("span");
    this.chosen = h("span");
    this.tie = h("b", { class: "moe-warning" });
    this.detail.append(this.facts, this.chosen, this.tie);
    this.element = h(
      "section",
      { class: "moe-stack", "aria-label": "Layers: logit lens, router, margin, sink mass" },
      h("div", { class: "moe-titles" }, ...this.titles),
      this.surface.canvas,
      this.detail,
    );
    this.fillTitles();
    this.surface.canvas.addEventListener("pointerdown", (event) => this.explorer.select(...this.at(event)));
    this.surface.canvas.addEventListener("pointermove", (event) => (this.surface.canvas.title = this.hint(event)));
  }

  fillTitles() {
    const { numExperts, numHeads, topK } = this.explorer.facts;
    const [layer, lens, router, margin, heads] = this.titles;
    const second = (...nodes) => h("div", { class: "moe-secondary" }, ...nodes);
    layer.append(h("b", { text: "layer" }));
    lens.append(h("b", { text: "logit lens" }), second("next, really ", this.next));
    this.next.className = "moe-code";
    router.append(
      h("b", { text: `router: ${numExperts} experts` }),
      second("rank in cell, weight as fill 0 ", h("span", { class: "moe-scale moe-ramp" }), " 1"),
    );
    router.title =
      "The grey foot of a cell is the softmax over all experts, a diagnostic: the model weighs the chosen ones only.";
    margin.append(h("b", { text: "margin" }), second(`#${topK} − #${topK + 1}`));
    margin.title = `Router logit of the last chosen expert minus that of the runner-up; ≈ below ${this.explorer.facts.nearTie}. The bar is full at ${MARGIN_FULL}.`;
    heads.append(h("b", { text: `${numHeads} heads` }), second("sink mass"));
  }

  // What a point is: the selection it stands for, and what [ and ] step from then on.
  at(event) {
    const box = this.surface.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const { facts } = this.explorer;
    const { rowHeight, columns } = this.painter;
    const layer = Math.min(facts.numLayers - 1, Math.max(0, Math.floor(y / rowHeight)));
    const expert = expertAt(columns, facts, x);
    const head = headAt(columns, facts, x);
    if (expert !== null) return [{ layer, expert }, "expert"];
    return head === null ? [{ layer }] : [{ layer, head }, "head"];
  }

  hint(event) {
    const [{ layer, expert, head }] = this.at(event);
    const { router, sinks } = this.rows?.[layer] ?? {};
    if (expert !== undefined && router?.state === "here") {
      const rank = router.experts.indexOf(expert);
      const weight =
        rank < 0 ? "not chosen" : `#${rank + 1}${router.weights ? `, weight ${twoDigits(router.weights[rank])}` : ""}`;
      return `layer ${layer}, expert ${expert}: ${weight}${router.probs ? `; softmax over all ${twoDigits(router.probs[expert])}` : ""}`;
    }
    if (head !== undefined && sinks?.state === "here")
      return `layer ${layer}, head ${head}: sink mass ${twoDigits(sinks.masses[head])}`;
    return `layer ${layer}`;
  }

  resize(width) {
    this.painter.resize(width);
    const { columns } = this.painter;
    const names = ["layer", "lens", "router", "margin", "heads"];
    names.forEach((name, i) => {
      const end = columns[names[i + 1]]?.x ?? width + 4;
      Object.assign(this.titles[i].style, {
        left: `${columns[name].x}px`,
        maxWidth: `${end - columns[name].x - 4}px`,
      });
    });
  }

  draw({ selection, palette, focus }) {
    const { reading, tokens, facts } = this.explorer;
    const { token } = selection;
    const nextId = token + 1 < tokens.length ? tokens.ids[token + 1] : null;
    this.rows = Array.from({ length: facts.numLayers }, (_, layer) => ({
      router: reading.router(token, layer),
      lens: reading.lens(token, layer),
      sinks: reading.sinks(token, layer),
    }));
    this.painter.paint(palette, this.rows, selection, nextId, focus);
  }

  // The selected layer in words, under the rows.
  write({ selection: { token, layer } }) {
    const { router } = this.rows[layer];
    const { facts, reading, tokens } = this.explorer;
    setText(this.next, token + 1 < tokens.length ? tokens.cell(token + 1) : "end");
    const kind = reading.layerKind(layer);
    setText(this.facts, `Layer ${layer}${kind ? `, ${kind}` : ""}`);
    setText(this.chosen, chosenWords(router));
    const tie = router.nearTie
      ? `≈ near tie with e${router.runnerUp}: margin ${router.margin.toFixed(3)} < ε ${facts.nearTie}`
      : "";
    const clear =
      Number.isFinite(router.margin) && !router.nearTie
        ? `margin ${router.margin.toFixed(2)} to e${router.runnerUp}`
        : "";
    setText(this.tie, tie || clear);
    this.tie.classList.toggle("moe-plain", !tie);
  }

  // What the canvas shows, in words and as data, for people who cannot see it and for tests.
  describe({ token, layer }) {
    const { rows, element } = this;
    const { router, lens, sinks } = rows[layer];
    const perLayer = (name, write) => setData(element, name, rows.map(write).join(" "));
    perLayer("experts", (r) => r.router.experts?.join(",") ?? r.router.state);
    perLayer("weights", (r) => r.router.weights?.map((w) => w.toFixed(4)).join(",") ?? r.router.state);
    perLayer("margins", (r) => (r.router.margin == null ? r.router.state : r.router.margin.toFixed(4)));
    perLayer("lens", (r) => r.lens.ids?.join(",") ?? r.lens.state);
    setData(element, "sinks", sinks.masses?.map((m) => m.toFixed(4)).join(",") ?? sinks.words);
    const guess = lens.ids ? `Lens: ${this.explorer.tokens.cellOf(lens.ids[0])} ${twoDigits(lens.probs[0])}.` : "";
    this.surface.label(
      `Layers at token ${token}. Layer ${layer}: ${chosenWords(router)}. ${this.tie.textContent}. ${guess}`,
    );
  }
}

function chosenWords(router) {
  if (!router.experts) return router.words;
  return router.experts
    .map((e, i) => `#${i + 1} e${e}${router.weights ? ` ${twoDigits(router.weights[i])}` : ""}`)
    .join("  ");
}
