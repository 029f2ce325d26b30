"""What a page says before any script runs, and on paper: transcripts, tables and figures as text."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ipywidgets import Widget

from widgets.blocks import TraceBlocks
from widgets.effort_comparison import EffortComparison
from widgets.page_figures import Figure, chain_lengths, expert_load_figure, hue, surprisal_figure
from workbench.page import shown
from workbench.trace import Trace

__all__ = ["Said", "Section", "Transcript", "section_of", "sections_of"]


@dataclass(frozen=True)
class Said:
    """A message: what colours it, who said it, its text."""

    hue: str
    label: str
    text: str


@dataclass(frozen=True)
class Transcript:
    """What a rollout said, under a name."""

    name: str
    messages: tuple[Said, ...]


@dataclass(frozen=True)
class Section:
    """What stands for one view: a heading, facts in a line, figures, tables as text, transcripts."""

    heading: str
    facts: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[str, ...] = ()
    transcripts: tuple[Transcript, ...] = ()


def sections_of(views: Iterable[Widget]) -> Iterator[Section]:
    """Yield what is said of each view without a script; of a trace once, however many views show it."""
    told: set[int] = set()
    for view in views:
        trace = getattr(view, "trace", None)
        if id(trace) in told:
            yield Section(type(view).__name__, "this view is drawn by JavaScript; its trace stands above")
            continue
        told |= {id(trace)} if isinstance(trace, Trace) else set()
        yield section_of(view)


def section_of(view: Widget) -> Section:
    """Return what is said of a view without a script."""
    if isinstance(view, EffortComparison):
        return _of_comparison(view)
    trace = getattr(view, "trace", None)
    if isinstance(trace, Trace):
        return _of_trace(trace)
    report = getattr(view, "report", None)
    heading = type(view).__name__
    if report is not None:
        return Section(heading, "its curves are drawn by JavaScript; its numbers:", tables=(shown(repr(report)),))
    return Section(heading, "this view is drawn by JavaScript, and has no text of its own")


def _of_trace(trace: Trace) -> Section:
    found = (surprisal_figure(trace), expert_load_figure(trace, TraceBlocks(trace).shape()["numExperts"]))
    return Section(
        _line(str(trace.meta.get("question") or "Trace")),
        _facts(trace),
        tuple(figure for figure in found if figure),
        transcripts=(Transcript("Transcript", tuple(_messages(trace))),),
    )


def _of_comparison(view: EffortComparison) -> Section:
    groups: Mapping[str, Any] = view.groups
    lengths = chain_lengths(view.comparison)
    transcripts = [
        Transcript(_line(f"{name}, rollout {number}"), tuple(_messages(trace, trace.num_prompt_tokens)))
        for name, traces in groups.items()
        for number, trace in enumerate(traces)
    ]
    first = [traces[0] for traces in groups.values()]
    questions = dict.fromkeys(str(trace.meta.get("question") or "") for trace in first)
    return Section(
        _line("; ".join(filter(None, questions)) or "Comparison"),
        _facts(first[0], False),
        (lengths,) if lengths else (),
        (shown(str(view.comparison)),),
        tuple(transcripts),
    )


def _facts(trace: Trace, alone: bool = True) -> str:
    model = _line(str(trace.provenance.get("model", "unknown model")))
    parts = [model + (" (embedded: says nothing about gpt-oss)" if trace.is_embedded else "")]
    if not alone:
        return parts[0]
    effort, cut = trace.provenance.get("effort"), trace.meta.get("truncated")
    parts += [f"effort {_line(str(effort))}"] if effort else []
    parts.append(f"{trace.num_prompt_tokens:,} + {len(trace) - trace.num_prompt_tokens:,} tokens")
    parts += [f"cut: {_line(str(cut))}"] if cut else []
    missing = [name for name, array in _SHOWN.items() if not trace.has(array)]
    parts += [f"not captured: {', '.join(missing)}"] if missing else []
    return " · ".join(parts)


_SHOWN = {
    "router": "expert_indices",
    "attention": "queries",
    "lens": "lens_token_ids",
    "log-probabilities": "logprobs",
}


def _messages(trace: Trace, start: int = 0) -> Iterator[Said]:
    """Yield the messages that reach beyond ``start``, and what stands between them in no message."""
    at = start
    for message in trace.messages:
        if message.stop <= start:
            continue
        if at < message.start:
            yield Said("unknown", "in no message", shown(trace.text(at, message.start)))
        names = [message.role if message.role != message.channel else "", message.channel, message.content_type]
        label = " ".join(filter(None, names)) + (f" → {message.recipient}" if message.recipient else "")
        damage = f" (malformed: {message.malformed})" if message.malformed else ""
        yield Said(hue(message), _line(label + damage), shown(trace.content(message)))
        at = message.stop
    if at < len(trace):
        yield Said("unknown", "in no message", shown(trace.text(at)))


def _line(text: str, most: int = 300) -> str:
    line = shown(" ".join(text.split()))
    return line if len(line) <= most else f"{line[:most]}…"
