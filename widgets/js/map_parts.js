// The parts around the map: header, legend.

import { DTYPES, sourceBadge } from "./header.js";
import { grouped, shareWords, pointWords } from "./map_data.js";
import { h, setText } from "./surface.js";

// Badges of traces: where routing comes from, dtype, and that it was captured, in which layers.
export function routerBadges({ sources, dtypes, layers, counts }) {
  const some = layers.length < counts.layer ? ` ${layers.length}/${counts.layer} layers` : "";
  return [
    ...sources.map(sourceBadge),
    ...dtypes.map((d) => ({ text: DTYPES[d] ?? d, kind: "plain", title: `the model ran in ${d}` })),
    { text: `✓ router${some}`, kind: "plain", title: "expert_indices were captured" },
  ];
}

// The head of a view of routing: title, badges, model and shape, and at the right which tokens.
export class RoutingHeader {
  constructor(facts, ...rows) {
    const { title, model, embedded, counts, topK, numTraces } = facts;
    const badge = ({ text, kind, title: words }) =>
      h("span", { class: `moe-badge moe-badge-${kind}`, text, title: words });
    const said = embedded ? " (embedded: says nothing about gpt-oss)" : "";
    const traces = numTraces === 1 ? "one trace" : `${grouped(numTraces)} traces`;
    const shape = `${said}, ${counts.layer} layers × ${counts.expert} experts, top-${topK} · ${traces}`;
    this.tokens = h("div", { class: "moe-secondary moe-which" });
    this.element = h(
      "header",
      { class: "moe-header" },
      h(
        "div",
        { class: "moe-header-row" },
        h("div", { class: "moe-question", role: "heading", "aria-level": "2", text: title, title }),
        h("div", { class: "moe-badges" }, ...routerBadges(facts).map(badge)),
      ),
      h(
        "div",
        { class: "moe-header-row" },
        h("div", { class: "moe-facts moe-secondary" }, h("b", { text: model }), shape),
        this.tokens,
      ),
      ...rows,
    );
  }

  write(words) {
    setText(this.tokens, words);
  }
}

// The scale with its unit and the ends named.
export class Legend {
  constructor() {
    this.bar = h("div", { class: "moe-legend-bar" });
    this.tick = h("i", { class: "moe-legend-tick" });
    this.low = h("span");
    this.middle = h("span", { class: "moe-legend-middle" });
    this.high = h("span");
    this.note = h("div", { class: "moe-secondary" });
    this.bar.append(this.tick);
    this.element = h(
      "div",
      { class: "moe-legend" },
      this.bar,
      h("div", { class: "moe-legend-words" }, this.low, this.middle, this.high),
      this.note,
    );
  }

  draw(data, { show, phase }, palette) {
    const top = show === "contrast" ? data.topContrast(phase) : show === "load" ? data.topLoad : 1;
    const stops = show === "contrast" ? palette.diverging : palette.fills;
    this.bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    const at = show === "contrast" ? 0.5 : data.uniform / top;
    this.tick.hidden = show === "token";
    this.tick.style.left = `${100 * at}%`;
    this.middle.style.left = `${100 * at}%`;
    const words = {
      load: ["0", `uniform ${shareWords(data.uniform)}`, data.canExceed ? `≥ ${shareWords(top)} •` : shareWords(top)],
      contrast: [pointWords(-top), "0", pointWords(top)],
      token: ["0", "", "weight 1"],
    }[show];
    [this.low, this.middle, this.high].forEach((node, i) => setText(node, words[i]));
    setText(this.note, show === "contrast" && data.tested(phase) ? "◤ corrected p < .05" : "");
  }
}
