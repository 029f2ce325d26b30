// What one expert takes, beside what chance gives: its tokens, channels, places, partners, examples. A card is the
// JSON of `card_of` in widgets/expert_card.py. Token text is untrusted: text nodes only.

import { twoDigits } from "./numerics.js";
import { h } from "./surface.js";
import { cellText, hueOf, readingText } from "./tokens.js";

const PARTNERS_SHOWN = 5;
const GROUPS_SHOWN = 8;
const BEFORE_SHOWN = 26;
const BAR_LABEL_WIDTH = 46; // pixels kept for the number after the longest bar

export const count = (n) => n.toLocaleString("en");

// 10.9 %, <0.1 %, 0 %, 100 %
export function percent(share) {
  if (share === 0 || share === 1) return `${100 * share} %`;
  if (share < 0.0005) return "<0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

export const times = (lift) => `${lift.toFixed(lift < 9.95 ? 1 : 0)}×`;

// Text around an example in one line, cut at its far end.
export function contextText(text, longest = Infinity) {
  const characters = Array.from(readingText(text).replaceAll("\n", "⏎").replaceAll("\t", "⇥"));
  return characters.length > longest ? `…${characters.slice(-longest).join("")}` : characters.join("");
}

export function factsOf(card) {
  const mean = card.meanWeight === null ? (card.chosen ? "weights not captured" : "") : twoDigits(card.meanWeight);
  const facts = [
    `chosen at ${count(card.chosen)} of ${count(card.tokens)} tokens`,
    `(${percent(card.chosen / card.tokens)}; uniform ${percent(card.uniform)})`,
  ].join(" ");
  return card.meanWeight === null ? (mean ? `${facts} · ${mean}` : facts) : `${facts} · mean weight ${mean}`;
}

const idsOf = (n) => `${count(n)} ${n === 1 ? "id" : "ids"}`;

export const neverWords = ({ tokens }) => `no token chose this expert in T = ${count(tokens)} tokens`;

// What is said where no token stands out, or none can be compared.
export function noLiftsWords(card) {
  const { minCount, numIds } = card.lifts;
  const total = `T = ${count(card.tokens)} tokens`;
  if (!card.chosen) return neverWords(card);
  if (!numIds) return `no token id was seen ${minCount} times in ${total}`;
  return `of ${idsOf(numIds)} seen ≥ ${minCount} times in ${total}, none is chosen more often than the base rate`;
}

export function nullWords({ null: chance, numIds, numAbove }) {
  const ids = idsOf(numIds);
  const above = numAbove ? `${count(numAbove)} of ${ids} above it, the others hollow` : `none of ${ids} above it`;
  return `shuffled tokens, 97.5 %: ${times(chance.lift)} (highest of all ids, ${count(chance.shuffles)} shuffles) · ${above}`;
}

export class ExpertPanel {
  // `onJump(trace, token, key)`: an example was chosen, `key` names its trace's selection. `onExpert(expert)`: a partner.
  constructor({ onJump, onExpert }) {
    Object.assign(this, { onJump, onExpert });
    this.body = h("div", { class: "moe-expert-body" });
    this.element = h("section", { class: "moe-expert", "aria-label": "What the expert takes" }, this.body);
    this.drawn = [];
    this.jumps = [];
  }

  // Show a card, `{ waiting: words }`, or `{ error: words }`, for the selected layer and expert.
  draw(card, selection, palette) {
    const shown = [card.waiting ?? card, selection.layer, selection.expert, palette];
    if (shown.some((value, i) => value !== this.drawn[i])) this.build(card, selection, palette);
    this.drawn = shown;
    for (const { button, example } of this.jumps) {
      const isHere = card.traces === 1 && example.token === selection.token;
      button.setAttribute("aria-current", String(isHere));
    }
  }

  build(card, selection, palette) {
    this.jumps = [];
    const place = this.element.contains(document.activeElement) ? document.activeElement.dataset.place : null;
    this.name = h("div", {
      class: "moe-expert-name",
      role: "heading",
      "aria-level": "3",
      tabindex: "-1",
      text: `Layer ${selection.layer}, expert ${selection.expert}`,
    });
    this.body.replaceChildren(this.name, ...this.parts(card, palette));
    this.element.dataset.state = card.error ? "error" : card.waiting ? "waiting" : "here";
    if (place !== null) this.refocus(place);
  }

  // Drawing anew took the focused button away: focus the one in its place, else the name.
  refocus(place) {
    const again = place && this.body.querySelector(`[data-place="${place}"]`);
    (again || this.name).focus({ preventScroll: true });
  }

  parts(card, palette) {
    if (card.error) return [h("div", { class: "moe-expert-error", role: "alert", text: card.error })];
    if (card.waiting) return [h("div", { class: "moe-expert-waiting", role: "status" }, h("i"), card.waiting)];
    return [
      this.facts(card),
      this.tokens(card),
      this.groups(card, "By channel", "channel", card.channels),
      this.groups(card, "By role", "role", card.roles),
      this.positions(card),
      this.partners(card),
      this.examples(card, palette),
    ];
  }

  facts(card) {
    const ranks = card.ranks.map((n, i) => `#${i + 1} ${(100 * (n / card.chosen)).toFixed(0)} %`).join(" · ");
    return h(
      "div",
      { class: "moe-expert-facts moe-secondary" },
      h("div", { text: factsOf(card) }),
      card.chosen ? h("div", { text: `rank ${ranks}` }) : "",
      h("div", { text: card.selection }),
    );
  }

  tokens(card) {
    const { lifts } = card;
    const base = lifts.numTopics ? `the rate within ${lifts.numTopics} topics` : "base rate";
    const note = `lift over ${base}, seen ≥ ${lifts.minCount} times`;
    const taken = lifts.rows.filter((row) => row.lift > 1);
    if (!taken.length) return cardSection("Tokens it takes", note, absentWords(noLiftsWords(card)));
    const widest = Math.max(lifts.null.lift, taken[0].lift);
    const rows = taken.map((row) =>
      barRow({
        name: h("span", {
          class: "moe-code",
          text: cellText(row.text, row.special),
          title: cellText(row.text, row.special),
        }),
        share: row.lift / widest,
        label: times(row.lift),
        end: `${count(row.chosen)} of ${count(row.seen)}`,
        isPale: row.lift <= lifts.null.lift,
      }),
    );
    return cardSection(
      "Tokens it takes",
      note,
      lineBars("moe-expert-lifts", lifts.null.lift / widest, rows),
      lineFoot(nullWords(lifts)),
    );
  }

  groups(card, title, what, groups) {
    const note = `share of that ${what}'s tokens`;
    if (!groups)
      return cardSection(
        title,
        note,
        absentWords("no token texts in these traces: messages and format cannot be told apart"),
      );
    const base = card.chosen / card.tokens;
    const widest = Math.max(base, ...groups.map((g) => g.chosen / g.tokens)) || 1;
    const rows = groups.slice(0, GROUPS_SHOWN).map((group) => {
      const hue = what === "channel" ? hueOf("assistant", group.name) : roleHue(group.name);
      const name = contextText(group.name);
      return barRow({
        name: h("span", { class: "moe-expert-group", text: name, title: name }),
        share: group.chosen / group.tokens / widest,
        label: percent(group.chosen / group.tokens),
        end: `of ${count(group.tokens)}`,
        hue: group.isPlain ? "unknown" : hue,
      });
    });
    const rest = groups.length - rows.length;
    const more = rest > 0 ? ` · ${rest} more ${what}s not shown` : "";
    return cardSection(
      title,
      note,
      lineBars("moe-expert-groups", base / widest, rows),
      lineFoot(`all tokens: ${percent(base)}${more}`),
    );
  }

  positions({ positions, phase, tokens, traces, chosen }) {
    const whole = phase === "all" ? "trace" : phase;
    const rates = positions.map(([hits, n]) => (n ? hits / n : null));
    const highest = Math.max(...rates.map((rate) => rate ?? 0));
    const note = `share of tokens per 1/${positions.length} of ${traces > 1 ? "each" : "the"} ${whole}`;
    if (!chosen) return cardSection("Along the trace", note, absentWords(neverWords({ tokens })));
    const columns = positions.map(([hits, n], i) =>
      h("i", {
        class: n ? "" : "moe-expert-empty",
        style: `height: ${n ? Math.max(hits && 3, (100 * rates[i]) / highest) : 100}%`,
        title: n ? `${percent(rates[i])} of ${count(n)}` : "no tokens of the selection here",
      }),
    );
    const chart = h("div", { class: "moe-expert-positions", role: "img" }, ...columns);
    const peak = rates.indexOf(highest);
    chart.setAttribute(
      "aria-label",
      `${note}: highest ${percent(highest)} in stretch ${peak + 1} of ${positions.length}`,
    );
    const axis = h(
      "div",
      { class: "moe-expert-axis moe-secondary" },
      h("span", { text: "start" }),
      h("span", { text: `highest ${percent(highest)} of ${count(positions[peak][1])}` }),
      h("span", { text: `end of the ${whole}` }),
    );
    return cardSection("Along the trace", note, chart, axis);
  }

  partners({ expert, partners, uniformPartnerLift, chosen, topK, tokens }) {
    const title = "Chosen together with";
    if (topK < 2)
      return cardSection(title, "", absentWords("each token chooses one expert, so none is chosen together"));
    const note = `P(j | e${expert}) · lift, uniform ${times(uniformPartnerLift)}`;
    if (!partners.length) return cardSection(title, note, absentWords(neverWords({ tokens })));
    const buttons = partners.slice(0, PARTNERS_SHOWN).map((partner, i) =>
      h("button", {
        type: "button",
        class: "moe-button",
        "data-place": `partner-${i}`,
        text: `e${partner.expert} ${twoDigits(partner.share)} · ${times(partner.lift)}`,
        title: `expert ${partner.expert}: ${count(partner.together)} of the ${count(chosen)} tokens that chose expert ${expert}`,
        onclick: () => this.onExpert(partner.expert),
      }),
    );
    const rest = partners.length - buttons.length;
    const shown = rest > 0 ? ` · ${rest} more not shown` : "";
    return cardSection(
      title,
      note,
      h("div", { class: "moe-expert-partners" }, ...buttons),
      cardFoot(`of ${count(chosen)} tokens${shown}`),
    );
  }

  examples({ examples, chosen, tokens, traces }, palette) {
    if (!examples.length) return cardSection("In context", "", absentWords(neverWords({ tokens })));
    const rows = examples.map((example, i) => {
      const place = traces > 1 ? `${example.trace}:${count(example.token)}` : count(example.token);
      const weight = example.weight === null ? "" : ` ${twoDigits(example.weight)}`;
      const amount = example.weight ?? 0;
      const button = h(
        "button",
        {
          type: "button",
          class: "moe-expert-example",
          "data-place": `example-${i}`,
          title: `${traces > 1 ? `${contextText(example.name)}, ` : ""}token ${count(example.token)}: jump there`,
          onclick: () => this.onJump(example.trace, example.token, example.key),
        },
        h("span", { class: "moe-secondary moe-expert-token", text: place }),
        h(
          "span",
          { class: "moe-expert-text" },
          h("span", { class: "moe-expert-before", text: contextText(example.before, BEFORE_SHOWN) }),
          h("b", {
            text: cellText(example.text, example.special),
            style: `background: ${palette.fill(amount)}; color: ${palette.textOnFill(amount)}`,
          }),
          h("span", { class: "moe-expert-after", text: contextText(example.after) }),
        ),
        h("span", { class: "moe-secondary", text: `#${example.rank}${weight}` }),
      );
      this.jumps.push({ button, example });
      return button;
    });
    const from = traces > 1 ? "trace:token · " : "";
    const note = `${from}⏎ jumps there · ${examples.length} spread over ${count(chosen)}`;
    return cardSection("In context", note, h("div", { class: "moe-expert-examples" }, ...rows));
  }
}

function cardSection(title, note, ...content) {
  return h(
    "div",
    { class: "moe-expert-section" },
    h(
      "div",
      { class: "moe-expert-title" },
      h("b", { text: title }),
      " ",
      h("span", { class: "moe-secondary", text: note }),
    ),
    ...content,
  );
}

const absentWords = (text) => h("div", { class: "moe-undefined moe-expert-words", text });

// What is said under a part; with a dash as in the line through the bars where it explains that line.
const cardFoot = (text, dash = "") => h("div", { class: "moe-expert-foot moe-secondary" }, dash, text);
const lineFoot = (text) => cardFoot(text, h("i"));

// Bars one below another with one dashed line through all, at a share of the longest.
function lineBars(className, line, rows) {
  const list = h("ul", { class: `moe-expert-bars ${className}` }, ...rows);
  list.style.setProperty("--line-at", line.toFixed(4));
  list.style.setProperty("--label", `${BAR_LABEL_WIDTH}px`);
  return list;
}

function barRow({ name, share, label, end, hue, isPale }) {
  const bar = h("i", { class: isPale ? "moe-expert-pale" : "" });
  bar.style.setProperty("--share", share.toFixed(4));
  const row = h(
    "li",
    {},
    name,
    h("span", { class: "moe-expert-bar" }, bar, h("span", { text: label })),
    h("span", { class: "moe-secondary moe-expert-end", text: end }),
  );
  if (hue) row.style.setProperty("--hue", hue === "unknown" ? "var(--secondary)" : `var(--${hue})`);
  return row;
}

// A role has its colour; the assistant's is that of its channels, so it has none.
const roleHue = (role) => (role === "assistant" ? "unknown" : hueOf(role, null));
