// AttentionView: one selection (token, layer, head) over the row on the token axis, the map, two lists, and the wall.

import { AttentionAxis } from "./attention_axis.js";
import { AttentionBlocks } from "./attention_blocks.js";
import { AttentionHeader } from "./attention_header.js";
import { ATTENTION_KEYS, attentionAction } from "./attention_keys.js";
import { AttentionLists } from "./attention_lists.js";
import { AttentionMap, MAP_CHOICES } from "./attention_map.js";
import { AttentionMaps } from "./attention_maps.js";
import { AttentionReading } from "./attention_reading.js";
import { Find } from "./find.js";
import { StatusLine } from "./parts.js";
import { h } from "./surface.js";
import { Tokens } from "./tokens.js";
import { View } from "./view.js";
import { Wall } from "./wall.js";

const PANEL_PADDING = 28;

export class AttentionPanels extends View {
  constructor(model, el) {
    super(model, el, {
      label: `Attention: ${model.get("_facts").question}`,
      className: "moe-attention",
      own: MAP_CHOICES,
    });
  }

  build() {
    const { facts } = this;
    this.blocks = new AttentionBlocks(this.model, facts, (problem) => this.arrived(problem));
    this.tokens = new Tokens(facts, this.blocks.get("all/token_ids"));
    this.reading = new AttentionReading(this.blocks, facts, this.tokens);
    this.maps = new AttentionMaps(this.blocks, this.reading, facts);
    this.header = new AttentionHeader(this);
    this.find = new Find(this);
    this.axis = new AttentionAxis(this);
    this.map = new AttentionMap(this);
    this.lists = new AttentionLists(this);
    this.wall = new Wall(this);
    this.status = new StatusLine([
      [["←", "→"], "token"],
      [["⇧"], "sentence"],
      [["↑", "↓"], "layer"],
      [["[", "]"], "head"],
      [["z"], "zoom"],
      [["/"], "find"],
      [["?"], "all keys"],
    ]);
    const panels = h("div", { class: "moe-attention-panels" }, this.map.element, this.lists.element, this.wall.element);
    return [this.header.element, this.find.element, this.axis.element, panels, this.status.element];
  }

  close() {
    super.close();
    this.blocks.close();
    this.lists.suppression.close();
  }

  actionOf(event) {
    return attentionAction(event);
  }

  keyList() {
    return ATTENTION_KEYS;
  }

  escape() {
    this.help.close();
    this.map.close();
    this.root.focus();
  }

  // Blocks came from the kernel, or did not.
  arrived(problem) {
    this.problem = problem;
    if (this.asked) this.maps.answered(this.asked.count, performance.now() - this.asked.at);
    this.asked = null;
    this.schedule();
  }

  // What came for a selection that stands is shown at once.
  frame() {
    super.frame();
    if (this.isSettled) this.settle();
  }

  resize(width) {
    const [map, wall] = [this.map.element.clientWidth, this.wall.element.clientWidth];
    this.axis.resize(width);
    this.map.resize(map - PANEL_PADDING);
    this.wall.resize(wall - PANEL_PADDING);
  }

  // Each step: the row, and what it reads. The rest follows when stepping pauses.
  draw() {
    if (this.selection !== this.drawn) this.isSettled = false;
    this.drawn = this.selection;
    this.axis.draw();
    this.axis.write();
    this.lists.draw(this.axis.row);
    this.wall.drawTitle(this);
    this.status.write(this.statusPairs());
    this.blocks.flush();
  }

  statusPairs() {
    const { token, layer, head } = this.selection;
    const { tokens, facts } = this;
    const sentence = tokens.sentenceAt(token);
    return [
      ["token", `${token.toLocaleString("en")} of ${facts.numTokens.toLocaleString("en")}`],
      ["", tokens.cell(token)],
      ["in", tokens.messageAt(token)?.hue ?? "–"],
      sentence && ["sentence", `${sentence.index + 1} of ${tokens.sentences.length}`],
      ["layer", layer],
      ["head", head],
      this.problem && ["", this.problem],
    ];
  }

  settle() {
    if (!this.width) return;
    this.isSettled = true;
    this.axis.describe();
    this.lists.settle();
    this.drawWall();
    this.settleMap();
  }

  // Many heads take long to paint: not again while map after map comes.
  drawWall() {
    const { token, layer, head } = this.selection;
    const id = `${token} ${layer} ${head} ${this.palette.id} ${this.width}`;
    if (this.wallDrawn === id) return;
    this.wall.draw(this);
    this.wallDrawn = this.wall.element.dataset.state === "waiting" ? null : id;
  }

  settleMap() {
    this.map.settle();
    this.blocks.flush();
    this.askForMaps();
  }

  // Maps take the kernel longer: they wait until nothing else is waited for, and come stripe by stripe.
  askForMaps() {
    const { blocks, maps, selection } = this;
    if (!blocks.isIdle) return;
    if (!maps.askForRow(selection) && !blocks.prefetchNeighbours(selection)) {
      const count = maps.askForRest(selection);
      this.asked = count ? { count, at: performance.now() } : null;
    }
    blocks.flush();
  }
}
