"""A log to which is only added: each event carries the hash of the one before it.

An event holds no free text itself, but a salted hash of each: so a text can be redacted later, and what the chain says
stays true. What is missing without a redaction that says so, and what was changed, is found by `check`. Events that
were cut off at the end leave a shorter chain that is still whole: compare with a `Head` kept elsewhere, as every
export has one.
"""

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Connection, Integer, MetaData, Row, String, Table, Text, insert, select, update

__all__ = ["Event", "Head", "append", "events", "head", "problems", "redact", "redact_all"]

METADATA = MetaData()
EVENTS = Table(
    "events",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("time", String(40), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("review", Text),
    Column("reviewer", Text),
    Column("trace", String(64), index=True),
    Column("payload", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
TEXTS = Table(
    "event_texts",
    METADATA,
    Column("event", Integer, primary_key=True, autoincrement=False),
    Column("place", String(100), primary_key=True),
    Column("salt", String(32), nullable=False),
    Column("text", Text),
)
_START = "0" * 64
REDACTION = "text redacted"


@dataclass(frozen=True)
class Event:
    """Something that was done, when and by whom."""

    number: int
    """from 1 without a gap"""
    time: str
    """ISO 8601, UTC"""
    kind: str
    review: str | None
    reviewer: str | None
    trace: str | None
    payload: Mapping[str, Any]
    texts: Mapping[str, str | None]
    """place → text; None where it was redacted"""


@dataclass(frozen=True)
class Head:
    """Where a log stood: how many events, and the hash of the last."""

    number: int
    hash: str


def append(
    connection: Connection,
    kind: str,
    *,
    review: str | None = None,
    reviewer: str | None = None,
    trace: str | None = None,
    payload: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Event:
    """Add an event, within a step that writes.

    Args:
        connection: of `Database.writing`.
        kind: what was done.
        review: in which review.
        reviewer: by whom.
        trace: with which trace, by its hash.
        payload: what else there is to say, without free text.
        texts: place → free text, which may be redacted later.
    """
    last = head(connection)
    rows: list[dict[str, Any]] = [
        {"event": last.number + 1, "place": place, "salt": secrets.token_hex(16), "text": json.dumps(text)}
        for place, text in (texts or {}).items()
    ]
    whole = {**(payload or {}), "texts": {row["place"]: _text_hash(row["salt"], row["text"]) for row in rows}}
    row: dict[str, Any] = {
        "number": last.number + 1,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "kind": kind,
        "review": review,
        "reviewer": reviewer,
        "trace": trace,
        "payload": json.dumps(whole, sort_keys=True, allow_nan=False),
        "previous": last.hash,
    }
    connection.execute(insert(EVENTS).values(**row, hash=_event_hash(row)))
    if rows:
        connection.execute(insert(TEXTS), rows)
    shown = {key: row[key] for key in ("number", "time", "kind", "review", "reviewer", "trace")}
    return Event(**shown, payload=payload or {}, texts=dict(texts or {}))


def head(connection: Connection) -> Head:
    """Return where the log stands."""
    row = connection.execute(select(EVENTS.c.number, EVENTS.c.hash).order_by(EVENTS.c.number.desc()).limit(1)).first()
    return Head(0, _START) if row is None else Head(row.number, row.hash)


def events(connection: Connection, **conditions: Any) -> Iterator[Event]:
    """Give the events whose columns have these values, in order."""
    query = select(EVENTS).order_by(EVENTS.c.number)
    texts = select(TEXTS)
    if conditions:
        query = query.where(*(EVENTS.c[name] == value for name, value in conditions.items()))
        texts = texts.where(TEXTS.c.event.in_(query.with_only_columns(EVENTS.c.number).order_by(None)))
    by_event: dict[int, dict[str, str | None]] = {}
    for row in connection.execute(texts):
        by_event.setdefault(row.event, {})[row.place] = None if row.text is None else json.loads(row.text)
    for row in connection.execute(query):
        payload = json.loads(row.payload)
        del payload["texts"]
        yield Event(
            row.number, row.time, row.kind, row.review, row.reviewer, row.trace, payload, by_event.get(row.number, {})
        )


def redact(connection: Connection, event: int, places: list[str], *, reviewer: str, reason: str, **about: Any) -> None:
    """Take texts of an event out for good, within a step that writes; their hashes and an event that says so stay."""
    payload = {"event": event, "places": places}
    append(connection, REDACTION, reviewer=reviewer, payload=payload, texts={"reason": reason}, **about)
    gone = (TEXTS.c.event == event) & TEXTS.c.place.in_(places)
    connection.execute(update(TEXTS).where(gone).values(text=None))


def redact_all(connection: Connection, trace: str, *, reviewer: str, reason: str) -> None:
    """Take out every text of the events about a trace, but why others were redacted."""
    for event in list(events(connection, trace=trace)):
        places = [place for place, text in event.texts.items() if text is not None]
        if places and event.kind != REDACTION:
            redact(
                connection, event.number, places, reviewer=reviewer, reason=reason, review=event.review, trace=trace
            )


def problems(connection: Connection, known: Head | None = None) -> Iterator[str]:
    """Say what is wrong with the log, in words; nothing where it is whole.

    Args:
        connection: to read from.
        known: where the log stood at some time, as an export has it.
    """
    texts = _stored_texts(connection)
    redacted: set[tuple[int, str]] = set()
    missing: list[tuple[int, str]] = []
    previous, expected = _START, 1
    for row in connection.execute(select(EVENTS).order_by(EVENTS.c.number)):
        if row.number != expected:
            yield f"events {expected} to {row.number - 1} are missing"
        elif row.previous != previous:
            yield f"event {row.number} does not follow from the one before it"
        if _event_hash(row._mapping) != row.hash:
            yield f"event {row.number} ({row.kind}) was changed"
        if known is not None and row.number == known.number and row.hash != known.hash:
            yield f"event {row.number} is not the one that was known"
        yield from _text_problems(row, texts, redacted, missing)
        previous, expected = row.hash, row.number + 1
    yield from (f"text {p!r} of event {e} is gone without a redaction" for e, p in missing if (e, p) not in redacted)
    yield from (f"there is a text {place!r} of event {event} that no event speaks of" for event, place in texts)
    if known is not None and expected <= known.number:
        yield f"the log ends with event {expected - 1}; {known.number} were known"


def _stored_texts(connection: Connection) -> dict[tuple[int, str], Row[Any]]:
    return {(row.event, row.place): row for row in connection.execute(select(TEXTS))}


def _text_problems(
    row: Row[Any],
    texts: dict[tuple[int, str], Row[Any]],
    redacted: set[tuple[int, str]],
    missing: list[tuple[int, str]],
) -> Iterator[str]:
    try:
        payload = json.loads(row.payload)
        places = dict(payload["texts"])
        if row.kind == REDACTION:
            redacted.update((payload["event"], place) for place in payload["places"])
    except (ValueError, KeyError, TypeError):
        yield f"event {row.number} cannot be read"
        return
    for place, expected in places.items():
        stored = texts.pop((row.number, place), None)
        if stored is None or stored.text is None:
            missing.append((row.number, place))
        elif _text_hash(stored.salt, stored.text) != expected:
            yield f"text {place!r} of event {row.number} was changed"


def _text_hash(salt: str, text: str) -> str:
    """Salted: a short text could be guessed from its bare hash after it was redacted."""
    return hashlib.sha256(f"{salt}:{text}".encode()).hexdigest()


def _event_hash(row: Mapping[Any, Any]) -> str:
    columns = ("number", "time", "kind", "review", "reviewer", "trace", "payload", "previous")
    return hashlib.sha256(json.dumps([row[name] for name in columns]).encode()).hexdigest()
