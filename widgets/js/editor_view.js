// The chain editor: a tree of branches, the chosen rollout with its sentences, another one beside it, and what is edited.

import { BenchJob } from "./bench_job.js";
import { DiffRows } from "./diff_rows.js";
import { EditorChain } from "./editor_chain.js";
import { EditorForm } from "./editor_form.js";
import { EditorTree } from "./editor_tree.js";
import { pairWords } from "./editor_words.js";
import { badges } from "./header.js";
import { decode } from "./numerics.js";
import { StatusLine } from "./parts.js";
import { h, setData } from "./surface.js";
import { View } from "./view.js";

const HEARD = ["_job", "_tree", "_pair", "_speeds"];
const SHAPE = { layers: [], topK: 0 };

const branchName = (at) => (at ? `branch ${at}` : "original");

function rowsOf(found) {
  if (!found.rows) return null;
  const arrays = { rows: decode(found.rows, "int32"), same: decode(found.same, "uint8") };
  return new DiffRows(arrays, { numShared: found.numShared, ...SHAPE });
}

export class EditorView extends View {
  constructor(model, el) {
    super(model, el, { label: `Chain editor: ${model.get("_facts").question}`, className: "moe-chain moe-chain-editor" });
    this.onTrait = Object.fromEntries(HEARD.map((name) => [name, () => this.heard(name)]));
    for (const name of HEARD) model.on(`change:${name}`, this.onTrait[name]);
    this.onMessage = (message) => message?.stopping !== undefined && this.job.answered(message.stopping);
    model.on("msg:custom", this.onMessage);
    this.heard("_job");
  }

  close() {
    super.close();
    this.job.close();
    this.model.off("msg:custom", this.onMessage);
    for (const name of HEARD) this.model.off(`change:${name}`, this.onTrait[name]);
  }

  get tree() {
    return this.model.get("_tree");
  }

  get shown() {
    return this.side.place;
  }

  get speeds() {
    return this.model.get("_speeds") ?? {};
  }

  get isBusy() {
    return this.job.isBusy;
  }

  // The sentence that is edited.
  get sentence() {
    return this.chain.numberAt(this.place);
  }

  build() {
    this.job = new BenchJob(() => this.model.send({ stop: true }), "rollouts");
    this.branches = new EditorTree(this);
    this.verdict = h("div", { class: "moe-editor-verdict" });
    this.columns = h("div", { class: "moe-editor-columns" });
    this.pick = h("select", {
      "aria-label": "Compare with",
      onchange: () => this.compare(Number(this.pick.value)),
    });
    this.form = new EditorForm(this, (wish) => this.ask(wish));
    this.pairUp();
    this.status = new StatusLine([
      [["↑", "↓"], "sentence"],
      [["e"], "edit"],
      [["d"], "delete"],
      [["t"], "truncate"],
      [["⏎"], "run"],
      [["0", "…", "9"], "branch"],
      [["?"], "all keys"],
    ]);
    const right = h(
      "div",
      { class: "moe-editor-main" },
      this.form.element,
      ...this.job.elements,
      h(
        "div",
        { class: "moe-editor-compare" },
        h("label", { class: "moe-secondary" }, "compare with ", this.pick),
        this.verdict,
      ),
      this.columns,
    );
    return [
      this.header(),
      h("div", { class: "moe-editor-panels" }, this.branches.element, right),
      this.status.element,
    ];
  }

  header() {
    const { question, model, embedded, effort } = this.facts;
    const marks = badges({ ...this.facts, arrays: {} }).filter(({ kind }) => kind !== "missing");
    const said = embedded ? " (embedded: says nothing about gpt-oss)" : "";
    return h(
      "header",
      { class: "moe-header" },
      h("div", { class: "moe-question", role: "heading", "aria-level": "2", text: question, title: question }),
      h(
        "div",
        { class: "moe-header-row" },
        h(
          "div",
          { class: "moe-facts moe-secondary" },
          ...(effort ? ["effort ", h("b", { text: effort }), " · "] : []),
          h("b", { text: model }),
          said,
        ),
        h(
          "div",
          { class: "moe-badges" },
          ...marks.map(({ text, kind, title }) => h("span", { class: `moe-badge moe-badge-${kind}`, text, title })),
        ),
      ),
    );
  }

