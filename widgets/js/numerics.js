// Arithmetic on arrays: reading 16-bit floats, softmax, attention rows, pooling. No DOM here.

let halfTable = null;

// float16 bits → number, for all 65,536 of them.
function halves() {
  if (halfTable) return halfTable;
  halfTable = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const sign = bits & 32768 ? -1 : 1;
    if (exponent === 31) halfTable[bits] = fraction ? NaN : sign * Infinity;
    else if (exponent) halfTable[bits] = sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
    else halfTable[bits] = sign * 2 ** -14 * (fraction / 1024);
  }
  return halfTable;
}

// Rows of int8 with a scale each, made by widgets/page_state.py: their length, their scales, their values.
function decodeRounded(view) {
  const width = view.getUint32(0, true);
  const rows = (view.byteLength - 4) / (4 + width);
  const out = new Float32Array(rows * width);
  for (let row = 0, at = 0; row < rows; row++) {
    const scale = view.getFloat32(4 + 4 * row, true);
    for (let i = 0; i < width; i++, at++) out[at] = scale * view.getInt8(4 + 4 * rows + at);
  }
  return out;
}

const ITEM_BYTES = { uint8: 1, uint16: 2, int32: 4, float16: 2, bfloat16: 2, float32: 4, float64: 8, rounded: 1 };

export function itemBytes(dtype) {
  return ITEM_BYTES[dtype];
}

// Read bytes as numbers: a view where the browser knows the dtype, else a Float32Array.
export function decode(view, dtype) {
  let { buffer, byteOffset, byteLength } = view;
  const size = ITEM_BYTES[dtype];
  if (!size) throw new Error(`expected one of the dtypes ${Object.keys(ITEM_BYTES).join(", ")}, got ${dtype}`);
  if (dtype === "rounded") return decodeRounded(view);
  if (byteOffset % size) {
    buffer = buffer.slice(byteOffset, byteOffset + byteLength);
    byteOffset = 0;
  }
  const length = byteLength / size;
  if (dtype === "uint8") return new Uint8Array(buffer, byteOffset, length);
  if (dtype === "int32") return new Int32Array(buffer, byteOffset, length);
  if (dtype === "float32") return new Float32Array(buffer, byteOffset, length);
  if (dtype === "float64") return new Float64Array(buffer, byteOffset, length);
  const bits = new Uint16Array(buffer, byteOffset, length);
  if (dtype === "uint16") return bits;
  const out = new Float32Array(length);
  if (dtype === "float16") {
    const table = halves();
    for (let i = 0; i < length; i++) out[i] = table[bits[i]];
  } else {
    const high = new Uint32Array(out.buffer);
    for (let i = 0; i < length; i++) high[i] = bits[i] << 16;
  }
  return out;
}

export function softmax(values) {
  const top = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = Float32Array.from(values, (v) => Math.exp(v - top));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

// First token that a row sees; null for the window means all before it.
export function windowStart(token, window) {
  return window ? Math.max(0, token - window + 1) : 0;
}

// Attention of one query over keys[from..to), each of dHead numbers at (key - keysStart) * dHead.
// With the row's log-sum-exp any part of it is exact: w = exp(z - lse); the part is never renormalised.
export function attentionPart(query, keys, keysStart, from, to, scale, lse) {
  const weights = new Float32Array(Math.max(0, to - from));
  const d = query.length;
  for (let j = from; j < to; j++) {
    weights[j - from] = Math.exp(dot(query, keys, (j - keysStart) * d, d) * scale - lse);
  }
  return weights;
}

export function dot(query, keys, offset, d) {
  let a = 0;
  let b = 0;
  let i = 0;
  for (; i + 1 < d; i += 2) {
    a += query[i] * keys[offset + i];
    b += query[i + 1] * keys[offset + i + 1];
  }
  return i < d ? a + b + query[i] * keys[offset + i] : a + b;
}

// Log-sum-exp of a whole row, its sink included where there is one (null: none).
export function rowLogSumExp(query, keys, keysStart, from, to, scale, sink) {
  const d = query.length;
  const scores = new Float64Array(to - from);
  let top = sink ?? -Infinity;
  for (let j = from; j < to; j++) {
    scores[j - from] = dot(query, keys, (j - keysStart) * d, d) * scale;
    top = Math.max(top, scores[j - from]);
  }
  let sum = sink === null ? 0 : Math.exp(sink - top);
  for (const score of scores) sum += Math.exp(score - top);
  return top + Math.log(sum);
}

// Routing of one token in one layer from its logits: the runner-up and by how much it lost.
export function routingMargin(logits, chosen) {
  let worst = Infinity;
  for (const expert of chosen) worst = Math.min(worst, logits[expert]);
  let runnerUp = -1;
  for (let e = 0; e < logits.length; e++) {
    if (!chosen.includes(e) && (runnerUp < 0 || logits[e] > logits[runnerUp])) runnerUp = e;
  }
  return runnerUp < 0 ? { runnerUp, margin: NaN } : { runnerUp, margin: worst - logits[runnerUp] };
}

// Largest value of each of `bins` equal stretches; NaN where a stretch holds no number.
export function poolMax(values, bins) {
  const out = new Float32Array(bins).fill(NaN);
  const n = values.length;
  for (let b = 0; b < bins; b++) {
    const from = Math.floor((b * n) / bins);
    const to = Math.max(from + 1, Math.floor(((b + 1) * n) / bins));
    for (let i = from; i < to && i < n; i++) {
      if (!(out[b] >= values[i]) && !Number.isNaN(values[i])) out[b] = values[i];
    }
  }
  return out;
}

// Positions of the `count` largest values above `floor`, largest first.
export function largest(values, count, floor) {
  const found = [];
  for (let i = 0; i < values.length; i++) {
    if (!(values[i] > floor)) continue;
    if (found.length === count && values[i] <= values[found[count - 1]]) continue;
    let at = found.length;
    while (at > 0 && values[i] > values[found[at - 1]]) at--;
    found.splice(at, 0, i);
    if (found.length > count) found.pop();
  }
  return found;
}

// .83, 1.0, .00: two digits as in print.
export function twoDigits(p) {
  if (!Number.isFinite(p)) return "–";
  const text = Math.abs(p).toFixed(2);
  if (text === "1.00") return p < 0 ? "−1.0" : "1.0";
  return (p < 0 ? "−" : "") + text.replace(/^0/, "");
}

// .474, 1.00, <.001: a probability among alternatives.
export function threeDigits(p) {
  if (!Number.isFinite(p)) return "–";
  if (p < 0.0005) return "<.001";
  const text = p.toFixed(3);
  return p >= 0.9995 ? "1.00" : text.replace(/^0/, "");
}
