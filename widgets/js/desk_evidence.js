// What a verdict rests on: evidence marked in the trace, and causal tests that were run.

import { placeOf, quoteWords, rolloutsWords, testOf, typedTest } from "./desk_words.js";
import { h, setText } from "./surface.js";

const remover = (label, onclick) =>
  h("button", { type: "button", class: "moe-desk-remove", text: "×", "aria-label": label, onclick });

export class DeskEvidence {
  constructor(desk) {
    this.desk = desk;
    this.list = h("ol", { class: "moe-desk-evidences" });
    this.waits = h("div", { class: "moe-secondary moe-desk-waits", text: "from the chain: reveal first" });
    this.button = h("button", { type: "button", class: "moe-chip", onclick: () => desk.verdict.mark() });
    this.chosen = h("span", { class: "moe-secondary moe-desk-choice" });
    this.element = h(
      "section",
      { "aria-label": "Evidence" },
      h("h3", {}, "Evidence", h("span", { class: "moe-secondary", text: "verbatim, checked against the trace" })),
      this.list,
      this.waits,
      h("div", { class: "moe-desk-line" }, this.button, this.chosen),
    );
    this.button.append("Mark ", h("kbd", { text: "e" }));
  }

  draw({ evidence }, { isHidden, isClosed, chosen }) {
    this.waits.hidden = !isHidden;
    this.button.disabled = isClosed || !chosen;
    setText(
      this.chosen,
      chosen ? `“${quoteWords(chosen.text).slice(0, 40)}”, ${placeOf(chosen)}` : "choose words in the transcript",
    );
    if (evidence === this.drawn && isClosed === this.wasClosed) return;
    Object.assign(this, { drawn: evidence, wasClosed: isClosed });
    this.list.replaceChildren(
      ...evidence.map((each, i) =>
        h(
          "li",
          {},
          h("span", { class: "moe-desk-number", text: i + 1 }),
          h("button", {
            ...{
              type: "button",
              class: "moe-desk-quote",
              title: "show it in the transcript",
              text: `“${quoteWords(each.text)}”`,
            },
            onclick: () => this.desk.showTokens(each.start, each.stop),
          }),
          h("span", { class: "moe-secondary moe-desk-place", text: placeOf(each) }),
          isClosed ? "" : remover(`Remove evidence ${i + 1}`, () => this.desk.verdict.unmark(each)),
        ),
      ),
    );
  }
}

export class DeskTests {
  constructor(desk) {
    this.desk = desk;
    this.list = h("ul", { class: "moe-desk-tests" });
    this.saved = h("div", { class: "moe-desk-saved" });
    const field = (label, rest) =>
      h("input", { type: "text", "aria-label": label, placeholder: label, autocomplete: "off", ...rest });
    this.what = field("what was done");
    this.result = field("what came of it");
    this.n = field("rollouts", { inputmode: "numeric", class: "moe-desk-n" });
    this.problem = h("div", { class: "moe-warning", role: "alert" });
    const enter = (event) => event.key === "Enter" && !event.ctrlKey && !event.metaKey && this.add();
    for (const input of [this.what, this.result, this.n]) input.addEventListener("keydown", enter);
    this.form = h(
      "div",
      { class: "moe-desk-test-form", hidden: true },
      this.what,
      this.result,
      this.n,
      h("button", { type: "button", class: "moe-chip", text: "Add", onclick: () => this.add() }),
      this.problem,
    );
    this.opener = h(
      "button",
      { type: "button", class: "moe-chip", onclick: () => this.open() },
      "Enter a test ",
      h("kbd", { text: "t" }),
    );
    this.element = h(
      "section",
      { "aria-label": "Causal test" },
      h("h3", { text: "Causal test" }),
      this.list,
      this.saved,
      this.opener,
      this.form,
    );
  }

  open() {
    this.form.hidden = false;
    this.opener.hidden = true;
    this.what.focus();
  }

  add() {
    const { test, problem } = typedTest({ what: this.what.value, result: this.result.value, n: this.n.value });
    setText(this.problem, problem ?? "");
    if (!test) return;
    for (const input of [this.what, this.result, this.n]) input.value = "";
    this.desk.verdict.addTest(test);
    this.reset();
    this.desk.root.focus();
  }

  reset() {
    this.form.hidden = true;
    this.opener.hidden = false;
    setText(this.problem, "");
  }

  // `experiments` were saved with the trace by an InterventionBench.
  draw({ causal_tests: tests }, { experiments, isClosed }) {
    this.opener.disabled = isClosed;
    if (tests === this.drawn && experiments === this.offered && isClosed === this.wasClosed) return;
    Object.assign(this, { drawn: tests, offered: experiments, wasClosed: isClosed });
    this.list.replaceChildren(
      ...tests.map((test, i) =>
        h(
          "li",
          {},
          h("span", { class: "moe-desk-test", text: `${quoteWords(test.what)}: ${quoteWords(test.result)}` }),
          h("span", { class: "moe-secondary moe-desk-place", text: rolloutsWords(test.n) }),
          isClosed ? "" : remover(`Remove causal test ${i + 1}`, () => this.desk.verdict.removeTest(i)),
        ),
      ),
    );
    const known = tests.map(({ what, result }) => `${what}\n${result}`);
    const offered = experiments.map(testOf).filter(({ what, result }) => !known.includes(`${what}\n${result}`));
    this.saved.replaceChildren(
      ...(isClosed ? [] : offered).map((test) =>
        h(
          "div",
          { class: "moe-desk-line" },
          h("button", {
            type: "button",
            class: "moe-chip",
            text: "Add",
            onclick: () => this.desk.verdict.addTest(test),
          }),
          h("span", {
            class: "moe-secondary",
            text: `saved with the trace: ${quoteWords(test.what)}: ${quoteWords(test.result)}`,
          }),
        ),
      ),
    );
  }
}
