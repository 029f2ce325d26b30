"""Who works on which trace: what is claimed next, what is assigned, how far it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select

from workbench.analysis.signals import Signal
from workbench.catalogue.tables import TRACES
from workbench.review.drafts import DRAFTS
from workbench.review.errors import ReviewError
from workbench.review.log import Event
from workbench.review.state import ITEMS, REVEALS, WORK, complete

__all__ = ["QueueItem", "Summary", "claim", "queue", "summary"]

_ORDERS = {"signals": (ITEMS.c.place,), "name": (TRACES.c.name,), "time": (TRACES.c.time, ITEMS.c.place)}


@dataclass(frozen=True)
class QueueItem:
    """A trace that is assigned to a reviewer. Nothing tells calibration traces from others."""

    trace: str
    """its hash"""
    name: str
    model: str
    effort: str | None
    question: str
    num_tokens: int
    truncated: str | None
    state: str
    """assigned, done or skipped"""
    draft: bool
    revealed: bool
    signals: tuple[Signal, ...] = ()
    """those that may be seen"""
    hidden_signals: int = 0
    """how many more tell of the chain, and wait for the reveal"""

    def with_signals(self, found: Sequence[Signal]) -> "QueueItem":
        """Return it with its signals, those about a hidden chain only counted."""
        shown = tuple(signal for signal in found if self.revealed or not signal.chain)
        return replace(self, signals=shown, hidden_signals=len(found) - len(shown))


@dataclass(frozen=True)
class Summary:
    """Where a review stands for one reviewer."""

    review: str
    reviewer: str
    may_adjudicate: bool
    rubric: str
    """name and version"""
    blind: bool
    per_trace: int
    num_traces: int
    """of the review"""
    complete: int
    """traces with all their verdicts"""
    assigned: int
    """to this reviewer, whatever became of it"""
    done: int
    skipped: int
    drafts: int
    models: tuple[str, ...]


def claim(connection: Connection, review: str, reviewer: str, may_adjudicate: bool, number: int) -> tuple[str, ...]:
    """Return the next traces that a reviewer can take, within the step that then takes them."""
    of_trace = (WORK.c.review == review) & (WORK.c.trace == ITEMS.c.trace)
    had = select(WORK.c.trace).where(of_trace, WORK.c.reviewer == reviewer).correlate(ITEMS).exists()
    taken = select(func.count()).select_from(WORK).where(of_trace, WORK.c.state != "skipped").correlate(ITEMS)
    wanted = [ITEMS.c.review == review, ~had, taken.scalar_subquery() < ITEMS.c.slots, TRACES.c.name.is_not(None)]
    wanted.append(~complete(review))  # whoever took one now could have read its verdicts
    if may_adjudicate:
        wanted.append(ITEMS.c.calibration.is_(False))  # those are for all who only review, and for no one else
    query = select(ITEMS.c.trace).join(TRACES, TRACES.c.hash == ITEMS.c.trace).where(*wanted)
    return tuple(connection.execute(query.order_by(ITEMS.c.place).limit(number)).scalars())


def queue(
    connection: Connection, review: str, reviewer: str, start: int, limit: int, order: str, only: str | None = None
) -> list[QueueItem]:
    """Return a page of what is assigned to a reviewer; see `Desk.queue`."""
    if order not in _ORDERS:
        raise ReviewError(f"expected an order of {', '.join(_ORDERS)}; got {order!r}")
    drafted, opened = (
        select(table.c.trace).where(*_same(table, review, reviewer)).correlate(WORK).exists()
        for table in (DRAFTS, REVEALS)
    )
    columns = [TRACES.c[name] for name in ("model", "effort", "question", "num_tokens", "truncated")]
    query = (
        select(WORK.c.trace, TRACES.c.name, *columns, WORK.c.state, drafted.label("draft"), opened.label("revealed"))
        .join(ITEMS, and_(ITEMS.c.review == WORK.c.review, ITEMS.c.trace == WORK.c.trace))
        .join(TRACES, TRACES.c.hash == WORK.c.trace)
        .where(WORK.c.review == review, WORK.c.reviewer == reviewer, TRACES.c.name.is_not(None))
    )
    query = query if only is None else query.where(WORK.c.state == only)
    rows = connection.execute(query.order_by(*_ORDERS[order]).offset(start).limit(limit))
    return [QueueItem(**{**row._mapping, "draft": bool(row.draft), "revealed": bool(row.revealed)}) for row in rows]


def _same(table: Any, review: str, reviewer: str) -> list[ColumnElement[bool]]:
    return [table.c.review == review, table.c.reviewer == reviewer, table.c.trace == WORK.c.trace]


def summary(connection: Connection, begun: Event, reviewer: str, may_adjudicate: bool) -> Summary:
    """Count a review for one reviewer."""
    review = str(begun.review)
    mine = (WORK.c.review == review) & (WORK.c.reviewer == reviewer)
    counted = select(WORK.c.state, func.count()).where(mine).group_by(WORK.c.state)
    states: dict[str, int] = {row[0]: row[1] for row in connection.execute(counted)}
    drafted = select(func.count()).select_from(DRAFTS)
    drafted = drafted.where(DRAFTS.c.review == review, DRAFTS.c.reviewer == reviewer)
    items = select(func.count()).select_from(ITEMS).where(ITEMS.c.review == review)
    models = select(TRACES.c.model).distinct().join(ITEMS, ITEMS.c.trace == TRACES.c.hash)
    rubric = begun.payload["rubric"]
    return Summary(
        review=review,
        reviewer=reviewer,
        may_adjudicate=may_adjudicate,
        rubric=f"{rubric['name']} {rubric['version']}",
        blind=begun.payload["blind"],
        per_trace=begun.payload["per_trace"],
        num_traces=connection.execute(items).scalar_one(),
        complete=connection.execute(items.where(complete(review))).scalar_one(),
        assigned=sum(states.values()),
        done=states.get("done", 0),
        skipped=states.get("skipped", 0),
        drafts=connection.execute(drafted).scalar_one(),
        models=tuple(connection.execute(models.where(ITEMS.c.review == review)).scalars()),
    )
