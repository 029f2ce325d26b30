// The map of layers × experts with the card of the selected one: load, a contrast, or one token's choice.

import { Blocks } from "./blocks.js";
import { MapCard } from "./map_card.js";
import { MapData, ORDERS, PHASES, SHOWS, shareWords } from "./map_data.js";
import { mapAction, mapKeyList } from "./map_keys.js";
import { ENTROPY, LABELS, MapPainter, WRITTEN } from "./map_paint.js";
import { Legend, RoutingHeader } from "./map_parts.js";
import { Choice, StatusLine } from "./parts.js";
import { cellWords, cornerOf, countWords, honestWords, rowWords, titleWords } from "./map_words.js";
import { twoDigits } from "./numerics.js";
import { textOn } from "./palette.js";
import { Reading, missing } from "./reading.js";
import { h, setData, setText } from "./surface.js";
import { Tokens } from "./tokens.js";
import { View } from "./view.js";

const PADDING = 28;
const MANY_EXPERTS = 64; // beyond, the card stands below the map, so that cells stay wide enough
const SIDE_BY_SIDE = 1500; // width that has room for both all the same
const FEW_LAYERS = 8; // up to here the map is too low to stand beside the card
const NARROW_VIEW = 900; // up to here either would be too narrow

export class MapView extends View {
  constructor(model, el) {
    const { title } = model.get("_facts");
    super(model, el, {
      label: `Router map: ${title}`,
      className: "moe-map",
      own: { show: SHOWS, phase: PHASES, order: ORDERS },
    });
  }

  build() {
    const { facts } = this;
    this.data = new MapData(facts, this.model.get("_arrays"));
    this.hasTokens = Boolean(facts.trace);
    if (this.hasTokens) {
      this.blocks = new Blocks(this.model, facts.trace, () => this.schedule());
      this.tokens = new Tokens(facts.trace, this.blocks.get("all/token_ids"));
      this.reading = new Reading(this.blocks, facts.trace, this.tokens);
    }
    this.painter = new MapPainter(facts.counts.layer, facts.counts.expert);
    this.card = new MapCard(this);
    this.legend = new Legend();
    this.honest = h("p", { class: "moe-secondary" });
    this.name = h("b");
    this.how = h("span", { class: "moe-secondary" });
    this.row = h("p", { class: "moe-unseen" });
    this.scroll = h("div", { class: "moe-map-scroll" }, this.painter.grid.canvas);
    this.map = h(
      "section",
      { class: "moe-map-panel", "aria-label": "Layers by experts" },
      h("div", { class: "moe-panel-title moe-map-title" }, this.name, " ", this.how),
      h("div", { class: "moe-map-canvases" }, this.painter.labels.canvas, this.scroll, this.painter.entropy.canvas),
      this.row,
      h("div", { class: "moe-map-foot" }, this.legend.element, this.honest),
    );
    this.panels = h("div", { class: "moe-map-panels" }, this.map, this.card.element);
    this.header = new RoutingHeader(facts, this.buildChoices());
    this.status = new StatusLine([
      [["↑", "↓"], "layer"],
      [["[", "]"], "expert"],
      ...(this.hasTokens ? [[["←", "→"], "token"]] : []),
      [["⏎"], "card"],
      [["o"], "order"],
      [["?"], "all keys"],
    ]);
    const { canvas } = this.painter.grid;
    canvas.addEventListener("pointerdown", (event) => this.select(this.at(event)));
    canvas.addEventListener("pointermove", (event) => (canvas.title = this.hint(event)));
    return [this.header.element, this.panels, this.status.element];
  }

  buildChoices() {
    const { facts } = this;
    const choose = (name) => (value) => this.select({ [name]: value });
    const whyNot = Object.values(facts.contrasts).every((c) => c.missing) && Object.values(facts.contrasts)[0].missing;
    const { a, b } = Object.values(facts.contrasts).find((c) => !c.missing) ?? { a: "final", b: "analysis" };
    const phase = (value, text = value) => ({ value, text, why: facts.phases[value].missing });
    this.choices = {
      show: new Choice(
        "show",
        [
          { value: "load", text: "load" },
          { value: "contrast", text: `${a} − ${b}`, why: whyNot || undefined },
          { value: "token", text: "this token", why: this.hasTokens ? undefined : "one trace has a token to follow" },
        ],
        choose("show"),
      ),
      phase: new Choice("phase", [phase("completion"), phase("prompt"), phase("all", "both")], choose("phase")),
      order: new Choice(
        "order experts by",
        ORDERS.map((value) => ({ value, text: value, why: facts.orders[value] })),
        choose("order"),
      ),
    };
    return h("div", { class: "moe-choices" }, ...Object.values(this.choices).map((c) => c.element));
  }

