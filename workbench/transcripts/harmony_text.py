"""Harmony as text and as token ids ↔ messages. Reading is lenient, as `workbench.harmony` is: nothing vanishes."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from workbench import harmony
from workbench.transcripts.transcript import Transcript, TranscriptError, TranscriptMessage, Written, int_ids, quote

__all__ = [
    "FORMAT_TOKENS",
    "header",
    "message_ids",
    "messages_from_text",
    "read_harmony",
    "read_token_ids",
    "write_harmony",
]

FORMAT_TOKENS = ("<|start|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|end|>", "<|return|>", "<|call|>")
_SPECIAL = "|".join(re.escape(token) for token in FORMAT_TOKENS)
_PIECES = re.compile(rf"{_SPECIAL}|\w+|\s+|[^\w\s]")
_LOST_IDS = "token ids: re-tokenised, because the text does not list them"


class _TextTokens:
    """A text cut into words, as the tokenizer that the parser of tokens asks for."""

    def __init__(self, text: str) -> None:
        self.pieces = _PIECES.findall(text)
        self.all_special_ids = list(range(len(FORMAT_TOKENS)))
        self._ids = {token: i for i, token in enumerate(FORMAT_TOKENS)}
        self.ids = [self._ids.setdefault(piece, len(self._ids)) for piece in self.pieces]
        self._words = list(self._ids)

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return self._ids.get(token)

    def convert_ids_to_tokens(self, token_id: int) -> str:
        return self._words[token_id]


def messages_from_text(text: str, role: str | None = None) -> tuple[TranscriptMessage, ...]:
    """Read messages from text in which harmony's tokens are spelled out.

    Args:
        text: such as ``<|start|>assistant<|channel|>final<|message|>4<|return|>``.
        role: whose header is open already, for a completion that follows ``<|start|>assistant``.
    """
    tokens = _TextTokens(text)
    found = harmony.parse(tokens, tokens.ids, role)
    return tuple(_said(m, "".join(tokens.pieces[m.content_start : _content_stop(m, tokens.ids)])) for m in found)


def _content_stop(message: harmony.Message, ids: Sequence[int]) -> int:
    closing = {FORMAT_TOKENS.index(token) for token in ("<|end|>", "<|return|>", "<|call|>")}
    ends = message.stop > message.content_start and ids[message.stop - 1] in closing
    return message.stop - 1 if ends else message.stop


def _said(message: harmony.Message, text: str) -> TranscriptMessage:
    return TranscriptMessage(
        message.role,
        text,
        message.channel,
        message.recipient,
        message.content_type,
        malformed=message.malformed,
    )


def read_harmony(text: str) -> Transcript:
    """Read a rollout written out in harmony, prompt and completion. Raises `TranscriptError` where there is none."""
    if "<|message|>" not in text and "<|start|>" not in text:
        raise TranscriptError(
            f"expected harmony text with <|start|> and <|message|>, got {quote(text[:60])}. "
            "A chat template's own format cannot be read; give messages instead."
        )
    # A completion alone begins behind the prompt's ``<|start|>assistant``.
    return from_messages(messages_from_text(text, None if text.lstrip().startswith("<|start|>") else "assistant"))


def from_messages(messages: tuple[TranscriptMessage, ...], source: str = "harmony text") -> Transcript:
    """Return the transcript of harmony messages; one whose last message is not closed was cut."""
    cut = messages[-1].malformed if messages and "cut off" in (messages[-1].malformed or "") else None
    return Transcript(messages, source=source, verbatim=True, ended=cut, lost=(_LOST_IDS,))


def read_token_ids(tokenizer: Any, token_ids: Iterable[int], *, num_prompt_tokens: int | None = None) -> Transcript:
    """Read the token ids of a rollout, prompt and completion, with the tokenizer that made them.

    Raises:
        TranscriptError: no integers, or ids that this tokenizer does not have.
    """
    ids = int_ids(token_ids)
    size = len(tokenizer)
    if outside := next((i for i in ids if i >= size), None):
        raise TranscriptError(
            f"token id {outside} is outside this tokenizer's {size} tokens: the ids are of another tokenizer. "
            "Load the model that wrote them."
        )
    said = []
    for message in harmony.parse(tokenizer, ids):
        stop = message.stop
        closing = stop > message.content_start and tokenizer.convert_ids_to_tokens(ids[stop - 1]) in FORMAT_TOKENS[4:]
        content = ids[message.content_start : stop - 1 if closing else stop]
        said.append(_said(message, _text(tokenizer, content)))
    found = from_messages(tuple(said), "token ids")
    return replace(found, token_ids=ids, num_prompt_tokens=num_prompt_tokens, lost=())


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return b"".join(harmony.token_bytes(tokenizer, i) for i in ids).decode("utf-8", "replace")


def header(message: TranscriptMessage) -> str:
    """Return a message's header as harmony spells it, from ``<|start|>`` to ``<|message|>``.

    A call names its recipient behind the channel, as gpt-oss writes it; a tool's output before it, as its template
    does (openai/harmony, docs/format.md).

    Raises:
        TranscriptError: a part of it spells a token of the format or holds white space, which would forge a header.
    """
    for name in ("role", "channel", "recipient", "content_type"):
        value = (getattr(message, name) or "").removeprefix("<|constrain|>" if name == "content_type" else "")
        if re.search(rf"{_SPECIAL}|\s", value):
            raise TranscriptError(f"expected a {name} of one word, without harmony's tokens, got {quote(value)}")
    to = f" to={message.recipient}" if message.recipient else ""
    calls = message.role == "assistant" and message.channel is not None
    before, behind = ("", to) if calls else (to, "")
    channel = f"<|channel|>{message.channel}" if message.channel is not None else ""
    kind = f" {message.content_type}" if message.content_type else ""
    return f"<|start|>{message.role}{before}{channel}{behind}{kind}<|message|>"


def closing(message: TranscriptMessage, *, last: bool) -> str:
    """Return the token that closes a message: a call's, the end of the answer, or the plain end."""
    if message.role == "assistant" and message.recipient:
        return "<|call|>"
    return "<|return|>" if last and message.role == "assistant" and message.channel == "final" else "<|end|>"


