// The parts around the columns: the head, and the table of what differs and what it rests on.

import { claimsOf, drawnWords, groupNotes } from "./effort_words.js";
import { DTYPES, sourceBadge } from "./header.js";
import { pairName } from "./routing_multiples.js";
import { h } from "./surface.js";

// The question, the models, how the rollouts were drawn, what was captured, what the marks mean.
export function effortHeader(facts) {
  const models = [...new Map(facts.columns.map((c) => [c.model, c.embedded]))];
  const captured = Object.entries(facts.captured).map(([name, is]) => ({
    text: is ? `✓ ${name}` : `${name} not captured`,
    kind: is ? "plain" : "missing",
  }));
  const badges = [
    ...facts.sources.map(sourceBadge),
    ...facts.dtypes.map((d) => ({ text: DTYPES[d] ?? d, kind: "plain", title: `the model ran in ${d}` })),
    ...captured,
  ];
  const names = models.flatMap(([name, embedded], i) => [
    ...(i ? [", "] : []),
    h("b", { text: name }),
    embedded ? " (embedded: says nothing about gpt-oss)" : "",
  ]);
  const reference = facts.reference === null ? [] : [" · reference answer ", h("b", { text: facts.reference })];
  const marks = facts.scored ? "✓ right   × other   – no answer   ✂ cut" : "no references   – no answer   ✂ cut";
  return h(
    "header",
    { class: "moe-header" },
    h(
      "div",
      { class: "moe-header-row" },
      h("div", { class: "moe-question", role: "heading", "aria-level": "2", text: facts.title, title: facts.title }),
      h(
        "div",
        { class: "moe-badges" },
        ...badges.map(({ text, kind, title }) => h("span", { class: `moe-badge moe-badge-${kind}`, text, title })),
      ),
    ),
    h(
      "div",
      { class: "moe-header-row" },
      h("div", { class: "moe-facts moe-secondary" }, ...names, ` · ${drawnWords(facts.columns)}`, ...reference),
      h("div", { class: "moe-secondary moe-marks", text: marks }),
    ),
  );
}

// What is claimed of each pair, with n and null, and what is not.
export function claimsTable({ pairs, columns, missing: without }) {
  const claims = pairs.map(claimsOf);
  const heads = (claims[0] ?? []).map(([what]) => h("th", { scope: "col", text: what }));
  const rows = pairs.map((pair, i) =>
    h(
      "tr",
      {},
      h("th", { scope: "row", text: pairName(pair) }),
      ...claims[i].map(([, words, title]) => h("td", { text: words, title })),
    ),
  );
  const table = h(
    "table",
    {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col", text: "a − b" }), ...heads)),
    h("tbody", {}, ...rows),
  );
  const list = h("ul", {}, ...without.map((text) => h("li", { text })));
  const details = h("details", {}, h("summary", { text: `not measured or not tested: ${without.length}` }), list);
  return h(
    "section",
    { class: "moe-claims", "aria-label": "What differs, and what it rests on" },
    ...(pairs.length ? [h("div", { class: "moe-claims-table" }, table)] : []),
    ...groupNotes(columns).map((text) => h("p", { text })),
    ...(without.length ? [details] : []),
  );
}
