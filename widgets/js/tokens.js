// Token texts and the messages and sentences on the token axis. Texts are untrusted: strings for textContent only.

const CHANNELS = ["system", "developer", "user", "analysis", "commentary", "final", "tool"];

// What stands for a character that would not be seen, or would change how others are seen (bidi controls).
function visible(character) {
  const code = character.codePointAt(0);
  if (code < 32) return String.fromCodePoint(0x2400 + code);
  if (code === 127) return "␡";
  return `⟨${code.toString(16).toUpperCase()}⟩`;
}

// Controls, formats (also the tags that spell hidden text), lone surrogates and separators of lines.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

const LONGEST_CELL = 60;

// One line for a strip cell: ⏎ newline, · leading space, ␣ a lone space, ⟨end⟩ a special token; cut when very long.
export function cellText(whole, special) {
  const text =
    whole.length > LONGEST_CELL ? `${Array.from(whole.slice(0, LONGEST_CELL)).slice(0, -1).join("")}…` : whole;
  if (special) return text.replace(/^<\|?/, "⟨").replace(/\|?>$/, "⟩").replace(HIDDEN, visible);
  if (text === " ") return "␣";
  return text.replace(/^ /, "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(HIDDEN, visible);
}

// Text for reading: newlines stay, other hidden characters are shown.
export function readingText(text) {
  return text.replace(HIDDEN, (c) => (c === "\n" || c === "\t" ? c : visible(c)));
}

const hex = (latin1) => Array.from(latin1, (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join(" ");

export class Tokens {
  constructor(facts, ids) {
    this.ids = ids;
    this.length = facts.numTokens;
    this.numPrompt = facts.numPromptTokens;
    const { ids: known, texts, raw, special } = facts.vocabulary;
    this.at = new Map(known.map((id, i) => [id, i]));
    this.texts = texts;
    this.raw = new Set(raw);
    this.specials = new Set(special);
    this.cells = new Array(texts.length);
    const spans = facts.spans.map(([kind, start, contentStart, stop, role, channel, recipient, type, malformed]) => ({
      ...{ kind, start, contentStart, stop, role, channel, recipient, type, malformed },
      hue: hueOf(role, channel),
    }));
    this.messages = withGaps(
      spans.filter((s) => s.kind === "message"),
      this.length,
    );
    this.sentences = spans.filter((s) => s.kind === "sentence");
  }

  // Text of a vocabulary id in a cell or list.
  cellOf(id) {
    const at = this.at.get(id);
    if (at === undefined) return id < 0 ? "" : `#${id}`;
    this.cells[at] ??= this.raw.has(at) ? `⟨${hex(this.texts[at])}⟩` : cellText(this.texts[at], this.specials.has(at));
    return this.cells[at];
  }

  cell(token) {
    return this.cellOf(this.ids[token]);
  }

  isSpecial(token) {
    return this.specials.has(this.at.get(this.ids[token]));
  }

  // Pieces of [start, stop) for reading: {token, count, text}; a character split over tokens is one piece.
  pieces(start, stop) {
    const out = [];
    for (let i = start; i < stop; i++) {
      const at = this.at.get(this.ids[i]);
      if (!this.raw.has(at)) {
        out.push({ token: i, count: 1, text: at === undefined ? `#${this.ids[i]}` : this.texts[at] });
        continue;
      }
      let bytes = "";
      let end = i;
      while (end < stop && this.raw.has(this.at.get(this.ids[end]))) bytes += this.texts[this.at.get(this.ids[end++])];
      out.push(...splitCharacters(bytes, i, end, (k) => this.texts[this.at.get(this.ids[k])].length));
      i = end - 1;
    }
    for (const piece of out) piece.text = readingText(piece.text);
    return out;
  }

  // The text of a token with what it means that is not in its cell, for search.
  text(token) {
    const at = this.at.get(this.ids[token]);
    return at === undefined || this.raw.has(at) ? "" : this.texts[at];
  }

  messageAt(token) {
    return spanAt(this.messages, token);
  }

  sentenceAt(token) {
    return spanAt(this.sentences, token);
  }

  // Where shift+arrow goes: the start of this sentence or its neighbour's.
  sentenceStep(token, direction) {
    const list = this.sentences;
    if (!list.length) return token + direction * 16;
    if (direction > 0) {
      const next = list.find((s) => s.start > token);
      return next ? next.start : this.length - 1;
    }
    for (let i = list.length - 1; i >= 0; i--) if (list[i].start < token) return list[i].start;
    return 0;
  }

  // Tokens whose text takes part in a match of `needle` (case ignored), as the first token of each match.
  find(needle) {
    if (!needle) return [];
    const starts = [];
    let whole = "";
    for (let i = 0; i < this.length; i++) {
      starts.push(whole.length);
      whole += this.text(i).toLowerCase();
    }
    const hits = [];
    const wanted = needle.toLowerCase();
    for (let at = whole.indexOf(wanted); at >= 0; at = whole.indexOf(wanted, at + 1)) {
      let low = 0;
      let high = starts.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (starts[middle] <= at) low = middle;
        else high = middle - 1;
      }
      if (hits.at(-1) !== low) hits.push(low);
    }
    return hits;
  }
}

// Tokens that no message holds are shown as a message of no one, so that every token has a place.
function withGaps(messages, length) {
  const out = [];
  let at = 0;
  const gap = (start, stop) => ({
    kind: "message",
    start,
    contentStart: start,
    stop,
    role: "no message",
    channel: null,
    hue: "unknown",
  });
  for (const message of messages) {
    if (message.start > at) out.push(gap(at, message.start));
    out.push(message);
    at = message.stop;
  }
  if (at < length) out.push(gap(at, length));
  return out;
}

function spanAt(spans, token) {
  let low = 0;
  let high = spans.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (token < spans[middle].start) high = middle - 1;
    else if (token >= spans[middle].stop) low = middle + 1;
    else return { ...spans[middle], index: middle };
  }
  return null;
}

// Channel colours are by channel for the assistant, by role for everyone else; any other role is a tool.
export function hueOf(role, channel) {
  if (role === "assistant") return CHANNELS.includes(channel) ? channel : "final";
  return CHANNELS.includes(role) || role === "unknown" ? role : "tool"; // a tool's role is its name
}

// Share a run of byte tokens among characters: each piece starts where a character and a token start together.
function splitCharacters(latin1, first, end, lengthOf) {
  const bytes = Uint8Array.from(latin1, (c) => c.charCodeAt(0));
  const isStart = (offset) => offset >= bytes.length || (bytes[offset] & 0xc0) !== 0x80;
  const pieces = [];
  let offset = 0;
  for (let i = first; i < end;) {
    let stop = offset;
    let k = i;
    do stop += lengthOf(k++);
    while (k < end && !isStart(stop));
    const text = new TextDecoder().decode(bytes.subarray(offset, stop));
    pieces.push({ token: i, count: k - i, text });
    offset = stop;
    i = k;
  }
  return pieces;
}
