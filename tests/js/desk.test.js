import assert from "node:assert/strict";
import test, { mock } from "node:test";

import { DeskDraft } from "../../widgets/js/desk_draft.js";
import { DeskKernel } from "../../widgets/js/desk_kernel.js";
import { DESK_KEYS, deskAction } from "../../widgets/js/desk_keys.js";
import { DeskText } from "../../widgets/js/desk_text.js";
import {
  draftBadge,
  emptyVerdict,
  logBadge,
  measuredShort,
  measuredWords,
  placeOf,
  quoteWords,
  reviewWords,
  signalRows,
  stateMark,
  testOf,
  traceWords,
  typedTest,
  whyNotYet,
  withEvidence,
} from "../../widgets/js/desk_words.js";

const MESSAGES = [
  { channel: "system", start: 3, stop: 4, prompt: true, malformed: null, texts: ["be nice"] },
  { channel: "user", start: 7, stop: 10, prompt: true, malformed: null, texts: ["a", "😀", ""] },
  { channel: "analysis", start: 14, stop: 9014, prompt: false, malformed: null, texts: null },
  { channel: "final", start: 9020, stop: 9022, prompt: false, malformed: null, texts: ["4", "\u202e!"] },
];

test("tokens that can be read follow each other; a hidden chain has no place among them", () => {
  const text = new DeskText(MESSAGES);
  assert.deepEqual(
    text.pieces.map(({ token, stop, text: said, message }) => [token, stop, said, message]),
    [
      [3, 4, "be nice", 0],
      [7, 8, "a", 1],
      [8, 10, "😀", 1],
      [9020, 9021, "4", 3],
      [9021, 9022, "⟨202E⟩!", 3],
    ],
  );
  assert.deepEqual([text.messages[2].hidden, text.messages[2].from, text.messages[2].to], [true, 3, 3]);
  assert.equal(text.first, 1, "the last message of the prompt");
  assert.deepEqual(
    [0, 3, 9, 14, 9020, 99_999].map((token) => text.at(token)),
    [0, 0, 2, 2, 3, 4],
  );
  assert.deepEqual(
    [text.messageStep(1, 1), text.messageStep(2, 1), text.messageStep(2, -1), text.messageStep(4, 1)],
    [3, 3, 1, 4],
  );
  assert.deepEqual([text.within(4, 1), text.within(0, 2), text.within(4, 3)], [2, 1, 4]);
  assert.deepEqual(text.range(2, 1), { start: 7, stop: 10 });
  assert.equal(text.text(7, 10), "a😀");
  assert.equal(text.text(9, 10), "😀", "part of a character is the character");
  assert.deepEqual([new DeskText([]).first, new DeskText([]).at(3)], [-1, -1]);
  assert.equal(new DeskText([MESSAGES[2]]).first, -1);
});

const FACTS = {
  behaviours: [
    { id: "none", title: "None", needs: ["chain"], severities: [0] },
    { id: "quiet", title: "Unverbalised", needs: ["alternative", "chain", "evidence"], severities: [0, 1, 2, 3, 4] },
    { id: "proven", title: "Proven", needs: ["causal test"], severities: [1, 2] },
  ],
};
const SEEN = { channel: "user", start: 4, stop: 6, text: " hint" };

test("a verdict that lacks something says what, in the order the desk checks it", () => {
  const why = (changes, open = {}) =>
    whyNotYet({ ...emptyVerdict(), ...changes }, FACTS, { hidden: false, closed: "", ...open });
  assert.equal(why({}), "choose a behaviour.");
  assert.match(
    why({ behaviour: "quiet" }, { hidden: true }),
    /^this behaviour is about .* so reveal the chain before you save\.$/,
  );
  const quiet = { behaviour: "quiet" };
  assert.equal(why(quiet), "choose a severity.");
  assert.equal(why({ behaviour: "none", severity: 2 }), "None has severity 0.");
  assert.equal(why({ ...quiet, severity: 0 }), "say how sure you are.");
  const sure = { ...quiet, severity: 0, confidence: "low" };
  assert.equal(why(sure), "mark the words of the trace that it rests on.");
  assert.equal(why({ ...sure, evidence: [SEEN], alternative: " " }), "say what else could have led to this.");
  assert.equal(why({ ...sure, evidence: [SEEN], alternative: "chance" }), "");
  const proven = { behaviour: "proven", severity: 1, confidence: "high" };
  assert.equal(why(proven), "it needs a causal test.");
  const chain = { ...proven, evidence: [{ ...SEEN, channel: "analysis" }] };
  assert.equal(why(chain, { hidden: true }), "evidence from the chain waits until you reveal it.");
  assert.equal(why({}, { closed: "All are in." }), "All are in.");
});

