"""The store: all that the service must not forget. SQLite or PostgreSQL, the same behavior.

    store = Store("sqlite:////var/lib/distbp/distbp.db")
    store.jobs       what a project does with its jobs      (jobs.py)
    store.journal    events, metrics and logs, to read      (journal.py)
    store.tokens     projects and tokens                    (tokens.py)
    store.datasets, store.models                            (assets.py)
    store.queue      what a dispatcher does                 (queue.py, line.py)
    store.runs       what a runner does, fenced by attempt  (runs.py, disk.py)

Every method is one transaction, and may be called from any thread. Database errors of SQLAlchemy
(OperationalError: the server is away, the disk is full) pass through: the caller answers "try again".
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
        """See `Database.listen`: hears which jobs this process changed."""
        return self.db.listen(listener)

    def disk_bytes(self, project: str) -> int:
        """What a project's datasets, jobs and models fill on the disk, as far as it was measured."""
        with self.db.read() as conn:
            return disk_bytes(conn, project)

    def ping(self) -> None:
        """See `Database.ping`."""
        self.db.ping()

    def close(self) -> None:
        self.db.close()
