"""The tables of a catalogue."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, Row, String, Table, Text

__all__ = ["LABELS", "METADATA", "TRACES", "Entry", "entry"]

METADATA = MetaData()
TRACES = Table(
    "traces",
    METADATA,
    Column("hash", String(64), primary_key=True),
    Column("name", Text, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("model", Text, nullable=False, index=True),
    Column("effort", Text, index=True),
    Column("prompt_set", Text, index=True),
    Column("question", Text, nullable=False),
    Column("num_tokens", Integer, nullable=False),
    Column("num_prompt_tokens", Integer, nullable=False),
    Column("truncated", Text),
    Column("time", Text, nullable=False, index=True),
    Column("deleted", Text),
)
LABELS = Table(
    "labels",
    METADATA,
    Column("trace", String(64), ForeignKey("traces.hash"), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("detail", Text, nullable=False, server_default="{}"),
    Index("labels_by_name", "kind", "name"),
)


@dataclass(frozen=True)
class Entry:
    """What the catalogue knows of a trace."""

    hash: str
    """SHA-256 of its file"""
    name: str | None
    """of its file in the folder, without ``.safetensors``; None once it was deleted"""
    model: str
    effort: str | None
    prompt_set: str | None
    question: str
    num_tokens: int
    num_prompt_tokens: int
    truncated: str | None
    time: str
    """when it was captured, else when its file was written: ISO 8601, UTC"""
    deleted: str | None
    """when it was deleted; what is left is a tombstone"""


def entry(row: Row[Any]) -> Entry:
    """Take a row of `TRACES`."""
    return Entry(**{name: getattr(row, name) for name in Entry.__dataclass_fields__})
