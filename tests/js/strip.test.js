import assert from "node:assert/strict";
import test from "node:test";

import { messageName, messageNote } from "../../widgets/js/strip.js";
import { hueOf } from "../../widgets/js/tokens.js";

function message(role, channel, recipient = null, type = null) {
  return { role, channel, recipient, type, malformed: null, hue: hueOf(role, channel) };
}

test("a message is named by its channel, and a tool's by the tool", () => {
  assert.equal(messageName(message("assistant", "analysis")), "analysis");
  assert.equal(messageName(message("assistant", null)), "assistant");
  assert.equal(messageName(message("assistant", "commentary", "functions.add")), "commentary to=functions.add");
  assert.equal(messageName(message("functions.add", "commentary", "assistant")), "functions.add");
  assert.equal(messageName(message("python", "analysis", "browser")), "python to=browser");
  assert.equal(messageName({ ...message("user", null), malformed: "no end" }), "user (malformed)");
});

test("calls of tools and what they returned are told as such", () => {
  assert.equal(messageNote(message("user", null)), "");
  assert.equal(messageNote(message("unknown", null)), "");
  assert.equal(messageNote(message("assistant", "final")), "");
  assert.equal(messageNote(message("assistant", "analysis")), "raw chain of thought");
  const call = message("assistant", "commentary", "functions.add", "<|constrain|>json");
  assert.equal(messageNote(call), "tool call (json)");
  assert.equal(messageNote(message("assistant", "analysis", "python")), "raw chain, tool call");
  assert.equal(messageNote(message("functions.add", "commentary", "assistant")), "tool output");
  assert.equal(messageNote(message("python", "analysis", "assistant")), "raw chain, tool output");
});
