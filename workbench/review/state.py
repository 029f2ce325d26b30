"""What the log comes to, in tables: who has which trace, and how far each is.

Only `apply` writes them, an event at a time, so that the log alone decides: `differences` plays it again and compares.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    func,
    insert,
    or_,
    select,
    update,
)

from workbench.review.errors import ReviewError
from workbench.review.log import Event, events

__all__ = [
    "ITEMS",
    "METADATA",
    "PEOPLE",
    "REVEALS",
    "REVIEWS",
    "WORK",
    "apply",
    "check_deletable",
    "check_item",
    "complete",
    "differences",
    "is_complete",
    "is_revealed",
]

METADATA = MetaData()
REVIEWS = Table(
    "reviews",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("begun", Integer, nullable=False),
    Column("blind", Boolean, nullable=False),
)
PEOPLE = Table(
    "review_people",
    METADATA,
    Column("review", String(200), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("may_adjudicate", Boolean, nullable=False),
)
ITEMS = Table(
    "review_items",
    METADATA,
    Column("review", String(200), primary_key=True),
    Column("trace", String(64), primary_key=True),
    Column("place", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("calibration", Boolean, nullable=False),
    Column("settled", Integer),
)
WORK = Table(
    "review_work",
    METADATA,
    Column("review", String(200), primary_key=True),
    Column("trace", String(64), primary_key=True),
    Column("reviewer", String(200), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("verdict", Integer),
)
REVEALS = Table(
    "review_reveals",
    METADATA,
    Column("review", String(200), primary_key=True),
    Column("trace", String(64), primary_key=True),
    Column("reviewer", String(200), primary_key=True),
)


def apply(connection: Connection, event: Event) -> None:
    """Write what an event changes; most events change nothing here."""
    match event.kind:
        case "review begun":
            _begin(connection, event)
        case "assigned":
            key = {"review": event.review, "trace": event.trace, "reviewer": event.reviewer}
            connection.execute(insert(WORK).values(**key, state="assigned"))
        case "revealed":
            key = {"review": event.review, "trace": event.trace, "reviewer": event.reviewer}
            connection.execute(insert(REVEALS).values(key))
        case "verdict":
            connection.execute(update(WORK).where(_own(event)).values(state="done", verdict=event.number))
        case "skipped":
            connection.execute(update(WORK).where(_own(event)).values(state="skipped"))
        case "adjudicated":
            item = (ITEMS.c.review == event.review) & (ITEMS.c.trace == event.trace)
            connection.execute(update(ITEMS).where(item).values(settled=event.number))


def _begin(connection: Connection, event: Event) -> None:
    told = event.payload
    connection.execute(insert(REVIEWS).values(name=event.review, begun=event.number, blind=told["blind"]))
    connection.execute(insert(PEOPLE), [{"review": event.review, **person} for person in told["people"]])
    connection.execute(
        insert(ITEMS),
        [
            {
                "review": event.review,
                "trace": trace,
                "place": place,
                "slots": told["per_trace"] if trace not in told["calibration"] else told["readers"],
                "calibration": trace in told["calibration"],
            }
            for place, trace in enumerate(told["traces"])
        ],
    )


def _own(event: Event) -> ColumnElement[bool]:
    own: ColumnElement[bool] = (
        (WORK.c.review == event.review) & (WORK.c.trace == event.trace) & (WORK.c.reviewer == event.reviewer)
    )
    return own


def complete(review: str) -> ColumnElement[bool]:
    """Return the condition on `ITEMS` that all verdicts of a trace are in: as many as asked for, or no one is left.

    No one is left when everyone who can take the trace has given a verdict or skipped. Those who adjudicate can take
    what others skipped, but no calibration traces.
    """
    of_trace = (WORK.c.review == review) & (WORK.c.trace == ITEMS.c.trace)
    count = select(func.count()).select_from(WORK).where(of_trace).correlate(ITEMS)
    done = count.where(WORK.c.state == "done").scalar_subquery()
    through = count.where(WORK.c.state != "assigned").scalar_subquery()
    can_take = PEOPLE.c.may_adjudicate.is_(False) | ITEMS.c.calibration.is_(False)
    everyone = select(func.count()).select_from(PEOPLE).where(PEOPLE.c.review == review, can_take).correlate(ITEMS)
    condition: ColumnElement[bool] = or_(done >= ITEMS.c.slots, (through >= everyone.scalar_subquery()) & (done > 0))
    return condition


def is_complete(connection: Connection, review: str, trace: str) -> bool:
    """Say whether all verdicts of a trace are in."""
    query = select(ITEMS.c.trace).where(ITEMS.c.review == review, ITEMS.c.trace == trace, complete(review))
    return connection.execute(query).first() is not None


def is_revealed(connection: Connection, key: Mapping[str, str]) -> bool:
    """Say whether a reviewer has revealed the raw chain of a trace; the key is review, trace and reviewer."""
    own = (REVEALS.c[name] == value for name, value in key.items())
    return connection.execute(select(REVEALS.c.trace).where(*own)).first() is not None


def check_item(connection: Connection, review: str, trace: str) -> None:
    """Raise `ReviewError` where a trace is not part of a review."""
    query = select(ITEMS.c.trace).where(ITEMS.c.review == review, ITEMS.c.trace == trace)
    if connection.execute(query).first() is None:
        raise ReviewError(f"The trace {trace[:12]} is not part of the review {review!r}.")


def check_deletable(connection: Connection, review: str, trace: str, reviewer: str) -> None:
    """Raise `ReviewError` where a trace is not of a review, or also of one in which the person may not adjudicate."""
    check_item(connection, review, trace)
    theirs = select(PEOPLE.c.review).where(PEOPLE.c.name == reviewer, PEOPLE.c.may_adjudicate)
    query = select(ITEMS.c.review).where(ITEMS.c.trace == trace, ITEMS.c.review.not_in(theirs))
    if others := connection.execute(query.order_by(ITEMS.c.review)).scalars().all():
        raise ReviewError(
            f"The trace {trace[:12]} is also part of {', '.join(map(repr, others))}, where {reviewer} may not "
            "adjudicate, and would be gone there too. Someone who adjudicates in each of these reviews can delete it."
        )


def differences(connection: Connection) -> Iterator[str]:
    """Say where the tables are not what the log comes to."""
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as memory:
            METADATA.create_all(memory)
            try:
                for event in events(connection):
                    apply(memory, event)
            except Exception as error:  # a log that was tampered with may say anything
                yield f"the log cannot be played to its end: {type(error).__name__}"
                return
            for table in METADATA.sorted_tables:
                yield from _compared(table, _rows(connection, table), _rows(memory, table))
    finally:
        engine.dispose()


def _rows(connection: Connection, table: Table) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in connection.execute(select(table))}


def _compared(table: Table, stored: set[tuple[Any, ...]], played: set[tuple[Any, ...]]) -> Iterator[str]:
    for row in sorted(stored - played, key=str):
        yield f"table {table.name}: {_told(table, row)} is not what the log says"
    keys = {row[: len(table.primary_key)] for row in stored}
    for row in sorted(played - stored, key=str):
        if row[: len(table.primary_key)] not in keys:
            yield f"table {table.name}: {_told(table, row)} is missing"


def _told(table: Table, row: tuple[Any, ...]) -> str:
    return ", ".join(f"{column.name} {str(value)[:40]}" for column, value in zip(table.c, row, strict=True))