def write_harmony(transcript: Transcript) -> Written:
    """Write all messages in harmony, as text, and say what harmony has no place for.

    Raises:
        TranscriptError: a text spells one of harmony's own tokens, which would forge a message.
    """
    parts = []
    for place, message in enumerate(transcript.messages):
        _refuse_special(message, place)
        last = place == len(transcript.messages) - 1
        cut = last and transcript.ended is not None
        parts += [header(message), message.text, "" if cut else closing(message, last=last)]
    return Written("".join(parts), _unwritten(transcript))


def _refuse_special(message: TranscriptMessage, place: int) -> None:
    if found := re.search(_SPECIAL, message.text):
        raise TranscriptError(
            f"message {place}: the text contains {found[0]}, which would be read as harmony's own token. "
            "Write JSON lines instead, which hold any text."
        )


def _unwritten(transcript: Transcript) -> tuple[str, ...]:
    names = ("token_ids", "logprobs", "model", "effort", "ended", "meta", "num_prompt_messages")
    lost = [name for name in names if getattr(transcript, name)]
    lost += ["call_id"] if any(m.call_id for m in transcript.messages) else []
    lost += ["what was malformed"] if any(m.malformed for m in transcript.messages) else []
    return tuple(f"{name}: harmony has no place for it" for name in lost)


def message_ids(tokenizer: Any, message: TranscriptMessage, end: str) -> list[int]:
    """Return the tokens of a message; its text becomes text, whatever it spells."""
    start = tokenizer.encode(header(message), add_special_tokens=False)
    text = tokenizer.encode(message.text, add_special_tokens=False, split_special_tokens=True)
    return [int(i) for i in [*start, *text, *tokenizer.encode(end, add_special_tokens=False)]]
