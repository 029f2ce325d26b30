// What a class guessed beside what was measured. Questions, choices and names are strangers': text nodes only.

import { mount } from "./js/mount.js";
import { counted, numberWords } from "./js/prediction_words.js";
import { h, setText } from "./js/surface.js";

function render({ model, el }) {
  const root = h("section", {
    class: "moe-root moe-class",
    "aria-label": "predictions of the class",
    "data-lm-suppress-shortcuts": "true",
    tabindex: "0",
  });
  const read = () => model.send({ read: true });
  const head = h(
    "header",
    { class: "moe-class-head" },
    h("span", { class: "moe-secondary", role: "status" }),
    h("button", { type: "button", class: "moe-button", text: "Read again", "aria-keyshortcuts": "r", onclick: read }),
  );
  const error = h("p", { class: "moe-warning", role: "alert", hidden: true });
  const body = h("div");
  root.append(head, error, body);
  root.addEventListener("keydown", (event) => {
    if (event.key !== "r" || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    read();
  });
  const draw = () => {
    const { questions, unreadable } = model.get("_facts");
    head.firstChild.textContent = counted(questions, unreadable);
    setText(error, model.get("_error"));
    error.hidden = !model.get("_error");
    body.replaceChildren(...questions.map(questionBlock));
  };
  return mount(root, { model, el, events: "change:_facts change:_error", draw });
}

function questionBlock(facts) {
  const { question, unit, bars, median, measured, guesses } = facts;
  const said = [`n = ${guesses.length}`];
  if (median !== null) said.push(`median guess ${numberWords(median, unit)}`);
  said.push(`measured ${measured.map((value) => numberWords(value, unit)).join(", ")}`);
  const most = Math.max(...bars.map((bar) => bar.count));
  return h(
    "article",
    { class: "moe-class-question" },
    h("h3", { text: question }),
    h("p", { class: "moe-secondary", text: said.join(" · ") }),
    h("ul", { class: "moe-class-bars" }, ...bars.map((bar) => barLine(bar, most))),
    h("details", {}, h("summary", { text: "each guess" }), table(guesses, unit)),
  );
}

function barLine({ choice, range, count, measured }, most) {
  const label = choice ?? range.map((edge) => numberWords(edge, "")).join(" – ");
  const bar = h("span", { class: "moe-class-bar" });
  bar.style.width = `${(100 * count) / most}%`;
  return h(
    "li",
    { "data-measured": String(measured) },
    h("span", { class: "moe-class-label", text: label }),
    h("span", { class: "moe-class-track", "aria-hidden": "true" }, bar),
    h("b", { text: String(count) }),
    h("span", { class: "moe-secondary", text: measured ? "◂ measured" : "" }),
  );
}

function table(guesses, unit) {
  const row = (cell, texts) => h("tr", {}, ...texts.map((text) => h(cell, { text })));
  const rows = guesses.map(([who, guess, time]) => row("td", [who || "no name", numberWords(guess, unit), time]));
  return h("table", {}, h("thead", {}, row("th", ["who", "guess", "time (UTC)"])), h("tbody", {}, ...rows));
}

export default { render };
