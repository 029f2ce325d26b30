"""A transcript: what was said in one rollout, as far as another tool or server told, and what it did not tell."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

__all__ = ["TokenLogprob", "Transcript", "TranscriptError", "TranscriptMessage", "Written", "quote"]


class TranscriptError(ValueError):
    """A transcript cannot be read, written, asked for or put into a model's tokens."""


@dataclass(frozen=True)
class TranscriptMessage:
    """One message in harmony's words; the fields mean what they mean in a trace's spans."""

    role: str
    """system, developer, user, assistant, or a tool's name such as ``functions.lookup``; unknown where nobody says"""
    text: str
    channel: str | None = None
    """analysis, commentary, final; None where the format has none"""
    recipient: str | None = None
    """whom it calls, such as ``functions.lookup``; a tool's output goes to ``assistant``"""
    content_type: str | None = None
    """as harmony writes it, e.g. ``<|constrain|>json``"""
    call_id: str | None = None
    """what joins a call and its output in formats that number them"""
    malformed: str | None = None
    """what broke the format where it was read, in words"""


class TokenLogprob(NamedTuple):
    """A token of the completion as a server listed it, with its log probability."""

    token: str
    logprob: float


class Written(NamedTuple):
    """What a writer made, and what of the transcript it does not hold, in words."""

    document: Any
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Transcript:
    """The messages of one rollout, prompt and completion, with what is known beside them.

    Raises:
        TranscriptError: a field is of the wrong type, or token ids and their number disagree.
    """

    messages: tuple[TranscriptMessage, ...]
    num_prompt_messages: int | None = None
    """how many of the messages the model was given; None: all up to the last user message"""
    source: str = "messages"
    """what it was read from, such as ``chat completion``"""
    verbatim: bool = False
    """the messages are all that the model saw, system message included; else a chat template still adds to them"""
    token_ids: tuple[int, ...] | None = None
    """of prompt and completion, as the server or file listed them"""
    num_prompt_tokens: int | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    """of the completion's tokens, where the server returned them"""
    model: str | None = None
    effort: str | None = None
    ended: str | None = None
    """why the completion was cut; None when it ended by itself or nobody says"""
    lost: tuple[str, ...] = ()
    """what the format or the server did not give, in words"""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """whatever else is known, JSON-able: id, usage, scores"""

    def __post_init__(self) -> None:
        """Check once, so that nobody downstream has to."""
        if not all(isinstance(m, TranscriptMessage) and isinstance(m.text, str) for m in self.messages):
            raise TranscriptError("expected messages that are TranscriptMessage with text")
        given = self.num_prompt_messages
        if given is not None and not 0 <= given <= len(self.messages):
            raise TranscriptError(f"expected num_prompt_messages within {len(self.messages)} messages, got {given}")
        tokens, prompt = self.token_ids, self.num_prompt_tokens
        if prompt is not None and not 0 <= prompt <= len(tokens or ()):
            raise TranscriptError(f"expected num_prompt_tokens within {len(tokens or ())} tokens, got {prompt}")

    @property
    def prompt(self) -> tuple[TranscriptMessage, ...]:
        """The messages the model was given."""
        return self.messages[: self._split]

    @property
    def completion(self) -> tuple[TranscriptMessage, ...]:
        """The messages after them: the model's own, and the outputs of the tools it called."""
        return self.messages[self._split :]

    @property
    def _split(self) -> int:
        if self.num_prompt_messages is not None:
            return self.num_prompt_messages
        # A transcript that holds a reply alone has no prompt.
        return max((n + 1 for n, message in enumerate(self.messages) if message.role == "user"), default=0)

    @property
    def question(self) -> str:
        """The last user message; empty when there is none."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def final_text(self) -> str:
        """The answer: the completion's final channel."""
        return self._channel_text("final")

    @property
    def analysis_text(self) -> str:
        """The raw chain of thought: the completion's analysis channel, calls left out."""
        return self._channel_text("analysis")

    def _channel_text(self, channel: str) -> str:
        said = [m.text for m in self.completion if m.role == "assistant" and m.channel == channel and not m.recipient]
        return "\n".join(said)

    def __repr__(self) -> str:
        """Say in one line what is here."""
        tokens = f"{len(self.token_ids)} token ids" if self.token_ids is not None else "no token ids"
        lost = f"; lost: {'; '.join(self.lost)}" if self.lost else ""
        return f"<Transcript from {self.source}: {len(self.messages)} messages, {tokens}{lost}>"

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON-able values; what is unknown is left out."""
        found: dict[str, Any] = {"messages": [_message_dict(message) for message in self.messages]}
        for each in fields(self)[1:]:
            value = getattr(self, each.name)
            if value != _default(each):
                found[each.name] = _plain(value)
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Transcript":
        """Read what `to_dict` returned. Raises `TranscriptError` that names the field that does not fit."""
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise TranscriptError(
                f"unknown field {unknown[0]!r} of a transcript; known are {', '.join(sorted(known))}"
            )
        messages = values.get("messages")
        if not isinstance(messages, Sequence) or isinstance(messages, str):
            raise TranscriptError(f"expected a list of messages, got {quote(messages)}")
        found = {name: _typed(name, value) for name, value in values.items() if name != "messages"}
        return cls(tuple(_message(m, n) for n, m in enumerate(messages)), **found)


def _default(each: Any) -> Any:
    return {} if each.name == "meta" else each.default


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _message_dict(message: TranscriptMessage) -> dict[str, str]:
    values = {_KEYS.get(each.name, each.name): getattr(message, each.name) for each in fields(message)}
    return {name: value for name, value in values.items() if value is not None}


_KEYS = {"text": "content"}  # as every other format calls it


def _message(values: Any, place: int) -> TranscriptMessage:
    known = {_KEYS.get(each.name, each.name) for each in fields(TranscriptMessage)}
    if not isinstance(values, Mapping) or not {"role", "content"} <= values.keys() <= known:
        raise TranscriptError(f"message {place}: expected the keys {', '.join(sorted(known))}, got {quote(values)}")
    for name, value in values.items():
        if not isinstance(value, str):
            raise TranscriptError(f"message {place}: expected text as {name}, got {quote(value)}")
    return TranscriptMessage(text=values["content"], **{k: v for k, v in values.items() if k != "content"})


_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("source", "model", "effort", "ended"), str),
    **dict.fromkeys(("num_prompt_messages", "num_prompt_tokens"), int),
    **dict.fromkeys(("token_ids", "logprobs", "lost"), (list, tuple)),
    "verbatim": bool,
    "meta": Mapping,
}


def _typed(name: str, value: Any) -> Any:
    kind = _KINDS[name]
    fits: bool = isinstance(value, kind)
    if not fits or (kind is int and isinstance(value, bool)):
        raise TranscriptError(f"{name}: a value of another type was expected, got {quote(value)}")
    if name == "token_ids":
        return int_ids(value)
    if name == "logprobs":
        return token_logprobs(value)
    return tuple(value) if name == "lost" else value


def int_ids(values: Iterable[Any]) -> tuple[int, ...]:
    """Return token ids. Raises `TranscriptError` at what is no integer of 0 or more."""
    found = tuple(values)
    for value in found:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise TranscriptError(f"expected token ids that are integers of 0 or more, got {quote(value)}")
    return found


def token_logprobs(values: Iterable[Any]) -> tuple[TokenLogprob, ...]:
    """Return pairs of a token's text and its log probability. Raises `TranscriptError` at anything else."""
    found = []
    for value in values:
        match value:
            case [str() as token, float() | int() as logprob]:
                found.append(TokenLogprob(token, float(logprob)))
            case _:
                raise TranscriptError(f"expected pairs of a token and its log probability, got {quote(value)}")
    return tuple(found)


def quote(value: Any) -> str:
    """Return a value for an error message: short, on one line."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…" + text[-1]
