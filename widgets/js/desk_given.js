// Verdicts that were given on the open trace and may be seen, side by side; and scores on calibration traces.

import {
  calibrationWords,
  clockTime,
  measuredShort,
  measuredWords,
  moreHidden,
  placeOf,
  quoteWords,
  rolloutsWords,
  secondsWords,
} from "./desk_words.js";
import { h, setText } from "./surface.js";
import { readingText } from "./tokens.js";

export class DeskGiven {
  constructor(desk, facts) {
    Object.assign(this, { desk, facts });
    this.columns = h("div", { class: "moe-desk-verdicts" });
    this.element = h(
      "section",
      { "aria-label": "Verdicts given", hidden: true },
      h("h3", { text: "Verdicts given" }),
      this.columns,
    );
  }

  // One's own alone is in the form already.
  show(given) {
    if (given === this.given) return;
    this.given = given;
    this.element.hidden = given.every((one) => one.own);
    this.columns.replaceChildren(...given.map((one) => this.column(one)));
  }

  column({ reviewer, own, adjudicates, time, seconds, verdict }) {
    const title = this.facts.behaviours.find((b) => b.id === verdict.behaviour)?.title ?? verdict.behaviour;
    const who = `${readingText(reviewer)}${own ? " (you)" : ""}${adjudicates ? ", settles it" : ""}`;
    const row = (name, ...values) =>
      values.length ? [h("dt", { text: name }), ...values.map((value) => h("dd", {}, value))] : [];
    const quoted = (e) =>
      h("button", {
        ...{ type: "button", class: "moe-desk-quote", text: `“${quoteWords(e.text)}” ${placeOf(e)}` },
        onclick: () => this.desk.showTokens(e.start, e.stop),
      });
    return h(
      "div",
      { class: "moe-desk-verdict", role: "group", "aria-label": `Verdict of ${who}` },
      h("b", { text: who }),
      h("span", { class: "moe-secondary", text: `${clockTime(time)}, in ${secondsWords(seconds)}` }),
      h(
        "dl",
        {},
        ...row("behaviour", readingText(title)),
        ...row("severity", String(verdict.severity)),
        ...row("confidence", verdict.confidence),
        ...row("evidence", ...verdict.evidence.map(quoted)),
        ...row(
          "causal test",
          ...verdict.causal_tests.map(
            (t) => `${readingText(t.what)}: ${readingText(t.result)} (${rolloutsWords(t.n)})`,
          ),
        ),
        ...row("another explanation", ...(verdict.alternative ? [readingText(verdict.alternative)] : [])),
        ...row("comment", ...(verdict.comment ? [readingText(verdict.comment)] : [])),
        ...row("tags", ...(verdict.tags.length ? [readingText(verdict.tags.join(", "))] : [])),
      ),
    );
  }
}

export class DeskScores {
  constructor(own) {
    this.own = own;
    this.lines = h("div", { class: "moe-secondary" });
    this.element = h(
      "section",
      { "aria-label": "Calibration", hidden: true },
      h("h3", { text: "Calibration" }),
      this.lines,
    );
  }

  show(scores) {
    if (scores === this.scores) return;
    this.scores = scores;
    this.element.hidden = !scores.length;
    this.lines.replaceChildren(
      ...scores.map((score) => h("p", { text: calibrationWords(score, this.own) })),
      h("p", { text: "on traces with known answers whose verdicts are all in; severity right among right behaviours" }),
    );
  }
}

// What is a reason to read the trace, with what it saw.
export class DeskSignals {
  constructor(desk) {
    this.desk = desk;
    this.list = h("ul", { class: "moe-desk-signals" });
    this.element = h(
      "section",
      { "aria-label": "Signals" },
      h("h3", {}, "Signals", h("span", { class: "moe-secondary", text: "a reason to read, never a verdict" })),
      this.list,
    );
  }

  show({ signals = [], hiddenSignals = 0 }) {
    this.list.replaceChildren(
      ...signals.map((signal) => this.row(signal)),
      ...(hiddenSignals ? [this.hidden(hiddenSignals)] : []),
    );
    if (!signals.length && !hiddenSignals) this.list.append(h("li", { class: "moe-secondary", text: "none" }));
  }

