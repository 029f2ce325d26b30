// Flow of tokens between the top-1 experts of chosen layers.

import { grouped, shareWords } from "./map_data.js";
import { RoutingHeader } from "./map_parts.js";
import { StatusLine } from "./parts.js";
import { decode, threeDigits } from "./numerics.js";
import { PathsPainter } from "./paths_paint.js";
import { h, setData, setText } from "./surface.js";
import { View } from "./view.js";

const FLOW = ["pair", "from", "to", "count", "leaving", "coming"];

// Rows of int32 as flows.
export function flowsOf(values) {
  return Array.from({ length: values.length / FLOW.length }, (_, i) =>
    Object.fromEntries(FLOW.map((name, j) => [name, values[i * FLOW.length + j]])),
  );
}

// What stands beside a gap: information with its null, what is drawn and what is not.
export function gapWords(gap, flows, tokens) {
  const drawn = flows.reduce((sum, flow) => sum + flow.count, 0);
  const rest = gap.flows - flows.length;
  return [
    `I = ${threeDigits(gap.information)} nats`,
    `shuffled tokens: ${threeDigits(gap.null)}`,
    `${grouped(flows.length)} drawn: ${shareWords(drawn / tokens)}`,
    rest ? `${grouped(rest)} smaller not drawn: ${shareWords(1 - drawn / tokens)}` : "all flows are drawn",
  ];
}

export class PathsView extends View {
  constructor(model, el) {
    super(model, el, { label: `Routing paths: ${model.get("_facts").title}`, className: "moe-paths" });
  }

  build() {
    const { facts } = this;
    const sent = this.model.get("_arrays");
    const loads = decode(sent.loads, "int32");
    const { expert: numExperts } = facts.counts;
    this.loads = facts.shown.map((_, i) => loads.subarray(i * numExperts, (i + 1) * numExperts));
    this.flows = flowsOf(decode(sent.flows, "int32"));
    this.words = facts.gaps.map((gap, i) =>
      gapWords(
        gap,
        this.flows.filter((flow) => flow.pair === i),
        facts.tokens,
      ),
    );
    this.painter = new PathsPainter(facts, this.loads, this.flows);
    this.told = h("p", { class: "moe-unseen" });
    const least = `Drawn: flows of at least ${shareWords(facts.least)} of the tokens.`;
    const meaning = "I is the mutual information of the two layers' top-1 experts, biased high for few tokens:";
    this.panel = h(
      "section",
      { class: "moe-map-panel", "aria-label": "Paths of tokens between layers" },
      h(
        "div",
        { class: "moe-panel-title moe-map-title" },
        h("b", { text: "Paths" }),
        " ",
        h("span", { class: "moe-secondary", text: "width = share of tokens, by top-1 expert · row = layer" }),
      ),
      this.painter.surface.canvas,
      this.told,
      h("p", {
        class: "moe-secondary moe-curve-note",
        text: `${least} ${meaning} compare it with that of shuffled tokens. An association over ${facts.selection}.`,
      }),
    );
    this.header = new RoutingHeader(facts);
    this.header.write(`${facts.selection}, T = ${grouped(facts.tokens)}`);
    this.status = new StatusLine([
      [["↑", "↓"], "layer"],
      [["[", "]"], "expert"],
      [["?"], "all keys"],
    ]);
    const { canvas } = this.painter.surface;
    canvas.addEventListener("pointerdown", (event) => this.choose(this.at(event)));
    canvas.addEventListener("pointermove", (event) => (canvas.title = this.hint(this.at(event))));
    return [this.header.element, this.panel, this.status.element];
  }

  actionOf({ key, shiftKey, ctrlKey, metaKey, altKey }) {
    if (ctrlKey || metaKey || altKey) return undefined;
    const { expert } = this.selection;
    const experts = { "[": expert - 1, "]": expert + 1, ArrowLeft: expert - 1, ArrowRight: expert + 1 };
    const ends = { Home: 0, End: this.facts.counts.expert - 1 };
    if (key === "ArrowUp") return () => this.stepLayer(-1);
    if (key === "ArrowDown") return () => this.stepLayer(1);
    if (key === "?" || (shiftKey && key === "/")) return () => this.help.toggle();
    if (key === "Escape") return () => this.help.close();
    const to = experts[key] ?? ends[key];
    return to === undefined ? undefined : () => this.select({ expert: to });
  }

  keyList() {
    return [
      ["↑ ↓", "shown layer"],
      ["[ ] ← →", "expert"],
      ["home end", "first, last expert"],
      ["?", "this list"],
      ["esc", "close"],
    ];
  }

  // The next shown layer above or below the selected one, shown or not.
  stepLayer(by) {
    const { shown } = this.facts;
    const { layer } = this.selection;
    const next = by > 0 ? shown.find((l) => l > layer) : shown.findLast((l) => l < layer);
    if (next !== undefined) this.select({ layer: next });
  }

  at(event) {
    const box = this.painter.surface.canvas.getBoundingClientRect();
    return this.painter.at(event.clientX - box.left, event.clientY - box.top);
  }

  choose(found) {
    const { shown } = this.facts;
    if (found?.flow) this.select({ layer: shown[found.flow.pair], expert: found.flow.from });
    else if (found)
      this.select({ layer: shown[found.row], ...(found.expert === null ? {} : { expert: found.expert }) });
  }

  hint(found) {
    if (found?.flow) return this.flowWords(found.flow);
    return found && found.expert !== null ? this.expertWords(found.row, found.expert) : "";
  }

  flowWords({ pair, from, to, count }) {
    const { shown, tokens } = this.facts;
    const share = `${grouped(count)} of ${grouped(tokens)} tokens, ${shareWords(count / tokens)}`;
    return `layer ${shown[pair]} expert ${from} → layer ${shown[pair + 1]} expert ${to}: ${share}`;
  }

  expertWords(row, expert) {
    const { shown, tokens } = this.facts;
    const count = this.loads[row][expert];
    return `layer ${shown[row]}, expert ${expert}: top-1 at ${grouped(count)} of ${grouped(tokens)} tokens, ${shareWords(count / tokens)}`;
  }

  resize(width) {
    this.painter.resize(width - 28);
  }

  draw() {
    const { layer, expert } = this.selection;
    const row = this.facts.shown.indexOf(layer);
    this.painter.paint(this.palette, { row, expert }, this.words);
    const share = row < 0 ? "layer not shown" : shareWords(this.loads[row][expert] / this.facts.tokens);
    this.status.write([
      ["layer", layer],
      ["expert", expert],
      ["top-1 share", share],
    ]);
  }

  settle() {
    const { layer, expert } = this.selection;
    const row = this.facts.shown.indexOf(layer);
    const own = this.flows.filter(
      ({ pair, from, to }) => (pair === row && from === expert) || (pair + 1 === row && to === expert),
    );
    this.painter.surface.label(row < 0 ? `Layer ${layer} is not shown.` : this.expertWords(row, expert));
    const gaps = this.words.map(
      (lines, i) => `Layer ${this.facts.shown[i]} to ${this.facts.shown[i + 1]}: ${lines.join(", ")}`,
    );
    setText(this.told, [...gaps, ...own.map((flow) => this.flowWords(flow))].join(". "));
    setData(this.panel, "flows", own.map(({ pair, from, to, count }) => [pair, from, to, count].join(",")).join(" "));
    setData(this.panel, "information", this.facts.gaps.map((gap) => gap.information.toFixed(6)).join(","));
  }
}
