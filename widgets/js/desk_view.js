// The review desk: queue at the left, transcript in the middle, evidence and verdict at the right.

import { DeskForm } from "./desk_form.js";
import { DeskGiven, DeskHeader, DeskScores, DeskSignals } from "./desk_given.js";
import { DeskInternals } from "./desk_internals.js";
import { DeskKernel } from "./desk_kernel.js";
import { DESK_HINTS, DESK_KEYS, deskAction } from "./desk_keys.js";
import { DeskList } from "./desk_list.js";
import { LocalModel } from "./desk_selection.js";
import { DeskText } from "./desk_text.js";
import { DeskTranscript } from "./desk_transcript.js";
import { DeskVerdict } from "./desk_verdict.js";
import { draftBadge, logBadge, reviewWords, traceWords } from "./desk_words.js";
import { StatusLine } from "./parts.js";
import { Selection, withinCounts } from "./selection.js";
import { h, setData, setText } from "./surface.js";
import { readingText } from "./tokens.js";
import { View } from "./view.js";

const OPEN_AFTER_MS = 350; // j and k pass by what is not rested on: each opening is an event of the log
const LONGEST_LOOK_MS = 1500;
const LONGEST_CHOSEN = 100; // tokens that are quoted of what is chosen
const FIELDS = "input, textarea, select";
const HEARD = ["_draft", "_trace", "_messages", "_list", "_summary", "_log", "_calibration", "internals"];

const draftState = ({ error, saving }) => (error ? "failed" : saving ? "saving" : "saved");

export class DeskView extends View {
  constructor(model, el) {
    super(model, el, { label: `Review desk: ${model.get("_facts").review}`, className: "moe-desk" });
    this.box.dataset.noPicture = ""; // of the internals too, which stand in it
    for (const name of HEARD) model.on(`change:${name}`, this.onTrait);
    this.root.addEventListener("keydown", (event) => this.fieldKey(event), true);
    this.onHide = () => this.verdict.draft.flush();
    window.addEventListener("pagehide", this.onHide);
    document.addEventListener("visibilitychange", this.onHide);
    this.box.append(this.internals.element); // a view of its own, beside this one's keys
    this.internals.show(model.get("internals"));
    if (!model.get("_log").problems) this.look();
  }

  close() {
    super.close();
    this.verdict.draft.flush();
    clearTimeout(this.opening);
    for (const name of HEARD) this.model.off(`change:${name}`, this.onTrait);
    window.removeEventListener("pagehide", this.onHide);
    document.removeEventListener("visibilitychange", this.onHide);
    this.transcript.close();
    this.internals.close();
    this.kernel.close();
  }

  get trace() {
    return this.model.get("_trace");
  }

  get evidence() {
    return this.verdict.content.evidence;
  }

  // A token is shared with views of the open trace, once the whole of it may be seen.
  join(model) {
    this.adoptTrace(model);
    this.local = new LocalModel(this.trace.key ?? "", this.text.pieces[this.at]?.token ?? 0);
    this.selected = new Selection(this.local, { clamp: (wanted) => this.clamp(wanted), moved: () => this.followed() });
  }

  clamp(wanted) {
    const { counts, numTokens = 1 } = this.trace;
    return withinCounts(wanted, counts ?? { token: numTokens, layer: 1, head: 1, expert: 1 });
  }

  adoptTrace(model) {
    this.messages = model.get("_messages");
    this.text = new DeskText(this.messages);
    const kept =
      this.visit === this.trace.visit && this.text.count ? this.text.at(this.selection.token) : this.text.first;
    this.at = this.anchor = kept;
  }

  build() {
    const { facts } = this;
    this.onTrait = () => this.heard();
    this.kernel = new DeskKernel(this.model, (late) => this.becameLate(late));
    this.verdict = new DeskVerdict(this);
    this.header = new DeskHeader(this, facts, reviewWords(facts));
    this.list = new DeskList(this);
    this.transcript = new DeskTranscript(this);
    this.form = new DeskForm(this, facts);
    this.given = new DeskGiven(this, facts);
    this.scores = new DeskScores(facts.reviewer);
    this.signals = new DeskSignals(this);
    this.internals = new DeskInternals(this);
    this.status = new StatusLine(DESK_HINTS);
    this.said = h("span", { class: "moe-desk-said", role: "status" });
    this.status.element.insertBefore(this.said, this.status.keys);
    this.name = h("div", { class: "moe-desk-name", role: "heading", "aria-level": "3" });
    this.problem = h("p", { class: "moe-job-error", role: "alert", hidden: true });
    const middle = h(
      "section",
      { class: "moe-desk-middle", "aria-label": "Trace" },
      ...[this.name, this.problem, this.transcript.element, this.signals.element, this.internals.bar],
    );
    this.right = h("aside", { class: "moe-desk-right", "aria-label": "Evidence and verdict", tabindex: "0" });
    this.right.append(this.given.element, this.form.element, this.scores.element);
    this.adoptVisit();
    return [
      this.header.element,
      h("div", { class: "moe-desk-columns" }, this.list.element, middle, this.right),
      this.status.element,
    ];
  }

