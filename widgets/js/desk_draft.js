// The verdict as it is being made: what is filled in, and whether the database has it.

import { emptyVerdict } from "./desk_words.js";

const PAUSE_MS = 600;
const RETRY_MS = 20_000;

export class DeskDraft {
  // `save(trace, content)` resolves to {saved}, or {error, memory}; `changed()` is called when there is news.
  constructor(save, changed) {
    Object.assign(this, { save, changed, trace: "", content: emptyVerdict(), state: {}, dirty: false });
  }

  // Begin with what is kept of a trace.
  load({ trace, content, saved, kept, inMemory }) {
    this.flush(); // of the trace before
    this.trace = trace ?? "";
    this.content = { ...emptyVerdict(), ...content };
    this.dirty = false;
    const failed = inMemory ? {} : { error: "the database could not be written when it was saved" };
    this.state = !kept ? {} : saved ? { saved } : { memory: true, ...failed };
  }

  set(changes) {
    Object.assign(this.content, changes);
    this.dirty = true;
    this.state = { ...this.state, saving: true };
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), PAUSE_MS);
    this.changed();
  }

  // Save now what is not saved.
  async flush() {
    clearTimeout(this.timer);
    if (!this.dirty || !this.trace) return;
    const { trace } = this;
    this.dirty = false;
    const { saved, error, memory } = await this.save(trace, structuredClone(this.content));
    if (trace !== this.trace) return;
    this.state = { error, memory, saved, saving: !error && this.dirty };
    if (error) this.retry();
    this.changed();
  }

  retry() {
    this.dirty = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), RETRY_MS);
  }

  // It is given as a verdict: nothing is left to save.
  settle() {
    clearTimeout(this.timer);
    this.dirty = false;
  }
}
