// Blocks of attention: a head's own pages where they are here, else the tiles of all heads that the wall needs anyway,
// so that another head of the same layer is seen without a fetch of its own.

import { Blocks } from "./blocks.js";

const KEPT_BYTES = 80 << 20;

export class AttentionBlocks extends Blocks {
  constructor(model, facts, onArrive) {
    super(model, facts, onArrive, KEPT_BYTES);
  }

  isHere(key) {
    return this.cache.has(key) || Boolean(this.sent[key]);
  }

  // The block if it is here; asks for nothing.
  peek(key) {
    return this.isHere(key) ? this.get(key) : null;
  }

  get isIdle() {
    return !this.wanted.size && !this.inFlight.size;
  }

  query(layer, head, token) {
    return this.ofToken("queries", layer, head, token, this.facts.dHead);
  }

  // Log-sum-exp of a row, sink included; null while waited for.
  logSumExp(layer, head, token) {
    return this.ofToken("attention_logsumexp", layer, head, token, 1)?.[0] ?? null;
  }

  ofToken(name, layer, head, token, width) {
    const size = this.facts.page.head;
    const page = Math.floor(token / size);
    const key = `head/${name}/${layer}/${head}/${page}`;
    if (this.facts.preloaded || this.isHere(key)) {
      const at = (token - page * size) * width;
      return this.get(key)?.subarray(at, at + width) ?? null;
    }
    return this.ofTile(name, layer, head, token, width);
  }

  ofTile(name, layer, head, token, width) {
    const size = this.facts.page.tile;
    const tile = Math.floor(token / size);
    const rows = Math.min(size, this.facts.numTokens - tile * size);
    const at = (head * rows + token - tile * size) * width;
    return this.get(`tile/${name}/${layer}/${tile}`)?.subarray(at, at + width) ?? null;
  }

  // What the next steps will want, once everything shown is here: the keys of the kv groups beside this one, and the
  // tiles that the token is near. Returns whether something was lacking.
  prefetchNeighbours({ token, layer, head }) {
    const { page, numTokens, numHeads, numKvHeads, preloaded } = this.facts;
    if (preloaded || !this.has("keys", layer)) return false;
    const before = this.wanted.size;
    const group = Math.floor((head * numKvHeads) / numHeads);
    const groups = numTokens <= page.head ? [group + 1, group - 1] : []; // longer ones would be megabytes each
    for (const g of groups) if (g >= 0 && g < numKvHeads) this.prefetch(`head/keys/${layer}/${g}/0`);
    const tile = Math.floor(token / page.tile);
    const next = token - tile * page.tile > page.tile / 2 ? tile + 1 : tile - 1;
    if (next < 0 || next * page.tile >= numTokens) return this.wanted.size > before;
    for (const name of ["queries", "keys", "attention_logsumexp"]) {
      if (this.has(name, layer)) this.prefetch(`tile/${name}/${layer}/${next}`);
    }
    return this.wanted.size > before;
  }
}
