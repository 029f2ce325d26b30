// What is said of two traces: where they part, what they answer, how alike they route.

const inFull = (n) => n.toLocaleString("en");

export function textWords({ parting, numShared }, rows, labels) {
  const counted = `${inFull(rows.numAlike)} of ${inFull(rows.length)} rows are the same token`;
  const prompt = numShared === rows.length ? "" : `, the first ${inFull(numShared)} in the same context`;
  if (parting === null) return `the completions say the same; ${counted}${prompt}`;
  const at = [0, 1].map((side) => {
    const token = rows.token(parting, side);
    return token < 0
      ? `before token ${inFull(rows.tokenBefore(parting, side) + 1)} of ${labels[side]}`
      : `at token ${inFull(token)} of ${labels[side]}`;
  });
  return `the completions part ${at.join(", ")}; ${counted}${prompt}`;
}

export function answerWords({ answers, sameAnswer, labels }) {
  const said = answers.map((answer, i) => `${labels[i]}: ${answer ?? "no answer"}`);
  const verdict = { true: "the same", false: "they differ", null: "nothing to compare" }[String(sameAnswer)];
  return `${said.join(" · ")} — ${verdict}`;
}

// What the colours are.
export function legendWords({ layers, topK, tieSource }) {
  const text = "above: orange where the text differs";
  if (!layers.length) return `${text}; experts are not compared`;
  const ties = tieSource ? `≈ near-tie: ${tieSource}` : "near-ties not known";
  return (
    `${text}, deeper where more experts do, mean over layers; below: how many of ${topK} experts both chose, ` +
    `orange bar: on different text; ${ties}`
  );
}

// One line for each phase and context.
export function overlapLines({ overlaps, topK }) {
  return overlaps.map(({ phase, sameContext, n, layers }) => {
    const mean = layers.reduce((a, b) => a + b, 0) / layers.length;
    const where = sameContext ? "same context" : "on different text";
    return `${phase}, ${where}: ${mean.toFixed(2)} of the ${topK} experts alike, mean over ${layers.length} layers (${inFull(n)} tokens)`;
  });
}

// What a row is: the same token, other tokens, or one that only a side has.
export function rowWords(rows, row, labels) {
  if (rows.isSame(row)) return rows.sameContext(row) ? "same token, same context" : "same token, on different text";
  if (!rows.differs(row)) return "same text, other tokens";
  const missing = [0, 1].find((side) => rows.token(row, side) < 0);
  return missing === undefined ? "other tokens" : `only in ${labels[1 - missing]}`;
}