  // Take over what Python sent of the two rollouts.
  pairUp() {
    const pair = this.model.get("_pair");
    const before = String(this.side?.place);
    this.side = pair.shown;
    this.toOriginal = pair.toOriginal ? rowsOf(pair.toOriginal) : null;
    this.rows = pair.rows ? rowsOf(pair.rows) : null;
    this.chain = this.column(pair.shown, 1);
    this.other = pair.beside ? this.column(pair.beside, 0) : null;
    this.columns.replaceChildren(...[this.other, this.chain].filter(Boolean).map((one) => one.element));
    setData(this.columns, "pair", this.other !== null);
    if (before !== String(pair.shown.place)) this.place = pair.shown.put?.[0] ?? this.placeOf(this.selection.token);
    this.rootToken = this.selection.token;
    const names = pair.beside ? [branchName(pair.beside.place[0]), branchName(pair.shown.place[0])] : [];
    const words = pair.beside ? pairWords({ ...pair, differ: pair.rows.differ }, names) : ["", ""];
    this.verdict.replaceChildren(h("b", { text: words[0] }), h("span", { class: "moe-secondary", text: words[1] }));
    this.writeTree();
  }

  column(side, of) {
    const [branch, sample] = side.place;
    const count = this.tree[branch].n;
    return new EditorChain(side, {
      name: branchName(branch),
      count,
      differs: (token) => Boolean(this.rows?.differs(this.rows.rowOf(of, token))),
      onSelect: (token) => this.goTo(of ? token : this.rows.tokenBefore(this.rows.rowOf(0, token), 1)),
      onRollout: (by) => this.stepRollout(of, sample + by),
    });
  }

  writeTree() {
    const { tree } = this;
    const beside = this.other?.view.side.place ?? [-1, 0];
    this.branches.write(tree, this.shown, beside);
    const option = (value, text) => h("option", { value: String(value), text, selected: value === beside[0] });
    const others = tree.map((_, at) => at).filter((at) => at !== this.shown[0]);
    this.pick.replaceChildren(option(-1, "nothing"), ...others.map((at) => option(at, branchName(at))));
    setData(this.root ?? this.columns, "branch", this.shown[0]);
  }

  // The token of the shown rollout beside one of the original, and the other way.
  placeOf(token) {
    const found = this.toOriginal ? this.toOriginal.tokenBefore(this.toOriginal.rowOf(0, token), 1) : token;
    return Math.min(found, this.chain.view.tokens.length - 1);
  }

  rootOf(place) {
    return this.toOriginal ? this.toOriginal.tokenBefore(this.toOriginal.rowOf(1, place), 0) : place;
  }

  // Select a token of the shown rollout; other views go to the token of the original beside it.
  goTo(place) {
    const { data } = this.chain.view;
    this.place = Math.max(data.start, Math.min(place, this.chain.view.tokens.length - 1));
    this.select({ token: this.rootOf(this.place) });
    this.rootToken = this.selection.token;
  }

  stepSentence(to) {
    const { sentences } = this.chain.view.data;
    const at = Math.max(0, Math.min(sentences.length - 1, to));
    if (sentences[at]) this.goTo(sentences[at].start);
  }

  // Show a branch beside the one it came from.
  choose(place) {
    const record = this.tree[place[0]];
    if (!record || place[1] < 0 || place[1] >= record.n) return;
    const isSame = place[0] === this.shown[0];
    const own = record.parent === null ? [-1, 0] : [record.parent, record.of];
    this.tell({ shown: place, ...(isSame ? {} : { beside: own }) });
  }

  compare(branch) {
    this.tell({ beside: branch < 0 ? [-1, 0] : [branch, 0] });
  }

  nextBeside() {
    const others = [-1, ...this.tree.keys()].filter((at) => at !== this.shown[0]);
    const now = this.other?.view.side.place[0] ?? -1;
    this.compare(others[(others.indexOf(now) + 1) % others.length]);
  }

