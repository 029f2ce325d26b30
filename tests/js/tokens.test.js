import assert from "node:assert/strict";
import test from "node:test";

import { Tokens, cellText, hueOf, readingText } from "../../widgets/js/tokens.js";

const latin1 = (text) => Array.from(new TextEncoder().encode(text), (b) => String.fromCharCode(b)).join("");

// A trace of seven tokens: <|start|> user hi | an emoji over three tokens | end
function sample() {
  const emoji = latin1("😀");
  return new Tokens(
    {
      numTokens: 7,
      numPromptTokens: 3,
      vocabulary: {
        ids: [9, 4, 7, 11, 12, 13, 14],
        texts: ["<|start|>", "user", " hi", emoji.slice(0, 2), emoji.slice(2, 3), emoji.slice(3), "\n"],
        raw: [3, 4, 5],
        special: [0],
      },
      spans: [
        ["message", 0, 2, 3, "user", null, null, null, null],
        ["sentence", 2, 2, 3, "user", null, null, null, null],
        ["message", 3, 3, 6, "assistant", "analysis", null, null, null],
        ["sentence", 3, 3, 6, "assistant", "analysis", null, null, null],
      ],
    },
    Int32Array.of(9, 4, 7, 11, 12, 13, 14),
  );
}

test("marks stand for what is not seen", () => {
  assert.equal(cellText(" hi"), "·hi");
  assert.equal(cellText(" "), "␣");
  assert.equal(cellText("a\n\n"), "a⏎⏎");
  assert.equal(cellText("<|end|>", true), "⟨end⟩");
  assert.equal(cellText("\u0000\u001b\u007f"), "␀␛␡");
  assert.equal(cellText("\u202eabc\u200b"), "⟨202E⟩abc⟨200B⟩");
  assert.equal(readingText("ok\u{e0068}\u{e0069}\u061c\u2028\ufffb\ud800"), "ok⟨E0068⟩⟨E0069⟩⟨61C⟩⟨2028⟩⟨FFFB⟩⟨D800⟩");
  assert.equal(readingText("a\n\tb\u0007\u202e"), "a\n\tb␇⟨202E⟩");
});

test("a very long token is cut between characters", () => {
  assert.equal(cellText(`${"a".repeat(58)}😀${"b".repeat(100_000)}`), `${"a".repeat(58)}…`);
  assert.equal(cellText("a".repeat(60)), "a".repeat(60));
});

test("markup is only text", () => {
  assert.equal(cellText("<script>"), "<script>");
  assert.equal(readingText("<img src=x onerror=y>"), "<img src=x onerror=y>");
});

test("a character over several tokens is one piece that covers them", () => {
  const pieces = sample().pieces(2, 7);
  assert.deepEqual(
    pieces.map(({ token, count, text }) => [token, count, text]),
    [
      [2, 1, " hi"],
      [3, 3, "😀"],
      [6, 1, "\n"],
    ],
  );
  assert.equal(sample().cell(3), "⟨f0 9f⟩");
});

test("every token belongs to a message, those in none to a gap", () => {
  const tokens = sample();
  assert.deepEqual(
    tokens.messages.map((m) => [m.start, m.stop, m.hue]),
    [
      [0, 3, "user"],
      [3, 6, "analysis"],
      [6, 7, "unknown"],
    ],
  );
  assert.equal(tokens.messageAt(6).role, "no message");
  assert.equal(tokens.messageAt(4).hue, "analysis");
});

test("colour follows the channel of the assistant and the role of others", () => {
  assert.equal(hueOf("assistant", "analysis"), "analysis");
  assert.equal(hueOf("assistant", null), "final");
  assert.equal(hueOf("developer", null), "developer");
  assert.equal(hueOf("functions.python", "commentary"), "tool");
  assert.equal(hueOf("unknown", null), "unknown");
});

test("sentences are stepped by their starts", () => {
  const tokens = sample();
  assert.equal(tokens.sentenceAt(4).index, 1);
  assert.equal(tokens.sentenceAt(6), null);
  assert.equal(tokens.sentenceStep(2, 1), 3);
  assert.equal(tokens.sentenceStep(4, -1), 3);
  assert.equal(tokens.sentenceStep(3, -1), 2);
  assert.equal(tokens.sentenceStep(5, 1), 6);
  assert.equal(tokens.sentenceStep(0, -1), 0);
});

test("search finds text across tokens and ignores case", () => {
  const tokens = sample();
  assert.deepEqual(tokens.find("R HI"), [1]);
  assert.deepEqual(tokens.find("hi"), [2]);
  assert.deepEqual(tokens.find("zebra"), []);
  assert.deepEqual(tokens.find(""), []);
});

test("an id without a text shows its number", () => {
  assert.equal(sample().cellOf(77), "#77");
  assert.equal(sample().cellOf(-1), "");
});