test("evidence stands in the order of the tokens, and marking it again takes it back", () => {
  const later = { ...SEEN, start: 9, stop: 10 };
  assert.deepEqual(withEvidence([later], SEEN), [SEEN, later]);
  assert.deepEqual(withEvidence([SEEN, later], { ...SEEN }), [later]);
  assert.deepEqual([placeOf(SEEN), placeOf(later)], ["user 4–5", "user 9"]);
});

test("states and signals are words as well as marks, and hidden signals are only counted", () => {
  const marks = [
    [{ state: "assigned", draft: false }, "○", "open"],
    [{ state: "assigned", draft: true }, "◐", "draft"],
    [{ state: "done", draft: true }, "●", "done"],
    [{ state: "skipped", draft: false }, "–", "skipped"],
    [{ state: "unassigned", draft: false }, "○", "differs"],
  ];
  for (const [item, mark, word] of marks) assert.deepEqual(stateMark(item), { mark, word });
  const signals = [{ name: "influence" }, { name: "influence" }];
  assert.deepEqual(signalRows({ signals, hiddenSignals: 1 }), ["influence", "chain signal, hidden"]);
  assert.deepEqual(signalRows({ signals: [], hiddenSignals: 3 }), ["3 chain signals, hidden"]);
});

test("what is said of the review, the trace and the signals", () => {
  const rubric = { name: "reasoning", version: "1" };
  assert.equal(reviewWords({ rubric, perTrace: 2, blind: true }), "rubric reasoning-1 · two reviewers, blind");
  assert.equal(reviewWords({ rubric, perTrace: 1, blind: false }), "rubric reasoning-1 · one reviewer, not blind");
  const trace = { effort: "medium", numTokens: 20109, temperature: 0, truncated: null };
  assert.equal(traceWords(trace), "medium effort · 20,109 tokens · greedy · not truncated");
  assert.equal(
    traceWords({ ...trace, effort: null, temperature: 0.7, truncated: "budget" }),
    "20,109 tokens · T = 0.7 · ✂ budget",
  );
  assert.equal(
    measuredWords([0.61, 0.93, [0.42, 0.77], [0.69, 0.99], 282, 14]),
    "of the embedded model’s completions (n = 282, 14 of them so): precision .61 (95 % .42–.77), recall .93 (.69–.99)",
  );
  assert.equal(
    measuredShort([0.61, 0.93, [0.42, 0.77], [0.69, 0.99], 282, 14]),
    "precision .61, recall .93 on the embedded model, n = 282",
  );
  assert.equal(measuredShort(null), "not measured");
  assert.equal(measuredWords(null), "how often it is right was not measured");
  assert.equal(quoteWords(" a\n\u202eb "), "a⏎⟨202E⟩b");
  assert.equal(quoteWords("x".repeat(95)).length, 91);
});

test("badges say when a draft was saved, that it was not, and that the log is broken", () => {
  assert.equal(draftBadge({}), null);
  const saved = new Date(2026, 10, 24, 12, 4).toISOString();
  assert.deepEqual([draftBadge({ saved }).text, draftBadge({ saved }).kind], ["draft saved 12:04", "plain"]);
  assert.equal(draftBadge({ saved, saving: true }).text, "saving the draft");
  assert.deepEqual(draftBadge({ error: "locked", memory: true }), {
    ...{ text: "draft not saved: in memory only", kind: "warning", title: "locked" },
  });
  assert.equal(draftBadge({ saving: true, late: true }).text, "draft not saved: no answer");
  assert.equal(draftBadge({ memory: true }).text, "draft in memory");
  assert.equal(logBadge({}).text, "log not verified yet");
  const whole = logBadge({ problems: [], at: saved });
  assert.deepEqual([whole.text, whole.kind, whole.title.slice(0, 9)], ["log verified", "plain", "at 12:04:"]);
  const broken = logBadge({ problems: ["event 3 was changed", "event 5 is missing"] });
  assert.deepEqual([broken.text, broken.kind], ["✕ log broken: 2 problems", "warning"]);
});

test("an experiment saved with the trace and a typed one become causal tests", () => {
  const done = [{ variant: "zero contribution", experts: { 0: [4] }, tokens: "all" }];
  const record = {
    done,
    before: "249",
    answer: "295",
    keepsAnswer: false,
    generated: true,
    meanKl: 0.5,
    rank: 1,
    controls: 7,
  };
  const found = testOf(record);
  assert.match(found.what, /^zero contribution: expert 4 of layer 0/);
  assert.equal(found.result, "answer 295 in place of 249; mean KL 0.500 nats, rank 1 of 8 with controls");
  assert.equal(found.n, 1);
  assert.deepEqual(typedTest({ what: " hint removed ", result: "295", n: " 8 " }), {
    test: { what: "hint removed", result: "295", n: 8, traces: [] },
  });
  assert.equal(typedTest({ what: "x", result: "y", n: "many" }).problem, "expected a number of rollouts, got “many”");
  assert.equal(typedTest({ what: " ", result: "y", n: "1" }).problem, "expected what was done and what came of it");
});

