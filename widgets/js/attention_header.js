// The head of the attention view: the question, where queries and keys come from, of which layers, and their shape.

import { DTYPES, sourceBadge } from "./header.js";
import { ranges } from "./reading.js";
import { h } from "./surface.js";

// Badges {text, kind, title}: source, dtype, which layers, whether the family has sinks.
export function attentionBadges({ arrays, attention, dtype, numLayers }) {
  const sources = [...new Set(["queries", "keys"].map((name) => arrays[name].source).filter(Boolean))];
  const { layers } = attention;
  const some = layers.length < numLayers ? ` ${layers.length}/${numLayers} layers` : "";
  const computed = "patterns are computed from queries and keys, in fp32, when looked at";
  return [
    ...sources.map(sourceBadge),
    ...(dtype ? [{ text: DTYPES[dtype] ?? dtype, kind: "plain", title: `the model ran in ${dtype}` }] : []),
    { text: `✓ attention${some}`, kind: "plain", title: `layers ${ranges(layers)}: ${computed}` },
    arrays.sink_logits
      ? { text: "✓ sinks", kind: "plain", title: "one learned sink logit per head; the sink is not a token" }
      : { text: "sinks: none", kind: "plain", title: "this family has no attention sinks" },
  ];
}

export class AttentionHeader {
  constructor(view) {
    const { facts } = view;
    const badge = ({ text, kind, title }) => h("span", { class: `moe-badge moe-badge-${kind}`, text, title });
    const { question } = facts;
    this.element = h(
      "header",
      { class: "moe-header" },
      h(
        "div",
        { class: "moe-header-row" },
        h("div", { class: "moe-question", role: "heading", "aria-level": "2", text: question, title: question }),
        h("button", { type: "button", class: "moe-button", text: "Find", onclick: () => view.find.open() }),
      ),
      h(
        "div",
        { class: "moe-header-row" },
        h("div", { class: "moe-facts moe-secondary" }, h("b", { text: facts.model }), shapeWords(facts)),
        h("div", { class: "moe-badges" }, ...attentionBadges(facts).map(badge)),
      ),
    );
  }
}

function shapeWords({ embedded, numLayers, numHeads, numKvHeads, numTokens, numPromptTokens }) {
  const said = embedded ? " (embedded: says nothing about gpt-oss)" : "";
  const counts = [numPromptTokens, numTokens - numPromptTokens].map((n) => n.toLocaleString("en")).join(" + ");
  return `${said}, ${numLayers} layers × ${numHeads} heads, ${numKvHeads} kv heads · ${counts} tokens`;
}
