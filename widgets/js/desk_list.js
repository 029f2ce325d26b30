// The left column: a page of the queue, of the disagreements, or of what was found. A row is a button.

import { LIST_ORDERS, quoteWords, signalRows, stateMark } from "./desk_words.js";
import { h, setText } from "./surface.js";
import { readingText } from "./tokens.js";

const TITLES = { queue: "Queue", settle: "Disagreements", search: "Found" };
const TAKEN_AT_ONCE = 10;

export class DeskList {
  // `desk` opens traces and turns pages.
  constructor(desk) {
    this.desk = desk;
    this.rows = new Map();
    this.title = h("b", { role: "heading", "aria-level": "3" });
    this.order = h(
      "select",
      {
        "aria-label": "Order of the queue",
        class: "moe-desk-order",
        onchange: () => desk.turn({ order: this.order.value }),
      },
      ...LIST_ORDERS.map(([value, text]) => h("option", { value, text })),
    );
    this.mode = h("button", { type: "button", class: "moe-chip", onclick: () => desk.switchMode(), hidden: true });
    this.back = h("button", { type: "button", class: "moe-chip", text: "Queue", onclick: () => desk.endSearch() });
    this.field = h("input", {
      ...{ type: "search", placeholder: "words in the traces", "aria-label": "Search the traces", autocomplete: "off" },
      onkeydown: (event) => event.key === "Enter" && desk.search(this.field.value),
    });
    this.found = h("div", { class: "moe-secondary moe-desk-found", role: "status" });
    this.search = h("div", { class: "moe-desk-search", role: "search", hidden: true }, this.field, this.found);
    this.items = h("ol", { class: "moe-desk-items", "aria-label": "Traces" });
    this.earlier = this.pager("earlier", -1);
    this.later = this.pager("later", 1);
    this.claim = h("button", {
      type: "button",
      class: "moe-chip moe-desk-claim",
      onclick: () => desk.claim(TAKEN_AT_ONCE),
    });
    setText(this.claim, `Take ${TAKEN_AT_ONCE} more traces`);
    this.element = h(
      "nav",
      { class: "moe-desk-list", "aria-label": "Queue" },
      h("div", { class: "moe-desk-bar" }, this.title, this.order, this.mode, this.back),
      this.search,
      h("div", { class: "moe-desk-scroll" }, this.earlier, this.items, this.later, this.claim),
    );
  }

  pager(where, by) {
    return h("button", {
      ...{ type: "button", class: "moe-desk-pager", "data-where": where, hidden: true },
      onclick: () => this.desk.turnBy(by),
    });
  }

  openSearch() {
    this.search.hidden = false;
    this.field.focus();
    this.field.select();
  }

  // What the widget sent: {kind, items, start, more, …}.
  show(list, { assigned }, { mayAdjudicate }) {
    if (list === this.list && assigned === this.assigned) return;
    Object.assign(this, { list, assigned });
    const { kind, items, start, more } = list;
    setText(this.title, TITLES[kind]);
    this.order.hidden = kind !== "queue";
    this.order.value = list.order ?? "signals";
    this.mode.hidden = !mayAdjudicate || kind === "search";
    setText(this.mode, kind === "settle" ? "Queue" : "Disagreements");
    this.back.hidden = kind !== "search";
    this.search.hidden = kind !== "search" && this.search.hidden;
    const cut = list.total > items.length ? `, the first ${items.length} shown` : "";
    setText(this.found, kind === "search" ? `${list.total} for “${quoteWords(list.words)}”${cut}` : "");
    this.rows.clear();
    this.items.replaceChildren(...items.map((item) => this.row(item, kind)));
    this.earlier.hidden = !start;
    setText(this.earlier, `${start.toLocaleString("en")} before ↑`);
    this.later.hidden = !more;
    const total = kind === "queue" ? assigned : list.total;
    setText(this.later, `${Math.max(1, total - start - items.length).toLocaleString("en")} more ↓`);
    this.claim.hidden = kind !== "queue" || more;
    if (!items.length) this.items.append(h("li", { class: "moe-secondary moe-desk-none", text: NOTHING[kind] }));
  }

  row(item, kind) {
    const parts = kind === "search" ? foundParts(item) : queueParts(item);
    const button = h(
      "button",
      { type: "button", class: "moe-desk-row", "data-trace": item.trace, onclick: () => this.desk.openNow(item.trace) },
      ...parts,
    );
    if (!this.rows.has(item.trace)) this.rows.set(item.trace, button);
    return h("li", {}, button);
  }

  // The open trace, and the one that j and k have come to.
  mark(open, at) {
    for (const [trace, row] of this.rows) {
      if (trace === open) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
      row.classList.toggle("moe-desk-at", trace === at && at !== open);
    }
    if (at !== this.seen) this.rows.get(at)?.scrollIntoView({ block: "nearest" });
    this.seen = at;
  }

  // The trace before or after one in the page; null past its ends.
  beside(trace, by) {
    const traces = [...this.rows.keys()];
    const at = traces.indexOf(trace);
    if (at < 0) return traces[0] ?? null;
    return traces[at + by] ?? null;
  }
}

const NOTHING = {
  queue: "Nothing is assigned to you.",
  settle: "No verdicts differ, or all are settled.",
  search: "Nothing found. Hidden chains are not searched.",
};

function queueParts(item) {
  const { mark, word } = stateMark(item);
  return [
    h(
      "span",
      { class: "moe-desk-row-head" },
      h("span", { class: "moe-desk-state", role: "img", "aria-label": word, text: mark }),
      h("b", { text: readingText(item.name) }),
      h("span", { class: "moe-secondary moe-desk-effort", text: readingText(item.effort ?? "") }),
    ),
    h("span", { class: "moe-secondary moe-desk-question", text: quoteWords(item.question) }),
    ...signalRows(item).map((text) => signalMark(text)),
  ];
}

function foundParts({ name, channel, excerpt }) {
  return [
    h(
      "span",
      { class: "moe-desk-row-head" },
      h("b", { text: readingText(name) }),
      h("span", { class: "moe-secondary", text: readingText(channel) }),
    ),
    h("span", { class: "moe-secondary moe-desk-question", text: readingText(excerpt) }),
  ];
}

export function signalMark(text) {
  return h(
    "span",
    { class: "moe-desk-signal" },
    h("span", { class: "moe-desk-flag", "aria-hidden": "true", text: "⚑" }),
    text,
  );
}
