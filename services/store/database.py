"""One database, SQLite or PostgreSQL: transactions that read or write, and who hears of them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError

from services.errors import BadValueError, StoreError

_BUSY_MS = 30_000
_LOCK_KEY = 0x64697374  # "dist": of PostgreSQL's advisory lock


class Database:
    """`url`: as SQLAlchemy has it: `sqlite:////path/file.db`, `postgresql://user:secret@host/name`.

    SQLite: a file, in write-ahead mode; every commit is on disk; one writer at a time, which waits its turn.
    clock: seconds since 1970.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time, pool_size: int = 10) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise StoreError(
                "the database URL cannot be read; write sqlite:////path/to/file.db or"
                " postgresql://user:password@host/name"
            ) from None
        backend = parsed.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise StoreError(f"databases of kind {backend} are not supported; use sqlite or postgresql")
        self.sqlite = backend == "sqlite"
        self.clock = clock
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        self._writing = threading.Lock()
        options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": pool_size}
        if self.sqlite:
            if not parsed.database or parsed.database == ":memory:":
                raise StoreError("a SQLite database needs a file: sqlite:////path/to/file.db")
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        else:
            parsed = parsed.set(drivername="postgresql+psycopg")
            options["pool_pre_ping"] = True  # the server may have been restarted
        self.engine = create_engine(parsed, **options)
        if self.sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._writer = self.engine.execution_options(distbp_write=True)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that reads."""
        with self.engine.begin() as conn:
            yield conn

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: all of it, or (after an exception) nothing."""
        # SQLite lets one write at a time; our own lock is fair, its waiting is not.
        with self._writing if self.sqlite else nullcontext(), self._writer.begin() as conn:
            touched = conn.info["touched"] = set()
            yield conn
        if touched:
            for listener in self._listeners:
                listener(frozenset(touched))

    def lock_all(self, conn: Connection) -> None:
        """Until the end of this transaction no other passes here. (A SQLite writer is alone as it is.)"""
        if not self.sqlite:
            conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})

    def insert_new(self, conn: Connection, table: Table, values: Mapping[str, Any]) -> bool:
        """Adds a row, unless there is one with its key; says whether it did. Waits for another transaction
        that is adding the same."""
        # Drivers do not agree on what `rowcount` says here; a row that comes back says it plainly.
        statement = self.insert(table).values(values).on_conflict_do_nothing()
        return conn.execute(statement.returning(next(iter(table.primary_key)))).first() is not None

    def insert(self, table: Table) -> Any:
        """An INSERT that has `.on_conflict_do_nothing()` and `.on_conflict_do_update()`."""
        return sqlite.insert(table) if self.sqlite else postgresql.insert(table)

    def listen(self, listener: Callable[[frozenset[str]], None]) -> Callable[[], None]:
        """`listener` is called after every commit of this process, with the ids of the jobs it changed,
        in the thread that made it. Other processes' commits are not heard. Returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)


def clean(value: str, param: str) -> str:
    """`value`, where every database can hold it. Raises BadValueError for NUL and for half characters."""
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise BadValueError(
            f"{param} holds a character that text cannot have (NUL, or half of a pair)", param
        )
    return value


def sha256(text_: str) -> str:
    return hashlib.sha256(text_.encode()).hexdigest()


def _prepare_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    for pragma in (f"busy_timeout={_BUSY_MS}", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").close()
    # Two that make a new file a write-ahead one at once would each wait for the other: SQLite then fails one
    # of them, at once, whatever the timeout. So they come one by one. The lock is the folder's: closing a
    # second descriptor of the file itself would drop SQLite's own locks.
    file = connection.execute("PRAGMA database_list").fetchone()[2]
    folder = os.open(Path(file).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        connection.execute("PRAGMA journal_mode=WAL").close()
    finally:
        os.close(folder)


def _begin_sqlite(conn: Connection) -> None:
    # A transaction that starts as a reader and becomes a writer fails when another wrote in between.
    write = conn.get_execution_options().get("distbp_write")
    conn.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
