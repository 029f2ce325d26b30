// The bench: what to change, what the model is busy with, what followed, and what was done before.

import { BenchForm } from "./bench_form.js";
import { BenchResult } from "./bench_result.js";
import { answerChange, doneWords, natsWords } from "./bench_words.js";
import { badges } from "./header.js";
import { StatusLine } from "./parts.js";
import { h, setData, setText } from "./surface.js";
import { readingText } from "./tokens.js";
import { View } from "./view.js";

const PATIENCE_MS = 8000;
const TICK_MS = 500;
const LISTENED = ["_job", "_history", "_result", "shown"];

export class BenchView extends View {
  constructor(model, el) {
    super(model, el, { label: "Intervention bench", className: "moe-bench" });
    this.onTrait = Object.fromEntries(LISTENED.map((name) => [name, () => this.heard(name)]));
    for (const name of LISTENED) model.on(`change:${name}`, this.onTrait[name]);
    this.heard("_job");
    this.heard("_result");
  }

  close() {
    super.close();
    clearInterval(this.timer);
    for (const name of LISTENED) this.model.off(`change:${name}`, this.onTrait[name]);
  }

  get history() {
    return this.model.get("_history") ?? [];
  }

  get shown() {
    return this.model.get("shown");
  }

  get isBusy() {
    return this.job?.state === "sent" || this.job?.state === "running";
  }

  build() {
    this.form = new BenchForm(this, (wish) => this.ask({ run: wish }));
    this.result = new BenchResult(this);
    this.progress = h("progress", { max: 1, "aria-label": "Runs done" });
    this.busy = h("span", { role: "status" });
    this.jobLine = h("div", { class: "moe-bench-job", hidden: true }, this.progress, this.busy);
    this.error = h("div", { class: "moe-job-error moe-bench-failed", role: "alert", hidden: true });
    this.list = h("ol", { class: "moe-bench-list" });
    this.past = h("section", { class: "moe-bench-history", "aria-label": "Experiments", hidden: true }, this.list);
    this.status = new StatusLine([
      [["←", "→"], "token"],
      [["↑", "↓"], "layer"],
      [["[", "]"], "expert, head"],
      [["a"], "add"],
      [["r"], "run"],
      [["?"], "all keys"],
    ]);
    return [
      this.header(),
      this.form.element,
      this.jobLine,
      this.error,
      this.result.element,
      this.past,
      this.status.element,
    ];
  }

  header() {
    const { question, model, embedded } = this.facts;
    const marks = badges({ ...this.facts, arrays: {} }).filter(({ kind }) => kind !== "missing");
    const says = `baseline: ${model}${embedded ? " (embedded: says nothing about gpt-oss)" : ""}`;
    return h(
      "header",
      { class: "moe-header" },
      h("div", { class: "moe-question", role: "heading", "aria-level": "2", text: question, title: question }),
      h(
        "div",
        { class: "moe-header-row" },
        h("div", { class: "moe-facts moe-secondary", text: says }),
        h(
          "div",
          { class: "moe-badges" },
          ...marks.map(({ text, kind, title }) => h("span", { class: `moe-badge moe-badge-${kind}`, text, title })),
        ),
      ),
    );
  }

  // One at a time.
  ask(message) {
    if (this.isBusy || !this.facts.canRun) return;
    this.model.send(message);
    this.become({ state: "sent" });
  }

  heard(name) {
    if (name === "_job") {
      const job = this.model.get("_job");
      if (job?.state) this.become(job);
      return;
    }
    this.result.show(this.history[this.shown], this.model.get("_result"));
    this.writeHistory();
    this.schedule();
  }

  become(job) {
    if (!this.isBusy) this.since = Date.now();
    this.job = job;
    clearInterval(this.timer);
    if (this.isBusy) this.timer = setInterval(() => this.writeJob(), TICK_MS);
    this.writeJob();
    this.form.draw();
    this.writeHistory();
    this.schedule();
  }

