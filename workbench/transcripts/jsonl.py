"""JSON lines: one transcript a line, as the workbench writes them, or the messages of others."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workbench.transcripts.messages import read_messages
from workbench.transcripts.transcript import Transcript, TranscriptError, quote

__all__ = ["FORMAT", "read_jsonl", "transcript_of_messages", "write_jsonl"]

FORMAT = "moe-workbench transcript 1"
"""stands in every line written here, so that it is read back field by field"""


def write_jsonl(transcripts: Iterable[Transcript]) -> str:
    """Write one transcript a line: all of it, so nothing is lost."""
    lines = ({"format": FORMAT, **transcript.to_dict()} for transcript in transcripts)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def read_jsonl(text: str) -> list[Transcript]:
    """Read JSON lines: transcripts as written here; ``{"messages": […]}`` or a list a line; or one message a line.

    Raises:
        TranscriptError: a line that is none of these, by its number.
    """
    lines = [(n, _value(line, n)) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if lines and all(isinstance(value, Mapping) and "role" in value for _, value in lines):
        return [transcript_of_messages([value for _, value in lines])]
    found = []
    for number, value in lines:
        try:
            found.append(_line(value))
        except TranscriptError as error:
            raise TranscriptError(f"line {number}: {error}") from error
    if not found:
        raise TranscriptError("expected at least one line with messages, got none")
    return found


def _value(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise TranscriptError(f"line {number}: expected JSON, got {quote(line)}") from error


def _line(value: Any) -> Transcript:
    if isinstance(value, list):
        return transcript_of_messages(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("messages"), list):
        raise TranscriptError(f"expected {{'messages': […]}}, a list of messages, or a message, got {quote(value)}")
    if "format" not in value:
        rest = {key: content for key, content in value.items() if key != "messages"}
        return transcript_of_messages(value["messages"], rest)
    if value["format"] != FORMAT:
        raise TranscriptError(f"expected the format {FORMAT!r}, got {quote(value['format'])}; a newer one wrote it?")
    return Transcript.from_dict({key: content for key, content in value.items() if key != "format"})


def transcript_of_messages(
    messages: Sequence[Any], rest: Mapping[str, Any] | None = None, source: str = "messages"
) -> Transcript:
    """Read chat messages with whatever stood beside them.

    Args:
        messages: of one conversation.
        rest: model and reasoning effort are read of it, the rest is kept as ``meta``.
        source: named as where it comes from.
    """
    found, lost = read_messages(messages)
    facts = dict(rest or {})
    model = facts.pop("model", None) if isinstance(facts.get("model"), str) else None
    key = next((k for k in ("reasoning_effort", "effort") if isinstance(facts.get(k), str)), "")
    effort = facts.pop(key, None)
    lost = (*lost, "token ids: re-tokenised, because messages do not list them")
    return Transcript(found, source=source, model=model, effort=effort, lost=lost, meta=facts)
