// The whole view: one selection (token, layer, head, expert), drawn by every panel, shared with Python.

import { Alternatives } from "./alternatives.js";
import { Axis } from "./axis.js";
import { Blocks } from "./blocks.js";
import { Find } from "./find.js";
import { Header } from "./header.js";
import { Help, handleKey } from "./keys.js";
import { Notes } from "./notes.js";
import { adoptPalette, watchTheme } from "./palette.js";
import { QUANTITIES, Quantities } from "./quantities.js";
import { Reading } from "./reading.js";
import { Selection, withinCounts } from "./selection.js";
import { Stack } from "./stack.js";
import { Status } from "./status.js";
import { h, setData } from "./surface.js";
import { Tokens } from "./tokens.js";
import { Transcript } from "./transcript.js";
import { Wall } from "./wall.js";

const SETTLE_MS = 80;
const SAVE_MS = 5000;
const PLAY_MS = 160;

// A selection within the trace, whatever was asked for.
export function clampSelection(wanted, facts) {
  const { numTokens: token, numLayers: layer, numHeads: head, numExperts: expert } = facts;
  const colorBy = QUANTITIES[wanted.colorBy] ? wanted.colorBy : "channel";
  return { ...withinCounts(wanted, { token, layer, head, expert }), colorBy };
}

export class Explorer {
  constructor(model, el) {
    this.model = model;
    this.facts = model.get("_facts");
    this.blocks = new Blocks(model, this.facts, (problem) => this.arrived(problem));
    this.tokens = new Tokens(this.facts, this.blocks.get("all/token_ids"));
    this.reading = new Reading(this.blocks, this.facts, this.tokens);
    this.quantities = new Quantities(this.reading);
    this.focus = "head";
    this.selected = new Selection(model, {
      clamp: (wanted) => clampSelection(wanted, this.facts),
      moved: () => this.schedule(),
      own: { colorBy: "color_by" },
    });
    this.build(el);
    this.adoptTheme();
    this.listen();
    this.resize();
    this.notes.refresh();
    this.frame();
    this.settle();
  }

  build(el) {
    this.header = new Header(this);
    this.axis = new Axis(this);
    this.transcript = new Transcript(this);
    this.stack = new Stack(this);
    this.wall = new Wall(this);
    this.alternatives = new Alternatives(this);
    this.status = new Status(this);
    this.find = new Find(this);
    this.notes = new Notes(this);
    this.help = new Help(this);
    this.lower = h("div", { class: "moe-lower" }, this.wall.element, this.alternatives.element);
    this.panels = h("div", { class: "moe-panels" }, this.transcript.element, this.stack.element, this.lower);
    this.root = h(
      "div",
      {
        class: "moe-root",
        tabindex: "0",
        role: "application",
        "aria-label": `Trace explorer: ${this.facts.question}`,
        "data-lm-suppress-shortcuts": "true",
      },
      this.header.element,
      this.find.element,
      this.axis.element,
      this.notes.element,
      this.panels,
      this.status.element,
      this.help.element,
    );
    el.classList.add("moe-host");
    this.box = h("div", { class: "moe-box" }, this.root);
    el.append(this.box);
  }

  listen() {
    this.onKey = (event) => handleKey(this, event);
    this.root.addEventListener("keydown", this.onKey);
    this.root.addEventListener("pointerdown", (event) => {
      if (!event.target.closest("input, select, button, .moe-transcript-scroll"))
        this.root.focus({ preventScroll: true });
    });
    this.observer = new ResizeObserver(() => this.resize() && this.schedule(true));
    this.observer.observe(this.box);
    this.stopTheme = watchTheme(() => {
      this.adoptTheme();
      this.schedule(true);
    });
    this.onNotes = () => {
      this.notes.refresh();
      this.schedule();
    };
    for (const name of ["bookmarks", "notes"]) this.model.on(`change:${name}`, this.onNotes);
    this.onMessage = (message) => {
      if (!message?.said) return;
      clearTimeout(this.saveTimer);
      this.status.say(message.said, message.kind);
    };
    this.model.on("msg:custom", this.onMessage);
  }

