// The names at the left of the token axis: what each row is, of which layer and head, and on what scale.

import { twoDigits } from "./numerics.js";
import { QUANTITIES } from "./quantities.js";
import { h, setText } from "./surface.js";

export class Gutter {
  // `rows` says where the rows stand: {top, strip, attention, roll}.
  constructor(explorer, rows) {
    this.explorer = explorer;
    this.menu = this.quantityMenu();
    [this.pooled, this.attentionOf, this.kind, this.sinkText, this.expertsOf] = Array.from({ length: 5 }, () =>
      faint(""),
    );
    this.scaleTop = h("span");
    this.scaleRow = h("span", {}, "0 ", h("span", { class: "moe-scale moe-ramp" }), " ", this.scaleTop);
    this.sinkFill = h("i");
    this.sinkBar = h("span", { class: "moe-sink-bar" }, this.sinkFill);
    const { numExperts } = explorer.facts;
    const bold = (text) => h("b", { text });
    const line = () => h("br");
    this.labels = [
      label(rows.top - 2, faint("channel")),
      label(rows.top + 15, this.pooled),
      label(rows.top + 36, faint("attention, max (√)")),
      label(rows.strip - 6, this.menu),
      label(rows.strip + 14, this.scaleRow),
      label(rows.attention + 1, bold("attention"), " ", this.attentionOf, line(), this.kind),
      label(rows.attention + 29, bold("sink"), " ", this.sinkText, " ", this.sinkBar),
      label(
        rows.roll,
        bold("experts"),
        " ",
        this.expertsOf,
        line(),
        faint(numExperts ? `e0 … e${numExperts - 1} ↓` : ""),
      ),
    ];
  }

  quantityMenu() {
    const menu = h("select", { class: "moe-quantity", "aria-label": "Colour tokens by" });
    menu.append(...Object.entries(QUANTITIES).map(([value, { label: text }]) => h("option", { value, text })));
    menu.addEventListener("change", () => this.explorer.select({ colorBy: menu.value }));
    return menu;
  }

  // `row` is the attention found of the selected head.
  write({ layer, head, expert, colorBy }, row) {
    const { facts, reading } = this.explorer;
    const { label: name, unit, top } = QUANTITIES[colorBy];
    if (this.menu.value !== colorBy) this.menu.value = colorBy;
    const part = { sink_mass: ` h${head}`, expert_weight: ` e${expert}` }[colorBy] ?? "";
    setText(this.pooled, top ? `${name}${part}, max` : "");
    this.scaleRow.hidden = !top;
    if (top) setText(this.scaleTop, scaleEnd(top(facts), unit));
    setText(this.attentionOf, `L${layer} h${head}`);
    setText(this.kind, reading.layerKind(layer).replace("sliding ", "sliding, window ").replace("full", "full layer"));
    this.writeSink(row.state === "here" ? row.sink : undefined);
    setText(this.expertsOf, `L${layer}`);
  }

  // undefined: not known here; null: a family without sinks.
  writeSink(sink) {
    setText(this.sinkText, sink === undefined ? "–" : sink === null ? "none" : twoDigits(sink));
    this.sinkBar.hidden = typeof sink !== "number";
    if (typeof sink === "number") this.sinkFill.style.width = `${(sink * 100).toFixed(1)}%`;
  }
}

function label(top, ...children) {
  return h("div", { class: "moe-gutter", style: `top:${top}px` }, ...children);
}

function faint(text) {
  return h("span", { class: "moe-secondary", text });
}

// Where the ramp ends: "≥2.1 nats"; "1" for what cannot exceed it.
function scaleEnd(top, unit) {
  const number = Number.isInteger(top) ? String(top) : top.toFixed(1);
  return unit ? `≥${number} ${unit}` : number;
}
