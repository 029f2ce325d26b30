"""Harmony, the format gpt-oss speaks: conversation → token ids, token ids → messages.

Reading is lenient. Refusals and very long answers of gpt-oss do come without channel or message tokens (openai/harmony
issues 33, 38, 60 and 80), and those are what a reviewer must see: every token is kept in exactly one message, and
what breaks the format is named in `Message.malformed`. Tokens decide, never their spelling: a text that merely
contains ``<|end|>`` closes nothing.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2.exceptions import TemplateError

__all__ = [
    "EFFORTS",
    "HarmonyError",
    "HarmonyParser",
    "Message",
    "parse",
    "render",
    "token_bytes",
]

EFFORTS = ("low", "medium", "high")
ROLES = ("system", "developer", "user", "assistant", "tool")
CHANNELS = ("analysis", "commentary", "final")
UNKNOWN_ROLE = "unknown"

_MESSAGE_KEYS = {"role", "content", "thinking", "name", "tool_calls", "tool_call_id"}
_FORMAT_TOKENS = ("start", "message", "channel", "constrain", "end", "return", "call")
_CLOSING = ("end", "return", "call")
_OUTSIDE = "tokens outside any message"
_NO_FORMAT = "this tokenizer has no harmony tokens"

# Two Unicode noncharacters stand for the format's tokens while a header is read as text.
_CHANNEL, _CONSTRAIN = "\ufdd0", "\ufdd1"
_MARK = f"{_CHANNEL}{_CONSTRAIN}"
_ROLE_PATTERN = rf"\s*(?P<role>[\w.\-]+(?=\s+to=|\s*{_CHANNEL})|{'|'.join(ROLES)})?"
_REST_PATTERN = (
    rf"(?:\s*to=(?P<early>[^\s{_MARK}]*))?(?:\s*{_CHANNEL}(?P<channel>{'|'.join(CHANNELS)})?)?"
    rf"(?:\s*to=(?P<late>[^\s{_MARK}]*))?(?:\s*{_CONSTRAIN}(?P<type>\w+)?)?"
)
_HEADER = re.compile(_ROLE_PATTERN + _REST_PATTERN)
_HEADER_AFTER_ROLE = re.compile(_REST_PATTERN)
# A header is short; one that is longer than this has lost its <|message|>, and only its beginning is looked at.
_HEADER_TOKENS = 64


class HarmonyError(ValueError):
    """A conversation cannot be put into the model's format."""


@dataclass(frozen=True)
class Message:
    """A message as a stretch ``[start, stop)`` of the tokens; the fields mean what they mean in a trace's spans."""

    start: int
    stop: int
    content_start: int
    """first content token: after ``<|message|>``, or where the text begins when that token is missing"""
    role: str
    """system, developer, user, assistant, tool, a tool's name; unknown where no header says it"""
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    """as harmony writes it, e.g. ``<|constrain|>json``"""
    malformed: str | None = None
    """what breaks the format, in words; None when nothing does"""


def render(
    tokenizer: Any,
    conversation: str | Iterable[Mapping[str, Any]],
    effort: str | None = "medium",
    *,
    continue_assistant: bool = True,
) -> list[int]:
    """Turn a question or a conversation into token ids through the tokenizer's own chat template.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        conversation: a question, which becomes one user message; or messages ``{"role": …, "content": …}``, an
            assistant's chain of thought in ``"thinking"``.
        effort: low, medium or high; None for a template that takes no reasoning effort.
        continue_assistant: end with the assistant's header, ready for a completion.

    Raises:
        HarmonyError: an empty question, an unknown role or key, a tokenizer without chat template, an effort the
            template does not know, or text that spells one of the tokenizer's special tokens.
    """
    messages = _messages(conversation)
    _refuse_special_text(tokenizer, messages)
    if not getattr(tokenizer, "chat_template", None):
        raise HarmonyError(
            "This tokenizer has no chat template, so a conversation cannot become tokens. Set "
            "tokenizer.chat_template, or replay token ids with wb.replay(model, token_ids)."
        )
    if effort is not None:
        _check_effort(tokenizer, messages, effort)
    text = _apply_template(tokenizer, messages, effort, continue_assistant)
    return [int(i) for i in tokenizer.encode(text, add_special_tokens=False)]


