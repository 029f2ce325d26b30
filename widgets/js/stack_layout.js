// Where the columns of the layer stack stand, and what a point in them is.

const LABEL = 40;

// Columns within `width`: layer, lens, router, margin, heads.
export function stackColumns(width, { numExperts, numHeads, numKvHeads }, big) {
  const margin = big ? 68 : 58;
  const gap = big ? 16 : 12;
  const room = Math.max(200, width - LABEL - margin - 3 * gap);
  // The router is the panel's reason to be: it takes what lens and heads can spare.
  const lens = Math.round(Math.min(160, room * (big ? 0.27 : 0.24)));
  const heads = Math.round(Math.min(room * (big ? 0.31 : 0.25), Math.max(90, numHeads * 26 + numKvHeads * 7)));
  const router = Math.min(room - lens - heads, Math.max(200, numExperts * 30));
  const slack = Math.max(0, room - lens - heads - router);
  const columns = { layer: { x: 0, width: LABEL } };
  let x = LABEL;
  const place = (name, w, rest) => {
    columns[name] = { x, width: w, ...rest };
    x += w + gap + slack / 3;
  };
  place("lens", lens);
  place("router", router, { cell: Math.min(34, router / Math.max(1, numExperts)) });
  place("margin", margin);
  place("heads", heads, headCells(heads, numHeads, numKvHeads));
  return columns;
}

// Heads of one kv group stand together.
function headCells(width, numHeads, numKvHeads) {
  const groups = Math.max(1, numKvHeads);
  const gap = numHeads > 16 ? 2 : 6;
  return { cell: (width - gap * (groups - 1)) / Math.max(1, numHeads), gap, perGroup: Math.max(1, numHeads / groups) };
}

export function expertAt(columns, { numExperts }, x) {
  const expert = Math.floor((x - columns.router.x) / columns.router.cell);
  return expert >= 0 && expert < numExperts ? expert : null;
}

export function headAt(columns, { numHeads }, x) {
  const { cell, gap, perGroup } = columns.heads;
  const group = cell * perGroup + gap;
  const within = x - columns.heads.x;
  if (within < 0) return null;
  const head = Math.floor(within / group) * perGroup + Math.min(perGroup - 1, Math.floor((within % group) / cell));
  return head < numHeads ? head : null;
}
