"""One database, SQLite or PostgreSQL: transactions that read or write, and listeners for changed jobs."""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as WaitedTooLong

from distbp_service.errors import BadValueError, StoreError

_WAIT_S = 3.0  # the longest wait for another writer or for a connection; then the call raises
MOST = 1000  # rows of one page
_ID = re.compile(r"(job|ds|mdl)_[0-9a-z]{1,64}")
_LOCK_KEY = 0x64697374  # "dist": of PostgreSQL's advisory lock


class Database:
    """`url`: a URL of SQLAlchemy: `sqlite:////path/file.db` or `postgresql://user:secret@host/name`.

    SQLite's file is in write-ahead mode, and only its owner can read it. Every commit is flushed to the disk.
    Writers take turns; a wait of more than `_WAIT_S` raises an error of SQLAlchemy.
    clock: returns seconds since 1970. Raises StoreError for an invalid URL and for an empty file.
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
        options: dict[str, Any] = {
            "pool_size": pool_size,
            "max_overflow": pool_size,
            "pool_timeout": _WAIT_S,
        }
        if self.sqlite:
            if not parsed.database or parsed.database == ":memory:":
                raise StoreError("a SQLite database needs a file: sqlite:////path/to/file.db")
            _make_private(Path(parsed.database))
        else:
            parsed = parsed.set(drivername="postgresql+psycopg")
            options["pool_pre_ping"] = True  # the server may have been restarted
            if "connect_timeout" not in parsed.query:
                options["connect_args"] = {"connect_timeout": math.ceil(_WAIT_S)}
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
    def write(self, wait_s: float = _WAIT_S) -> Iterator[Connection]:
        """A transaction that writes. An exception rolls all of it back. wait_s: the longest wait for other
        threads that write."""
        # SQLite allows one writer at a time. Our own lock is fair; SQLite's waiting is not.
        with self._turn(wait_s), self._writer.begin() as conn:
            touched = conn.info["touched"] = set()
            yield conn
        if touched:
            for listener in self._listeners:
                listener(frozenset(touched))

    @contextmanager
    def _turn(self, wait_s: float = _WAIT_S) -> Iterator[None]:
        if not self.sqlite:
            yield
            return
        if not self._writing.acquire(timeout=wait_s):
            raise WaitedTooLong("other writers did not end in time")
        try:
            yield
        finally:
            self._writing.release()

    def ping(self) -> None:
        """Raises an error of SQLAlchemy if the database does not answer or cannot be written."""
        with self._turn(), self._writer.begin() as conn:
            conn.execute(text("SELECT 1"))

    def lock_all(self, conn: Connection) -> None:
        """Waits until no other transaction holds this lock, and holds it to the end of this transaction. Does
        nothing on SQLite, which has one writer at a time."""
        if not self.sqlite:
            conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})

    def insert_new(self, conn: Connection, table: Table, values: Mapping[str, Any]) -> bool:
        """Adds a row unless its key exists. Returns whether the row was added. Waits for another transaction
        that is adding the same key."""
        # Drivers give different `rowcount`s here. RETURNING gives a row only if it was added.
        statement = self.insert(table).values(values).on_conflict_do_nothing()
        return conn.execute(statement.returning(next(iter(table.primary_key)))).first() is not None

    def insert(self, table: Table) -> Any:
        """An INSERT with the methods `on_conflict_do_nothing` and `on_conflict_do_update`."""
        return sqlite.insert(table) if self.sqlite else postgresql.insert(table)

    def listen(self, listener: Callable[[frozenset[str]], None]) -> Callable[[], None]:
        """Calls `listener` after every commit of this process that changed jobs, with the ids of these jobs,
        in the thread of the commit. Commits of other processes are not heard. Returns a function that removes
        the listener."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)


def page_of(
    db: Database, query: Select[Any], key: Column[Any], cursor: str | None, limit: int, *, newest_first: bool
) -> tuple[Sequence[Row[Any]], str | None]:
    """Returns at most `limit` rows of a query in the order of their ids, and the cursor of the next page
    (None: this is the last). cursor: as the previous page gave it. Raises BadValueError for a bad cursor."""
    if cursor is not None:
        if not _ID.fullmatch(cursor):
            raise BadValueError("the cursor is not one that a page gave", "cursor")
        query = query.where(key < cursor if newest_first else key > cursor)
    limit = max(1, min(limit, MOST))
    with db.read() as conn:
        rows = conn.execute(query.order_by(key.desc() if newest_first else key).limit(limit + 1)).all()
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def reason(error: SQLAlchemyError) -> str:
    """An error of the database as a text for a log. Most errors give only their class, because their own text
    may contain the values that were written."""
    cause = getattr(error, "orig", None) or error
    lines = str(cause).strip().splitlines()
    if isinstance(error, OperationalError) and lines:
        return lines[0]
    return type(cause).__name__


def clean(value: str, param: str) -> str:
    """Returns `value`. Raises BadValueError if it has NUL or an unpaired surrogate, which not every database
    can store."""
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise BadValueError(
            f"{param} holds a character that text cannot have (NUL, or half of a pair)", param
        )
    return value


def sha256(text_: str) -> str:
    return hashlib.sha256(text_.encode()).hexdigest()


def _make_private(file: Path) -> None:
    """Makes the database file if there is none, and makes it private to its owner. A new file gets its name
    only when it is ready, so a database of this service is never empty. Raises StoreError for an empty
    file."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(file.parent):
        if not file.exists():
            new = file.with_name(f".{file.name}.new")
            new.unlink(missing_ok=True)
            os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            with closing(sqlite3.connect(new)) as connection:
                connection.execute("PRAGMA journal_mode=WAL").close()
            new.replace(file)
    # It is not opened here: closing a second descriptor of the file would drop SQLite's own locks.
    if file.stat().st_size == 0:
        raise StoreError(
            f"{file} is empty, so what the service knew is lost. Put the file back from a backup; or move it"
            " away, and the file with the token beside it, to begin anew"
        )
    for part in ("", "-wal", "-shm"):
        with suppress(OSError):  # the file does not exist, or belongs to another user
            file.with_name(f"{file.name}{part}").chmod(0o600)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within this block no other process or thread is in such a block of the same folder. Waits."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepare_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    for pragma in (f"busy_timeout={_WAIT_S * 1000:.0f}", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").close()
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        # If two connections switch to write-ahead mode at the same time, each waits for the other, and SQLite
        # fails one of them at once, whatever the timeout. So they do it one after the other.
        with _alone(Path(connection.execute("PRAGMA database_list").fetchone()[2]).parent):
            connection.execute("PRAGMA journal_mode=WAL").close()


def _begin_sqlite(conn: Connection) -> None:
    # A transaction that begins by reading and then writes fails if another wrote in between.
    write = conn.get_execution_options().get("distbp_write")
    conn.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
