// What the model is busy with: progress, how long it took so far, and what went wrong.

import { h, setText } from "./surface.js";
import { readingText } from "./tokens.js";

const JOB_PATIENCE_MS = 8000;
const JOB_TICK_MS = 500;

export class JobLine {
  // `unit` names what is counted, such as rollouts.
  constructor(unit) {
    this.unit = unit;
    this.job = { state: "idle" };
    this.progress = h("progress", { max: 1, "aria-label": `${unit} done` });
    this.words = h("span", { role: "status" });
    this.line = h("div", { class: "moe-job-line", hidden: true }, this.progress, this.words);
    this.error = h("div", { class: "moe-job-error", role: "alert", hidden: true });
    this.elements = [this.line, this.error];
  }

  get isBusy() {
    return this.job.state === "sent" || this.job.state === "running";
  }

  become(job) {
    if (!this.isBusy) this.since = Date.now();
    this.job = job;
    clearInterval(this.timer);
    if (this.isBusy) this.timer = setInterval(() => this.write(), JOB_TICK_MS);
    this.write();
  }

  write() {
    const { state, done = 0, of = 1, words = "" } = this.job;
    this.line.hidden = !this.isBusy;
    this.error.hidden = state !== "failed";
    this.progress.value = done / of;
    if (this.isBusy) setText(this.words, this.busyWords(state, done, of));
    setText(this.error, state === "failed" ? `not done: ${readingText(words)}` : "");
  }

  busyWords(state, done, of) {
    const waited = Date.now() - this.since;
    const seconds = `${Math.round(waited / 1000)} s`;
    if (state === "running")
      return `${done} of ${of} ${this.unit} done · ${seconds} · interrupt the kernel to stop, what is done is kept`;
    const late = waited > JOB_PATIENCE_MS ? " — is it running, or busy with a cell?" : "";
    return `waiting for the kernel · ${seconds}${late}`;
  }

  close() {
    clearInterval(this.timer);
  }
}
