// The three things that the map can show, in one form for painting: sentences, the overview, the tokens of two stretches.
// Each is {id, title, note, how, height, width, top, valueAt(row, column), row, rows, columns, hint, open}: `row` is the
// selected one, `rows` and `columns` say what stands at an axis, `open` what a click on a cell does.

import { grouped } from "./map_data.js";
import { twoDigits } from "./numerics.js";

const SMALLEST_OPENED = 32; // tokens on a side that a click on the overview opens

const stretchWords = ([start, stop]) => (stop - start > 1 ? `${grouped(start)}–${grouped(stop - 1)}` : grouped(start));

function topOf(values) {
  let top = 0;
  for (const value of values) if (value > top) top = value;
  return top;
}

// `found` is what AttentionMaps.sentencesMap gave.
export function shownSentences({ maps, tokens, selection }, found, openBlock) {
  const { count, values } = found;
  const width = count + 2;
  const valueAt = (r, c) => values[r * width + c];
  const names = maps.sentences.length ? "Sentence × sentence" : "Stretch × stretch";
  const several = maps.sentences.length && maps.sentences[0][1] - maps.sentences[0][0] > 1;
  const of = selection.heads === "one" ? `h${selection.head}` : `mean of ${headsWords(found)}`;
  const matrix = Float32Array.from({ length: count * count }, (_, i) => valueAt(Math.floor(i / count), i % count));
  return {
    id: `sentences ${found.id}`,
    title: `${names}, L${selection.layer} ${of}`,
    note: several ? `a cell is ${maps.sentences[0][1]} sentences` : "",
    how: "mean over the row's tokens of the weight they give the column's, summed",
    height: count,
    width: count,
    top: topOf(matrix),
    valueAt,
    row: maps.stretchAt(selection.token),
    axis: maps.stretches.map(([start], i) => ({
      hue: tokens.messageAt(start)?.hue,
      number: maps.sentences.length ? maps.sentences[i][0] + 1 : start,
    })),
    hint: (r, c) => `${maps.nameOf(r)} → ${maps.nameOf(c)}: ${valueWords(valueAt(r, c))} · ${restWords(found, r)}`,
    best: (r) => bestColumn(valueAt, r, count),
    open: (r, c) =>
      openBlock({
        rows: maps.stretches[r],
        keys: maps.stretches[c],
        words: `${maps.nameOf(r)} × ${maps.nameOf(c)}`,
      }),
  };
}

const headsWords = ({ of, wanted }) => (of < wanted ? `${of} of ${wanted} heads so far` : `${wanted} heads`);

export function bestColumn(valueAt, row, count) {
  let best = -1;
  for (let c = 0; c < count; c++) if (valueAt(row, c) > (best < 0 ? -1 : valueAt(row, best))) best = c;
  return best;
}

function valueWords(value) {
  if (value === undefined) return "waiting for the kernel";
  if (Number.isNaN(value)) return "undefined, no key in sight";
  return value > 0 && value < 0.005 ? value.toExponential(1) : twoDigits(value);
}

// What a stretch gave beside the sentences: "sink .43, first token .10, in no sentence .05".
export function restWords({ values, count }, row) {
  const width = count + 2;
  const own = values.subarray(row * width, (row + 1) * width);
  const [sink, first] = own.subarray(count);
  let sum = sink + (Number.isNaN(first) ? 0 : first);
  for (let c = 0; c < count; c++) if (!Number.isNaN(own[c])) sum += own[c];
  const firstWords = Number.isNaN(first) ? "first token outside the window" : `first token ${twoDigits(first)}`;
  return `sink ${twoDigits(sink)}, ${firstWords}, elsewhere ${twoDigits(Math.max(0, 1 - sum))}`;
}

// `found` is what AttentionMaps.overview gave.
export function shownOverview({ maps, tokens, selection, facts }, found, openBlock) {
  const { factor, bins } = maps;
  const valueAt = (r, c) => maps.binValue(found, r, c);
  const range = (bin) => [bin * factor, Math.min(facts.numTokens, (bin + 1) * factor)];
  const pairs = `${factor} × ${factor} tokens`;
  return {
    id: `overview ${found.id}`,
    title: `All ${grouped(facts.numTokens)} tokens, L${selection.layer} h${selection.head}`,
    note: found.done < found.wanted ? `${found.done} of ${found.wanted} stripes` : `a cell is ${pairs}`,
    how: selection.pool === "max" ? `largest weight of ${pairs}` : `mean weight of the pairs in sight of ${pairs}`,
    height: bins,
    width: bins,
    top: found.top,
    valueAt,
    row: Math.floor(selection.token / factor),
    axis: Array.from({ length: bins }, (_, i) => ({ hue: tokens.messageAt(i * factor)?.hue, number: i * factor })),
    hint: (r, c) => `tokens ${stretchWords(range(r))} → ${stretchWords(range(c))}: ${valueWords(valueAt(r, c))}`,
    best: (r) => bestColumn(valueAt, r, bins),
    open: (r, c) => {
      const [rows, keys] = [r, c].map((bin) => widened(range(bin), facts.numTokens));
      openBlock({ rows, keys, words: `tokens ${stretchWords(rows)} × ${stretchWords(keys)}` });
    },
  };
}

function widened([start, stop], count) {
  const more = Math.max(0, SMALLEST_OPENED - (stop - start));
  const from = Math.max(0, start - Math.ceil(more / 2));
  return [from, Math.min(count, Math.max(stop, from + SMALLEST_OPENED))];
}

// `found` is what AttentionReading.tokenBlock gave; `opened` are the stretches asked for.
export function shownBlock({ tokens, selection, select }, found, opened) {
  const { values, height, width, perRow, perKey, rows, keys } = found;
  const valueAt = (r, c) => values[r * width + c];
  const pooled = perRow * perKey > 1 ? `a cell is the largest of ${perRow} × ${perKey} tokens` : "";
  const cut = rows[1] < opened.rows[1] || keys[1] < opened.keys[1] ? "cut after 1,024 tokens" : "";
  const at = (start, per) => (i) => start + i * per;
  const [rowToken, keyToken] = [at(rows[0], perRow), at(keys[0], perKey)];
  const name = (token, per) =>
    per > 1 ? stretchWords([token, token + per]) : `${grouped(token)} ${tokens.cell(token)}`;
  const axis = (count, tokenAt, per) =>
    Array.from({ length: count }, (_, i) => ({
      hue: tokens.messageAt(tokenAt(i))?.hue,
      number: tokenAt(i),
      text: per > 1 ? "" : tokens.cell(tokenAt(i)),
    }));
  const { token } = selection;
  return {
    id: `block ${selection.layer}/${selection.head} ${rows} ${keys}`,
    title: `Tokens of ${opened.words}, L${selection.layer} h${selection.head}`,
    note: [pooled, cut].filter(Boolean).join(", "),
    how: "weight of the row's token on the column's, exact",
    height,
    width,
    top: topOf(values),
    valueAt,
    row: token >= rows[0] && token < rows[1] ? Math.floor((token - rows[0]) / perRow) : -1,
    axis: axis(height, rowToken, perRow),
    columns: axis(width, keyToken, perKey),
    hint: (r, c) => `${name(rowToken(r), perRow)} → ${name(keyToken(c), perKey)}: ${valueWords(valueAt(r, c))}`,
    best: (r) => bestColumn(valueAt, r, width),
    open: (r) => select({ token: rowToken(r) }),
  };
}
