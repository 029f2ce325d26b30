// What the chain view shows, without the page: sentences and their labels, forking tokens, turns, the answer.

import { decode } from "./numerics.js";

// Labels of a sentence: a person's own where there are any, else those of the rules; each with what fired.
export function shownLabels(sentence, own, by) {
  const says = own?.[sentence.start];
  const labels = says?.length ? says : sentence.labels;
  return labels.map((label) => {
    const fired = sentence.fired.filter(([given]) => given === label);
    return { label, own: Boolean(says?.length), words: says?.length ? `by ${by}` : firedWords(fired) };
  });
}

// `rule equation: "7+5=12"`, for each rule that fired.
export function firedWords(fired) {
  return fired.length ? fired.map(([, rule, text]) => `rule ${rule}: “${text.trim()}”`).join(", ") : "no rule fired";
}

// Own labels of a sentence after one was switched; none left means those of the rules again.
export function switched(labels, order, label) {
  const now = labels.includes(label) ? labels.filter((l) => l !== label) : [...labels, label];
  return order.filter((l) => now.includes(l));
}

// The next of ascending numbers after (1) or before (−1) one; null where there is none.
export function neighbour(numbers, at, direction) {
  if (direction > 0) return numbers.find((n) => n > at) ?? null;
  return numbers.findLast((n) => n < at) ?? null;
}

// The largest value of [from, to) in each of so many columns; NaN where none has a value.
export function pooledMax(values, from, to, columns) {
  const out = new Float32Array(columns).fill(NaN);
  for (let token = from; token < to; token++) {
    const value = values[token];
    if (Number.isNaN(value)) continue;
    const [first, last] = columnsOf(token, from, to, columns);
    for (let c = first; c <= last; c++) if (!(out[c] >= value)) out[c] = value;
  }
  return out;
}

// The columns that a token of [from, to) takes, inclusive.
export function columnsOf(token, from, to, columns) {
  const each = columns / (to - from);
  const first = Math.floor((token - from) * each);
  return [first, Math.max(first, Math.ceil((token - from + 1) * each) - 1)];
}

// The share of each column's tokens that are among some, where columns are no more than tokens.
export function sharePerColumn(some, from, to, columns) {
  const column = (token) => Math.floor(((token - from) * columns) / (to - from));
  const sizes = new Uint32Array(columns);
  for (let token = from; token < to; token++) sizes[column(token)]++;
  const shares = new Float32Array(columns);
  for (const token of some) shares[column(token)] += 1 / sizes[column(token)];
  return shares;
}

export class ChainData {
  constructor(chain, arrays, facts) {
    Object.assign(this, chain);
    this.start = facts.numPromptTokens;
    this.stop = facts.numTokens;
    this.forkTokens = arrays.forks ? Array.from(decode(arrays.forks, "int32")) : [];
    this.isFork = new Set(this.forkTokens);
    this.ofSentences = arrays.sentences ? decode(arrays.sentences, "float32") : null;
    this.ranks = arrays.answer ? decode(arrays.answer, "uint8") : null;
    this.topEntropy = this.ofSentences ? Math.max(0, ...finite(this.ofSentences)) : 0;
    this.turnOf = new Map(this.turns.map((turn) => [turn.from, turn]));
    this.markerAt = new Map();
    for (const [start, stop, kind, rule] of this.markers)
      for (let token = start; token < stop; token++) this.markerAt.set(token, { kind, rule });
  }

  // The number of the sentence that holds a token; −1 where none does.
  sentenceAt(token) {
    let low = 0;
    let high = this.sentences.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (token < this.sentences[middle].start) high = middle - 1;
      else if (token >= this.sentences[middle].stop) low = middle + 1;
      else return middle;
    }
    return -1;
  }

  // Where shift+arrow goes: the start of this sentence or its neighbour's.
  sentenceStep(token, direction) {
    const starts = this.sentences.map((s) => s.start);
    return neighbour(starts, token, direction) ?? (direction > 0 ? this.stop - 1 : this.start);
  }

  // Mean and largest entropy of a sentence, nats; null where not captured.
  entropyOf(sentence) {
    if (!this.ofSentences) return null;
    return { mean: this.ofSentences[2 * sentence], max: this.ofSentences[2 * sentence + 1] };
  }

  // The rank at which the lens of a token and layer predicts the answer, 0 the highest; −1 where it does not.
  answerRank(token, layer) {
    const { answer, ranks } = this;
    const at = ranks ? answer.layers.indexOf(layer) : -1;
    if (at < 0 || token < answer.begin || token >= answer.start) return -1;
    return ranks[(token - answer.begin) * answer.layers.length + at] - 1;
  }
}

const finite = (values) => Array.from(values).filter(Number.isFinite);

// Where the answer shows in the lens, in words.
export function answerWords(answer) {
  if (answer.missing) return answer.missing;
  const base = `predicted by ${answer.numPredicting.toLocaleString("en")} of ${answer.numLenses.toLocaleString("en")} lenses (tokens × layers)`;
  const written = answer.written === null ? "the chain never writes it" : `written first at token ${answer.written}`;
  if (!answer.first) return `no lens predicts it as its highest before it stands at token ${answer.start}; ${written}`;
  const [token, layer] = answer.first;
  return `first at token ${token}, layer ${layer}; ${written}; ${base}`;
}
