"""Drafts: what a reviewer has not yet given as a verdict. They change in place, and are no part of the log."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Connection, Float, MetaData, String, Table, Text, delete, insert, select

__all__ = ["DRAFTS", "METADATA", "Draft", "drop", "load", "save"]

METADATA = MetaData()
DRAFTS = Table(
    "review_drafts",
    METADATA,
    Column("review", String(200), primary_key=True),
    Column("trace", String(64), primary_key=True),
    Column("reviewer", String(200), primary_key=True),
    Column("content", Text, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("saved", String(40), nullable=False),
)


@dataclass(frozen=True)
class Draft:
    """An unfinished verdict."""

    content: Mapping[str, Any]
    """as it was given, JSON"""
    seconds: float
    """for which the trace was open before it was saved"""
    saved: str | None
    """ISO 8601, UTC; None where the database could not be written and it is in memory only"""


def save(connection: Connection, key: Mapping[str, str], content: Mapping[str, Any], seconds: float) -> Draft:
    """Put a draft in the place of the one before."""
    saved = datetime.now(UTC).isoformat(timespec="seconds")
    drop(connection, **key)
    values = {**key, "content": json.dumps(content, allow_nan=False), "seconds": seconds, "saved": saved}
    connection.execute(insert(DRAFTS).values(values))
    return Draft(content, seconds, saved)


def load(connection: Connection, key: Mapping[str, str]) -> Draft | None:
    """Return a draft; None where there is none."""
    row = connection.execute(select(DRAFTS).where(*(DRAFTS.c[k] == v for k, v in key.items()))).one_or_none()
    return None if row is None else Draft(json.loads(row.content), row.seconds, row.saved)


def drop(connection: Connection, **key: str) -> None:
    """Remove the drafts whose columns have these values."""
    connection.execute(delete(DRAFTS).where(*(DRAFTS.c[k] == v for k, v in key.items())))
