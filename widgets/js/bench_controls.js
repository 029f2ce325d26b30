// The controls of an experiment beside it: the same change of others, by how far the predictions part.

import { answerChange, doneWords, natsWords } from "./bench_words.js";
import { h } from "./surface.js";

// A table, or nothing where there are no controls.
export function controlTable(record) {
  const rows = [{ ...record, own: true }, ...record.controlRows.map((control) => ({ ...control, own: false }))];
  if (rows.length === 1) return [];
  const most = Math.max(...rows.map(({ meanKl }) => meanKl ?? 0));
  const ordered = rows.sort((a, b) => (b.meanKl ?? -1) - (a.meanKl ?? -1));
  const hasLoads = rows.some(({ matches }) => matches?.length);
  const heads = ["", "mean KL, nats", "", "answer", ...(hasLoads ? ["load / of the one it stands for"] : [])];
  return [
    h(
      "table",
      {},
      h("caption", { text: "The same change of others, by KL; the experiment in bold" }),
      h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col", text })))),
      h("tbody", {}, ...ordered.map((row) => controlRow(row, { most, record, hasLoads }))),
    ),
  ];
}

function controlRow(row, { most, record, hasLoads }) {
  const share = most > 0 && row.meanKl !== null ? row.meanKl / most : 0;
  const loads = (row.matches ?? []).map(
    (m) => `${m.instead_load.toFixed(3)} / ${m.load.toFixed(3)}${m.within ? "" : " (only nearest)"}`,
  );
  const bar =
    row.meanKl === null
      ? h("div", { class: "moe-undefined", text: "undefined" })
      : h("div", { class: "moe-bar" }, h("i", { style: `width:${(100 * share).toFixed(1)}%` }));
  return h(
    "tr",
    { "data-own": String(row.own) },
    h("th", { scope: "row", text: doneWords(row.done) }),
    h("td", { class: "moe-number", text: natsWords(row.meanKl) }),
    h("td", { class: "moe-bench-bar" }, bar),
    h("td", { text: record.generated ? answerChange({ ...record, ...row }) : "read, not generated" }),
    ...(hasLoads ? [h("td", { class: "moe-number", text: loads.join(", ") })] : []),
  );
}
