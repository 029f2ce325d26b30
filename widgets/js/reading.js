// What the views show of the trace at a selection: each answer is {state, …} where state is
// "here", "waiting" (words say for what), "missing" (not captured) or "undefined" (words say why).

import { attentionPart, rowLogSumExp, routingMargin, softmax, windowStart } from "./numerics.js";

export const here = (rest) => ({ state: "here", ...rest });
export const waiting = (what) => ({ state: "waiting", words: `waiting for ${what}` });
export const missing = (words) => ({ state: "missing", words });
export const undefinedValue = (words) => ({ state: "undefined", words });

// 0–3, 5 from [0, 1, 2, 3, 5].
export function ranges(numbers) {
  const runs = [];
  for (const n of numbers) {
    if (runs.length && n === runs.at(-1)[1] + 1) runs.at(-1)[1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([a, b]) => (a === b ? `${a}` : `${a}–${b}`)).join(", ");
}

export class Reading {
  constructor(blocks, facts, tokens) {
    Object.assign(this, { blocks, facts, tokens });
    this.lastRow = null;
  }

  // What waits for the kernel, or says that there is none to wait for.
  wait(what) {
    return this.blocks.isLost ? missing(`${what}: needs a kernel`) : waiting(what);
  }

  // "router not captured", or "router captured in layers 0–3 only".
  absence(what, name) {
    const captured = this.facts.arrays[name]?.layers ?? [];
    return missing(captured.length ? `${what} captured in layers ${ranges(captured)} only` : `${what} not captured`);
  }

  layerKind(layer) {
    const window = this.facts.attention.windows[layer];
    if (window === undefined) return "";
    return window ? `sliding ${window}` : "full";
  }

  // Attention of one head's row: weights of tokens [from, token], the sink mass (null: family without sinks).
  attention({ token, layer, head }) {
    const { blocks, facts } = this;
    const id = `${token}/${layer}/${head}`;
    if (this.lastRow?.id === id) return this.lastRow;
    if (!blocks.has("queries", layer) || !blocks.has("keys", layer)) return this.absence("attention", "queries");
    const from = windowStart(token, facts.attention.windows[layer]);
    const kv = Math.floor((head * facts.numKvHeads) / facts.numHeads);
    const keys = blocks.headSpan("keys", layer, kv, from, token + 1);
    const query = blocks.query(layer, head, token);
    const lse = keys && query && this.logSumExp(token, layer, head, query, keys, from);
    if (lse === null) {
      return this.wait(`keys of layer ${layer}, ${blocks.progress("keys", layer, kv, from, token + 1)}`);
    }
    const weights = attentionPart(query, keys.values, keys.start, from, token + 1, facts.attention.scale, lse);
    this.lastRow = here({ id, from, weights, ...this.sink(layer, head, lse) });
    return this.lastRow;
  }

  sink(layer, head, lse) {
    if (!this.blocks.has("sink_logits", layer)) return { sink: null };
    return { sink: Math.exp(this.blocks.sinkLogit(layer, head) - lse) };
  }

  logSumExp(token, layer, head, query, keys, from) {
    const { blocks, facts } = this;
    if (blocks.has("attention_logsumexp", layer))
      return blocks.layerRow("attention_logsumexp", token, layer)?.[head] ?? null;
    const sink = blocks.has("sink_logits", layer) ? blocks.sinkLogit(layer, head) : null;
    return rowLogSumExp(query, keys.values, keys.start, from, token + 1, facts.attention.scale, sink);
  }

  // The last `count` tokens of every head's row; needs the stored log-sum-exp, or the window within `count`.
  wall({ token, layer }, count) {
    const { blocks, facts } = this;
    if (!blocks.has("queries", layer) || !blocks.has("keys", layer)) return this.absence("attention", "queries");
    const start = windowStart(token, facts.attention.windows[layer]);
    const from = Math.max(start, token - count + 1);
    const stored = blocks.has("attention_logsumexp", layer);
    const heads = [];
    for (let head = 0; head < facts.numHeads; head++) {
      const part = blocks.recent(layer, head, token, stored ? from : start);
      const lse =
        part && this.logSumExp(token, layer, head, part.query, { values: part.keys, start: part.start }, start);
      if (lse === null) return this.wait(`heads of layer ${layer}`);
      const weights = attentionPart(part.query, part.keys, part.start, from, token + 1, facts.attention.scale, lse);
      heads.push({ weights, ...this.sink(layer, head, lse) });
    }
    return here({ from, edge: start > token - count + 1 && start > 0 ? start : null, heads });
  }

  // Experts of one token in one layer, rank order, with margin and the full softmax where logits were captured.
  router(token, layer) {
    const { blocks } = this;
    if (!blocks.has("expert_indices", layer)) return this.absence("router", "expert_indices");
    const experts = blocks.layerRow("expert_indices", token, layer);
    const weights = blocks.has("expert_weights", layer) ? blocks.layerRow("expert_weights", token, layer) : undefined;
    const logits = blocks.has("router_logits", layer) ? blocks.layerRow("router_logits", token, layer) : undefined;
    if (experts === null || weights === null || logits === null) return this.wait("router");
    const chosen = Array.from(experts);
    const rest = logits
      ? { probs: softmax(logits), ...routingMargin(logits, chosen) }
      : { probs: null, margin: null, runnerUp: -1 };
    const nearTie = rest.margin !== null && rest.margin < this.facts.nearTie;
    return here({ experts: chosen, weights: weights ? Array.from(weights) : null, nearTie, ...rest });
  }

  lens(token, layer) {
    const { blocks } = this;
    if (!blocks.has("lens_token_ids", layer)) return this.absence("lens", "lens_token_ids");
    const ids = blocks.layerRow("lens_token_ids", token, layer);
    const logprobs = blocks.layerRow("lens_logprobs", token, layer);
    if (!ids || !logprobs) return this.wait("lens");
    return here({ ids: Array.from(ids), probs: Array.from(logprobs, Math.exp) });
  }

  // Sink mass of every head in one layer.
  sinks(token, layer) {
    const { blocks, facts } = this;
    if (!blocks.has("attention_logsumexp", layer)) return this.absence("sink mass", "attention_logsumexp");
    if (!blocks.has("sink_logits", layer)) return missing("family without sinks");
    const lse = blocks.layerRow("attention_logsumexp", token, layer);
    if (!lse) return this.wait("sink mass");
    return here({
      masses: Array.from({ length: facts.numHeads }, (_, h) => Math.exp(blocks.sinkLogit(layer, h) - lse[h])),
    });
  }

  // What else could have stood in place of this token.
  alternatives(token) {
    const { blocks, tokens } = this;
    if (!blocks.has("top_token_ids")) return missing("alternatives not captured");
    const logprobs = blocks.tokenRow("top_logprobs", token);
    const ids = blocks.tokenRow("top_token_ids", token);
    if (!ids || !logprobs) return this.wait("alternatives");
    if (Number.isNaN(logprobs[0])) return undefinedValue(`undefined: nothing precedes token ${token}`);
    const rows = Array.from(ids, (id, i) => ({ id, prob: Math.exp(logprobs[i]), actual: id === tokens.ids[token] }));
    if (!rows.some((r) => r.actual) && blocks.has("logprobs")) {
      rows.push({ id: tokens.ids[token], prob: Math.exp(blocks.get("all/logprobs")[token]), actual: true });
    }
    return here({ rows });
  }

  // Surprisal and entropy of the draw of a token, nats; null where not captured.
  draw(token) {
    const value = (name) => (this.blocks.has(name) ? this.blocks.get(`all/${name}`)[token] : null);
    const logprob = value("logprobs");
    return { surprisal: logprob === null ? null : -logprob, entropy: value("entropy") };
  }
}
