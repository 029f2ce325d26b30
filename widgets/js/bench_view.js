// The bench: what to change, what the model is busy with, what followed, and what was done before.

import { Amounts } from "./bench_amounts.js";
import { BenchForm } from "./bench_form.js";
import { BenchHistory } from "./bench_history.js";
import { BenchJob } from "./bench_job.js";
import { BenchResult } from "./bench_result.js";
import { badges } from "./header.js";
import { StatusLine } from "./parts.js";
import { h, setData } from "./surface.js";
import { View } from "./view.js";
import { EVERYWHERE, viewAction } from "./view_keys.js";

const LISTENED = ["_history", "_result", "shown"];

export class BenchView extends View {
  constructor(model, el) {
    super(model, el, { label: "Intervention bench", className: "moe-bench" });
    this.onJob = () => this.heardJob();
    this.onResult = () => this.heardResult();
    this.onMessage = (message) => message?.stopping !== undefined && this.job.answered(message.stopping);
    model.on("change:_job", this.onJob);
    model.on("msg:custom", this.onMessage);
    for (const name of LISTENED) model.on(`change:${name}`, this.onResult);
    this.heardJob();
    this.heardResult();
  }

  close() {
    super.close();
    this.job.close();
    this.amounts.close();
    this.model.off("change:_job", this.onJob);
    this.model.off("msg:custom", this.onMessage);
    for (const name of LISTENED) this.model.off(`change:${name}`, this.onResult);
  }

  get history() {
    return this.model.get("_history") ?? [];
  }

  get shown() {
    return this.model.get("shown");
  }

  get isBusy() {
    return this.job.isBusy;
  }

  build() {
    this.job = new BenchJob(() => this.model.send({ stop: true }));
    this.amounts = new Amounts(this.model, this.facts, () => this.schedule());
    this.form = new BenchForm(this, (wish) => this.ask({ run: wish }));
    this.result = new BenchResult(this);
    this.past = new BenchHistory({ onShow: (at) => this.choose(at), onAgain: (at) => this.ask({ again: at }) });
    this.status = new StatusLine([
      [["←", "→"], "token"],
      [["↑", "↓"], "layer"],
      [["[", "]"], "expert, head"],
      [["a"], "pick"],
      [["r"], "run"],
      [["?"], "all keys"],
    ]);
    return [
      this.header(),
      this.form.element,
      ...this.job.elements,
      this.result.element,
      this.past.element,
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

  heardJob() {
    const job = this.model.get("_job");
    if (job?.state) this.become(job);
  }

  // The history, the one that is shown and its transcript come one after the other: they are drawn together.
  heardResult() {
    this.isStale = true;
    this.schedule();
  }

  become(job) {
    const wasBusy = this.isBusy;
    this.job.become(job);
    setData(this.root, "job", job.state);
    if (wasBusy !== this.isBusy) this.schedule();
  }

  writeResult() {
    this.isStale = false;
    const { history, shown } = this;
    this.result.show(history[shown], this.model.get("_result"), shown);
    this.past.write(history);
    setData(this.root, "shown", shown);
  }

  // Python sends the transcript of the experiment that is chosen.
  choose(at) {
    if (at < 0 || at >= this.history.length || at === this.shown) return;
    this.model.set("shown", at);
    this.model.save_changes();
  }

  actionOf(event) {
    const { form, selection } = this;
    const { token, layer, head, expert } = selection;
    const other = { experts: (by) => ({ expert: expert + by }), heads: (by) => ({ head: head + by }) };
    const step = (by) => this.select(other[form.kind]?.(by) ?? { layer: layer + by });
    return viewAction(this, event, {
      ArrowLeft: () => this.select({ token: token - 1 }),
      ArrowRight: () => this.select({ token: token + 1 }),
      Home: () => this.select({ token: 0 }),
      End: () => this.select({ token: this.facts.numTokens - 1 }),
      "[": () => step(-1),
      "]": () => step(1),
      ",": () => this.choose(this.shown - 1),
      ".": () => this.choose(this.shown + 1),
      a: () => form.fields.toggleSelected(),
      m: () => form.another.click(),
      t: () => form.fields.setToken(token),
      v: () => form.fields.variant.focus(),
      r: () => form.submit(),
      s: () => this.job.ask(),
    });
  }

  keyList() {
    return [
      ["← →", "token of the baseline"],
      ["home end", "first, last token"],
      ["↑ ↓", "layer"],
      ["[ ]", "expert, or head where a variant of heads is chosen"],
      ["a", "pick the selected expert or head, or leave it; of the residual stream: the layer"],
      ["t", "at the selected token alone"],
      ["m", "one more change, made together"],
      ["v", "choose the variant"],
      ["r", "run"],
      ["s", "stop what runs"],
      [", .", "experiment before, after"],
      ...EVERYWHERE,
    ];
  }

  resize(width) {
    this.form.resize(width - 28);
    this.result.resize(width);
  }

  draw() {
    if (this.isStale) this.writeResult();
    this.past.mark(this.shown, this.facts.canRun && !this.isBusy);
    this.form.draw(this.palette);
    this.result.draw(this.palette);
    const { token, layer, head, expert } = this.selection;
    const { kind, said } = this.form;
    const which = { experts: ["expert", expert], heads: ["head", head] }[kind];
    this.status.write([
      ["token", `${token.toLocaleString("en")} ${this.result.before.cell(token)}`],
      ["KL", this.result.klWords()],
      ["layer", layer],
      which && [which[0], `${which[1]}: ${said ?? ""}`],
      ["experiments", this.history.length],
    ]);
  }

  settle() {
    this.result.axis.surface.label(`KL along the tokens; at the selected one ${this.result.klWords()}`);
  }
}
