// What the selected sentence does: the rules that fired, and a person's own labels, which replace theirs.

import { firedWords, shownLabels, switched } from "./chain_data.js";
import { h, setData, setText } from "./surface.js";

export class ChainLabels {
  constructor(view) {
    this.view = view;
    this.title = h("b");
    this.by = h("span", { class: "moe-secondary" });
    this.fired = h("div", { class: "moe-chain-fired" });
    this.buttons = view.data.labels.map((label, at) =>
      h(
        "button",
        { type: "button", class: "moe-chip", "aria-pressed": "false", onclick: () => this.switch(at) },
        h("kbd", { text: at + 1 }),
        ` ${label}`,
      ),
    );
    this.reset = h("button", {
      type: "button",
      class: "moe-button",
      text: "back to the rules",
      onclick: () => this.set([]),
    });
    this.element = h(
      "section",
      { class: "moe-chain-rules", "aria-label": "Labels of the sentence" },
      h("div", { class: "moe-panel-title" }, this.title, " ", this.by),
      this.fired,
      h("div", { class: "moe-chain-own", role: "group", "aria-label": "Own labels" }, ...this.buttons, this.reset),
    );
  }

  sentence() {
    const { data, selection } = this.view;
    const number = data.sentenceAt(selection.token);
    return number < 0 ? null : { number, ...data.sentences[number] };
  }

  draw() {
    const sentence = this.sentence();
    const { data, model } = this.view;
    const id = sentence ? sentence.number : -1;
    if (id === this.drawn) return;
    this.drawn = id;
    setText(this.title, sentence ? `Sentence ${sentence.number + 1} of ${data.sentences.length}` : "No sentence");
    const shown = sentence ? shownLabels(sentence, model.get("labels"), model.get("labels_by")) : [];
    const own = shown.some((label) => label.own);
    setText(
      this.by,
      !sentence ? "this token is in none" : own ? `labels by ${model.get("labels_by")}` : "labels by rules",
    );
    this.fired.replaceChildren(...(sentence ? this.rules(sentence) : []));
    const has = new Set(shown.map(({ label }) => label));
    this.buttons.forEach((button, at) => {
      button.disabled = !sentence;
      button.setAttribute("aria-pressed", String(has.has(data.labels[at])));
    });
    this.reset.hidden = !own;
    setData(this.element, "sentence", id);
  }

  // Each label of the rules with what fired, also where a person says otherwise.
  rules({ labels, fired }) {
    return labels.map((label) =>
      h("div", {}, h("b", { text: label }), ` ${firedWords(fired.filter(([given]) => given === label))}`),
    );
  }

  switch(at) {
    const sentence = this.sentence();
    const label = this.view.data.labels[at];
    if (!sentence || !label) return;
    const { model, data } = this.view;
    const now = shownLabels(sentence, model.get("labels"), model.get("labels_by")).map((shown) => shown.label);
    // A first own label is added to what the rules say, but for "unknown", which says nothing.
    const unknown = data.labels.at(-1);
    this.set(switched(label === unknown ? now : now.filter((l) => l !== unknown), data.labels, label));
  }

  set(labels) {
    const sentence = this.sentence();
    const { [sentence.start]: _, ...rest } = this.view.model.get("labels") ?? {};
    this.view.model.set("labels", labels.length ? { ...rest, [sentence.start]: labels } : rest);
    this.view.model.save_changes();
  }

  // Own labels changed.
  refresh() {
    this.drawn = null;
    this.draw();
  }
}