  close() {
    this.stopPlay();
    this.observer.disconnect();
    this.stopTheme();
    this.selected.close();
    for (const name of ["bookmarks", "notes"]) this.model.off(`change:${name}`, this.onNotes);
    this.model.off("msg:custom", this.onMessage);
    this.blocks.close();
    cancelAnimationFrame(this.pending);
    clearTimeout(this.settleTimer);
    clearTimeout(this.saveTimer);
  }

  adoptTheme() {
    this.palette = adoptPalette(this.root, this.box);
  }

  get selection() {
    return this.selected.values;
  }

  // Move the selection; `focus` says what [ and ] step from now on.
  select(changes, focus) {
    if (focus) this.focus = focus;
    this.selected.move(changes);
    if ("colorBy" in changes && changes.colorBy === "expert_weight") this.focus = "expert";
    this.schedule();
  }

  step(by) {
    this.select({ token: this.selection.token + by });
  }

  stepFocus(by) {
    this.select({ [this.focus]: this.selection[this.focus] + by });
  }

  setFocus(focus) {
    this.focus = focus;
    this.schedule();
  }

  nextQuantity() {
    const names = Object.keys(QUANTITIES);
    this.select({ colorBy: names[(names.indexOf(this.selection.colorBy) + 1) % names.length] });
  }

  marks() {
    return this.notes.marks();
  }

  save() {
    this.model.send({ save: true });
    this.status.say("saving …");
    clearTimeout(this.saveTimer);
    this.saveTimer = setTimeout(
      () => this.status.say("no answer from the kernel: nothing was saved", "warning"),
      SAVE_MS,
    );
  }

  togglePlay() {
    if (this.playing) this.stopPlay();
    else this.playing = setInterval(() => this.playStep(), PLAY_MS);
    this.header.playing(Boolean(this.playing));
  }

  playStep() {
    if (this.selection.token < this.facts.numTokens - 1) this.step(1);
    else this.stopPlay();
  }

  stopPlay() {
    clearInterval(this.playing);
    this.playing = null;
    this.header.playing(false);
  }

  // Blocks came from the kernel, or did not.
  arrived(problem) {
    if (problem) this.status.say(problem, "warning");
    this.schedule(true);
  }

  // Read all widths, then write; returns whether anything changed.
  resize() {
    const width = this.root.clientWidth;
    if (!width || width === this.width) return false;
    this.width = width;
    const stack = this.stack.element.clientWidth - 28;
    const wall = this.wall.element.clientWidth - 28;
    this.axis.resize(width);
    this.stack.resize(stack);
    this.wall.resize(wall);
    return true;
  }

  schedule(settleSoon = false) {
    this.settleSoon ||= settleSoon;
    this.pending ??= requestAnimationFrame(() => this.frame());
  }

  // One step: read geometry, draw the panels, ask for what was missing. The rest follows when stepping pauses.
  frame() {
    this.pending = null;
    if (!this.width) return; // not on the page yet: the first resize draws
    this.transcript.measure(this);
    this.axis.draw(this);
    this.stack.draw(this);
    // Text comes after the canvases: a canvas that sets a font waits for the styles of what was written before.
    this.axis.write(this);
    this.stack.write(this);
    this.transcript.draw(this);
    this.alternatives.draw(this);
    this.wall.drawTitle(this);
    this.status.draw(this);
    this.blocks.flush();
    clearTimeout(this.settleTimer);
    this.settleTimer = setTimeout(() => this.settle(), this.settleSoon ? 0 : SETTLE_MS);
    this.settleSoon = false;
  }

  // When stepping pauses: what is too slow for every step.
  settle() {
    if (!this.width) return;
    this.wall.draw(this);
    this.axis.describe(this.selection);
    this.stack.describe(this.selection);
    for (const name of Object.keys(this.selection)) setData(this.root, name, this.selection[name]);
    this.blocks.flush();
  }
}
