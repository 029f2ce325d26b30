// The verdict of this reviewer on the open trace: what fills it in, and how it is given.

import { DeskDraft } from "./desk_draft.js";
import { CONFIDENCE_LEVELS, whyNotYet, withEvidence } from "./desk_words.js";

const CLOSED = "All verdicts on this trace are in, so none of them changes.";
const SKIPPED = "You skipped this trace, so it takes no verdict of yours.";

export class DeskVerdict {
  constructor(desk) {
    this.desk = desk;
    this.isBusy = false;
    const save = (trace, content) => desk.kernel.ask("draft", { trace, content });
    this.draft = new DeskDraft(save, () => desk.schedule());
  }

  get content() {
    return this.draft.content;
  }

  fill(changes) {
    if (!this.isClosed && !this.isBusy) this.draft.set(changes);
  }

  setBehaviour(behaviour) {
    const found = this.desk.facts.behaviours.find((b) => b.id === behaviour);
    const { severity } = this.content;
    const only = found?.severities.length === 1 ? found.severities[0] : severity;
    this.fill({ behaviour, severity: found && !found.severities.includes(only) ? null : only });
  }

  setSeverity(severity) {
    const button = this.desk.form.severity.buttons.get(severity);
    if (button && !button.disabled) this.fill({ severity });
    else this.desk.say(button ? "this behaviour has no such severity" : `the rubric has no severity ${severity}`);
  }

  nextConfidence() {
    const at = CONFIDENCE_LEVELS.indexOf(this.content.confidence);
    this.fill({ confidence: CONFIDENCE_LEVELS[(at + 1) % CONFIDENCE_LEVELS.length] });
  }

  toggleTag(tag) {
    const { tags } = this.content;
    this.fill({ tags: tags.includes(tag) ? tags.filter((t) => t !== tag) : [...tags, tag] });
  }

  async mark() {
    const { chosen } = this.desk;
    if (!chosen || this.isClosed) return;
    const { trace } = this.desk.trace;
    const { marked } = await this.desk.ask("mark", { trace, start: chosen.start, stop: chosen.stop });
    if (marked && trace === this.draft.trace) this.fill({ evidence: withEvidence(this.content.evidence, marked) });
  }

  unmark(seen) {
    this.fill({ evidence: this.content.evidence.filter((e) => e !== seen) });
  }

  openTest() {
    if (!this.isClosed) this.desk.form.tests.open();
  }

  addTest(test) {
    this.fill({ causal_tests: [...this.content.causal_tests, test] });
  }

  removeTest(at) {
    this.fill({ causal_tests: this.content.causal_tests.filter((_, i) => i !== at) });
  }

  async submit() {
    const { trace, content } = this.draft;
    if (!trace || this.isBusy) return;
    const why = whyNotYet(content, this.desk.facts, { hidden: this.desk.trace.hidden, closed: this.closed });
    if (why) {
      this.desk.form.complain(`Not saved: ${why}`);
      return;
    }
    this.desk.root.focus({ preventScroll: true });
    await this.give("submit", { trace, content: structuredClone(content) }, "verdict saved");
  }

  openSkip() {
    if (!this.isClosed && this.desk.trace.state === "assigned") this.desk.form.openSkip();
  }

  async skip(reason) {
    if (!this.draft.trace || this.isBusy) return;
    await this.give("skip", { trace: this.draft.trace, reason }, "skipped");
  }

  async give(what, rest, words) {
    this.isBusy = true;
    this.desk.schedule();
    const before = this.desk.visit;
    this.draft.settle();
    const { error } = await this.desk.ask(what, rest);
    this.isBusy = false;
    if (this.desk.visit === before && error) {
      this.draft.set({}); // it stays a draft
      return;
    }
    this.desk.root.focus();
    this.desk.say(words);
    if (error) this.desk.form.complain(error);
    this.desk.lookAgain();
  }

  get closed() {
    const { state, given = [], trace, problem } = this.desk.trace;
    if (!trace || problem) return "No trace is open.";
    if (state === "skipped") return SKIPPED;
    const done = state === "done" || (state === "unassigned" && given.some((one) => one.adjudicates));
    return done && given.some((one) => !one.own) && this.desk.facts.blind ? CLOSED : "";
  }

  get isClosed() {
    return Boolean(this.closed);
  }
}
