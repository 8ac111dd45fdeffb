"""A PostgreSQL server for tests; where none is installed, they skip."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.postgresql import PostgreSQL, programs


@contextmanager
def postgresql_server(*options: str) -> Iterator[PostgreSQL]:
    """One that runs. options: see PostgreSQL."""
    bin_dir = programs()
    if bin_dir is None:
        pytest.skip("PostgreSQL is not installed: no initdb on PATH or below /usr/lib/postgresql")
    folder = Path(tempfile.mkdtemp(prefix="distbp-pg-"))  # not below pytest's: sockets want short paths
    try:
        server = PostgreSQL(bin_dir, folder, *options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
