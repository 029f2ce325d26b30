// The tree of branches: what was edited, and the answers that followed, counted.

import { countWords, drawnWords, editWords, lineOf, restWords, treeOrder } from "./editor_words.js";
import { h } from "./surface.js";

export class EditorTree {
  constructor(view) {
    this.view = view;
    this.list = h("ol", { class: "moe-editor-branches" });
    const title = h(
      "div",
      { class: "moe-panel-title" },
      h("b", { text: "Branches" }),
      h("span", { class: "moe-secondary", text: " share of answers, 95 % Wilson" }),
    );
    this.element = h(
      "section",
      { class: "moe-editor-tree" },
      h(
        "div",
        { class: "moe-editor-scroll", tabindex: "0", role: "region", "aria-label": "Branches" },
        title,
        this.list,
      ),
    );
  }

  write(records, [shown], [beside]) {
    const rows = treeOrder(records).map(({ at, depth }) =>
      this.branch(records[at], { at, depth, isShown: at === shown, isBeside: at === beside }),
    );
    this.list.replaceChildren(...rows);
    this.list.querySelector('[aria-pressed="true"]')?.scrollIntoView?.({ block: "nearest" });
  }

  branch(record, { at, depth, isShown, isBeside }) {
    const button = h(
      "button",
      {
        type: "button",
        class: "moe-editor-branch",
        "aria-pressed": String(isShown),
        "data-branch": at,
        onclick: () => this.view.choose([at, 0]),
      },
      h("b", { class: "moe-editor-number", text: at ? `${at}` : "0" }),
      h(
        "span",
        { class: "moe-editor-what" },
        h("span", { text: at ? editWords(record) : "original" }),
        at ? h("span", { class: "moe-secondary", text: ` · ${restWords(record)}` }) : "",
        isBeside ? h("span", { class: "moe-secondary", text: " · beside" }) : "",
      ),
    );
    const lengths = `chain ${spread(record.chainTokens)} tokens`;
    const facts = [lengths, drawnWords(record)].filter(Boolean).join(" · ");
    return h(
      "li",
      { style: `margin-left:${Math.min(depth, 6) * 14}px`, "data-depth": depth, "data-shown": String(isShown) },
      button,
      h("ul", { class: "moe-editor-answers" }, ...record.answers.map((answer) => answerRow(answer, at === 0))),
      h("div", { class: "moe-secondary moe-editor-drawn", text: facts }),
    );
  }
}

// "26" or "20–31".
export function spread(numbers) {
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  return least === most ? least.toLocaleString("en") : `${least.toLocaleString("en")}–${most.toLocaleString("en")}`;
}

function answerRow(found, isOriginal) {
  const { answer, count, n, interval, original } = found;
  const percent = (value) => `${(100 * value).toFixed(1)}%`;
  const bar = h(
    "span",
    { class: "moe-bar moe-editor-share", "aria-hidden": "true" },
    h("i", { style: `width:${percent(count / n)}` }),
  );
  if (interval) {
    const [low, high] = interval;
    bar.append(h("span", { class: "moe-editor-interval", style: `left:${percent(low)};width:${percent(high - low)}` }));
  }
  const says = answer === null ? "no answer" : lineOf(answer);
  return h(
    "li",
    { title: original ? "the original's answer" : answer === null ? "cut, or nothing on the final channel" : null },
    h(
      "span",
      { class: "moe-editor-answer" },
      h("b", { class: answer === null ? null : "moe-code", text: says }),
      original && !isOriginal ? h("span", { class: "moe-secondary", text: " as original" }) : "",
    ),
    bar,
    h("span", { class: "moe-number", text: countWords(found) }),
  );
}
