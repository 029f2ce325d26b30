// Parts of the view of faithfulness tests that are text: head, measures, cases of the hint test, where from.

import { caseWords, figureWords, fromWords, measures } from "./faithfulness_words.js";
import { DTYPES } from "./header.js";
import { h } from "./surface.js";
import { readingText } from "./tokens.js";

export function faithfulnessHeader({ models, missing, chain }) {
  const badges = [
    ...[...new Set(models.map((m) => m.dtype))].filter(Boolean).map((d) => [DTYPES[d] ?? d, ""]),
    ...(models.length > 1 ? [[`results of ${models.length} models`, "moe-badge-warning"]] : []),
    ...(chain ? [["linked to its trace", ""]] : []),
    ...missing.map((name) => [`${name} not tested`, "moe-badge-missing"]),
  ];
  const names = models.flatMap(({ name, note }, i) => [
    ...(i ? [", "] : []),
    h("b", { text: readingText(name) }),
    note ? ` (${readingText(note)})` : "",
  ]);
  return h(
    "header",
    { class: "moe-header" },
    h(
      "div",
      { class: "moe-header-row" },
      h("div", { class: "moe-question", role: "heading", "aria-level": "2", text: "Faithfulness of the chain of thought" }),
      h("div", { class: "moe-badges" }, ...badges.map(([text, kind]) => h("span", { class: `moe-badge ${kind}`, text }))),
    ),
    h("div", { class: "moe-facts moe-secondary" }, ...(names.length ? names : ["no test was made"])),
  );
}

// A figure on a scale from 0 to `end`: its interval and value, beside it the control and what chance would give.
export function strip(figure, end, { control = null, chance = null } = {}) {
  const at = (value) => `${Math.min(100, (100 * value) / end)}%`;
  const part = (className, left, width) => {
    const node = h("i", { class: className });
    node.style.left = at(left);
    if (width !== undefined) node.style.width = at(width);
    return node;
  };
  const parts = [];
  if (chance !== null) parts.push(part("moe-strip-chance", 0, chance));
  if (figure.low !== null) parts.push(part("moe-strip-interval", figure.low, figure.high - figure.low));
  if (control !== null && control.value !== null) parts.push(part("moe-strip-control", control.value));
  parts.push(part("moe-strip-value", figure.value));
  return h("div", { class: "moe-strip", "aria-hidden": "true" }, ...parts);
}

// A figure as strip and words; undefined in a dotted frame with its reason; hatched where there was no test.
export function figureCell(figure, unit, end, beside) {
  if (figure === null) return h("div", { class: "moe-missing moe-figure", text: "not tested" });
  if (figure.value === null) return h("div", { class: "moe-undefined moe-figure", text: readingText(figureWords(figure, unit)) });
  return h("div", { class: "moe-figure" }, strip(figure, end, beside), h("b", { text: figureWords(figure, unit) }));
}

export function measuresTable(facts) {
  const scale = `figure, 0 to 1, 95 %${facts.hasControl ? " · ◇ control" : ""}`;
  const heads = ["measure", scale, "n", "control", "how"];
  const rows = measures(facts).map((row) =>
    h(
      "tr",
      { "data-measure": row.key },
      h("th", { scope: "row", text: row.name }),
      h("td", {}, figureCell(row.figure, row.unit, 1, { control: beside(row) }), ...note(row.note)),
      h("td", {}, ...lines([row.of, ...row.leftOut])),
      h("td", {}, ...row.controls.map(controlLine)),
      h("td", { class: "moe-secondary", text: row.from ? readingText(fromWords(row.from)) : "" }),
    ),
  );
  return h(
    "section",
    { class: "moe-measures", "aria-label": "Measures" },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col", text })))),
      h("tbody", {}, ...rows),
    ),
  );
}

const lines = (texts) => texts.filter(Boolean).map((text) => h("div", { text: readingText(text) }));
const note = (text) => (text ? [h("div", { class: "moe-secondary", text })] : []);
const beside = ({ controls }) => controls.find(([name]) => name === "control")?.[1] ?? null;

function controlLine([name, figure, unit]) {
  const words = `${name}: ${figureWords(figure, unit)}${figure.n === undefined ? "" : `, n = ${figure.n}`}`;
  return h("div", { class: figure.value === null ? "moe-undefined moe-figure" : "", text: readingText(words) });
}

// The cases of the hint test: those that moved first, each with the chain that does or does not say so.
export function casesPanel([hints]) {
  const head = h("div", { class: "moe-panel-title" }, h("b", { text: "Cases of the hint test" }), " ");
  const panel = h("section", { class: "moe-cases", "aria-label": "Cases of the hint test" }, head);
  if (!hints) {
    panel.append(h("div", { class: "moe-missing", text: "not tested" }));
    return panel;
  }
  const { shown, cases } = hints;
  const cut = shown.length < cases ? `${shown.length} of ${cases} shown, ` : "";
  head.append(h("span", { class: "moe-secondary", text: `${cut}those that moved first` }));
  const list = h("div", { class: "moe-rows", tabindex: "0", role: "region", "aria-label": "Cases" }, ...shown.map(caseRow));
  panel.append(list);
  return panel;
}

const oneLine = (text) => readingText(text).replaceAll("\n", "⏎");

function caseRow(found) {
  const answers = oneLine(`${found.without ?? "no answer"} → ${found.with ?? "no answer"}`);
  return h(
    "details",
    { class: "moe-case", "data-qualifies": String(found.qualifies) },
    h(
      "summary",
      {},
      h("span", { class: "moe-case-question", text: oneLine(found.question) }),
      h("b", { text: answers, title: `the hint says ${oneLine(found.hint)}` }),
      h("span", { class: found.qualifies ? "" : "moe-secondary", text: caseWords(found) }),
    ),
    h("div", { class: "moe-secondary", text: `analysis under the hint ${oneLine(found.hint)}` }),
    h("div", { class: "moe-content moe-said", text: readingText(found.analysis) || "empty" }),
  );
}

// Definition, weights, seed of each result.
export function provenanceList({ curves, hints, resampling }) {
  const named = [
    ...curves.map(({ name, found, control }) => [name, found, control]),
    ["hint test", ...hints],
    ["resampling", ...resampling],
  ];
  const lists = named.flatMap(([name, found, control]) => [
    ...(found ? [[name, found.provenance]] : []),
    ...(control ? [[`${name}, control`, control.provenance]] : []),
  ]);
  const shown = lists.map(([name, pairs]) =>
    h(
      "div",
      {},
      h("b", { text: name }),
      h("dl", {}, ...pairs.flatMap(([key, value]) => [h("dt", { text: key }), h("dd", { text: readingText(value) })])),
    ),
  );
  return h(
    "section",
    { class: "moe-from", "aria-label": "Where the figures come from" },
    h("details", {}, h("summary", { text: "where the figures come from" }), h("div", { class: "moe-from-lists" }, ...shown)),
  );
}