  keyList() {
    return DESK_KEYS;
  }

  actionOf(event) {
    return deskAction(event);
  }

  // Out of a field, or saving from within one; everything else that is typed stays in it.
  fieldKey(event) {
    const inField = event.target.closest(FIELDS);
    const saves = event.key === "Enter" && (event.ctrlKey || event.metaKey);
    if (!saves && !(inField && event.key === "Escape")) return;
    event.preventDefault();
    event.stopPropagation();
    if (saves) this.verdict.submit();
    else if (inField === this.list.field) this.endSearch();
    else this.root.focus();
  }

  // --- what Python says ---

  heard() {
    if (this.model.get("_messages") !== this.messages || this.trace.visit !== this.visit) {
      this.selected.close();
      this.rejoin();
    } else this.adoptDraft();
    this.internals.show(this.model.get("internals"));
    this.schedule();
  }

  // Another trace, or more of this one.
  rejoin() {
    const isSame = this.visit === this.trace.visit;
    this.join(this.model);
    this.transcript.reset();
    if (!isSame) this.adoptVisit();
  }

  adoptVisit() {
    this.visit = this.trace.visit;
    this.wanted = this.trace.trace;
    const kept = this.model.get("_draft");
    const inMemory = this.trace.state === "unassigned";
    this.verdict.draft.load(kept.trace === this.trace.trace ? { ...kept, inMemory } : {});
    this.form.reset(this.verdict.content);
    this.right.scrollTop = 0;
  }

  // Another view of this desk filled something in, and nothing is being filled in here.
  adoptDraft() {
    const { draft } = this.verdict;
    const kept = this.model.get("_draft");
    if (kept.trace !== draft.trace || !kept.kept || draft.state.saving || this.root.contains(document.activeElement))
      return;
    if (JSON.stringify(kept.content) === JSON.stringify(draft.content)) return;
    draft.load(kept);
    this.form.reset(draft.content);
  }

  becameLate(isLate) {
    this.isLate = isLate;
    this.say(isLate ? "no answer from the kernel: is it running, or busy with a cell?" : "");
    this.schedule();
  }

  say(words) {
    setText(this.said, words);
  }

  async ask(what, rest) {
    const answer = await this.kernel.ask(what, rest);
    this.form.complain(answer.error ?? "");
    this.schedule();
    return answer;
  }

  // --- the list ---

  goInList(by) {
    const to = this.list.beside(this.wanted, by);
    if (!to) {
      this.turnBy(by);
      return;
    }
    this.wanted = to;
    clearTimeout(this.opening);
    this.opening = setTimeout(() => this.openWanted(), OPEN_AFTER_MS);
    this.schedule();
  }

  openWanted() {
    clearTimeout(this.opening);
    if (this.wanted && this.wanted !== this.trace.trace) this.openNow(this.wanted);
  }

  async openNow(trace) {
    this.root.focus({ preventScroll: true }); // the row that was clicked is soon another
    this.wanted = trace;
    this.verdict.draft.flush();
    this.say("");
    await this.ask("open", { trace });
    this.wanted = this.trace.trace;
    this.schedule();
  }

  turnBy(by) {
    const { start, more, items } = this.model.get("_list");
    if (by > 0 ? !more : !start) return;
    this.turn({ start: by > 0 ? start + items.length : Math.max(0, start - this.pageSize) });
  }

  get pageSize() {
    return this.facts.page;
  }

  async turn(changes) {
    const { kind, order } = { ...this.model.get("_list"), ...changes };
    this.root.focus();
    await this.ask("page", { kind, order, start: changes.start ?? null });
    const { items } = this.model.get("_list");
    if (!items.some((item) => item.trace === this.wanted)) this.wanted = items[0]?.trace ?? this.wanted;
  }

  switchMode() {
    if (!this.facts.mayAdjudicate) return this.say("only who may adjudicate sees disagreements");
    const { kind } = this.model.get("_list");
    return this.turn({ kind: kind === "settle" ? "queue" : "settle", order: "signals" });
  }

  search(words) {
    if (words.trim()) this.ask("search", { words });
  }

  endSearch() {
    this.list.search.hidden = true;
    this.root.focus();
    if (this.model.get("_list").kind === "search") this.turn({ kind: "queue", order: "signals" });
  }

  async claim(number) {
    const { taken } = await this.ask("claim", { number });
    if (taken !== undefined) this.say(taken ? `${taken} traces taken` : "no trace is left that lacks a reviewer");
  }

