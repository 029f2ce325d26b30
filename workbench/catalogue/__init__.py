"""A catalogue of the traces of a folder: found by model, effort, prompt set, flag, tag, reviewer, date and text.

The folder holds the traces; the catalogue, in a database, holds what they are found by. A trace is known by the
SHA-256 of its file, so that taking a folder in again, or the same trace under another name, adds nothing.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Select, and_, delete, func, insert, select, update
from sqlalchemy import text as sql
from tqdm.auto import tqdm

from workbench.analysis.signals import Signal, signals
from workbench.catalogue import transcripts
from workbench.catalogue.reading import digest, read, stamp
from workbench.catalogue.tables import LABELS, METADATA, TRACES, Entry, entry
from workbench.catalogue.transcripts import Hit
from workbench.database import Database, StoreError
from workbench.store import TraceStore
from workbench.trace import Trace, TraceError
from workbench.trace_file import open_trace

__all__ = ["Catalogue", "Entry", "Hit"]

_BATCH = 200  # traces taken in before others may write
_SUFFIX = ".safetensors"


class Catalogue:
    """The catalogue of a store.

    Args:
        store: a `TraceStore`, or its folder.
        url: ``postgresql://user@host/name`` for a team; default: ``catalogue.sqlite`` in the folder.
        timeout: seconds to wait for another writer.

    Raises:
        StoreError: the database cannot be opened.
        TraceError: there is no such folder.
    """

    def __init__(
        self, store: TraceStore | str | os.PathLike[str], url: str | None = None, *, timeout: float = 30.0
    ) -> None:
        """Open the catalogue; the folder is not read."""
        self.folder = Path(store.path if isinstance(store, TraceStore) else store)
        if not self.folder.is_dir():
            raise TraceError(f"There is no folder {self.folder}. Make one with wb.TraceStore(…, create=True).")
        self.database = Database(url or self.folder / "catalogue.sqlite", timeout=timeout)
        self.make_tables(METADATA)

    def __repr__(self) -> str:
        """Say how many traces are where."""
        return f"<Catalogue of {self.folder} in {self.database.shown}: {len(self):,} traces>"

    def __len__(self) -> int:
        """Return how many traces there are, without those that were deleted or replaced."""
        with self.database.reading() as connection:
            return int(connection.execute(select(func.count()).where(TRACES.c.name.is_not(None))).scalar_one())

    def make_tables(self, metadata: MetaData) -> None:
        """Make the tables that are not there yet."""
        with self.database.reading() as connection:
            there = self._has_tables(connection, metadata)
        if not there:
            with self.database.writing() as connection:
                metadata.create_all(connection)
                for statement in transcripts.index(self.database.is_sqlite):
                    connection.execute(sql(statement))

    def _has_tables(self, connection: Connection, metadata: MetaData) -> bool:
        has = connection.dialect.has_table
        return all(has(connection, name) for name in [*metadata.tables, "transcripts"])

    # --- taking in ---------------------------------------------------------------------------------------------

    def update(
        self, *, prompt_set: str | None = None, flag: Callable[[Trace], Sequence[Signal]] = signals
    ) -> tuple[str, ...]:
        """Take in the traces of the folder that are new or were changed; return their hashes.

        Idempotent: a file whose size and time are known is not read, and one whose content is known adds nothing. A
        file under a name that had other content is another trace; what was said of the old one stays with its hash.

        Args:
            prompt_set: the set that new traces belong to; default: ``meta["prompt_set"]`` of each.
            flag: gives the signals of a trace, which become its flags.

        Raises:
            TraceError: a file that is no trace, or a link out of the folder; those before it are taken in.
        """
        with self.database.reading() as connection:
            rows = connection.execute(select(TRACES.c.name, TRACES.c.size, TRACES.c.mtime_ns, TRACES.c.hash))
            known = {row.name: (row.size, row.mtime_ns) for row in rows}
        files = [(name, self.path(name)) for name in TraceStore(self.folder).names]
        new = [(name, path) for name, path in files if known.get(name) != stamp(path)]
        added: list[str] = []
        with tqdm(total=len(new), desc="take in", unit="trace", delay=2, leave=False) as progress:
            for at in range(0, len(new), _BATCH):
                batch = [read(name, path, prompt_set, flag) for name, path in new[at : at + _BATCH]]
                with self.database.writing() as connection:
                    added += [found["row"]["hash"] for found in batch if self._take_in(connection, found)]
                progress.update(len(batch))
        return tuple(added)

    def _take_in(self, connection: Connection, found: dict[str, Any]) -> bool:
        row = found["row"]
        known = connection.execute(select(TRACES).where(TRACES.c.hash == row["hash"])).one_or_none()
        if known is not None and known.deleted:
            return False  # it was deleted, and a copy of the file does not bring it back
        place = {key: row[key] for key in ("name", "size", "mtime_ns")}
        if known is not None:
            if known.name == row["name"] or known.name is None or not self._file(known.name).exists():
                self._free_name(connection, row["name"])
                connection.execute(update(TRACES).where(TRACES.c.hash == row["hash"]).values(place))
            return False
        self._free_name(connection, row["name"])
        connection.execute(insert(TRACES).values(row))
        if found["labels"]:
            connection.execute(insert(LABELS), [{"trace": row["hash"], **label} for label in found["labels"]])
        transcripts.add(connection, row["hash"], found["texts"])
        return True

    def _free_name(self, connection: Connection, name: str) -> None:
        connection.execute(update(TRACES).where(TRACES.c.name == name).values(name=None))

    # --- finding -----------------------------------------------------------------------------------------------

    def find(
        self,
        *,
        model: str | None = None,
        effort: str | None = None,
        prompt_set: str | None = None,
        flag: str | None = None,
        tag: str | None = None,
        reviewer: str | None = None,
        since: date | str | None = None,
        until: date | str | None = None,
        text: str | None = None,
        channels: Iterable[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Entry]:
        """Return the traces that meet all conditions, by name.

        Args:
            model: its name, in full.
            effort: low, medium or high.
            prompt_set: as it was taken in with.
            flag: name of a signal.
            tag: as `tag` gave it.
            reviewer: to whom a review assigned it.
            since: captured on this day or later; a date, or ISO 8601.
            until: captured on this day or earlier.
            text: words that stand in one channel of the transcript, all of them, upper and lower case alike.
            channels: look for them in these only.
            limit: how many at most.
            offset: how many to leave out first.

        Raises:
            StoreError: no word to look for, or a date that is none.
        """
        query = select(TRACES).where(TRACES.c.name.is_not(None))
        for column, value in (("model", model), ("effort", effort), ("prompt_set", prompt_set)):
            query = query if value is None else query.where(TRACES.c[column] == value)
        for kind, value in (("flag", flag), ("tag", tag), ("reviewer", reviewer)):
            query = query if value is None else _labelled(query, kind, value)
        query = query if since is None else query.where(TRACES.c.time >= _day(since))
        query = query if until is None else query.where(TRACES.c.time < _day(until) + "~")
        with self.database.reading() as connection:
            if text is not None:
                found = {hit.trace for hit in transcripts.search(connection, text, channels)}
                return self._some(connection, query, found, limit, offset)
            rows = connection.execute(query.order_by(TRACES.c.name).limit(limit).offset(offset))
            return [entry(row) for row in rows]

    def _some(
        self, connection: Connection, query: Select[Any], found: set[str], limit: int | None, offset: int
    ) -> list[Entry]:
        rows = [entry(row) for row in connection.execute(query.order_by(TRACES.c.name)) if row.hash in found]
        return rows[offset : None if limit is None else offset + limit]

    def search(self, words: str, channels: Iterable[str] | None = None) -> list[Hit]:
        """Return the stretches of transcripts that hold all the words. Raises `StoreError` without a word."""
        with self.database.reading() as connection:
            return transcripts.search(connection, words, channels)

    def entry(self, trace: str) -> Entry:
        """Return what is known of a trace by its hash, deleted ones included. Raises `StoreError` for no such one."""
        with self.database.reading() as connection:
            row = connection.execute(select(TRACES).where(TRACES.c.hash == trace)).one_or_none()
        if row is None:
            raise StoreError(f"There is no trace {trace[:12]!r} in the catalogue. Take new files in with update().")
        return entry(row)

    def flags(self, trace: str) -> tuple[Signal, ...]:
        """Return the signals of a trace, as they were when it was taken in."""
        with self.database.reading() as connection:
            return self.flags_in(connection, trace)

    def flags_in(self, connection: Connection, trace: str) -> tuple[Signal, ...]:
        """Return the signals of a trace, within a step that reads."""
        query = select(LABELS).where(LABELS.c.trace == trace, LABELS.c.kind == "flag").order_by(LABELS.c.name)
        rows = connection.execute(query)
        return tuple(Signal.from_json(found) for row in rows for found in json.loads(row.detail))

    def flag_counts(self, wanted: Iterable[str]) -> dict[str, int]:
        """Return how many signals each of some traces has. Raises `StoreError` for one that is not there."""
        query = select(TRACES.c.hash, func.count(LABELS.c.name)).where(TRACES.c.name.is_not(None))
        own = (LABELS.c.trace == TRACES.c.hash) & (LABELS.c.kind == "flag")
        with self.database.reading() as connection:
            rows = connection.execute(query.outerjoin_from(TRACES, LABELS, own).group_by(TRACES.c.hash))
            counts: dict[str, int] = {row[0]: row[1] for row in rows}
        missing = next((trace for trace in wanted if trace not in counts), None)
        if missing is not None:
            raise StoreError(f"There is no trace {missing[:12]!r} in the catalogue. Take new files in with update().")
        return {trace: counts[trace] for trace in wanted}

    # --- opening -----------------------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        """Return the file of a name, which lies in the folder itself.

        Raises:
            TraceError: a name with a way in it (``..``, a separator), or a link out of the folder.
        """
        path = self._file(name)
        if path.parent != self.folder or path.name.startswith(".") or "\0" in name or "\\" in name:
            raise TraceError(
                f"expected the name of a trace in {self.folder}, without a way to elsewhere; got {name!r}"
            )
        if path.resolve().parent != self.folder.resolve():
            raise TraceError(f"{path} is a link out of the folder. Copy the trace into it, if it belongs there.")
        return path

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}{_SUFFIX}"

    def open(self, trace: str) -> Trace:
        """Open a trace by its hash.

        Raises:
            StoreError: it is not in the catalogue, was deleted, or its file holds something else by now.
            TraceError: its file is damaged.
        """
        return open_trace(self.check(trace))

    def check(self, trace: str) -> Path:
        """Return the file of a trace that still has this hash; the file is hashed again where it was touched."""
        entry = self.entry(trace)
        if entry.name is None:
            why = f"was deleted on {entry.deleted[:10]}" if entry.deleted else "was replaced by another of its name"
            raise StoreError(f"The trace {trace[:12]} {why}, so it cannot be opened.")
        path = self.path(entry.name)
        with self.database.reading() as connection:
            row = connection.execute(select(TRACES).where(TRACES.c.hash == trace)).one()
        try:
            if stamp(path) != (row.size, row.mtime_ns) and (found := digest(path)) != trace:
                raise StoreError(
                    f"The file of the trace {entry.name} holds something else than when it was taken in: expected "
                    f"{trace[:12]}, got {found[:12]}. Put the old file back, or take the new one in with update()."
                )
        except OSError as error:
            raise StoreError(f"The file of the trace {entry.name} cannot be read: {error.strerror}.") from error
        return path

    # --- changing ----------------------------------------------------------------------------------------------

    def tag(self, trace: str, *tags: str) -> None:
        """Give a trace tags to find it by; one it has already stays. Raises `StoreError` for no such trace."""
        self.entry(trace)
        with self.database.writing() as connection:
            for name in tags:
                self.label(connection, trace, "tag", name)

    def label(self, connection: Connection, trace: str, kind: str, name: str) -> None:
        """Note a flag, a tag or a reviewer of a trace within a step that writes."""
        same = and_(LABELS.c.trace == trace, LABELS.c.kind == kind, LABELS.c.name == name)
        if connection.execute(select(LABELS.c.name).where(same)).first() is None:
            connection.execute(insert(LABELS).values(trace=trace, kind=kind, name=name, detail="[]"))

    def forget(self, connection: Connection, trace: str) -> str | None:
        """Leave only a tombstone of a trace, within a step that writes; return the name of the file to remove."""
        row = connection.execute(select(TRACES).where(TRACES.c.hash == trace)).one()
        transcripts.forget(connection, trace)
        connection.execute(delete(LABELS).where(LABELS.c.trace == trace, LABELS.c.kind != "reviewer"))
        left = {"name": None, "question": "", "deleted": datetime.now(UTC).isoformat(timespec="seconds")}
        connection.execute(update(TRACES).where(TRACES.c.hash == trace).values(left))
        return None if row.name is None else str(row.name)


def _day(given: date | str) -> str:
    try:
        day = given if isinstance(given, date) else datetime.fromisoformat(given)
    except ValueError as error:
        raise StoreError(f"expected a date such as 2026-11-24, got {given!r}") from error
    return day.isoformat()[:10]


def _labelled(query: Select[Any], kind: str, name: str) -> Select[Any]:
    some = select(LABELS.c.trace).where(LABELS.c.kind == kind, LABELS.c.name == name)
    return query.where(TRACES.c.hash.in_(some))
