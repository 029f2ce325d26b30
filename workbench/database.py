"""The database beside a store: SQLite embedded, PostgreSQL by URL; readers in a snapshot, one writer at a time."""

import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

__all__ = ["Database", "StoreError"]

_WRITERS_LOCK = 7_207_101  # the advisory lock that PostgreSQL's writers take in turn; any number will do
_POSTGRES = {"postgres", "postgresql", "postgresql+psycopg"}


class StoreError(RuntimeError):
    """The catalogue of a store, or the review in it, cannot do what was asked."""


class Database:
    """One database that several processes use at once.

    A writer waits for the one before it, so that what it reads before it writes still holds when it writes. What a
    ``with`` block wrote is there whole or not at all, and is on the disk when the block ends.

    Args:
        place: a file for SQLite, made where there is none, or the URL ``postgresql://user@host/name``.
        timeout: seconds to wait for another writer.

    Raises:
        StoreError: an unknown kind of URL, or a database that cannot be reached or opened.
    """

    def __init__(self, place: str | PathLike[str], *, timeout: float = 30.0) -> None:
        """Open the database."""
        self._timeout = timeout
        self.url = _url(fspath(place))
        self._engine = self._sqlite() if self.is_sqlite else self._postgres()
        weakref.finalize(self, self._engine.dispose)
        with self.reading():
            pass

    @property
    def is_sqlite(self) -> bool:
        """Whether it is an embedded file."""
        return self.url.drivername == "sqlite"

    def __repr__(self) -> str:
        """Name the database, without its password."""
        return f"<Database {self.shown}>"

    @property
    def shown(self) -> str:
        """The file or the URL, without its password."""
        return str(self.url.database) if self.is_sqlite else self.url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that sees one state throughout. Raises `StoreError` where the database fails."""
        level: dict[str, Any] = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._naming_errors("read"), self._engine.connect() as connection:
            connection.execution_options(**level)
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give the only connection that writes; an exception undoes the block. Raises `StoreError` likewise."""
        with self._naming_errors("write"), self._engine.connect() as connection:
            connection.execution_options(begin="BEGIN IMMEDIATE")
            with connection.begin():
                if not self.is_sqlite:
                    connection.execute(text(f"SET LOCAL lock_timeout = {int(1000 * self._timeout)}"))
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _WRITERS_LOCK})
                yield connection

    def close(self) -> None:
        """Let the connections go."""
        self._engine.dispose()

    def _sqlite(self) -> Engine:
        engine = create_engine(self.url, poolclass=NullPool, connect_args={"timeout": self._timeout})

        @event.listens_for(engine, "connect")
        def connected(connection: sqlite3.Connection, _: Any) -> None:
            connection.isolation_level = None  # sqlite3 would begin late, and then only to read
            _set_wal(connection, self._timeout)
            connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")  # what was redacted does not linger in the file

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

        return engine

    def _postgres(self) -> Engine:
        wait = {"connect_timeout": max(2, int(self._timeout))}
        return create_engine(self.url, pool_pre_ping=True, pool_size=1, max_overflow=4, connect_args=wait)

    @contextmanager
    def _naming_errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreError(self._said(doing, error)) from error
        except SQLAlchemyError as error:
            raise StoreError(f"The database {self.shown} could not {doing}: {error}.") from error

    def _said(self, doing: str, error: DBAPIError) -> str:
        cause = str(error.orig).strip().splitlines()[0]
        if "locked" in cause or "lock timeout" in cause:
            return (
                f"The database {self.shown} was held by another writer for more than {self._timeout:g} s. Nothing "
                "was stored. Close the program that holds it, and try again."
            )
        stored = "" if doing == "read" else " Nothing of this step was stored, unless the connection broke at its end."
        return f"The database {self.shown} could not {doing}: {cause}.{stored} See that it is there, and try again."


def _url(place: str) -> URL:
    if "://" not in place:
        return URL.create("sqlite", database=place)
    try:
        url = make_url(place)
    except ArgumentError as error:
        raise StoreError("expected postgresql://user@host/name, got a URL that cannot be read") from error
    if url.drivername not in _POSTGRES:
        raise StoreError(
            f"expected a file, for SQLite, or the URL of a PostgreSQL database (postgresql://user@host/name); "
            f"got a URL of {url.drivername}"
        )
    return url.set(drivername="postgresql+psycopg")


def _set_wal(connection: sqlite3.Connection, timeout: float) -> None:
    """Readers and a writer at once. Two processes that make a file at the same moment do not wait by themselves."""
    end = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return