def _messages(conversation: str | Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(conversation, str):
        conversation = [{"role": "user", "content": conversation}]
    messages = [dict(m) if isinstance(m, Mapping) else m for m in conversation]
    if not messages:
        raise HarmonyError("expected a question or at least one message, got an empty conversation")
    for place, message in enumerate(messages):
        _check_message(message, place)
    return messages


def _check_message(message: Any, place: int) -> None:
    if not isinstance(message, dict) or "role" not in message:
        raise HarmonyError(f"message {place}: expected {{'role': …, 'content': …}}, got {_quote(message)}")
    if message["role"] not in ROLES:
        raise HarmonyError(f"message {place}: expected a role of {', '.join(ROLES)}, got {_quote(message['role'])}")
    unknown = sorted(set(message) - _MESSAGE_KEYS)
    if unknown:
        raise HarmonyError(
            f"message {place}: unknown key {unknown[0]!r}; known are {', '.join(sorted(_MESSAGE_KEYS))}"
        )
    content = message.get("content")
    if message.get("tool_calls") and content is None:
        return
    if not isinstance(content, str):
        raise HarmonyError(f"message {place}: expected text as content, got {_quote(content)}")
    if message["role"] == "user" and not content.strip():
        raise HarmonyError("The question is empty. Expected some text to ask the model.")


def _refuse_special_text(tokenizer: Any, messages: list[dict[str, Any]]) -> None:
    """Refuse text that would become the format's own tokens and so forge a message."""
    special = sorted({*tokenizer.all_special_tokens, *(f"<|{name}|>" for name in _FORMAT_TOKENS)})
    for place, message in enumerate(messages):
        for key in ("content", "thinking"):
            found = next((token for token in special if token in (message.get(key) or "")), None)
            if found:
                raise HarmonyError(
                    f"message {place}: the {key} contains {found}, which the tokenizer reads as the format's own, "
                    "not as text. Remove it, or replay token ids with wb.replay(model, token_ids)."
                )


def _check_effort(tokenizer: Any, messages: list[dict[str, Any]], effort: str) -> None:
    """Refuse an effort the template does not know; templates may raise, ignore it, or accept any text."""
    rendered: dict[str, str] = {}
    refused: HarmonyError | None = None
    for known in EFFORTS:
        try:
            rendered[known] = _apply_template(tokenizer, messages, known, True)
        except HarmonyError as error:
            refused = error
    if not rendered and refused:
        raise refused  # not the effort's fault: no effort gets through
    if len(rendered) > 1 and len(set(rendered.values())) == 1:
        raise HarmonyError(
            f"This tokenizer's chat template takes no reasoning effort, got {effort!r}. Pass effort=None."
        )
    if effort not in rendered:
        raise HarmonyError(
            f"expected a reasoning effort this chat template knows ({', '.join(rendered)}), got {effort!r}"
        )


def _apply_template(tokenizer: Any, messages: list[dict[str, Any]], effort: str | None, open_turn: bool) -> str:
    extra = {} if effort is None else {"reasoning_effort": effort}
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=open_turn, tokenize=False, **extra)
    except TemplateError as error:
        raise HarmonyError(f"The tokenizer's chat template refused the conversation: {error}") from error
    return str(text)


def token_bytes(tokenizer: Any, token_id: int) -> bytes:
    """Return the bytes a token stands for; an id without a token (padding of the vocabulary) becomes U+FFFD.

    Handles byte-level BPE (gpt-oss, Qwen, OLMoE, the embedded model) and SentencePiece (Mixtral) vocabularies.
    """
    piece = tokenizer.convert_ids_to_tokens(int(token_id))
    if piece is None:
        return "\ufffd".encode()
    if "ByteLevel" in repr(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)):
        # Added tokens are stored as plain text, which may lie outside the byte alphabet.
        if all(char in _BYTE_OF for char in piece):
            return bytes(_BYTE_OF[char] for char in piece)
        return str(piece).encode()
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", piece):
        return bytes([int(byte[1], 16)])
    return str(piece).replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Invert the byte-level alphabet of GPT-2: printable Latin-1 stands for itself, the rest starts at U+0100."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in set(plain)]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(rest)}


_BYTE_OF = _byte_alphabet()


def parse(tokenizer: Any, token_ids: Iterable[int], role: str | None = None) -> tuple[Message, ...]:
    """Split tokens into messages; see `HarmonyParser`. Never raises on what a model wrote."""
    parser = HarmonyParser(tokenizer, role)
    for token in token_ids:
        parser.feed(token)
    return parser.messages


