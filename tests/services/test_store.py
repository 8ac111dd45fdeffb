"""The store's promises, over SQLite and over PostgreSQL."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from distbp_service import policy
from distbp_service.errors import (
    BadValueError,
    ConflictError,
    FencedError,
    NotFoundError,
    OutOfOrderError,
    StoreError,
)
from distbp_service.reports import End, Report
from distbp_service.store import Store
from distbp_service.store.database import Database
from distbp_service.store.migrations import LATEST, migrate, version
from distbp_service.store.records import new_id
from distbp_service.store.schema import metadata
from sqlalchemy import inspect, text
from stores import JOB, Clock, submit

from distbp.client.names import JOB_ID

LOST = {"class": "lost", "code": "lost", "message": "gone"}


def started(from_step: int = 0) -> dict[str, object]:
    return {"kind": "attempt_started", "from_step": from_step}


def ready(store: Store) -> str:
    """A job that runs as attempt 1, its first report given."""
    job = submit(store)
    assert store.queue.lease(100, 30) is not None
    store.runs.report(job.id, Report(1, 1, events=(started(),)))
    return job.id


# The database -----------------------------------------------------------------------------------------------


def test_migrations_make_the_tables_of_the_schema(store: Store) -> None:
    found = inspect(store.db.engine)
    assert set(found.get_table_names()) == set(metadata.tables)
    for name, table in metadata.tables.items():
        columns = {c["name"]: c for c in found.get_columns(name)}
        assert set(columns) == {c.name for c in table.columns}
        for column in table.columns:
            assert columns[column.name]["nullable"] == (column.nullable and not column.primary_key) or (
                store.db.sqlite and column.primary_key
            ), (name, column.name)
        assert found.get_pk_constraint(name)["constrained_columns"] == [c.name for c in table.primary_key]
        assert {i["name"] for i in found.get_indexes(name)} == {i.name for i in table.indexes}


def test_a_database_of_version_1_keeps_what_it_holds(url: str, clock: Clock) -> None:
    db = Database(url, clock=clock)
    assert migrate(db, to=1) == 0
    with db.write() as conn:
        conn.execute(
            text(
                "INSERT INTO jobs (id, project, name, state, job, digest, priority, slots, created_at,"
                " updated_at, queued_at, attempt, failures, failed_step, step, event_count, metric_count,"
                " log_count) VALUES ('job_00000000000000000001', 'main', 'old', 'queued',"
                " '{\"name\": \"old\"}', 'd', 0, 1, 5, 5, 5, 0, '{}', 0, 0, 0, 0, 0)"
            )
        )
    db.close()
    store = Store(url, clock=clock)
    try:
        with store.db.read() as conn:
            assert version(conn) == LATEST
        assert store.jobs.get("main", "job_00000000000000000001").job == {"name": "old"}
        assert store.models.page("main").items == ()
    finally:
        store.close()


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    store = Store(url)
    with store.db.write() as conn:
        conn.execute(text("UPDATE schema_version SET version = 99"))
    store.close()
    with pytest.raises(
        StoreError, match=r"of version 99, and this program knows up to 3.*give another database"
    ):
        Store(url)


def test_several_processes_may_migrate_at_once(url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for store in pool.map(lambda _: Store(url), range(8)):
            store.close()


@pytest.mark.parametrize(
    ("url_", "says"),
    [
        ("mysql://x/y", "kind mysql are not supported; use sqlite or postgresql"),
        ("nonsense", "cannot be read; write sqlite:////path"),
        ("sqlite://", "needs a file: sqlite:////path/to/file.db"),
    ],
)
def test_bad_urls_say_what_to_write(url_: str, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        Store(url_)


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    job_id = ready(store)
    before = store.journal.events(job_id)
    with pytest.raises(KeyError, match="step"):
        report = Report(1, 2, events=({"kind": "x"},), metrics=({"loss": 1.0},))
        store.runs.report(job_id, report)
    assert store.journal.events(job_id) == before
    assert store.runs.report(job_id, Report(1, 2)).received == 2


def test_listeners_hear_of_commits(store: Store) -> None:
    heard: list[frozenset[str]] = []
    silence = store.listen(heard.append)
    job = submit(store)
    assert heard == [frozenset({job.id})]
    silence()
    store.jobs.cancel("main", job.id)
    assert len(heard) == 1
    assert store.jobs.pulses([job.id, "job_x"])[job.id].event_count == 2


def test_ids_sort_by_time_and_are_well_formed() -> None:
    ids = [new_id("job_", now) for now in (1.0, 2.0, 1e9, 2e9, 2e9 + 0.001)]
    assert ids == sorted(ids)
    assert all(re.fullmatch(JOB_ID, i) for i in ids)


# Jobs -------------------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_job(store: Store) -> None:
    def go(_: int) -> tuple[str, bool]:
        job, new = store.jobs.submit("main", JOB, digest="d", key="k", body_sha256="b")
        return job.id, new

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(go, range(40)))
    assert len({job_id for job_id, _ in found}) == 1
    assert sum(new for _, new in found) == 1
    assert store.jobs.counts("main")["queued"] == 1
    with pytest.raises(ConflictError, match="used for another job; use a new key") as error:
        store.jobs.submit("main", JOB, digest="d", key="k", body_sha256="other")
    assert error.value.param == "Idempotency-Key"
    assert store.jobs.submit("other", JOB, digest="d", key="k", body_sha256="b")[1]


def test_a_key_of_a_deleted_job_makes_no_new_one(store: Store) -> None:
    job, _ = store.jobs.submit("main", JOB, digest="d", key="k", body_sha256="b")
    store.jobs.cancel("main", job.id)
    store.jobs.delete("main", job.id)
    with pytest.raises(ConflictError, match="was deleted"):
        store.jobs.submit("main", JOB, digest="d", key="k", body_sha256="b")


def test_a_full_project_takes_no_more(store: Store) -> None:
    submit(store, most_waiting=1)
    with pytest.raises(ConflictError, match="has 1 jobs that have not ended, and may have 1"):
        submit(store, most_waiting=1)
    submit(store, "other", most_waiting=1)


def test_pages_hold_every_job_once_newest_first(store: Store, clock: Clock) -> None:
    ids = []
    for number in range(7):
        clock.pass_(1)
        ids.append(store.jobs.submit("main", {"name": f"Job_{number % 2}%"}, digest="d")[0].id)
    submit(store, "other")
    seen, cursor = [], None
    while True:
        page = store.jobs.page("main", limit=3, cursor=cursor)
        seen += [job.id for job in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == ids[::-1]
    assert [j.id for j in store.jobs.page("main", name="job_1%").items] == ids[1::2][::-1]
    assert store.jobs.page("main", name="jobx1").items == ()
    store.jobs.cancel("main", ids[0])
    assert [j.id for j in store.jobs.page("main", states=("cancelled",)).items] == [ids[0]]
    for bad in ("x", "job_0'; DROP TABLE jobs", ""):
        with pytest.raises(BadValueError, match="cursor"):
            store.jobs.page("main", cursor=bad)


def test_other_projects_jobs_are_not_there(store: Store) -> None:
    theirs = submit(store, "other").id
    for call in ("get", "cancel", "pause", "resume", "delete", "attempts"):
        for job_id in (theirs, "job_00000000000000000000", "x\0", "job_\ud800"):
            with pytest.raises(NotFoundError, match="there is no job"):
                getattr(store.jobs, call)("main", job_id)


def test_text_that_no_database_holds_is_refused(store: Store) -> None:
    with pytest.raises(BadValueError, match="NUL"):
        store.jobs.page("main", name="a\0b")
    with pytest.raises(BadValueError, match="NUL"):
        store.jobs.submit("main", JOB, digest="d", key="\0")
    with pytest.raises(BadValueError, match="half of a pair"):
        store.tokens.create("main", ["read"], name="\ud800")
    job_id = ready(store)
    store.runs.report(job_id, Report(1, 2, log="a\0b\ud800c", events=({"kind": "k", "x": "\0\ud800"},)))
    assert store.journal.logs(job_id)[0].text == "a\ufffdb?c"


def test_scaling_is_told_to_the_runner(store: Store) -> None:
    job_id = ready(store)
    store.jobs.scale("main", job_id, 3)
    assert store.runs.heartbeat(job_id, 1).workers == 3
    store.jobs.cancel("main", job_id)
    store.runs.report(job_id, Report(1, 2, end=End("interrupted")))
    with pytest.raises(ConflictError, match=r"has ended \(cancelled\) and cannot be scaled"):
        store.jobs.scale("main", job_id, 2)


def test_a_deleted_job_is_gone_with_all_that_was_known_of_it(store: Store) -> None:
    job_id = ready(store)
    with pytest.raises(ConflictError, match="is running; cancel it before you delete it"):
        store.jobs.delete("main", job_id)
    store.runs.report(job_id, Report(1, 2, metrics=({"step": 1},), log="x", end=End("completed", result={})))
    store.jobs.delete("main", job_id)
    with store.db.read() as conn:
        for name in ("jobs", "attempts", "events", "metrics", "logs"):
            assert conn.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() == 0


# Journal ----------------------------------------------------------------------------------------------------


def test_events_have_no_gaps_whoever_writes(store: Store) -> None:
    job_id = ready(store)
    barrier = threading.Barrier(4)

    def write(_: int) -> None:
        barrier.wait()
        for _ in range(5):
            store.queue.note(job_id, {"kind": "note"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    numbers = [event.number for event in store.journal.events(job_id, limit=1000)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [e.number for e in store.journal.events(job_id, after=3, limit=2)] == [4, 5]
    assert store.journal.events(job_id, after=2**80) == ()


def test_a_report_counts_once(store: Store) -> None:
    job_id = ready(store)
    report = Report(1, 2, events=({"kind": "x"},), metrics=({"step": 1, "loss": 0.1},), log="l")
    first = store.runs.report(job_id, report)
    count = store.jobs.get("main", job_id)
    assert store.runs.report(job_id, report) == first
    assert store.jobs.get("main", job_id).event_count == count.event_count
    with pytest.raises(OutOfOrderError, match="report 5 came before report 3") as error:
        store.runs.report(job_id, Report(1, 5))
    assert error.value.expected == 3


def test_a_new_attempt_takes_metrics_back_to_its_checkpoint(store: Store, clock: Clock) -> None:
    job_id = ready(store)
    lines = tuple({"step": step, "by": 1} for step in (10, 20, 30))
    store.runs.report(job_id, Report(1, 2, metrics=lines))
    assert store.queue.lost(job_id, 1, LOST) is not None
    clock.pass_(5)
    store.queue.requeue_due()
    assert store.queue.lease(9, 30) is not None
    again = tuple({"step": step, "by": 2} for step in (5, 10, 20))
    store.runs.report(job_id, Report(2, 1, events=(started(20),)))
    assert [m.step for m in store.journal.metrics(job_id)] == [10, 20]
    seen = store.journal.metrics_after(job_id)[-1].serial
    store.runs.report(job_id, Report(2, 2, metrics=again))  # fills in 5; the others are known
    store.runs.report(job_id, Report(2, 3, metrics=({"step": 30, "by": 2},)))
    assert [(m.step, m.data["by"]) for m in store.journal.metrics(job_id)] == [
        (5, 2),
        (10, 1),
        (20, 1),
        (30, 2),
    ]
    assert [m.step for m in store.journal.metrics_after(job_id, seen)] == [5, 30]
    with pytest.raises(FencedError, match=r"attempt 1 .* is over: attempt 2 has begun. Stop"):
        store.runs.report(job_id, Report(1, 3, metrics=({"step": 40},)))


def test_what_is_no_number_becomes_null(store: Store) -> None:
    job_id = ready(store)
    store.runs.report(job_id, Report(1, 2, metrics=({"step": 1, "loss": float("nan"), "x": [float("inf")]},)))
    assert store.journal.metrics(job_id)[0].data == {"step": 1, "loss": None, "x": [None]}


def test_metrics_are_thinned_out_evenly(store: Store) -> None:
    job_id = ready(store)
    store.runs.report(job_id, Report(1, 2, metrics=tuple({"step": s} for s in range(1, 101))))
    steps = [m.step for m in store.journal.metrics(job_id, points=5)]
    assert steps == [1, 26, 51, 75, 100]
    assert [m.step for m in store.journal.metrics(job_id, start=98, stop=99)] == [98, 99]
    assert len(store.journal.metrics(job_id, points=500)) == 100


# Queue ------------------------------------------------------------------------------------------------------


def test_no_more_runs_than_there_is_room(store: Store) -> None:
    for _ in range(4):
        submit(store)

    def take(_: int) -> bool:
        return store.queue.lease(2, 30) is not None

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(take, range(8))) == 2


def test_failures_of_the_user_are_never_tried_again(store: Store) -> None:
    job_id = ready(store)
    error = {"class": "user", "code": "data", "message": "row 3 is short"}
    store.runs.report(job_id, Report(1, 2, end=End("failed", error=error)))
    job = store.jobs.get("main", job_id)
    assert (job.state, job.error, job.reason) == ("failed", error, "row 3 is short")
    assert store.queue.requeue_due() == ()


def test_other_failures_are_tried_again_within_their_budget(store: Store, clock: Clock) -> None:
    job_id = submit(store).id
    waits = []
    for attempt in range(1, 100):
        assert store.queue.lease(1, 30) is not None
        job = store.queue.lost(job_id, attempt, LOST)
        assert job is not None
        if job.state == "failed":
            break
        assert job.not_before is not None
        waits.append(job.not_before - clock())
        assert store.queue.requeue_due() == ()
        clock.pass_(waits[-1])
        assert [j.state for j in store.queue.requeue_due()] == ["queued"]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert store.jobs.get("main", job_id).error == LOST


def test_progress_forgives_failures() -> None:
    spent = {"lost": policy.BUDGETS["lost"]}
    assert policy.after_attempt("running", "failed", "lost", spent).state == "failed"
    again = policy.after_attempt("running", "failed", "lost", spent, progressed=True)
    assert (again.state, again.failures, again.wait_s) == ("recovering", {"lost": 1}, 1.0)


def test_deadlines(store: Store, clock: Clock) -> None:
    waiting, running = submit(store, deadline_s=10), submit(store, deadline_s=10, priority=1)
    assert store.queue.lease(1, 30) is not None
    assert store.queue.overdue() == ()
    clock.pass_(10)
    assert {job.state for job in store.queue.overdue()} == {"failed", "cancelling"}
    assert store.queue.overdue() == ()
    assert store.runs.heartbeat(running.id, 1).command == "cancel"
    store.runs.report(running.id, Report(1, 1, end=End("interrupted")))
    for job_id in (waiting.id, running.id):
        job = store.jobs.get("main", job_id)
        assert job.state == "failed"
        assert job.error is not None
        assert job.error["code"] == "deadline"
        assert "did not end within 10 s of being submitted; submit it again" in str(job.reason)


def test_leases_end_only_when_they_have_run_out(store: Store, clock: Clock) -> None:
    job_id = ready(store)
    clock.pass_(9)
    store.runs.heartbeat(job_id, 1, {"step": 3})
    clock.pass_(9)
    assert store.queue.lost(job_id, 1, LOST, expired_before=clock()) is None
    clock.pass_(1)
    store.queue.extend_leases(20)
    assert store.queue.lost(job_id, 1, LOST, expired_before=clock()) is None
    clock.pass_(20)
    assert store.queue.lost(job_id, 1, LOST, expired_before=clock()) is not None
    assert store.jobs.get("main", job_id).progress == {"step": 3}


# Tokens, models, datasets -----------------------------------------------------------------------------------


def test_tokens(store: Store, clock: Clock) -> None:
    token, secret = store.tokens.create("main", ["submit", "read"], name="ci", expires_at=clock() + 100)
    assert token.scopes == ("read", "submit")
    found = store.tokens.authenticate(secret)
    assert found is not None
    assert found.project == "main"
    for bad in ("", "x", secret[:-1] + ("a" if secret[-1] != "a" else "b"), secret + "a", "\0", "dbp_\ud800"):
        assert store.tokens.authenticate(bad) is None
    with store.db.read() as conn:
        kept = str(conn.execute(text("SELECT * FROM tokens")).all())
    assert secret.split("_", 2)[2] not in kept
    with pytest.raises(NotFoundError):
        store.tokens.revoke("other", token.id)
    assert store.tokens.any()
    clock.pass_(101)
    assert store.tokens.authenticate(secret) is None
    assert not store.tokens.any()
    other, secret = store.tokens.create("main", ["admin"])
    store.tokens.revoke("main", other.id)
    assert store.tokens.authenticate(secret) is None
    assert [t.id for t in store.tokens.list("main")] == [token.id, other.id]
    for project, scopes, says in (
        ("A b", ["read"], "a project's name"),
        ("a", ["root"], "scopes are some of"),
    ):
        with pytest.raises(BadValueError, match=says):
            store.tokens.create(project, scopes)


def test_runner_tokens_and_claims(store: Store, clock: Clock) -> None:
    job = submit(store)
    store.queue.lease(1, 1000)
    code = store.queue.issue_claim(job.id, 1, 60)
    with pytest.raises(FencedError, match="claim code is wrong, was used, or has expired"):
        store.runs.claim(job.id, 1, "guess")
    token = store.runs.claim(job.id, 1, code)
    assert store.runs.authenticate(token) == (job.id, 1)
    with pytest.raises(FencedError):
        store.runs.claim(job.id, 1, code)
    late = store.queue.issue_claim(job.id, 1, 60)
    clock.pass_(61)
    with pytest.raises(FencedError):
        store.runs.claim(job.id, 1, late)
    token = store.queue.issue_token(job.id, 1)
    assert store.runs.authenticate(token) == (job.id, 1)
    assert store.runs.authenticate(token[:-1] + "?") is None
    store.runs.report(job.id, Report(1, 1, end=End("completed", result={})))
    with pytest.raises(FencedError, match="is over: the job is completed"):
        store.runs.check(job.id, 1)
    with pytest.raises(FencedError):
        store.queue.issue_token(job.id, 1)


def test_a_completed_job_leaves_a_model(store: Store) -> None:
    job_id = ready(store)
    model = {"path": f"{job_id}/run/model", "bytes": 12, "params_sha256": "ab"}
    end = End("completed", result={"status": "completed"}, model=model)
    store.runs.report(job_id, Report(1, 2, end=end))
    found = store.models.of_job("main", job_id)
    assert found is not None
    assert (found.path, found.bytes, found.info) == (model["path"], 12, {"params_sha256": "ab"})
    assert store.models.page("main").items == (found,)
    with pytest.raises(NotFoundError):
        store.models.get("other", found.id)
    store.models.delete("main", found.id)
    assert store.models.of_job("main", job_id) is None


def test_datasets(store: Store) -> None:
    ds = "ds_" + "a" * 64
    assert store.datasets.add("main", ds, name="x", size=5)[1]
    assert not store.datasets.add("main", ds, name="y", size=5)[1]
    store.datasets.add("other", ds, name="z", size=5)
    assert store.disk_bytes("main") == 5
    assert [d.name for d in store.datasets.page("main").items] == ["x"]
    assert store.datasets.delete("main", ds) is False  # the other project has it still
    assert store.datasets.delete("other", ds) is True
    for bad in (ds, "x\0", "../x"):
        with pytest.raises(NotFoundError):
            store.datasets.get("main", bad)


def test_a_list_page_does_not_read_the_whole_table(store: Store, tmp_path: Path) -> None:
    if not store.db.sqlite:
        pytest.skip("SQLite says how it answers a query; PostgreSQL decides by the size of the table")
    for query in (
        "SELECT * FROM jobs WHERE project = 'a' AND id < 'x' ORDER BY id DESC LIMIT 50",
        "SELECT * FROM jobs WHERE project = 'a' AND state = 'queued' AND id < 'x' ORDER BY id DESC LIMIT 50",
        "SELECT id FROM jobs WHERE state = 'queued' AND project = 'a'"
        " ORDER BY priority DESC, queued_at, id LIMIT 1",
        "SELECT project, sum(slots) FROM jobs WHERE state IN ('running') GROUP BY project",
    ):
        with store.db.read() as conn:
            plan = " ".join(str(row) for row in conn.execute(text(f"EXPLAIN QUERY PLAN {query}")))
        assert "SEARCH jobs USING" in plan, query
        assert "SCAN" not in plan, query
        assert "TEMP B-TREE FOR ORDER" not in plan, query
