// What the model is busy with, how far it is, and the button that stops it.

import { h, setText } from "./surface.js";
import { readingText } from "./tokens.js";

const PATIENCE_MS = 8000;
const DEAF_MS = 3000; // without an answer by then, this kernel hears no button while it is busy
const TICK_MS = 500;
const DEAF = "this kernel hears no button while it is busy: interrupt it (■ in the toolbar)";

export class BenchJob {
  // `onStop` asks Python to stop; `unit` is what is counted.
  constructor(onStop, unit = "runs") {
    this.job = {};
    Object.assign(this, { onStop, unit });
    this.progress = h("progress", { max: 1, "aria-label": `${unit} done` });
    this.busy = h("span", { role: "status" });
    this.stop = h("button", { type: "button", class: "moe-button", text: "Stop", onclick: () => this.ask() });
    this.line = h("div", { class: "moe-bench-job", hidden: true }, this.progress, this.busy, this.stop);
    this.error = h("div", { class: "moe-job-error moe-bench-failed", role: "alert", hidden: true });
    this.elements = [this.line, this.error];
  }

  get isBusy() {
    return this.job.state === "sent" || this.job.state === "running";
  }

  close() {
    clearInterval(this.timer);
    clearTimeout(this.deaf);
  }

  // {state, done, of, words}.
  become(job) {
    if (!this.isBusy) {
      this.since = Date.now();
      this.note = "";
    }
    this.job = job;
    clearInterval(this.timer);
    if (this.isBusy) this.timer = setInterval(() => this.write(), TICK_MS);
    else clearTimeout(this.deaf);
    this.write();
  }

  ask() {
    if (this.job.state !== "running" || this.note) return;
    this.note = "asking the kernel to stop";
    this.deaf = setTimeout(() => this.say(DEAF), DEAF_MS);
    this.write();
    this.onStop();
  }

  // Python's answer to a wish to stop.
  answered(isStopping) {
    clearTimeout(this.deaf);
    this.say(isStopping ? "stopping after this token" : "");
  }

  say(note) {
    this.note = note;
    this.write();
  }

  write() {
    const { state, done = 0, of = 1, words } = this.job;
    const waited = Date.now() - this.since;
    this.line.hidden = !this.isBusy;
    this.progress.value = done / of;
    this.stop.hidden = state !== "running";
    this.stop.disabled = Boolean(this.note);
    const seconds = `${Math.round(waited / 1000)} s`;
    const late = waited > PATIENCE_MS ? " — is it running, or busy with a cell?" : "";
    const running = [`${done} of ${of} ${this.unit} done`, seconds, this.note].filter(Boolean).join(" · ");
    if (this.isBusy) setText(this.busy, state === "running" ? running : `waiting for the kernel · ${seconds}${late}`);
    this.error.hidden = state !== "failed";
    setText(this.error, state === "failed" ? `not done: ${readingText(words ?? "")}` : "");
  }
}
