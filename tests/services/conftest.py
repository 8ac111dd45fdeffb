"""Stores to test with: over SQLite, and over a real PostgreSQL server that this test run starts."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from stores import BACKENDS, Clock, database_without_rows, empty_database

from services.store import Store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server on a unix socket, ended with the test run."""
    bin_dir = _postgresql_programs()
    if bin_dir is None:
        pytest.skip("PostgreSQL is not installed: no initdb on PATH or below /usr/lib/postgresql")
    user = "nobody" if os.geteuid() == 0 else None  # the server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="distbp-pg-"))  # not below pytest's: sockets want short paths
    data = folder / "data"
    try:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        subprocess.run(
            [
                bin_dir / "initdb",
                "-D",
                data,
                "-U",
                "distbp",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
                "--locale=C",
            ],
            check=True,
            capture_output=True,
            user=user,
            cwd=folder,
        )
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen(
                [bin_dir / "postgres", "-D", data, *options], stdout=log, stderr=log, user=user, cwd=folder
            )
        try:
            _wait_until_it_answers(folder, server)
            yield f"postgresql://distbp@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # "fast": ends its clients
            server.wait(timeout=20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _postgresql_programs() -> Path | None:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb")
    return installed[-1].parent if installed else Path(found).parent if found else None


def _wait_until_it_answers(folder: Path, server: subprocess.Popen[bytes], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            psycopg.connect(host=str(folder), user="distbp", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL did not start in time"
            time.sleep(0.02)


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    return empty_database(request.param, request.getfixturevalue, tmp_path)


@pytest.fixture(scope="session")
def postgresql_with_tables(postgresql: str) -> str:
    """Another database of the same server."""
    with psycopg.connect(postgresql, autocommit=True) as conn:
        conn.execute("CREATE DATABASE tables")
    url = postgresql.replace("/postgres?", "/tables?")
    Store(url).close()
    return url


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    """An empty store."""
    store = Store(database_without_rows(request.param, request.getfixturevalue, tmp_path), clock=clock)
    yield store
    store.close()


@pytest.fixture
def sqlite_store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    """For tests of what stands above the store."""
    store = Store(f"sqlite:///{tmp_path / 'store.db'}", clock=clock)
    yield store
    store.close()
