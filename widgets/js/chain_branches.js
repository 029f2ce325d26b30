// Continuations beside the original, from where they part; and what the model is busy with.

import { messageName } from "./strip.js";
import { h, setData, setText } from "./surface.js";
import { cellText, hueOf, readingText } from "./tokens.js";

const KERNEL_PATIENCE_MS = 8000;
const TICK_MS = 500;

export class ChainBranches {
  constructor(view) {
    this.view = view;
    this.chosen = 0;
    this.state = { state: "idle" };
    this.job = h("div", { class: "moe-job", role: "status", hidden: true });
    this.error = h("div", { class: "moe-job-error", role: "alert", hidden: true });
    this.tabs = h("div", { class: "moe-branch-tabs", role: "group", "aria-label": "Branches" });
    this.body = h("div", { class: "moe-branch-body" });
    this.element = h(
      "section",
      { class: "moe-branches", "aria-label": "Branches: what if it had said otherwise", hidden: true },
      this.job,
      this.error,
      this.tabs,
      this.body,
    );
    this.onJob = () => this.jobChanged(view.model.get("_job"));
    this.onBranches = () => this.branchesChanged();
    view.model.on("change:_job", this.onJob);
    view.model.on("change:_branches", this.onBranches);
    this.write();
  }

  close() {
    clearInterval(this.timer);
    this.view.model.off("change:_job", this.onJob);
    this.view.model.off("change:_branches", this.onBranches);
  }

  get list() {
    return this.view.model.get("_branches") ?? [];
  }

  get isBusy() {
    return this.state.state === "sent" || this.state.state === "running";
  }

  // Ask the kernel to go on; one at a time.
  ask(wish, put) {
    if (this.isBusy) return;
    this.view.model.send({ continue: wish });
    this.become({ state: "sent", token: wish.token, put });
  }

  jobChanged(job) {
    if (job?.state) this.become(job);
  }

  become(job) {
    clearInterval(this.timer);
    this.state = job;
    this.since = Date.now();
    if (this.isBusy) this.timer = setInterval(() => this.writeJob(), TICK_MS);
    this.writeJob();
    this.view.schedule();
  }

  branchesChanged() {
    this.chosen = this.list.length - 1;
    this.write();
    this.view.schedule();
  }

  step(by) {
    this.choose(Math.min(this.list.length - 1, Math.max(0, this.chosen + by)));
  }

  choose(at) {
    if (at < 0 || at === this.chosen) return;
    this.chosen = at;
    this.write();
  }

  writeJob() {
    const { state, words } = this.state;
    this.job.hidden = !this.isBusy;
    this.error.hidden = state !== "failed";
    if (this.isBusy) setText(this.job, this.busyWords());
    if (state === "failed") setText(this.error, `${this.from()} failed: ${readingText(words ?? "")}`);
    this.element.hidden = !this.isBusy && state !== "failed" && !this.list.length;
    setData(this.element, "job", state);
  }

  from() {
    const { token, put } = this.state;
    return `Continuing from token ${token}${put ? ` with ${cellText(put, false)}` : ", chosen anew,"}`;
  }

  busyWords() {
    const waited = Date.now() - this.since;
    const seconds = `${Math.round(waited / 1000)} s`;
    if (this.state.state === "running")
      return `${this.from()}: the model runs · ${seconds} · interrupt the kernel to stop it`;
    const late = waited > KERNEL_PATIENCE_MS ? " — is it running, or busy with a cell?" : "";
    return `${this.from()}: waiting for the kernel · ${seconds}${late}`;
  }

  write() {
    const { list } = this;
    this.tabs.replaceChildren(...list.map((branch, at) => this.tab(branch, at)));
    const branch = list[this.chosen];
    this.body.replaceChildren(...(branch ? this.columns(branch) : []));
    setData(this.element, "branch", branch ? this.chosen : -1);
    this.writeJob();
  }

  tab({ token, was, put }, at) {
    const to = put ? cellText(put, false) : "anew";
    return h(
      "button",
      {
        type: "button",
        class: "moe-chip",
        "aria-pressed": String(at === this.chosen),
        onclick: () => this.choose(at),
      },
      h("b", { text: `branch ${at}` }),
      ` · token ${token}: `,
      h("span", { class: "moe-code", text: `${cellText(was, was.startsWith("<|")) || "end"} → ${to}` }),
    );
  }

  columns(branch) {
    const { generated, truncated, temperature, seed, answers, same } = branch;
    const drawn = temperature === 0 ? "greedy" : temperature === null ? "" : `T = ${temperature}, seed ${seed}`;
    const facts = [`${generated.toLocaleString("en")} tokens generated`, drawn, truncated && `✂ ${truncated}`];
    const verdict = same === null ? "no answer to compare" : same ? "same answer" : "other answer";
    return [
      this.column("original, from here", branch.original, answers[0], []),
      this.column(`branch ${this.chosen}`, branch.branch, answers[1], facts.filter(Boolean)),
      h(
        "div",
        { class: "moe-secondary moe-branch-foot" },
        h("b", { class: "moe-verdict", text: verdict }),
        ` · one continuation, n = 1: it says what can follow, not how often · view.branches[${this.chosen}] holds the trace`,
      ),
    ];
  }

  column(name, { blocks, more }, answer, facts) {
    return h(
      "div",
      { class: "moe-branch" },
      h(
        "div",
        { class: "moe-panel-title" },
        h("b", { text: name }),
        ...facts.map((text) => h("span", { class: "moe-secondary", text: ` · ${text}` })),
        h(
          "span",
          { class: "moe-branch-answer" },
          "answer ",
          h("b", { class: "moe-code", text: answer === null ? "none" : readingText(answer) }),
        ),
      ),
      h(
        "div",
        { class: "moe-branch-text", tabindex: "0", role: "region", "aria-label": name },
        ...blocks.map((block) => this.block(block)),
        ...(more > 0 ? [h("div", { class: "moe-secondary", text: `${more.toLocaleString("en")} more tokens` })] : []),
        ...(blocks.length ? [] : [h("div", { class: "moe-secondary", text: "nothing is said from here on" })]),
      ),
    );
  }

  block(block) {
    return h(
      "div",
      { class: "moe-message", "data-hue": hueOf(block.role, block.channel) },
      h("div", { class: "moe-channel" }, h("b", { text: messageName(block) })),
      h(
        "div",
        { class: "moe-content" },
        ...(block.put ? [h("span", { class: "moe-put", text: readingText(block.put) })] : []),
        readingText(block.text),
      ),
    );
  }
}
