// The head of the view: the question, where the trace comes from, what was captured and what was not, three buttons.

import { fontless, fontlessBadge, uncommon } from "./fonts.js";
import { h, setText } from "./surface.js";

export const DTYPES = { float32: "fp32", bfloat16: "bf16", float16: "fp16" };

const CAPTURES = [
  ["router", ["expert_indices", "expert_weights"]],
  ["attention", ["queries", "keys"]],
  ["lens", ["lens_token_ids"]],
  ["residual", ["residual"]],
];

// Badges {text, kind, title}: source, dtype, what is here, what is not, whether the rollout was cut.
export function badges(facts) {
  const out = [];
  const sources = [
    ...new Set(
      Object.values(facts.arrays)
        .map((a) => a.source)
        .filter(Boolean),
    ),
  ];
  for (const source of sources) out.push(sourceBadge(source));
  if (facts.dtype)
    out.push({ text: DTYPES[facts.dtype] ?? facts.dtype, kind: "plain", title: `the model ran in ${facts.dtype}` });
  for (const [name, arrays] of CAPTURES) out.push(captureBadge(name, arrays, facts));
  out.push(...pageBadges(facts));
  if (facts.truncated)
    out.push({ text: `✂ ${facts.truncated}`, kind: "warning", title: "the rollout did not end by itself" });
  return out;
}

// What a page without a kernel holds less of; see widgets/export_page.py.
function pageBadges({ rounded, stretch }) {
  const out = [];
  if (rounded)
    out.push({
      text: "rounded for the page",
      kind: "warning",
      title: `${rounded.join(" and ")} are int8 here, with a scale for each token and head; in the trace as captured`,
    });
  if (stretch) {
    const [start, stop, total] = stretch.map((n) => n.toLocaleString("en"));
    out.push({
      text: `tokens ${start}–${stop} of ${total}`,
      kind: "warning",
      title: `token 0 here is token ${start} of the trace; attention to tokens before it is not in the page`,
    });
  }
  return out;
}

export function sourceBadge(source) {
  if (source === "live") return { text: "live", kind: "live", title: "captured while the tokens were generated" };
  if (source === "replay") {
    return {
      text: "↻ replay",
      kind: "warning",
      title: "recomputed in one forward over the finished tokens: near-ties may differ from what happened",
    };
  }
  return { text: source, kind: "plain", title: `arrays come from: ${source}` };
}

function captureBadge(name, arrays, facts) {
  const missing = arrays.filter((a) => !facts.arrays[a]);
  if (missing.length)
    return { text: `${name} not captured`, kind: "missing", title: `not in this trace: ${missing.join(", ")}` };
  const layers = facts.arrays[arrays[0]].layers ?? [];
  const some = layers.length < facts.numLayers;
  return {
    text: `✓ ${name}${some ? ` ${layers.length}/${facts.numLayers} layers` : ""}`,
    kind: "plain",
    title: `captured: ${arrays.join(", ")}`,
  };
}

function badgeOf({ text, kind, title }) {
  return h("span", { class: `moe-badge moe-badge-${kind}`, text, title });
}

export class Header {
  constructor(explorer) {
    const { facts } = explorer;
    const button = (text, label, action) =>
      h("button", { type: "button", class: "moe-button", text, "aria-label": label, onclick: action });
    this.play = button("▶ Play", "Play", () => explorer.togglePlay());
    this.play.setAttribute("aria-pressed", "false");
    this.element = h(
      "header",
      { class: "moe-header" },
      h(
        "div",
        { class: "moe-header-row" },
        h("div", {
          class: "moe-question",
          role: "heading",
          "aria-level": "2",
          text: facts.question,
          title: facts.question,
        }),
        h(
          "div",
          { class: "moe-buttons" },
          this.play,
          button("Find", "Find", () => explorer.find.open()),
          button("Save", "Save bookmarks and notes", () => explorer.save()),
        ),
      ),
      h(
        "div",
        { class: "moe-header-row" },
        this.facts(facts),
        (this.badges = h("div", { class: "moe-badges" }, ...badges(facts).map(badgeOf))),
      ),
    );
    setTimeout(() => this.sayFontless(facts)); // after what is there is drawn
  }

  sayFontless({ vocabulary, question }) {
    const badge = fontlessBadge(fontless(uncommon([question, ...(vocabulary?.texts ?? [])])));
    if (badge) this.badges.append(badgeOf(badge));
  }

  facts(facts) {
    const parts = [];
    if (facts.effort) parts.push("effort ", h("b", { text: facts.effort }), " · ");
    parts.push(h("b", { text: facts.model }));
    const shape = [`${facts.numLayers} layers`];
    if (facts.numExperts) shape[0] += ` × ${facts.numExperts} experts`;
    if (facts.topK) shape.push(`top-${facts.topK}`);
    const said = facts.embedded ? " (embedded: says nothing about gpt-oss)" : "";
    const completion = facts.numTokens - facts.numPromptTokens;
    const counts = `${facts.numPromptTokens.toLocaleString("en")} + ${completion.toLocaleString("en")} tokens`;
    return h("div", { class: "moe-facts moe-secondary" }, ...parts, `${said}, ${shape.join(", ")} · ${counts}`);
  }

  playing(isPlaying) {
    setText(this.play, isPlaying ? "❚❚ Pause" : "▶ Play");
    this.play.setAttribute("aria-pressed", String(isPlaying));
  }
}