class HarmonyParser:
    """Reads messages from tokens as they arrive; after each token `messages` is what `parse` gives for all so far.

    Args:
        tokenizer: a Hugging Face tokenizer. One without harmony's tokens gives a single message, marked malformed.
        role: whose header is open already, when the first token fed follows ``<|start|>role`` of a prompt.
    """

    def __init__(self, tokenizer: Any, role: str | None = None) -> None:
        """Look up the ids of the format's tokens."""
        self._tokenizer = tokenizer
        self._kinds = _format_ids(tokenizer)
        self.special_ids = frozenset({*tokenizer.all_special_ids, *self._kinds})
        """ids of the tokens that are no text"""
        self._done: list[Message] = []
        self._count = 0
        self._open: _Header | Message | None = None if role is None else _Header(0, 0, role)

    def token_text(self, token_id: int) -> str:
        """Return the text of a token; bytes that are no whole character become U+FFFD."""
        return token_bytes(self._tokenizer, token_id).decode("utf-8", "replace")

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages so far; the last one may still be open and is then marked as cut off."""
        if self._open is None or self._open.start == self._count:
            return tuple(self._done)
        return (*self._done, _closed(self._open, self._count, "cut off before its closing token", cut=True))

    def feed(self, token_id: int) -> None:
        """Take the next token."""
        kind = self._kinds.get(int(token_id))
        at = self._count
        if kind == "start":
            self._close(at, "not closed before the next <|start|>")
            self._open = _Header(at, at + 1)
        elif kind == "channel":
            self._feed_channel(at)
        elif kind == "message":
            self._feed_message(at)
        elif kind in _CLOSING:
            self._feed_closing(at, f"<|{kind}|>")
        else:
            self._feed_text(at, int(token_id), kind)
        self._count += 1

    def _feed_channel(self, at: int) -> None:
        """Take ``<|channel|>``: part of a header, unless text began without ``<|message|>`` or a message is open."""
        if not isinstance(self._open, _Header) or self._open.has_text_before_channel():
            self._close(at, "not closed before the next <|channel|>")
            self._open = _Header(at, at, self._last_role(), "no <|start|>")
        self._open.pieces.append(_CHANNEL)

    def _feed_message(self, at: int) -> None:
        """Take ``<|message|>``: the header ends."""
        if isinstance(self._open, _Header):
            self._open = self._open.finish(at + 1)
        elif self._open is None:
            self._open = Message(at, at, at + 1, self._last_role(), malformed="no header before <|message|>")
        else:
            self._open = _blame(self._open, "a stray <|message|> in the content")

    def _feed_closing(self, at: int, name: str) -> None:
        if self._open is None:
            self._open = Message(at, at, at + 1, self._last_role(), malformed=f"{name} outside any message")
        self._close(at + 1, None)

    def _feed_text(self, at: int, token_id: int, kind: str | None) -> None:
        if isinstance(self._open, _Header):
            self._open.pieces.append(_CONSTRAIN if kind == "constrain" else token_bytes(self._tokenizer, token_id))
        elif self._open is None:
            self._open = Message(at, at, at, self._last_role(), malformed=_OUTSIDE if self._kinds else _NO_FORMAT)
        elif kind == "constrain":
            self._open = _blame(self._open, "a stray <|constrain|> in the content")

    def _last_role(self) -> str:
        return self._done[-1].role if self._done else UNKNOWN_ROLE

    def _close(self, stop: int, why: str | None) -> None:
        if self._open is not None and self._open.start < stop:
            self._done.append(_closed(self._open, stop, why))
        self._open = None


class _Header:
    """An open message whose header still arrives."""

    def __init__(self, start: int, first: int, role: str | None = None, problem: str | None = None) -> None:
        self.start = start
        self._first = first
        self._role = role
        self._problems = [problem] if problem else []
        self.pieces: list[str | bytes] = []

    def finish(self, content_start: int) -> Message:
        """Read the whole header, as ``<|message|>`` ended it; the message's ``stop`` is still open."""
        read = _read_header(_header_text(self.pieces), self._role)
        malformed = "; ".join([*self._problems, *([read.malformed] if read.malformed else [])]) or None
        return replace(read, start=self.start, content_start=content_start, malformed=malformed)

    def close(self, stop: int, why: str | None, cut: bool) -> Message:
        """Close a message that lacks ``<|message|>``: what no longer fits a header is its content."""
        consumed, fields = self._guess(self.pieces, cut)
        text_began = any(piece.strip() for piece in self.pieces[consumed:])
        content_start = self._first + consumed if text_began else stop
        if cut and not text_began:
            reason = "cut off in its header"
        else:
            reason = "; ".join(["no <|message|>", *([why] if why else [])])
        role = self._role or fields["role"] or UNKNOWN_ROLE
        problems = "; ".join([*self._problems, reason])
        recipient = fields["late"] or fields["early"]
        content_type = f"<|constrain|>{fields['type']}" if fields["type"] else None
        return Message(self.start, stop, content_start, role, fields["channel"], recipient, content_type, problems)

    def has_text_before_channel(self) -> bool:
        """Say whether text that fits no header has come: then ``<|channel|>`` begins another message."""
        consumed, _ = self._guess([*self.pieces[:_HEADER_TOKENS], _CHANNEL], cut=False)
        return any(piece.strip() for piece in self.pieces[consumed:_HEADER_TOKENS])

    def _guess(self, pieces: list[str | bytes], cut: bool) -> tuple[int, dict[str, str | None]]:
        """Return how many pieces fit a header, and what they say."""
        pieces = pieces[:_HEADER_TOKENS]
        text = _header_text(pieces)
        match = (_HEADER if self._role is None else _HEADER_AFTER_ROLE).match(text)
        assert match is not None  # every part of the pattern is optional
        fields = {"role": None, **match.groupdict()}
        if cut and _may_go_on(text[match.end() :], match):
            return len(pieces), fields
        # A token that straddles the end of the header counts as content: no text may vanish.
        consumed = bisect_right(range(1, len(pieces) + 1), match.end(), key=lambda n: len(_header_text(pieces[:n])))
        return consumed, fields


