// One router by hand: a slider for each expert's logit. Texts are untrusted: text nodes only.

import { mount } from "./js/mount.js";
import { chosenWeights, comparison, formula, marginOf, signed, topExperts } from "./js/router_words.js";
import { h, setData, setText } from "./js/surface.js";
import { inLanguage } from "./js/texts.js";
import { cellText } from "./js/tokens.js";

const STEP = 0.01;

function render({ model, el, say }) {
  const facts = model.get("_facts");
  const rows = facts.start.map((_, expert) => expertRow(expert, facts, say, (logit) => move(expert, logit)));
  const margin = h("p");
  const outcome = h("p", { class: "moe-by-hand-outcome" });
  const back = h("button", { type: "button", class: "moe-button", text: startWords(facts, say), onclick: reset });
  const root = h(
    "section",
    { class: "moe-root moe-by-hand", "aria-label": say("one router by hand"), "data-lm-suppress-shortcuts": "true" },
    h("header", { class: "moe-by-hand-header" }, h("span", {}, ...place(facts, say)), back),
    h(
      "div",
      { class: "moe-by-hand-grid", role: "group", "aria-label": say("router logits") },
      ...[say("expert"), say("router logit"), "", say("rank"), say("weight"), ""].map((text) =>
        h("span", { class: "moe-secondary", text }),
      ),
      ...rows.flatMap((row) => row.cells),
    ),
    h("footer", { class: "moe-by-hand-footer", role: "status" }, margin, outcome),
  );
  root.addEventListener("keydown", (event) => event.key !== "Escape" && event.stopPropagation());

  function move(expert, logit) {
    const logits = [...model.get("logits")];
    logits[expert] = logit;
    save(logits);
  }

  function reset() {
    save([...facts.start]);
  }

  function save(logits) {
    model.set("logits", logits);
    model.save_changes();
    draw();
  }

  function draw() {
    const logits = model.get("logits");
    const topK = model.get("top_k");
    const chosen = topExperts(logits, topK);
    const weights = chosenWeights(logits, chosen);
    for (const row of rows) row.draw(logits, chosen, weights);
    const gap = marginOf(logits, topK);
    const near = gap !== null && gap < (facts.nearTie ?? 0);
    setText(
      margin,
      gap === null
        ? say("all experts are chosen")
        : say("margin {margin}: the last one chosen is ahead of the next by that much", {
            margin: `${near ? "≈ " : ""}${gap.toFixed(2)}`,
          }),
    );
    setText(outcome, comparison(chosen, weights, facts.captured, say));
    back.disabled = logits.every((logit, expert) => logit === facts.start[expert]);
  }

  return mount(root, { model, el, events: "change:logits", draw });
}

function startWords(facts, say) {
  return facts.captured ? say("Back to the model's logits") : say("Back to the start");
}

function place(facts, say) {
  if (facts.token === undefined) return [say("logits given by hand")];
  return [
    h("b", { class: "moe-code", text: cellText(facts.text, facts.special) }),
    " · ",
    say("token {token}, layer {layer}", facts),
    " · ",
    say("captured: {source}", facts),
  ];
}

function expertRow(expert, facts, say, move) {
  const slider = h("input", {
    type: "range",
    min: facts.low,
    max: facts.high,
    step: STEP,
    "aria-label": say("router logit of expert {expert}", { expert }),
    oninput: () => move(Number(slider.value)),
  });
  const name = h("span", { text: String(expert) });
  const logit = h("span", { class: "moe-by-hand-number" });
  const rank = h("b", { class: "moe-by-hand-rank" });
  const fill = h("span", { class: "moe-by-hand-fill" });
  const weight = h("span", { class: "moe-by-hand-number" });
  const how = h("span", { class: "moe-by-hand-how moe-code" });
  const bar = h("span", { class: "moe-by-hand-weight" }, h("span", { class: "moe-by-hand-track" }, fill), weight);
  const draw = (logits, chosen, weights) => {
    const at = chosen.indexOf(expert);
    if (Number(slider.value) !== logits[expert]) slider.value = logits[expert];
    slider.setAttribute("aria-valuetext", valueWords(logits[expert], at, weights, say));
    setText(logit, signed(logits[expert]));
    setText(rank, at < 0 ? "" : String(at + 1));
    setData(name, "chosen", at >= 0);
    setText(weight, at < 0 ? say("not chosen") : weights[at].toFixed(3));
    fill.style.width = at < 0 ? "0" : `${100 * weights[at]}%`;
    setText(how, at < 0 ? "" : formula(logits, chosen, expert));
  };
  return { cells: [name, slider, logit, rank, bar, how], draw };
}

function valueWords(logit, at, weights, say) {
  if (at < 0) return say("{logit}, not chosen", { logit: signed(logit) });
  return say("{logit}, rank {rank}, weight {weight}", {
    logit: signed(logit),
    rank: at + 1,
    weight: weights[at].toFixed(3),
  });
}

export default { render: inLanguage(render) };
