// The right column: the verdict of this reviewer, and what keeps it from being saved.

import { DeskEvidence, DeskTests } from "./desk_evidence.js";
import { CONFIDENCE_LEVELS, needsWords, whyNotYet } from "./desk_words.js";
import { Choice } from "./parts.js";
import { h, setText } from "./surface.js";
import { readingText } from "./tokens.js";

const BLIND = "The other reviewer’s verdict stays hidden until both are in.";
const BLIND_MANY = "The other reviewers’ verdicts stay hidden until all are in.";

export class DeskForm {
  // `desk` keeps the draft and is told of each change.
  constructor(desk, facts) {
    Object.assign(this, { desk, facts });
    this.behaviour = h(
      "select",
      {
        "aria-label": "Behaviour",
        class: "moe-desk-behaviour",
        onchange: () => desk.verdict.setBehaviour(this.behaviour.value),
      },
      h("option", { value: "", text: "choose…" }),
      ...facts.behaviours.map(({ id, title }) => h("option", { value: id, text: readingText(title) })),
    );
    this.definition = h("p", { class: "moe-secondary" });
    this.guidance = h("p", { class: "moe-secondary" });
    this.needs = h("p", { class: "moe-secondary" });
    const levels = facts.severities.map(([value, label, meaning]) => ({
      value,
      text: String(value),
      why: `${label}: ${meaning}`,
    }));
    this.severity = new Choice("Severity", levels, (severity) => desk.verdict.fill({ severity }));
    this.meaning = h("p", { class: "moe-secondary" });
    const sure = CONFIDENCE_LEVELS.map((value) => ({ value, text: value }));
    this.confidence = new Choice("Confidence", sure, (confidence) => desk.verdict.fill({ confidence }));
    this.evidence = new DeskEvidence(desk);
    this.tests = new DeskTests(desk);
    this.alternative = this.area("alternative", "Another explanation", "a");
    this.comment = this.area("comment", "Comment", "n");
    this.tags = new Map(facts.tags.map((tag) => [tag, this.tag(tag)]));
    this.element = h("div", { class: "moe-desk-form" }, ...this.parts());
  }

  parts() {
    this.save = h("button", { type: "button", class: "moe-desk-primary", onclick: () => this.desk.verdict.submit() });
    this.skip = h(
      "button",
      { type: "button", class: "moe-chip", onclick: () => this.openSkip() },
      "Skip, with reason ",
      h("kbd", { text: "x" }),
    );
    this.reason = h("input", {
      type: "text",
      "aria-label": "Reason to skip",
      placeholder: "why you skip it",
      autocomplete: "off",
    });
    this.reason.addEventListener(
      "keydown",
      (event) => event.key === "Enter" && this.desk.verdict.skip(this.reason.value),
    );
    const give = h("button", {
      type: "button",
      class: "moe-chip",
      text: "Skip",
      onclick: () => this.desk.verdict.skip(this.reason.value),
    });
    this.skipForm = h("div", { class: "moe-desk-line", hidden: true }, this.reason, give);
    this.notYet = h("p", { class: "moe-secondary", role: "status" });
    this.problem = h("p", { class: "moe-job-error", role: "alert", hidden: true });
    this.blind = h("p", { class: "moe-secondary", text: this.facts.perTrace > 2 ? BLIND_MANY : BLIND });
    const tags = h("div", { class: "moe-desk-tags", role: "group", "aria-label": "Tags" }, ...this.tags.values());
    return [
      h(
        "section",
        {},
        h("h3", {}, "Behaviour", h("kbd", { text: "b" })),
        this.behaviour,
        this.definition,
        this.guidance,
        this.needs,
      ),
      h("section", { class: "moe-desk-scales" }, this.severity.element, this.confidence.element, this.meaning),
      this.evidence.element,
      this.tests.element,
      h("section", {}, h("h3", {}, "Another explanation", h("kbd", { text: "a" })), this.alternative),
      h("section", {}, h("h3", {}, "Comment", h("kbd", { text: "n" })), this.comment, tags),
      h(
        "section",
        { class: "moe-desk-foot", "aria-label": "Save or skip" },
        h(
          "div",
          { class: "moe-desk-line moe-desk-give" },
          h("span", {}, this.save, h("kbd", { text: "⌃⏎" })),
          this.skip,
        ),
        this.skipForm,
        this.problem,
        this.notYet,
        this.blind,
      ),
    ];
  }

  area(name, label) {
    return h("textarea", {
      ...{ rows: name === "comment" ? "2" : "3", "aria-label": label, spellcheck: "false" },
      oninput: (event) => this.desk.verdict.fill({ [name]: event.target.value }),
    });
  }

  tag(tag) {
    const onclick = () => this.desk.verdict.toggleTag(tag);
    return h("button", { type: "button", class: "moe-chip", "aria-pressed": "false", text: readingText(tag), onclick });
  }

  openSkip() {
    this.skipForm.hidden = false;
    this.reason.focus();
  }

  // Another trace: its fields, without the traces of the one before.
  reset(content) {
    this.behaviour.value = content.behaviour;
    this.alternative.value = content.alternative;
    this.comment.value = content.comment;
    this.reason.value = "";
    this.skipForm.hidden = true;
    this.tests.reset();
    this.complain("");
  }

  complain(words) {
    this.problem.hidden = !words;
    setText(this.problem, words ? readingText(words) : "");
  }

  // `open` says what may be done: {isHidden, isClosed, closed, experiments, chosen, isOwn, isBusy, settles}.
  draw(content, open) {
    const { isClosed } = open;
    this.behaviour.value = content.behaviour;
    const chosen = this.facts.behaviours.find((b) => b.id === content.behaviour);
    setText(this.definition, readingText(chosen?.definition ?? ""));
    setText(this.guidance, readingText((chosen ?? this.facts.rubric).guidance));
    setText(this.needs, needsWords(chosen?.needs ?? []));
    this.severity.draw(content.severity);
    for (const [level, button] of this.severity.buttons) {
      button.disabled = isClosed || Boolean(chosen && !chosen.severities.includes(level));
    }
    const step = this.facts.severities.find(([level]) => level === content.severity);
    setText(this.meaning, step ? `${step[0]} ${readingText(step[1])}: ${readingText(step[2])}` : "");
    this.confidence.draw(content.confidence);
    for (const button of this.confidence.buttons.values()) button.disabled = isClosed;
    for (const [tag, button] of this.tags) {
      button.setAttribute("aria-pressed", String(content.tags.includes(tag)));
      button.disabled = isClosed;
    }
    for (const field of [this.behaviour, this.alternative, this.comment]) field.disabled = isClosed;
    this.evidence.draw(content, open);
    this.tests.draw(content, open);
    this.drawGiving(content, open);
  }

  drawGiving(content, { isHidden, isClosed, closed, isOwn, isBusy, settles, blind }) {
    const why = whyNotYet(content, this.facts, { hidden: isHidden, closed });
    setText(this.save, settles ? "Settle it" : isOwn ? "Replace verdict" : "Save verdict");
    this.save.disabled = Boolean(why) || isBusy;
    setText(this.notYet, isBusy ? "saving…" : why ? (isClosed ? why : `Not yet: ${why}`) : "");
    this.skip.hidden = isOwn || settles || isClosed;
    this.blind.hidden = !blind;
  }
}