  close() {
    super.close();
    this.blocks?.close();
    this.card.close();
  }

  actionOf(event) {
    if (event.key === "Enter" && event.target !== this.root) return undefined; // the card's own
    return mapAction(event, this.hasTokens);
  }

  keyList() {
    return mapKeyList(Boolean(this.facts.trace));
  }

  // The next choice that can be made.
  next(name) {
    const allowed = this.choices[name].allowed();
    this.select({ [name]: allowed[(allowed.indexOf(this.selection[name]) + 1) % allowed.length] });
  }

  order(layer = this.selection.layer) {
    return this.data.order(this.selection.order, this.selection.phase, layer);
  }

  stepExpert(by) {
    const order = this.order();
    const place = Math.min(order.length - 1, Math.max(0, order.indexOf(this.selection.expert) + by));
    this.select({ expert: order[place] });
  }

  at(event) {
    const box = this.painter.grid.canvas.getBoundingClientRect();
    const { layer, position } = this.painter.at(event.clientX - box.left, event.clientY - box.top);
    return position === null ? { layer } : { layer, expert: this.order(layer)[position] };
  }

  hint(event) {
    const { layer, expert } = this.at(event);
    return expert === undefined ? `layer ${layer}` : this.wordsOf(layer, expert).all;
  }

  // Name, value and whole sentence of a cell, or why there is none.
  wordsOf(layer, expert) {
    return this.absent() ?? cellWords(this.data, this.selection, layer, expert, this.router(layer));
  }

  router(layer) {
    return this.reading ? this.reading.router(this.selection.token, layer) : missing("one trace has a token to follow");
  }

  resize(width) {
    const { layer: numLayers, expert: numExperts } = this.facts.counts;
    const stacked =
      numLayers <= FEW_LAYERS || width < NARROW_VIEW || (numExperts > MANY_EXPERTS && width < SIDE_BY_SIDE);
    setData(this.panels, "stacked", stacked);
    // clientWidth is rounded: half a pixel too many would scroll.
    this.painter.resize(this.map.clientWidth - 1 - PADDING - LABELS - ENTROPY);
    const scrolls = this.painter.grid.width > this.scroll.clientWidth + 1;
    this.scroll.tabIndex = scrolls ? 0 : -1;
    setData(this.scroll, "scrolls", scrolls);
  }

  draw() {
    const { selection, data, palette } = this;
    const { layer, expert, show, phase, order } = selection;
    const layers = Array.from({ length: this.facts.counts.layer }, (_, l) => l);
    const column = this.order().indexOf(expert);
    this.painter.paint(palette, {
      rows: layers.map((l) => this.rowOf(l)),
      layer,
      column,
      corner: cornerOf(order),
      first: order === "index" ? 0 : 1, // ranks count from 1
      entropies: layers.map((l) => (data.phase(phase).missing ? NaN : data.entropy(phase, l))),
    });
    this.keepInView(column);
    for (const [name, choice] of Object.entries(this.choices)) choice.draw(selection[name]);
    const [name, how] = titleWords(data, selection);
    setText(this.name, name);
    setText(this.how, how);
    this.header.write(countWords(data, selection));
    this.legend.element.hidden = Boolean(this.absent());
    this.legend.draw(data, selection, palette);
    setText(this.honest, honestWords(data, selection));
    this.status.write(this.statusPairs(show, layer, expert));
    this.blocks?.flush();
  }

  keepInView(column) {
    const [x, room] = [this.painter.xOf(column), this.scroll.clientWidth];
    const { scrollLeft } = this.scroll;
    if (x < scrollLeft + 10 || x > scrollLeft + room - 10) this.scroll.scrollLeft = x - room / 2;
  }

  statusPairs(show, layer, expert) {
    const { selection, data } = this;
    const words = this.wordsOf(layer, expert);
    const pairs = [
      ["layer", layer],
      ["expert", expert],
      [words.name, words.value],
    ];
    if (!this.hasTokens) return pairs;
    const { token } = selection;
    const message = this.tokens.messageAt(token);
    return [...pairs, [`token ${token.toLocaleString("en")}`, this.tokens.cell(token)], ["in", message?.hue ?? "–"]];
  }