  stepRollout(of, sample) {
    const side = of ? this.side : this.other?.view.side;
    if (!side || sample < 0 || sample >= this.tree[side.place[0]].n) return;
    this.tell({ [of ? "shown" : "beside"]: [side.place[0], sample] });
  }

  tell(traits) {
    for (const [name, value] of Object.entries(traits)) this.model.set(name, value);
    this.model.save_changes();
  }

  // One at a time.
  ask(wish) {
    if (this.isBusy || !this.facts.canRun) return;
    this.model.send({ edit: wish });
    this.become({ state: "sent" });
    this.root.focus({ preventScroll: true });
  }

  heard(name) {
    if (name === "_job") {
      const job = this.model.get("_job");
      if (job?.state) this.become(job);
    } else if (name === "_pair") this.pairUp();
    else if (name === "_tree") this.writeTree();
    this.schedule();
  }

  become(job) {
    this.job.become(job);
    setData(this.root, "job", job.state);
    this.schedule();
  }

  actionOf({ key, shiftKey, ctrlKey, metaKey, altKey }) {
    if (ctrlKey || metaKey || altKey) return undefined;
    if (key === "?" || (key === "/" && shiftKey)) return () => this.help.toggle();
    if (/^[0-9]$/.test(key) && !shiftKey) return () => this.choose([Number(key), 0]);
    const sentence = (by) => () => this.stepSentence(this.sentence + by);
    return {
      ArrowLeft: () => this.goTo(this.place - 1),
      ArrowRight: () => this.goTo(this.place + 1),
      ArrowUp: sentence(-1),
      ArrowDown: sentence(1),
      k: sentence(-1),
      j: sentence(1),
      Home: () => this.stepSentence(0),
      End: () => this.stepSentence(Infinity),
      e: () => this.form.act("replace", true),
      i: () => this.form.act("insert", true),
      d: () => this.form.act("delete"),
      t: () => this.form.act("truncate"),
      w: () => this.form.follow(this.form.rest === "anew" ? "kept" : "anew"),
      Enter: () => this.form.submit(),
      b: () => this.nextBeside(),
      ",": () => this.stepRollout(1, this.shown[1] - 1),
      ".": () => this.stepRollout(1, this.shown[1] + 1),
      Escape: () => this.help.close(),
    }[key];
  }

  keyList() {
    return [
      ["↑ ↓ j k", "sentence"],
      ["← →", "token"],
      ["home end", "first, last sentence"],
      ["e", "replace the sentence: type, enter runs, shift enter is a new line"],
      ["i", "insert one after it"],
      ["d", "delete it"],
      ["t", "truncate after it"],
      ["w", "let the rest be written anew, or keep it"],
      ["enter", "run"],
      ["0 … 9", "branch, 0 the original"],
      [", .", "rollout of the branch"],
      ["b", "compare with the next branch"],
      ["?", "this list"],
      ["esc", "close; leave a field"],
    ];
  }

  resize() {}

  draw() {
    if (this.selection.token !== this.rootToken) {
      this.rootToken = this.selection.token; // another view moved it
      this.place = this.placeOf(this.rootToken);
    }
    this.chain.show(this.place);
    this.other?.show(this.rows.tokenBefore(this.rows.rowOf(1, this.place), 0));
    const both = [this.chain, this.other].filter(Boolean);
    for (const one of both) one.measure();
    for (const one of both) one.draw();
    this.form.draw();
    this.writeStatus();
  }

  writeStatus() {
    const { tokens, data } = this.chain.view;
    this.status.write([
      ["", branchName(this.shown[0])],
      ["sentence", data.sentences.length ? `${this.sentence + 1} of ${data.sentences.length}` : "none"],
      ["token", `${this.place.toLocaleString("en")} ${tokens.cell(this.place)}`],
      ["in", tokens.messageAt(this.place)?.hue ?? "–"],
      ["branches", this.tree.length - 1],
    ]);
    setData(this.root, "sentence", this.sentence);
  }

  settle() {}
}