def _closed(open_message: _Header | Message, stop: int, why: str | None, cut: bool = False) -> Message:
    if isinstance(open_message, _Header):
        return open_message.close(stop, why, cut)
    if open_message.malformed in (_OUTSIDE, _NO_FORMAT):
        why = None  # what never opened need not be closed
    return replace(_blame(open_message, why), stop=stop)


def _blame(message: Message, problem: str | None) -> Message:
    """Add what breaks the format, once."""
    known = message.malformed.split("; ") if message.malformed else []
    if problem is None or problem in known:
        return message
    return replace(message, malformed="; ".join([*known, problem]))


def _may_go_on(rest: str, match: re.Match[str]) -> bool:
    """Say whether a header that was cut off may have gone on like this: half a channel, half a ``to=``, a type."""
    if match.group("channel") is None and match.group(0).endswith(_CHANNEL):
        return any(name.startswith(rest) for name in CHANNELS)
    if match.end() == 0 and "role" in match.re.groupindex:
        return re.fullmatch(r"[\w.\-]+(\s+to?)?", rest) is not None
    named = match["early"] or match["late"]
    return re.fullmatch(r"\s+\w*" if named else r"\s+(to?)?", rest) is not None or rest == ""


def _header_text(pieces: Sequence[str | bytes]) -> str:
    """Join header tokens; bytes are text and may not forge a mark."""
    text = ""
    pending = b""
    for piece in pieces:
        if isinstance(piece, bytes):
            pending += piece
        else:
            text += _plain(pending) + piece
            pending = b""
    return text + _plain(pending)


def _plain(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace(_CHANNEL, "\ufffd").replace(_CONSTRAIN, "\ufffd")


def _read_header(text: str, role: str | None) -> Message:
    """Read a complete header, positions left at 0.

    The order is that of `parse_header_from_string` in openai/harmony: the channel is what follows its mark up to
    white space; of the remaining words the first is the role, ``to=`` gives the recipient, the last the content type.
    """
    head, *marked = text.split(_CHANNEL)
    names = [re.split(rf"[\s{_CONSTRAIN}]", part, maxsplit=1)[0] for part in marked]
    rest = [part[len(name) :] for name, part in zip(names, marked, strict=True)]
    words = " ".join([head, *rest]).replace(_CONSTRAIN, f" {_CONSTRAIN}").split()
    if role is None:
        role = words.pop(0) if words else UNKNOWN_ROLE
    channel = names[0] or None if names else None
    recipients = [w.removeprefix("to=") for w in words if w.startswith("to=")]
    others = [w.replace(_CONSTRAIN, "<|constrain|>") for w in words if not w.startswith("to=")]
    content_type = others.pop() if others and not words[-1].startswith("to=") else None
    problems = _header_problems(role, channel, len(marked), len(recipients), " ".join(others))
    return Message(0, 0, 0, role, channel, next(iter(recipients), None), content_type, "; ".join(problems) or None)


def _header_problems(role: str, channel: str | None, marks: int, recipients: int, rest: str) -> list[str]:
    problems = ["more than one <|channel|>"] if marks > 1 else []
    if recipients > 1:
        problems.append("more than one recipient")
    if role == UNKNOWN_ROLE:
        problems.append("no role")
    elif role not in ROLES and not recipients:
        problems.append(f"unknown role {_quote(role)}")
    if channel is None and (marks or role == "assistant"):
        problems.append("no channel")
    elif channel is not None and channel not in CHANNELS:
        problems.append(f"unknown channel {_quote(channel)}")
    if rest:
        problems.append(f"unexpected text in the header: {_quote(rest)}")
    return problems


def _format_ids(tokenizer: Any) -> dict[int, str]:
    ids = {}
    for name in _FORMAT_TOKENS:
        token = f"<|{name}|>"
        token_id = tokenizer.convert_tokens_to_ids(token)
        # A tokenizer that lacks the token answers with its unknown token, or with None.
        if token_id is not None and tokenizer.convert_ids_to_tokens(token_id) == token:
            ids[int(token_id)] = name
    return ids


def _quote(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]
