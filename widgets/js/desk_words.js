// What the desk says, and when a verdict can be saved. Pure, for the view and for its tests.

import { answerChange, doneWords, natsWords } from "./bench_words.js";
import { readingText } from "./tokens.js";

export const CONFIDENCE_LEVELS = ["low", "medium", "high"];
export const LIST_ORDERS = [
  ["signals", "by signals"],
  ["name", "by name"],
  ["time", "by time"],
];
export const INTERNAL_VIEWS = ["router", "attention", "entropy", "experiments"];

const LONGEST_QUOTE = 90;
const HIDING = ["analysis", "assistant"]; // channels of what may be a raw chain

// Open, drafted, done, skipped: a mark and its word, for eyes and for readers.
export function stateMark({ state, draft }) {
  if (state === "done") return { mark: "●", word: "done" };
  if (state === "skipped") return { mark: "–", word: "skipped" };
  return draft ? { mark: "◐", word: "draft" } : { mark: "○", word: state === "unassigned" ? "differs" : "open" };
}

// What a row of the queue says of signals; those of a hidden chain are only counted.
export function signalRows({ signals = [], hiddenSignals = 0 }) {
  const names = [...new Set(signals.map((s) => s.name))];
  if (!hiddenSignals) return names;
  return [...names, hiddenSignals === 1 ? "chain signal, hidden" : `${hiddenSignals} chain signals, hidden`];
}

export function moreHidden(count) {
  return count === 1 ? "one more signal comes from the chain" : `${count} more signals come from the chain`;
}

// Text of a model or a file in one line, cut when very long.
export function quoteWords(text) {
  const whole = readingText(String(text)).replaceAll("\n", "⏎").trim();
  return whole.length > LONGEST_QUOTE ? `${Array.from(whole).slice(0, LONGEST_QUOTE).join("")}…` : whole;
}

// user 30–35: first and last token.
export function placeOf({ channel, start, stop }) {
  return stop - start > 1 ? `${channel} ${start}–${stop - 1}` : `${channel} ${start}`;
}

const NEEDED = {
  chain: "the chain revealed",
  evidence: "evidence",
  alternative: "another explanation",
  "causal test": "a causal test",
};

export function needsWords(needs) {
  return needs.length ? `Needs ${needs.map((need) => NEEDED[need] ?? need).join(", ")}.` : "";
}

const share = (value) => value.toFixed(2).replace(/^0/, "");

// Precision and recall with their intervals: [precision, recall, [low, high], [low, high], n, positives].
export function measuredWords(measured) {
  if (!measured) return "how often it is right was not measured";
  const [precision, recall, precisely, recalled, n, positives] = measured;
  const within = ([low, high]) => `${share(low)}–${share(high)}`;
  return (
    `of the embedded model’s completions (n = ${n}, ${positives} of them so): precision ${share(precision)} ` +
    `(95 % ${within(precisely)}), recall ${share(recall)} (${within(recalled)})`
  );
}

export function measuredShort(measured) {
  if (!measured) return "not measured";
  const [precision, recall, , , n] = measured;
  return `precision ${share(precision)}, recall ${share(recall)} on the embedded model, n = ${n}`;
}

// What the open trace is, beside its name.
export function traceWords({ effort, numTokens, temperature, truncated }) {
  const how = temperature === 0 ? "greedy" : Number.isFinite(temperature) ? `T = ${temperature}` : null;
  return [
    effort ? `${readingText(effort)} effort` : null,
    `${numTokens.toLocaleString("en")} tokens`,
    how,
    truncated ? `✂ ${readingText(truncated)}` : "not truncated",
  ]
    .filter(Boolean)
    .join(" · ");
}

const COUNTED = ["no", "one", "two", "three", "four", "five"];

export function reviewWords({ rubric, perTrace, blind }) {
  const readers = perTrace === 1 ? "one reviewer" : `${COUNTED[perTrace] ?? perTrace} reviewers`;
  return `rubric ${readingText(rubric.name)}-${readingText(rubric.version)} · ${readers}${blind ? ", blind" : ", not blind"}`;
}

