// A guess before the measured answer. Texts are untrusted: text nodes only.

import { mount } from "./js/mount.js";
import { judged, numberWords, typedNumber } from "./js/prediction_words.js";
import { h, setData, setText } from "./js/surface.js";
import { inLanguage } from "./js/texts.js";

function render({ model, el, say }) {
  const choices = model.get("choices");
  const unit = model.get("unit");
  const root = h("section", {
    class: "moe-root moe-prediction",
    "aria-label": say("prediction"),
    "data-lm-suppress-shortcuts": "true",
  });
  const entry = choices.length ? chooser(choices, say, (guess) => model.send({ guess })) : numberBox(model, unit, say);
  const error = h("p", { class: "moe-warning", role: "alert", hidden: true });
  const outcome = h("div", { class: "moe-prediction-outcome", role: "status" });
  root.append(h("p", { class: "moe-prediction-question", text: model.get("question") }), entry, error, outcome);
  // Keys that are typed here are not the notebook's.
  root.addEventListener("keydown", (event) => event.key !== "Escape" && event.stopPropagation());

  const draw = () => {
    const found = model.get("_outcome");
    const known = "answer" in found;
    for (const control of entry.querySelectorAll("input, button")) {
      control.disabled = known;
      if (control.value === found.guess) setData(control, "guessed", known);
      if (control.value === found.answer) setData(control, "measured", known);
    }
    setText(error, model.get("_error"));
    error.hidden = !model.get("_error");
    outcome.replaceChildren(...(known ? answerLines(found, unit, say) : []));
    setData(root, "state", known ? "known" : "asked");
  };
  return mount(root, { model, el, events: "change:_outcome change:_error", draw });
}

function chooser(choices, say, choose) {
  const buttons = choices.map((text) =>
    h("button", { type: "button", class: "moe-button", value: text, text, onclick: () => choose(text) }),
  );
  return h("div", { class: "moe-prediction-entry", role: "group", "aria-label": say("your guess") }, ...buttons);
}

function numberBox(model, unit, say) {
  const label = unit ? say("your guess, in {unit}", { unit }) : say("your guess");
  const box = h("input", { type: "text", inputmode: "decimal", "aria-label": label });
  const guess = (event) => {
    event.preventDefault();
    model.send({ guess: typedNumber(box.value) });
  };
  const button = h("button", { type: "submit", class: "moe-button", text: say("Guess") });
  return h("form", { class: "moe-prediction-entry", onsubmit: guess }, box, h("span", { text: unit }), button);
}

function answerLines({ guess, answer, why }, unit, say) {
  const line = (label, value) => h("p", {}, h("span", { class: "moe-secondary", text: `${label} ` }), h("b", { text: value }));
  return [
    line(say("you guessed"), numberWords(guess, unit)),
    line(say("measured"), numberWords(answer, unit)),
    h("p", { text: judged(guess, answer, say) }),
    h("p", { class: "moe-secondary", text: why }),
  ];
}

export default { render: inLanguage(render) };
