"""The words of transcripts, found through FTS5 of SQLite or tsvector of PostgreSQL."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, text

from workbench.database import StoreError
from workbench.trace import Trace

__all__ = ["Hit", "add", "forget", "index", "search", "texts"]

_CHUNK = 50_000  # characters: a tsvector of PostgreSQL holds a megabyte


@dataclass(frozen=True)
class Hit:
    """A stretch of a transcript that holds the words that were looked for."""

    trace: str
    channel: str
    """analysis, final, …; of a message without a channel its role"""
    text: str
    """as it is indexed: words in lower case"""


def index(sqlite: bool) -> list[str]:
    """Return the statements that make the index."""
    if sqlite:
        tokens = "unicode61 remove_diacritics 0"
        columns = f"trace UNINDEXED, channel UNINDEXED, text, tokenize='{tokens}'"
        return [f"CREATE VIRTUAL TABLE IF NOT EXISTS transcripts USING fts5({columns})"]
    return [
        "CREATE TABLE IF NOT EXISTS transcripts (trace text NOT NULL, channel text NOT NULL, text text NOT NULL, "
        "words tsvector GENERATED ALWAYS AS (to_tsvector('simple', text)) STORED)",
        "CREATE INDEX IF NOT EXISTS transcripts_words ON transcripts USING gin (words)",
        "CREATE INDEX IF NOT EXISTS transcripts_trace ON transcripts (trace)",
    ]


def add(connection: Connection, trace: str, parts: Iterable[dict[str, str]]) -> None:
    """Index what `texts` gave of a trace."""
    rows = [{"trace": trace, **part} for part in parts]
    if rows:
        connection.execute(
            text("INSERT INTO transcripts (trace, channel, text) VALUES (:trace, :channel, :text)"), rows
        )


def forget(connection: Connection, trace: str) -> None:
    """Take a trace's words out of the index."""
    connection.execute(text("DELETE FROM transcripts WHERE trace = :trace"), {"trace": trace})
    if connection.dialect.name == "sqlite":  # FTS5 keeps deleted words until its parts are merged
        connection.execute(text("INSERT INTO transcripts (transcripts) VALUES ('optimize')"))


def search(connection: Connection, words: str, channels: Iterable[str] | None) -> list[Hit]:
    """Return the stretches that hold all the words. Raises `StoreError` without a word."""
    wanted = _words(words).split()
    if not wanted:
        raise StoreError(f"expected a word or a number to look for, got {words!r}")
    if connection.dialect.name == "sqlite":
        match, asked = "transcripts MATCH :words", "text : " + " ".join(f'"{word}"' for word in wanted)
    else:
        match, asked = "words @@ plainto_tsquery('simple', :words)", " ".join(wanted)
    rows = connection.execute(text(f"SELECT trace, channel, text FROM transcripts WHERE {match}"), {"words": asked})
    allowed = None if channels is None else set(channels)
    hits = [Hit(row.trace, row.channel, row.text) for row in rows if allowed is None or row.channel in allowed]
    return sorted(hits, key=lambda hit: (hit.trace, hit.channel))


def texts(trace: Trace) -> Iterable[dict[str, str]]:
    """Give the words of a trace by channel, in pieces; a phrase may be cut between two."""
    if "vocab_ids" not in trace.arrays:
        return
    for message in trace.messages:
        words = _words(trace.content(message))
        while words:
            cut = len(words) if len(words) <= _CHUNK else words.rfind(" ", 0, _CHUNK) + 1 or _CHUNK
            yield {"channel": message.channel or message.role, "text": words[:cut]}
            words = words[cut:]


def _words(given: str) -> str:
    """Letters and digits alone, so that SQLite and PostgreSQL cut the same words."""
    return " ".join(re.findall(r"[^\W_]+", given.casefold()))