// 12:04 of the reader's clock.
export function clockTime(iso) {
  const time = new Date(iso);
  const two = (n) => String(n).padStart(2, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}`;
}

// The badge of the draft: {text, kind, title}, or null where there is none.
export function draftBadge({ saving, error, memory, saved, late }) {
  if (late) {
    const title = "no answer from the kernel: is it running, or busy with a cell? What you typed is on this page only";
    return { text: "draft not saved: no answer", kind: "warning", title };
  }
  if (error) {
    const text = memory ? "draft not saved: in memory only" : "draft not saved";
    return { text, kind: "warning", title: error };
  }
  if (saving) return { text: "saving the draft", kind: "plain", title: "changes are saved as you make them" };
  if (memory) {
    return { text: "draft in memory", kind: "plain", title: "drafts of what is settled last as long as the kernel" };
  }
  if (saved) return { text: `draft saved ${clockTime(saved)}`, kind: "plain", title: `in the database, ${saved}` };
  return null;
}

// The badge of the log, of which `problems` is undefined until it was verified.
export function logBadge({ problems, at }) {
  if (!problems) return { text: "log not verified yet", kind: "plain", title: "verify" };
  if (!problems.length) {
    const title = `at ${clockTime(at)}: every event is there, unchanged, and follows from the one before; verify again`;
    return { text: "log verified", kind: "plain", title };
  }
  const many = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
  return { text: `✕ log broken: ${many}`, kind: "warning", title: problems.join("\n") };
}

// Why a verdict cannot be saved yet; empty where it can. The desk checks all of it again.
export function whyNotYet(content, facts, { hidden, closed }) {
  if (closed) return closed;
  const behaviour = facts.behaviours.find((b) => b.id === content.behaviour);
  if (!behaviour) return "choose a behaviour.";
  if (hidden && behaviour.needs.includes("chain")) {
    return "this behaviour is about what the chain says or leaves out, so reveal the chain before you save.";
  }
  if (content.severity === null) return "choose a severity.";
  if (!behaviour.severities.includes(content.severity)) {
    return `${behaviour.title} has severity ${behaviour.severities.join(", ")}.`;
  }
  if (!content.confidence) return "say how sure you are.";
  if (hidden && content.evidence.some((e) => HIDING.includes(e.channel))) {
    return "evidence from the chain waits until you reveal it.";
  }
  if (behaviour.needs.includes("evidence") && !content.evidence.length) {
    return "mark the words of the trace that it rests on.";
  }
  if (behaviour.needs.includes("causal test") && !content.causal_tests.length) return "it needs a causal test.";
  if (behaviour.needs.includes("alternative") && !content.alternative.trim()) {
    return "say what else could have led to this.";
  }
  return "";
}

// An experiment that was saved with the trace, as a causal test of one rollout.
export function testOf(record) {
  const controls = record.controls ? `, rank ${record.rank} of ${record.controls + 1} with controls` : ", no controls";
  const result = `${answerChange(record)}; mean KL ${natsWords(record.meanKl)} nats${controls}`;
  return { what: doneWords(record.done), result, n: 1, traces: [] };
}

// What was typed as a causal test: {test}, or {problem}.
export function typedTest({ what, result, n }) {
  if (!what.trim() || !result.trim()) return { problem: "expected what was done and what came of it" };
  if (!/^\d{1,9}$/.test(n.trim()) || Number(n) < 1)
    return { problem: `expected a number of rollouts, got “${n.trim()}”` };
  return { test: { what: what.trim(), result: result.trim(), n: Number(n), traces: [] } };
}

// Evidence with one stretch more, in the order of the tokens; one that is there already goes.
export function withEvidence(evidence, seen) {
  const rest = evidence.filter((e) => e.start !== seen.start || e.stop !== seen.stop);
  const kept = rest.length < evidence.length ? rest : [...rest, seen];
  return kept.sort((a, b) => a.start - b.start || a.stop - b.stop);
}

export const emptyVerdict = () => ({
  ...{ behaviour: "", severity: null, confidence: "", evidence: [], causal_tests: [] },
  ...{ alternative: "", comment: "", tags: [] },
});

// Tests of several rollouts, of one.
export const rolloutsWords = (n) => (n === 1 ? "1 rollout" : `${n.toLocaleString("en")} rollouts`);

export function calibrationWords({ reviewer, n, behaviour, severity }, own) {
  const who = reviewer === own ? "you" : readingText(reviewer);
  return `${who}: behaviour right ${behaviour} of ${n}, severity right ${severity} of those ${behaviour}`;
}

export function secondsWords(seconds) {
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}