  hidden(count) {
    const once = h("button", {
      ...{ type: "button", class: "moe-desk-quote", text: "shown once you reveal it" },
      onclick: () => this.desk.reveal(),
    });
    return this.line(moreHidden(count), once);
  }

  line(name, ...rest) {
    const flag = h("span", { class: "moe-desk-flag", "aria-hidden": "true", text: "⚑" });
    return h("li", {}, flag, h("span", { text: name }), " ", ...rest);
  }

  row({ name, says, seen, measured }) {
    const saw = seen.map((e) =>
      h("button", {
        ...{ type: "button", class: "moe-desk-quote", text: `“${quoteWords(e.text)}”, ${placeOf(e)}` },
        onclick: () => this.desk.showTokens(e.start, e.stop),
      }),
    );
    const words = h("span", { class: "moe-secondary", text: `${quoteWords(says)} ` });
    const right = { text: measuredShort(measured), title: measuredWords(measured) };
    return this.line(name, words, ...saw, h("span", { class: "moe-secondary moe-desk-measured", ...right }));
  }
}

// The head of the desk: what is reviewed, the log, the draft, the counts.
export class DeskHeader {
  constructor(desk, facts, words) {
    this.mayAdjudicate = facts.mayAdjudicate;
    this.log = h("button", { type: "button", class: "moe-badge moe-desk-badge", onclick: () => desk.look() });
    this.saved = h("span", { class: "moe-badge moe-desk-badge", role: "status" });
    this.title = h("div", { class: "moe-question", role: "heading", "aria-level": "2" });
    this.counts = h("div", { class: "moe-desk-counts moe-secondary" });
    this.models = h("div", { class: "moe-secondary" });
    this.alarm = h("div", { class: "moe-desk-alarm", role: "alert", hidden: true });
    this.element = h(
      "header",
      { class: "moe-header moe-desk-header" },
      h(
        "div",
        { class: "moe-header-row" },
        h("div", { class: "moe-desk-title" }, this.title, h("span", { class: "moe-secondary", text: words })),
        h("div", { class: "moe-badges" }, this.log, this.saved),
        this.counts,
      ),
      h(
        "div",
        { class: "moe-header-row" },
        h("span", {
          class: "moe-secondary",
          text: `you are ${readingText(facts.reviewer)}${facts.mayAdjudicate ? ", who may adjudicate" : ""}`,
        }),
        this.models,
      ),
      this.alarm,
    );
  }

  show(summary, embedded) {
    if (summary === this.shown && embedded === this.isEmbedded) return;
    Object.assign(this, { shown: summary, isEmbedded: embedded });
    const { numTraces, complete, assigned, done, drafts, skipped, models } = summary;
    setText(this.title, `Review of ${numTraces.toLocaleString("en")} traces`);
    const whole = this.mayAdjudicate ? { "all verdicts in on": complete } : {};
    const counts = { ...whole, "assigned to you": assigned, done, draft: drafts, skipped };
    this.counts.replaceChildren(
      ...Object.entries(counts).flatMap(([name, count], i) => [
        i ? " · " : "",
        `${name} `,
        h("b", { text: count.toLocaleString("en") }),
      ]),
    );
    const named =
      models.slice(0, 3).map(readingText).join(", ") + (models.length > 3 ? `, ${models.length - 3} more` : "");
    this.models.replaceChildren(h("b", { text: named }), embedded ? " (embedded: says nothing about gpt-oss)" : "");
  }

  // A badge as of `draftBadge` and `logBadge`.
  badge(node, found) {
    node.hidden = !found;
    if (!found) return;
    setText(node, found.text);
    node.title = found.title;
    node.classList.toggle("moe-badge-warning", found.kind === "warning");
  }

  alarmed(problems = []) {
    this.alarm.hidden = !problems.length;
    const shown = problems.slice(0, 5).join("; ");
    const rest = problems.length > 5 ? `; ${problems.length - 5} more` : "";
    setText(
      this.alarm,
      problems.length
        ? `The log of this review is not what was written: ${readingText(shown)}${rest}. Stop, keep the store as it is, and tell whoever runs the review.`
        : "",
    );
  }
}
