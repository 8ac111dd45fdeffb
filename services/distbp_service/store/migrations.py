"""The migrations of the database: one entry for each version. A released entry never changes.

The SQL is valid in SQLite and PostgreSQL. `migrate` applies the entries n+1, n+2, ... to a database of
version n. To change the tables, add an entry here and make the same change in `schema`.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from distbp_service.errors import StoreError
from distbp_service.store.database import Database

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (  # 1: jobs and their records
        "CREATE TABLE projects (name TEXT PRIMARY KEY, created_at DOUBLE PRECISION NOT NULL)",
        """CREATE TABLE tokens (id TEXT PRIMARY KEY, project TEXT NOT NULL, name TEXT NOT NULL,
            sha256 TEXT NOT NULL, scopes TEXT NOT NULL, created_at DOUBLE PRECISION NOT NULL,
            expires_at DOUBLE PRECISION, revoked_at DOUBLE PRECISION, last_used_at DOUBLE PRECISION)""",
        "CREATE INDEX tokens_project ON tokens (project)",
        """CREATE TABLE jobs (id TEXT PRIMARY KEY, project TEXT NOT NULL, name TEXT NOT NULL,
            state TEXT NOT NULL, reason TEXT, job TEXT NOT NULL, digest TEXT NOT NULL,
            priority INTEGER NOT NULL, slots INTEGER NOT NULL, workers INTEGER, submitted_by TEXT,
            created_at DOUBLE PRECISION NOT NULL, updated_at DOUBLE PRECISION NOT NULL,
            queued_at DOUBLE PRECISION NOT NULL, started_at DOUBLE PRECISION, finished_at DOUBLE PRECISION,
            deadline_at DOUBLE PRECISION, not_before DOUBLE PRECISION, attempt INTEGER NOT NULL,
            failures TEXT NOT NULL, failed_step BIGINT NOT NULL, step BIGINT NOT NULL, progress TEXT,
            event_count BIGINT NOT NULL, metric_count BIGINT NOT NULL, log_count BIGINT NOT NULL,
            result TEXT, error TEXT)""",
        "CREATE INDEX jobs_project ON jobs (project, id, name)",
        "CREATE INDEX jobs_project_state ON jobs (project, state, id)",
        "CREATE INDEX jobs_queue ON jobs (state, project, priority DESC, queued_at, id)",
        "CREATE INDEX jobs_deadline ON jobs (deadline_at)",
        """CREATE TABLE attempts (job_id TEXT NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL,
            started_at DOUBLE PRECISION NOT NULL, ended_at DOUBLE PRECISION,
            lease_expires_at DOUBLE PRECISION NOT NULL, last_seq BIGINT NOT NULL, from_step BIGINT,
            handle TEXT, outcome TEXT, error TEXT, token_sha256 TEXT, claim_sha256 TEXT,
            claim_expires_at DOUBLE PRECISION, PRIMARY KEY (job_id, attempt))""",
        "CREATE INDEX attempts_state ON attempts (state, lease_expires_at)",
        """CREATE TABLE events (job_id TEXT NOT NULL, number BIGINT NOT NULL, at DOUBLE PRECISION NOT NULL,
            attempt INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL,
            PRIMARY KEY (job_id, number))""",
        """CREATE TABLE metrics (job_id TEXT NOT NULL, step BIGINT NOT NULL, serial BIGINT NOT NULL,
            attempt INTEGER NOT NULL, data TEXT NOT NULL, PRIMARY KEY (job_id, step))""",
        "CREATE INDEX metrics_serial ON metrics (job_id, serial)",
        """CREATE TABLE logs (job_id TEXT NOT NULL, number BIGINT NOT NULL, at DOUBLE PRECISION NOT NULL,
            attempt INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (job_id, number))""",
        """CREATE TABLE idempotency_keys (project TEXT NOT NULL, key TEXT NOT NULL,
            body_sha256 TEXT NOT NULL, job_id TEXT NOT NULL, created_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (project, key))""",
    ),
    (  # 2: uploaded data, trained models
        """CREATE TABLE datasets (project TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
            bytes BIGINT NOT NULL, info TEXT NOT NULL, created_by TEXT,
            created_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (project, id))""",
        """CREATE TABLE models (id TEXT PRIMARY KEY, project TEXT NOT NULL, job_id TEXT NOT NULL,
            name TEXT NOT NULL, path TEXT NOT NULL, bytes BIGINT NOT NULL, info TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL)""",
        "CREATE INDEX models_project ON models (project, id)",
        "CREATE UNIQUE INDEX models_job ON models (job_id)",
    ),
    (  # 3: shares of several projects: slots, turns, disk
        """CREATE TABLE room (number INTEGER NOT NULL PRIMARY KEY, slots INTEGER NOT NULL,
            project_slots INTEGER NOT NULL, project_jobs INTEGER NOT NULL, memory_bytes BIGINT)""",
        "ALTER TABLE projects ADD COLUMN served_at DOUBLE PRECISION",
        "ALTER TABLE jobs ADD COLUMN slots_most INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE jobs ADD COLUMN slots_held INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN disk_bytes BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN disk_granted BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE projects ADD COLUMN disk_bytes BIGINT NOT NULL DEFAULT 0",
        "DROP INDEX jobs_queue",
        "CREATE INDEX jobs_queue ON jobs (state, project, priority DESC, queued_at, id, slots)",
        """UPDATE jobs SET slots_most = slots, slots_held = CASE WHEN state IN
            ('starting', 'running', 'pausing', 'cancelling') THEN slots ELSE 0 END""",
    ),
)
LATEST = len(MIGRATIONS)


def version(conn: Connection) -> int:
    """The version of the database; 0 if it has no tables of distbp."""
    if not inspect(conn).has_table("schema_version"):
        return 0
    return int(conn.execute(text("SELECT version FROM schema_version")).scalar_one())


def migrate(db: Database, to: int = LATEST) -> int:
    """Brings the database to version `to`, in one transaction, and returns its version before. Several
    processes may call it at the same time.

    Raises StoreError if the database is newer than this program, or belongs to another program.
    """
    with db.write() as conn:
        db.lock_all(conn)
        found = version(conn)
        if found > LATEST:
            raise StoreError(
                f"the database is of version {found}, and this program knows up to {LATEST}: it was used by a"
                " newer distbp. Start that one, or give another database"
            )
        if found == 0 and db.sqlite and inspect(conn).get_table_names():
            raise StoreError(
                "the database is another program's; name one of distbp, or a file that is not there yet"
            )
        if found == 0 and to > 0:
            conn.execute(text("CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY)"))
            conn.execute(text("INSERT INTO schema_version (version) VALUES (0)"))
        for number in range(found + 1, to + 1):
            for statement in MIGRATIONS[number - 1]:
                conn.execute(text(statement))
            conn.execute(text("UPDATE schema_version SET version = :v"), {"v": number})
    return found
