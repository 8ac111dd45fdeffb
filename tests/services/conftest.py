"""Stores to test with: over SQLite, and over a real PostgreSQL server that this test run starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from distbp_service.store import Store
from postgres import postgresql_server
from served import QUICK, Served, serving
from stores import BACKENDS, Clock, database_without_rows, empty_database

from distbp.core import settings


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service as `distbp serve` starts it, with a runner at a time."""
    with serving(tmp_path_factory.mktemp("served"), "--slots", "1") as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """No compiled kernels to load, here and in processes that tests start: nothing here is about them."""
    with settings.environment(QUICK):
        yield


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server on a unix socket, ended with the test run."""
    with postgresql_server("-c", "fsync=off") as server:
        yield server.url


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
