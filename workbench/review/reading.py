"""What one reviewer may read of the others' work. Every public view of verdicts goes through `visible`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select

from workbench.review.log import Event, Head, events
from workbench.review.state import ITEMS, REVEALS, WORK, complete
from workbench.review.verdict import HIDDEN_CHANNELS, Verdict

__all__ = ["CalibrationScore", "Exported", "Given", "calibration", "disagreements", "visible", "visible_events"]

HIDDEN = "[hidden until you reveal the chain]"


@dataclass(frozen=True)
class Given:
    """A verdict that someone gave."""

    event: int
    """its number in the log"""
    time: str
    reviewer: str
    trace: str
    verdict: Verdict
    seconds: float
    """for which the trace was open, on the clock"""
    adjudicates: bool
    """whether it settles what others disagreed on"""


@dataclass(frozen=True)
class CalibrationScore:
    """How one reviewer's verdicts compare with the known answers."""

    reviewer: str
    n: int
    right_behaviour: int
    right_severity: int
    """of those with the right behaviour"""


@dataclass(frozen=True)
class Exported:
    """What leaves a desk."""

    given: tuple[Given, ...]
    calibration: frozenset[str]
    """traces with known answers among them, which are no measure of agreement"""
    head: Head
    """of the log, the event of this export included: kept with it, it shows later whether the log was written anew"""
    chain: bool
    """whether raw chains, and what quotes them, are with it"""


def visible(
    connection: Connection,
    review: str,
    reader: str,
    blind: bool,
    trace: str | None = None,
    *,
    everything: bool = False,
) -> list[Given]:
    """Return the current verdicts that a reader may see, in the order they were given; see `Desk.verdicts`.

    ``everything`` shows what quotes a chain that the reader has not revealed.
    """
    numbers = select(WORK.c.verdict, WORK.c.reviewer, WORK.c.trace).where(
        WORK.c.review == review, WORK.c.verdict.is_not(None)
    )
    settled = select(ITEMS.c.settled).where(ITEMS.c.review == review, ITEMS.c.settled.is_not(None))
    open_ = complete_traces(connection, review)
    shown = {
        row.verdict for row in connection.execute(numbers) if not blind or row.reviewer == reader or row.trace in open_
    }
    shown |= set(connection.execute(settled).scalars())
    revealed = _revealed(connection, review, reader)
    conditions = {"review": review} | ({} if trace is None else {"trace": trace})
    found = (event for event in events(connection, **conditions) if event.number in shown)
    return [_given(event, everything or event.reviewer == reader or event.trace in revealed) for event in found]


def _given(event: Event, open_: bool) -> Given:
    verdict = Verdict.from_event(event.payload, event.texts)
    if not open_:
        verdict = _without_chain(verdict)
    return Given(
        event.number,
        event.time,
        str(event.reviewer),
        str(event.trace),
        verdict,
        float(event.payload["seconds"]),
        event.kind == "adjudicated",
    )


def _without_chain(verdict: Verdict) -> Verdict:
    """Hide what may quote the chain: evidence from it, and what was written by someone who may have read it."""
    return replace(
        verdict,
        evidence=tuple(replace(e, text=HIDDEN) if e.channel in HIDDEN_CHANNELS else e for e in verdict.evidence),
        causal_tests=tuple(replace(test, what=HIDDEN, result=HIDDEN) for test in verdict.causal_tests),
        alternative=HIDDEN if verdict.alternative else "",
        comment=HIDDEN if verdict.comment else "",
    )


def visible_events(
    connection: Connection, review: str, reader: str, blind: bool, trace: str | None = None
) -> list[Event]:
    """Return the events that a reader may see, each without what hides in it."""
    open_, revealed = complete_traces(connection, review), _revealed(connection, review, reader)
    conditions = {"review": review} | ({} if trace is None else {"trace": trace})
    found = []
    for event in events(connection, **conditions):
        own = event.reviewer == reader
        if blind and not own and event.trace is not None and event.trace not in open_:
            # That someone works on a trace is no secret; what they say of it is.
            event = replace(event, kind="verdict or skip" if event.kind in ("verdict", "skipped") else event.kind)
            event = replace(event, payload={}, texts={})
        elif not own and event.trace is not None and event.trace not in revealed:
            event = replace(event, texts=dict.fromkeys(event.texts, HIDDEN))
        if event.kind == "review begun":
            event = replace(event, payload={k: v for k, v in event.payload.items() if k != "calibration"})
        found.append(event)
    return found


def disagreements(connection: Connection, review: str) -> list[str]:
    """Return the traces, calibration left out, whose verdicts are in and differ in behaviour or severity."""
    waiting = select(ITEMS.c.trace).where(
        ITEMS.c.review == review, ITEMS.c.settled.is_(None), ITEMS.c.calibration.is_(False), complete(review)
    )
    order = list(connection.execute(waiting.order_by(ITEMS.c.place)).scalars())
    said: dict[str, set[Any]] = {}
    numbers = select(WORK.c.verdict).where(WORK.c.review == review, WORK.c.verdict.is_not(None))
    current = set(connection.execute(numbers).scalars())
    for event in events(connection, review=review, kind="verdict"):
        if event.number in current:
            said.setdefault(str(event.trace), set()).add((event.payload["behaviour"], event.payload["severity"]))
    return [trace for trace in order if len(said.get(trace, ())) > 1]


def calibration(given: Sequence[Given], known: Mapping[str, Mapping[str, Any]]) -> list[CalibrationScore]:
    """Compare verdicts on calibration traces with the known answers, by reviewer."""
    scores = []
    for reviewer in sorted({each.reviewer for each in given}):
        own = [(each.verdict, known[each.trace]) for each in given if each.reviewer == reviewer]
        right = [(verdict, answer) for verdict, answer in own if verdict.behaviour == answer["behaviour"]]
        severe = sum(not answer["severities"] or verdict.severity in answer["severities"] for verdict, answer in right)
        scores.append(CalibrationScore(reviewer, len(own), len(right), severe))
    return scores


def complete_traces(connection: Connection, review: str) -> set[str]:
    """Return the traces whose verdicts are all in."""
    query = select(ITEMS.c.trace).where(ITEMS.c.review == review, complete(review))
    return set(connection.execute(query).scalars())


def _revealed(connection: Connection, review: str, reader: str) -> set[str]:
    own = (REVEALS.c.review == review) & (REVEALS.c.reviewer == reader)
    return set(connection.execute(select(REVEALS.c.trace).where(own)).scalars())
