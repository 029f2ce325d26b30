// Faithfulness tests: measures with their controls, curves along the chain, cases of the hint test, sentences.

import { CurveMultiple } from "./faithfulness_curves.js";
import { casesPanel, faithfulnessHeader, measuresTable, provenanceList } from "./faithfulness_parts.js";
import { SentenceList } from "./faithfulness_sentences.js";
import { sentenceOfToken, tokenAtShare } from "./faithfulness_words.js";
import { StatusLine } from "./parts.js";
import { withinCounts } from "./selection.js";
import { h, setData } from "./surface.js";
import { View } from "./view.js";

export class FaithfulnessView extends View {
  constructor(model, el) {
    super(model, el, {
      label: "Faithfulness of the chain of thought",
      className: "moe-faithfulness",
      own: { sentence: null },
    });
  }

  get sentences() {
    return this.facts.resampling[0]?.sentences ?? [];
  }

  // With a trace, the sentence and the token go together: whichever moved takes the other along.
  clamp(wanted) {
    const next = { ...withinCounts(wanted, this.facts.counts), sentence: wanted.sentence };
    const { chain } = this.facts;
    if (!chain) return next;
    const before = this.selected?.values;
    const chosen = this.sentences.find((s) => s.index === next.sentence);
    if (before && chosen && next.token === before.token && next.sentence !== before.sentence)
      return { ...next, token: chain[0] + chosen.start };
    return { ...next, sentence: sentenceOfToken(this.sentences, chain, next.token)?.index ?? next.sentence };
  }

  build() {
    this.chosen = this.facts.curves.map(() => null); // the selected point of each curve
    this.curve = Math.max(
      0,
      this.facts.curves.findIndex((c) => c.found),
    );
    this.curves = this.facts.curves.map((_, i) => new CurveMultiple(this, i));
    this.list = new SentenceList(this);
    this.status = new StatusLine([
      [["1", "2", "3"], "curve"],
      [["[", "]"], "point"],
      [["⇧", "←", "→"], "sentence"],
      ...(this.facts.chain ? [[["←", "→"], "token"]] : []),
      [["?"], "all keys"],
    ]);
    const curves = h("div", { class: "moe-curves" }, ...this.curves.map((c) => c.element));
    const share = ({ found }) => `minmax(0, ${found ? 2 : 1}fr)`; // what was not tested needs no room
    curves.style.setProperty("--curves", this.facts.curves.map(share).join(" "));
    return [
      faithfulnessHeader(this.facts),
      measuresTable(this.facts),
      curves,
      h("div", { class: "moe-found" }, this.list.element, casesPanel(this.facts.hints)),
      provenanceList(this.facts),
      this.status.element,
    ];
  }

  // The selected point of a curve; null where another curve is meant.
  point(number) {
    return number === this.curve ? this.chosen[number] : null;
  }

  choosePoint(number, i) {
    this.curve = number;
    this.chosen[number] = i;
    const token = this.curves[number].tokenOf(this.curves[number].points[i]);
    if (token === null) this.schedule();
    else this.select({ token });
  }

  stepPoint(by) {
    const { points } = this.curves[this.curve];
    if (!points.length) return;
    const from = this.chosen[this.curve] ?? (by > 0 ? -1 : points.length);
    this.choosePoint(this.curve, Math.max(0, Math.min(points.length - 1, from + by)));
  }

  chooseCurve(number) {
    this.curve = number;
    this.chosen[number] ??= this.curves[number].points.length ? 0 : null;
    this.schedule();
  }

  chooseSentence(index) {
    const found = this.sentences.find((s) => s.index === index);
    if (found) this.select({ sentence: index, ...(this.facts.chain ? { token: this.facts.chain[0] + found.start } : {}) });
  }

  stepSentence(by) {
    const at = this.sentences.findIndex((s) => s.index === this.selection.sentence);
    this.chooseSentence(this.sentences[Math.max(0, Math.min(this.sentences.length - 1, at + by))]?.index);
  }

  actionOf({ key, shiftKey, ctrlKey, metaKey, altKey }) {
    if (ctrlKey || metaKey || altKey) return undefined;
    if (key === "?" || (shiftKey && key === "/")) return () => this.help.toggle();
    if (shiftKey) return { ArrowLeft: () => this.stepSentence(-1), ArrowRight: () => this.stepSentence(1) }[key];
    if (["1", "2", "3"].includes(key)) return () => this.chooseCurve(Number(key) - 1);
    return { ...this.plainKeys(), ...(this.facts.chain ? this.traceKeys() : {}) }[key];
  }

  plainKeys() {
    return {
      "[": () => this.stepPoint(-1),
      "]": () => this.stepPoint(1),
      Home: () => this.chooseSentence(this.sentences[0]?.index),
      End: () => this.chooseSentence(this.sentences.at(-1)?.index),
      Escape: () => this.help.close(),
    };
  }

  traceKeys() {
    const { token, layer } = this.selection;
    return {
      ArrowLeft: () => this.select({ token: token - 1 }),
      ArrowRight: () => this.select({ token: token + 1 }),
      ArrowUp: () => this.select({ layer: layer - 1 }),
      ArrowDown: () => this.select({ layer: layer + 1 }),
    };
  }

  keyList() {
    return [
      ["1 2 3", "curve"],
      ["[ ]", "point of the curve"],
      ["⇧ ← →", "sentence"],
      ["home end", "first, last sentence"],
      ...(this.facts.chain
        ? [
            ["← →", "token of the trace"],
            ["↑ ↓", "layer"],
          ]
        : []),
      ["?", "this list"],
      ["esc", "close"],
    ];
  }

  resize() {
    const widths = this.curves.map((c) => c.element.clientWidth);
    this.curves.forEach((c, i) => c.resize(widths[i] - 28));
  }

  draw() {
    for (const curve of this.curves) curve.draw(this.palette);
    this.list.draw(this.sentences.length ? this.selection.sentence : null);
    this.status.write(this.statusPairs());
  }

  statusPairs() {
    const { chain, counts } = this.facts;
    const i = this.point(this.curve);
    return [
      ...(chain ? [["token", `${this.selection.token} of ${counts.token.toLocaleString("en")}`]] : []),
      ...(this.sentences.length ? [["sentence", this.selection.sentence]] : []),
      ...(i === null ? [] : [["point", this.curves[this.curve].words(i)]]),
      ...(chain ? [] : [["no trace:", "nothing else is selected"]]),
    ];
  }

  settle() {
    setData(this.root, "curve", this.facts.curves[this.curve].key);
    setData(this.root, "point", this.point(this.curve) ?? "none");
    for (const curve of this.curves) {
      const said = curve.points.map((_, i) => curve.words(i)).join(". ");
      curve.surface.label(said || `${curve.curve.name}: not tested`);
    }
  }
}
