"""The store keeps the lasting state of the service. It behaves the same on SQLite and PostgreSQL.

    store = Store("sqlite:////var/lib/distbp/distbp.db")
    store.jobs       a project's calls on its jobs          (jobs.py)
    store.journal    reads events, metrics and logs         (journal.py)
    store.tokens     projects and tokens                    (tokens.py)
    store.datasets, store.models                            (assets.py)
    store.queue      a dispatcher's calls                   (queue.py, line.py)
    store.runs       a runner's calls, fenced by attempt    (runs.py, disk.py)

Every method is one transaction and may be called from any thread. Errors of SQLAlchemy pass through, for
example OperationalError if the server is away or the disk is full. The caller answers "try again".
"""

from __future__ import annotations

import time
from collections.abc import Callable

from distbp_service.store.assets import Datasets, Models
from distbp_service.store.database import Database
from distbp_service.store.disk import disk_bytes
from distbp_service.store.jobs import Jobs
from distbp_service.store.journal import Journal
from distbp_service.store.migrations import migrate
from distbp_service.store.queue import Queue
from distbp_service.store.records import Dataset, Job, Lease, Model, Pulse, Token
from distbp_service.store.runs import Runs
from distbp_service.store.tokens import Tokens

__all__ = ["Dataset", "Job", "Lease", "Model", "Pulse", "Store", "Token"]


class Store:
    """Opens the database at `url` and brings its tables up to date. See `Database` for the URL."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time, pool_size: int = 10) -> None:
        self.db = Database(url, clock=clock, pool_size=pool_size)
        try:
            migrate(self.db)
        except BaseException:
            self.db.close()
            raise
        self.jobs = Jobs(self.db)
        self.journal = Journal(self.db)
        self.tokens = Tokens(self.db)
        self.datasets = Datasets(self.db)
        self.models = Models(self.db)
        self.queue = Queue(self.db)
        self.runs = Runs(self.db)

    def listen(self, listener: Callable[[frozenset[str]], None]) -> Callable[[], None]:
        """See `Database.listen`."""
        return self.db.listen(listener)

    def disk_bytes(self, project: str) -> int:
        """The bytes of a project's datasets, jobs and models on the disk, as last measured."""
        with self.db.read() as conn:
            return disk_bytes(conn, project)

    def ping(self) -> None:
        """See `Database.ping`."""
        self.db.ping()

    def close(self) -> None:
        self.db.close()
