// The three things that the map can show, in one form for painting: sentences, the overview, the tokens of two stretches.
// Each is {id, title, note, how, height, width, top, valueAt(row, column), row, axis, columns, hint, best, open}: `row`
// is the selected one, `axis` says what stands at the rows, and at the columns where they are not the same, `best` which
// column a row reads most, `open` what a click on a cell does.

import { grouped } from "./map_data.js";
import { twoDigits } from "./numerics.js";

const SMALLEST_OPENED = 32; // tokens on a side that a click on the overview opens

const stretchWords = ([start, stop]) => (stop - start > 1 ? `${grouped(start)}–${grouped(stop - 1)}` : grouped(start));

function topOf(values) {
  let top = 0;
  for (const value of values) if (value > top) top = value;
  return top;
}

// What is lacking of a map that comes in parts, and how long that will take at the pace of the last ones.
export function partly({ done, stripes }, partMs) {
  if (done === stripes.length) return "";
  const seconds = Math.round(((stripes.length - done) * partMs) / 1000);
  return `${done} of ${stripes.length} parts so far${seconds >= 2 ? `, about ${grouped(seconds)} s more` : ""}`;
}

// `found` is what AttentionMaps.sentencesMap gave.
export function shownSentences({ maps, tokens, selection, facts }, found, openBlock) {
  const count = maps.stretches.length;
  const valueAt = (r, c) => maps.cellOf(found, r, c);
  const names = maps.sentences.length ? "Sentence × sentence" : "Stretch × stretch";
  const perCell = maps.sentences.length ? maps.sentences[0][1] - maps.sentences[0][0] : 1;
  const of = selection.heads === "one" ? `h${selection.head}` : `mean of ${facts.numHeads} heads`;
  return {
    id: `sentences ${found.id}`,
    title: `${names}, L${selection.layer} ${of}`,
    note: [perCell > 1 ? `a cell is ${perCell} sentences` : "", partly(found, maps.partMs)].filter(Boolean).join(", "),
    how: "mean over the row's tokens of the weight they give the column's, summed",
    height: count,
    width: count,
    top: found.stripes.reduce((most, stripe) => Math.max(most, topOfRows(stripe ?? [], count)), 0),
    valueAt,
    row: maps.stretchAt(selection.token),
    axis: maps.stretches.map(([start], i) => ({
      hue: tokens.messageAt(start)?.hue,
      number: maps.sentences.length ? maps.sentences[i][0] + 1 : start,
    })),
    hint: (r, c) => {
      const row = Array.from({ length: count + 2 }, (_, i) => valueAt(r, i));
      return `${maps.nameOf(r)} → ${maps.nameOf(c)}: ${valueWords(row[c])}${restWords(row, facts.arrays.sink_logits)}`;
    },
    best: (r) => bestColumn(valueAt, r, count),
    open: (r, c) =>
      openBlock({
        rows: maps.stretches[r],
        keys: maps.stretches[c],
        words: `${maps.nameOf(r)} × ${maps.nameOf(c)}`,
      }),
  };
}

// The largest value of rows of `count` cells, each with two more that are no cells.
function topOfRows(values, count) {
  let top = 0;
  for (let i = 0; i < values.length; i++) if (i % (count + 2) < count && values[i] > top) top = values[i];
  return top;
}

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

// What a row of the map gave beside the stretches: " · sink .43, first token .10, elsewhere .05".
export function restWords(row, hasSinks) {
  const [first, sink] = row.slice(-2);
  if (sink === undefined) return "";
  const given = row.filter((value) => !Number.isNaN(value)).reduce((a, b) => a + b, 0);
  const firstWords = Number.isNaN(first) ? "first token outside the window" : `first token ${twoDigits(first)}`;
  return ` · sink ${hasSinks ? twoDigits(sink) : "none"}, ${firstWords}, elsewhere ${twoDigits(Math.max(0, 1 - given))}`;
}

// `found` is what AttentionMaps.overview gave.
export function shownOverview({ maps, tokens, selection, facts }, found, openBlock) {
  const { factor, bins } = maps;
  const valueAt = (r, c) => maps.binOf(found, r, c);
  const range = (bin) => [bin * factor, Math.min(facts.numTokens, (bin + 1) * factor)];
  const pairs = `${factor} × ${factor} tokens`;
  return {
    id: `overview ${found.id}`,
    title: `All ${grouped(facts.numTokens)} tokens, L${selection.layer} h${selection.head}`,
    note: [`a cell is ${pairs}`, partly(found, maps.partMs)].filter(Boolean).join(", "),
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
      text: per > 1 ? grouped(tokenAt(i)) : tokens.cell(tokenAt(i)),
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
