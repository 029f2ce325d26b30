"""A review as one page that stands alone: no script, nothing loaded, every text escaped."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from os import PathLike
from typing import Any

from workbench.analysis.signals import MEASURED, SIGNALS, Measured, Signal
from workbench.page import render_page
from workbench.review.agreement import SignalQuality, item_agreement, signal_quality, span_agreement
from workbench.review.desk import Desk
from workbench.review.exports import LEFT_OUT, about, write_text
from workbench.review.reading import Given
from workbench.review.transcript import TranscriptMessage, transcript

__all__ = ["write_report"]


@dataclass(frozen=True)
class Piece:
    """A stretch of a message that the same verdicts rest on."""

    text: str
    marks: tuple[int, ...]
    """numbers of the verdicts, from 1; none where nobody marked it"""


@dataclass(frozen=True)
class Section:
    """One trace of the report."""

    entry: Any
    messages: tuple[tuple[TranscriptMessage, tuple[Piece, ...]], ...]
    """none where the trace was deleted"""
    given: tuple[Given, ...]
    signals: tuple[Signal, ...]
    problem: str | None
    """why the trace is not shown"""


def write_report(desk: Desk, path: str | PathLike[str], *, chain: bool = False) -> None:
    """Write a review as one HTML page: summary, agreement, and each trace with its verdicts and marked words.

    Args:
        desk: whose view is exported; the export is recorded.
        path: of the file, replaced where there is one.
        chain: with raw chains of thought, for those who may adjudicate.

    Raises:
        ReviewError: chains for someone who may not.
        StoreError: the file cannot be written.
    """
    problems = desk.verify()
    exported = desk.exported("html", chain=chain)
    by_trace: dict[str, list[Given]] = {}
    for given in exported.given:
        by_trace.setdefault(given.trace, []).append(given)
    compared = [given for given in exported.given if given.trace not in exported.calibration]
    values = {
        "about": about(desk, exported),
        "rubric": desk.rubric,
        "problems": problems,
        "agreement": item_agreement(compared, desk.rubric),
        "spans": _marks(compared),
        "signals": _signal_rows(desk, by_trace),
        "calibration": desk.calibration(),
        "sections": [_section(desk, trace, given, chain) for trace, given in by_trace.items()],
    }
    filters: dict[str, Callable[[Any], str]] = {"share": _share, "number": _number, "between": _between}
    write_text(path, render_page("workbench.review", "report", values, filters))


def _section(desk: Desk, trace: str, given: Sequence[Given], chain: bool) -> Section:
    entry = desk.catalogue.entry(trace)
    if entry.name is None:
        why = f"deleted on {entry.deleted[:10]}" if entry.deleted else "replaced by another of its name"
        return Section(entry, (), tuple(given), (), f"The trace was {why}; its words are gone.")
    messages = transcript(desk.catalogue.open(trace), chain)
    found = tuple(signal for signal in desk.catalogue.flags(trace) if chain or not signal.chain)
    return Section(entry, tuple((m, tuple(_pieces(m, given))) for m in messages), tuple(given), found, None)


def _pieces(message: TranscriptMessage, given: Sequence[Given]) -> Iterable[Piece]:
    """Cut a message where marks begin or end."""
    if message.tokens is None:
        yield Piece(LEFT_OUT, ())
        return
    marks = [(e.start, e.stop, at) for at, each in enumerate(given, 1) for e in each.verdict.evidence]
    inside = [(max(a, message.start), min(b, message.stop), at) for a, b, at in marks]
    inside = [mark for mark in inside if mark[0] < mark[1]]
    edges = sorted({message.start, message.stop, *(a for a, _, _ in inside), *(b for _, b, _ in inside)})
    for start, stop in pairwise(edges):
        text = "".join(message.tokens[start - message.start : stop - message.start])
        yield Piece(text, tuple(sorted({at for a, b, at in inside if a <= start and stop <= b})))


def _marks(given: Sequence[Given]) -> tuple[int, float]:
    """Return how many pairs of verdicts marked anything, and the mean of their F1."""
    by_trace: dict[str, list[Given]] = {}
    for each in given:
        if not each.adjudicates:
            by_trace.setdefault(each.trace, []).append(each)
    found = []
    for some in by_trace.values():
        for at, one in enumerate(some):
            found += [span_agreement(one.verdict.evidence, two.verdict.evidence).f1 for two in some[at + 1 :]]
    scores = [f1 for f1 in found if not math.isnan(f1)]
    return len(scores), sum(scores) / len(scores) if scores else math.nan


def _signal_rows(desk: Desk, by_trace: dict[str, list[Given]]) -> list[tuple[str, SignalQuality, Measured | None]]:
    """Compare each signal with whether reviewers found anything at all; beside it how it does where truth is known."""
    flags = {trace: {signal.name for signal in desk.catalogue.flags(trace)} for trace in by_trace}
    found = {trace: any(each.verdict.severity > 0 for each in given) for trace, given in by_trace.items()}
    rows = [(name, signal_quality({t: name in some for t, some in flags.items()}, found)) for name in SIGNALS]
    fired = [(name, quality) for name, quality in rows if quality.true_positives + quality.false_positives]
    return [(name, quality, MEASURED.get(name)) for name, quality in fired]


def _share(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{100 * value:.0f} %"


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.2f}".replace("-", "−")


def _between(interval: tuple[float, float]) -> str:
    return "" if math.isnan(interval[0]) else f"[{_number(interval[0])}, {_number(interval[1])}]"