  async look() {
    const began = Date.now();
    await this.kernel.ask("look");
    this.lookMs = Date.now() - began;
  }

  // After each verdict, unless the log is so long that the next trace would have to wait.
  lookAgain() {
    if (!(this.lookMs > LONGEST_LOOK_MS)) this.look();
  }

  // --- the transcript ---

  get chosen() {
    if (this.at < 0 || !this.text.count) return null;
    const { start, stop } = this.text.range(this.anchor, this.at);
    const { channel } = this.text.messages[this.text.pieces[this.at].message];
    return { channel, start, stop, text: this.text.text(start, Math.min(stop, start + LONGEST_CHOSEN)) };
  }

  point(piece, extend) {
    if (this.at < 0) return;
    if (!extend) this.anchor = Math.max(0, Math.min(this.text.count - 1, piece));
    this.at = extend ? this.text.within(piece, this.anchor) : this.anchor;
    this.select({ token: this.text.pieces[this.at].token });
  }

  // Another view of the trace moved the token.
  followed() {
    const at = this.text.at(this.selection.token);
    if (at !== this.at) this.at = this.anchor = at;
    this.schedule();
  }

  step(by, extend) {
    if (this.at >= 0) this.point(this.at + by, extend);
  }

  stepMessage(by) {
    if (this.at >= 0) this.point(this.text.messageStep(this.at, by), false);
  }

  stepEnd(by, extend) {
    if (this.at < 0) return;
    const { from, to } = this.text.messages[this.text.pieces[this.at].message];
    this.point(by < 0 ? from : to - 1, extend);
  }

  showTokens(start, stop) {
    if (this.at < 0) return;
    this.point(this.text.at(start), false);
    this.point(this.text.at(stop - 1), true);
  }

  // An empty chain has no text to reveal, but signals may tell of it.
  reveal() {
    const { trace, hidden, hiddenSignals } = this.trace;
    if (hidden || hiddenSignals) this.ask("reveal", { trace });
  }

  showInternals(name) {
    return this.internals.toggle(name);
  }

  escape() {
    this.help.close();
    if (this.model.get("_list").kind === "search") this.endSearch();
  }

  // --- drawing ---

  resize() {}

  draw() {
    const { model, trace, facts } = this;
    // Served alone there is no notebook whose keys it would take.
    if (!this.wasDrawn && !document.querySelector(".jp-NotebookPanel")) this.root.focus({ preventScroll: true });
    this.wasDrawn = true;
    const hadFocus = this.root.contains(document.activeElement); // what has it may be drawn anew
    this.header.show(model.get("_summary"), trace.embedded);
    this.header.badge(this.header.log, logBadge(model.get("_log")));
    const late = this.isLate && Boolean(this.verdict.draft.state.saving);
    this.header.badge(this.header.saved, draftBadge({ ...this.verdict.draft.state, late }));
    this.header.alarmed(model.get("_log").problems);
    this.list.show(model.get("_list"), model.get("_summary"), facts);
    this.list.mark(trace.trace, this.wanted);
    this.drawTrace(trace);
    this.given.show(trace.given ?? []);
    this.scores.show(model.get("_calibration"));
    this.form.draw(this.verdict.content, {
      ...{
        isHidden: Boolean(trace.hidden),
        isClosed: this.verdict.isClosed,
        closed: this.verdict.closed,
        chosen: this.chosen,
      },
      ...{ experiments: trace.experiments ?? [], isOwn: trace.state === "done", isBusy: this.verdict.isBusy },
      ...{ settles: trace.state === "unassigned", blind: facts.blind && trace.state === "assigned" },
    });
    this.internals.draw(trace);
    const chain = trace.hidden ? "hidden" : trace.revealed ? "revealed" : "none hidden";
    this.status.write([
      trace.trace ? ["trace", readingText(trace.name ?? "")] : null,
      trace.trace ? ["chain", chain] : null,
    ]);
    setData(this.root, "trace", trace.name ?? "");
    setData(this.root, "chain", trace.trace ? chain : "");
    setData(this.root, "draft", late ? "late" : draftState(this.verdict.draft.state));
    if (hadFocus && !this.root.contains(document.activeElement)) this.root.focus({ preventScroll: true });
  }

  drawTrace(trace) {
    const facts = trace.numTokens ? h("span", { class: "moe-secondary", text: traceWords(trace) }) : "";
    this.name.replaceChildren(h("b", { text: readingText(trace.name ?? "") }), facts);
    this.problem.hidden = !trace.problem;
    setText(this.problem, trace.problem ? readingText(trace.problem) : "");
    if (trace.trace && !trace.problem) this.transcript.draw();
    else this.transcript.say(trace.problem ? "" : "Nothing is left to read. What is done stays in the queue.");
    if (trace !== this.signalled) this.signals.show(trace);
    this.signalled = trace;
  }

  settle() {}
}
