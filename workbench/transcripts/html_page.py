"""Transcripts as one page to read, that stands alone: channels, calls of tools, what was lost; chains are folded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.page import NOTICE, render_page
from workbench.trace import EMBEDDED_NAMES, Trace
from workbench.transcripts.of_trace import from_trace
from workbench.transcripts.transcript import Transcript, TranscriptError, TranscriptMessage

__all__ = ["write_html"]

CHANNELS = ("system", "developer", "user", "analysis", "commentary", "final")


class Shown(NamedTuple):
    """A message as the page shows it."""

    name: str
    note: str
    """tool call, tool output; how the arguments are written"""
    hue: str
    text: str
    malformed: str | None
    chain: str
    """why it is folded: it is, or may be, of the raw chain of thought; else empty"""
    code: bool


class Section(NamedTuple):
    """One transcript of the page."""

    title: str
    facts: tuple[str, ...]
    prompt: tuple[Shown, ...]
    completion: tuple[Shown, ...]
    lost: tuple[str, ...]


def write_html(items: Sequence[Transcript | Trace], path: str | Path) -> None:
    """Write transcripts as one HTML page: no script, nothing loaded, every text escaped. It cannot be read back.

    Args:
        items: transcripts, or traces, of which what was said is shown.
        path: ends in ``.html``.

    Raises:
        TranscriptError: another end of the path, or nothing to write.
    """
    if Path(path).suffix != ".html":
        raise TranscriptError(f"expected a path that ends in .html, got {path}")
    if not items:
        raise TranscriptError("expected at least one transcript to write, got none")
    transcripts = [from_trace(item) if isinstance(item, Trace) else item for item in items]
    sections = [_section(number, each) for number, each in enumerate(transcripts, 1)]
    values: dict[str, Any] = {
        "title": sections[0].title if len(sections) == 1 else f"{len(sections):,} transcripts",
        "notice": NOTICE,
        "has_chains": any(m.chain for section in sections for m in (*section.prompt, *section.completion)),
        "embedded": any(each.model in EMBEDDED_NAMES for each in transcripts),
        "sections": sections,
    }
    page = render_page("workbench.transcripts", "html_page", values)
    Path(path).write_bytes(page.encode("utf-8", "replace"))


def _section(number: int, transcript: Transcript) -> Section:
    tokens = transcript.token_ids
    facts = (
        transcript.model and f"model {transcript.model}",
        transcript.effort and f"{transcript.effort} effort",
        f"read from {transcript.source}",
        f"{len(tokens):,} token ids" if tokens is not None else "no token ids",
        transcript.ended,
    )
    return Section(
        transcript.question or f"Transcript {number}",
        tuple(fact for fact in facts if fact),
        tuple(map(_shown, transcript.prompt)),
        tuple(map(_shown, transcript.completion)),
        transcript.lost,
    )


def _shown(message: TranscriptMessage) -> Shown:
    said = message.role == "assistant"
    call, output = said and message.recipient is not None, not said and message.role not in (*CHANNELS, "unknown")
    form = f" ({message.content_type.removeprefix('<|constrain|>')})" if message.content_type else ""
    name = (message.channel or "assistant") if said else message.role
    told = message.recipient and not (output and message.recipient == "assistant")
    to = f" to={message.recipient}" if told else ""
    hue = "tool" if output else name if name in CHANNELS else "unknown"
    note = f"tool call{form}" if call else "tool output" if output else ""
    chain = "raw chain of thought" if message.channel == "analysis" else ""
    if said and message.channel is None and message.text:
        chain = "no channel named: may be a raw chain of thought"
    return Shown(name + to, note, hue, message.text, message.malformed, chain, code=call or output)