  writeJob() {
    const { state, done = 0, of = 1, words } = this.job;
    const waited = Date.now() - this.since;
    this.jobLine.hidden = !this.isBusy;
    this.progress.value = done / of;
    const seconds = `${Math.round(waited / 1000)} s`;
    const late = waited > PATIENCE_MS ? " — is it running, or busy with a cell?" : "";
    const running = `${done} of ${of} runs done · ${seconds} · interrupt the kernel to stop it`;
    if (this.isBusy) setText(this.busy, state === "running" ? running : `waiting for the kernel · ${seconds}${late}`);
    this.error.hidden = state !== "failed";
    setText(this.error, state === "failed" ? `not done: ${readingText(words ?? "")}` : "");
    setData(this.root, "job", state);
  }

  writeHistory() {
    this.past.hidden = !this.history.length;
    this.list.replaceChildren(...this.history.map((record, at) => this.entry(record, at)));
    setData(this.root, "shown", this.shown);
  }

  entry(record, at) {
    const words = `${doneWords(record.done)} · ${answerChange(record)} · KL ${natsWords(record.meanKl)}`;
    return h(
      "li",
      {},
      h("button", {
        type: "button",
        class: "moe-chip",
        "aria-pressed": String(at === this.shown),
        text: words,
        onclick: () => this.choose(at),
      }),
      h("button", {
        type: "button",
        class: "moe-button",
        text: "again",
        "aria-label": `Run experiment ${at + 1} again`,
        disabled: !this.facts.canRun || this.isBusy,
        onclick: () => this.ask({ again: at }),
      }),
    );
  }

  // Python sends the transcript of the experiment that is chosen.
  choose(at) {
    if (at < 0 || at >= this.history.length || at === this.shown) return;
    this.model.set("shown", at);
    this.model.save_changes();
  }

  actionOf({ key, shiftKey, ctrlKey, metaKey, altKey }) {
    if (ctrlKey || metaKey || altKey) return undefined;
    const { token, layer, head, expert } = this.selection;
    const other = (by) => (this.form.isHeads ? { head: head + by } : { expert: expert + by });
    return {
      ArrowLeft: () => this.select({ token: token - 1 }),
      ArrowRight: () => this.select({ token: token + 1 }),
      ArrowUp: () => this.select({ layer: layer - 1 }),
      ArrowDown: () => this.select({ layer: layer + 1 }),
      "[": () => this.select(other(-1)),
      "]": () => this.select(other(1)),
      ",": () => this.choose(this.shown - 1),
      ".": () => this.choose(this.shown + 1),
      a: () => this.form.addSelected(),
      v: () => this.form.variant.focus(),
      r: () => this.form.submit(),
      Escape: () => this.help.close(),
      "?": () => this.help.toggle(),
      "/": shiftKey ? () => this.help.toggle() : undefined,
    }[key];
  }

  keyList() {
    return [
      ["← →", "token of the baseline"],
      ["↑ ↓", "layer"],
      ["[ ]", "expert, or head where a variant of heads is chosen"],
      ["a", "add the selected expert or head"],
      ["v", "choose the variant"],
      ["r", "run"],
      [", .", "experiment before, after"],
      ["?", "this list"],
      ["esc", "close; leave a field"],
    ];
  }

  resize(width) {
    this.result.resize(width);
  }

  draw() {
    this.form.draw();
    this.result.draw(this.palette);
    const { token, layer, head, expert } = this.selection;
    this.status.write([
      ["token", `${token.toLocaleString("en")} ${this.result.before.cell(token)}`],
      ["KL", this.result.klWords()],
      ["layer", layer],
      this.form.isHeads ? ["head", head] : ["expert", expert],
      ["experiments", this.history.length],
    ]);
  }

  settle() {
    this.result.axis.surface.label(`KL along the tokens; at the selected one ${this.result.klWords()}`);
  }
}