  // Why nothing can be shown of this phase; null when it can.
  absent() {
    const { show, phase } = this.selection;
    const why = show === "contrast" ? this.data.contrastOf(phase).missing : this.data.phase(phase).missing;
    return why && show !== "token" ? { name: show, value: why, all: why } : null;
  }

  rowOf(layer) {
    const absent = this.absent();
    if (!this.data.captured(layer)) return { cells: [], words: `layer ${layer} not captured` };
    if (absent) return { cells: [], words: layer === 0 ? absent.value : " " };
    const { show } = this.selection;
    const router = show === "token" ? this.router(layer) : null;
    if (router && router.state !== "here") return { cells: [], words: router.words };
    const cell = { load: (e) => this.loadCell(layer, e), contrast: (e) => this.contrastCell(layer, e) }[show];
    const experts = Array.from(this.order(layer));
    return { cells: experts.map((e) => this.named(e, cell ? cell(e) : this.tokenCell(router, e))) };
  }

  // Where columns are not experts, a cell says whose it is.
  named(expert, cell) {
    if (this.selection.order === "index" || this.painter.cell.width < 15) return cell;
    return { ...cell, number: this.painter.cell.width < WRITTEN ? String(expert) : `e${expert}` };
  }

  loadCell(layer, expert) {
    const { data, palette, painter } = this;
    const load = data.load(this.selection.phase, layer, expert);
    if (Number.isNaN(load)) return { undefined: true };
    const amount = Math.min(1, load / data.topLoad);
    const zero = load === 0 && painter.cell.width >= 11 ? "0" : undefined;
    return {
      fill: palette.fill(amount),
      ink: palette.textOnFill(amount),
      text: zero ?? writtenShare(load, painter.cell.width),
      dot: load > data.topLoad + 1e-12,
    };
  }

  contrastCell(layer, expert) {
    const { data, palette, painter } = this;
    const { phase } = this.selection;
    const delta = data.contrast(phase, layer, expert);
    if (Number.isNaN(delta)) return { undefined: true };
    const fill = palette.diverge(delta / data.topContrast(phase));
    const text = painter.cell.width >= WRITTEN ? signed(delta * 100) : undefined;
    return { fill, ink: textOn(fill), text, mark: data.marked(phase, layer, expert) };
  }

  tokenCell(router, expert) {
    const { palette, painter } = this;
    const rank = router.experts.indexOf(expert);
    if (rank < 0) return { fill: palette.track, ink: palette.secondary };
    const weight = router.weights?.[rank];
    const amount = weight === undefined ? 0.5 : 0.15 + 0.85 * weight;
    const wide = painter.cell.width >= 40;
    const text = wide && weight !== undefined ? `#${rank + 1} ${twoDigits(weight)}` : String(rank + 1);
    return { fill: palette.fill(amount), ink: palette.textOnFill(amount), text };
  }

  // What the canvas shows, in words and as data, when stepping pauses.
  settle() {
    const { selection, data } = this;
    const { layer, expert, phase, show } = selection;
    const router = this.router(layer);
    const experts = this.order();
    const absent = this.absent();
    this.painter.grid.label(this.wordsOf(layer, expert).all);
    setText(this.row, absent ? absent.value : rowWords(data, selection, experts, router));
    setData(this.map, "experts", Array.from(experts).join(","));
    const values = { load: (e) => data.load(phase, layer, e), contrast: (e) => data.contrast(phase, layer, e) }[show];
    setData(this.map, "row", absent || !values ? "" : Array.from(experts, (e) => values(e).toFixed(6)).join(","));
    setData(this.map, "router", router.experts?.join(",") ?? router.state);
    setData(this.map, "entropy", data.phase(phase).missing ? "" : data.entropy(phase, layer).toFixed(6));
    this.card.settle(selection);
  }
}

// A share in a cell: in percent, whose sign stands where there is room.
function writtenShare(share, width) {
  if (width < WRITTEN) return undefined;
  return width < 46 ? (share * 100).toFixed(1) : shareWords(share);
}

// −22, 0, +77: whole percentage points.
function signed(value) {
  const rounded = Math.round(value);
  return rounded ? `${rounded > 0 ? "+" : "−"}${Math.abs(rounded)}` : "0";
}
