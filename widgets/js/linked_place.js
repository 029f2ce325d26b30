// The same place in another rollout: as far along the same channel. Texts differ, so there is no same token.

const within = (value, low, high) => Math.max(low, Math.min(high, value));

// Messages of the completion on the channel of a message, and which of them it is.
function siblings(tokens, { hue }) {
  return tokens.messages.filter((m) => m.hue === hue && m.stop > tokens.numPrompt);
}

// How far along the chain of thought a token is, 0 to 1; null where it is not part of one.
export function chainPlace(tokens, token) {
  const message = tokens.messageAt(token);
  if (token < tokens.numPrompt || message?.hue !== "analysis" || token < message.contentStart) return null;
  return (token - message.contentStart) / Math.max(1, message.stop - 1 - message.contentStart);
}

// The token that is as far along a message; its header and its content are gone along by themselves.
export function tokenAlong(tokens, message, inContent, share) {
  const start = Math.max(tokens.numPrompt, message.start);
  const [from, to] = inContent ? [message.contentStart, message.stop - 1] : [start, message.contentStart - 1];
  return within(Math.round(from + share * (to - from)), start, message.stop - 1);
}

// The token of `other` that is as far along the same channel; null where there is no such message.
export function linkedToken(tokens, token, other) {
  const message = tokens.messageAt(token);
  if (token < tokens.numPrompt || !message) return null;
  const theirs = siblings(other, message);
  const which = siblings(tokens, message).findIndex((m) => m.start === message.start);
  const target = theirs[Math.min(which, theirs.length - 1)];
  if (!target) return null;
  const inContent = token >= message.contentStart;
  const from = inContent ? message.contentStart : Math.max(tokens.numPrompt, message.start);
  const to = inContent ? message.stop - 1 : message.contentStart - 1;
  return tokenAlong(other, target, inContent, (token - from) / Math.max(1, to - from));
}