test("keys: digits are severities, with shift internals whatever the keyboard makes of it, and all are listed", () => {
  const told = [];
  const heard = { get: (_, name) => (name === "verdict" ? desk : (...given) => told.push([name, ...given])) };
  const desk = new Proxy({}, heard);
  const press = (key, rest = {}) => deskAction({ key, ...rest })?.(desk);
  press("3");
  press("!", { code: "Digit1", shiftKey: true });
  press("$", { code: "Digit4", shiftKey: true });
  press("Enter", { ctrlKey: true });
  press("Enter", { metaKey: true });
  press("j");
  press("ArrowLeft", { shiftKey: true });
  assert.deepEqual(told, [
    ["setSeverity", 3],
    ["showInternals", "router"],
    ["showInternals", "experiments"],
    ["submit"],
    ["submit"],
    ["goInList", 1],
    ["step", -1, true],
  ]);
  for (const [key, rest] of [
    ["s", {}],
    ["c", { ctrlKey: true }],
    ["5", { code: "Digit5", shiftKey: true }],
    ["r", { altKey: true }],
  ]) {
    assert.equal(deskAction({ key, ...rest }), undefined, key);
  }
  const listed = DESK_KEYS.map(([caps]) => caps)
    .join(" ")
    .split(" ");
  for (const key of ["j", "k", "r", "e", "b", "c", "a", "n", "t", "x", "o", "d", "/", "?"])
    assert.ok(listed.includes(key), key);
});

function model() {
  const heard = new Map();
  return {
    sent: [],
    send(message) {
      if (this.gone) throw new Error("comm is closed");
      this.sent.push(message);
    },
    on: (name, callback) => heard.set(name, callback),
    off: (name) => heard.delete(name),
    answer: (message) => heard.get("msg:custom")(message),
  };
}

test("an answer finds its question, and one that does not come is said", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const [own, late] = [model(), []];
  const kernel = new DeskKernel(own, (is) => late.push(is));
  const [first, second] = [kernel.ask("open", { trace: "a" }), kernel.ask("look")];
  assert.deepEqual(
    own.sent.map(({ do: what, trace }) => [what, trace]),
    [
      ["open", "a"],
      ["look", undefined],
    ],
  );
  own.answer({ to: own.sent[1].id, error: "no" });
  own.answer({ to: "of another view" });
  assert.equal((await second).error, "no");
  mock.timers.tick(9000);
  assert.deepEqual(late, [true]);
  own.answer({ to: own.sent[0].id });
  assert.equal((await first).to, own.sent[0].id);
  assert.deepEqual(late, [true, false]);
  own.gone = true;
  kernel.ask("look");
  assert.deepEqual(late, [true, false, true], "at once where there is no connection");
  mock.timers.reset();
});

test("a draft is saved after a pause, keeps what is typed meanwhile, and tries again", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const asked = [];
  const answers = [];
  const save = (trace, content) => {
    asked.push([trace, content.comment]);
    return new Promise((resolve) => answers.push(resolve));
  };
  const settled = () => new Promise((resolve) => setImmediate(resolve));
  const draft = new DeskDraft(save, () => {});
  draft.set({ comment: "of no trace" });
  mock.timers.tick(700);
  assert.deepEqual(asked, []);
  draft.load({ trace: "a", content: { comment: "old" }, saved: "2026-11-24T12:04:00Z", kept: true });
  assert.deepEqual(
    [draft.content.comment, draft.content.severity, draft.state.saved],
    ["old", null, "2026-11-24T12:04:00Z"],
  );
  draft.set({ comment: "one" });
  draft.set({ comment: "two" });
  assert.equal(draft.state.saving, true);
  mock.timers.tick(700);
  assert.deepEqual(asked, [["a", "two"]]);
  draft.set({ comment: "three" });
  answers[0]({ saved: "later" });
  await settled();
  assert.equal(draft.state.saving, true, "there is more to save");
  mock.timers.tick(700);
  answers[1]({ error: "locked", memory: true });
  await settled();
  assert.deepEqual([draft.state.error, draft.state.saving], ["locked", false]);
  mock.timers.tick(21_000);
  answers[2]({ saved: "at last" });
  await settled();
  assert.deepEqual([draft.state.error, draft.state.saved], [undefined, "at last"]);
  draft.set({ comment: "four" });
  draft.load({ trace: "b", content: {}, kept: false });
  mock.timers.tick(30_000);
  draft.set({ comment: "five" });
  draft.settle();
  mock.timers.tick(30_000);
  const saved = ["two", "three", "three", "four"].map((comment) => ["a", comment]);
  assert.deepEqual(asked, saved, "the trace before is saved as it was left; what was given as a verdict is not");
  mock.timers.reset();
});
