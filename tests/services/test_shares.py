"""Several projects on one service: turns, slots, why a job waits, and the disk of each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from distbp_service.allotment import Allotment, measured
from distbp_service.errors import BadValueError, ConflictError
from distbp_service.policy import Head, Room, Usage, choose, hindrance, place, turns
from distbp_service.reports import End, Report
from distbp_service.store import Store
from distbp_service.store.disk import DiskQuota
from distbp_service.store.line import Waiting, reasons
from hypothesis import given
from hypothesis import strategies as st
from stores import Clock, submit

from distbp.core.errors import QuotaError


def head(
    project: str, *, slots: int = 1, most: int = 0, used: int = 0, served: float = 0, **more: int
) -> Head:
    usage = Usage(used, more.get("jobs", used), served)
    priority, queued_at = more.get("priority", 0), more.get("queued_at", 0)
    return Head(f"job_{project}", project, priority, queued_at, slots, most or slots, usage)


# Decisions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heads", "room", "free", "chosen"),
    [
        ([], Room(4), 4, None),
        # Shares come before priorities, of those that hold as much the one that was not served for longest.
        ([head("a", used=1, priority=100), head("b")], Room(2), 1, ("b", 1)),
        ([head("a", served=2, priority=100), head("b", served=1)], Room(1), 1, ("b", 1)),
        ([head("a", queued_at=1), head("b", queued_at=2, priority=1)], Room(1), 1, ("b", 1)),
        # Nobody overtakes the one whose turn it is; what can never start is not in the line.
        ([head("a", used=1), head("b", slots=2)], Room(2), 1, None),
        ([head("a", used=1), head("b", slots=4096)], Room(2), 1, ("a", 1)),
        # A range gets what is free, and leaves the others what they need.
        ([head("a", slots=1, most=8)], Room(4), 4, ("a", 4)),
        ([head("a", slots=1, most=8), head("b", slots=2)], Room(4), 4, ("a", 2)),
        ([head("a", slots=2, most=8), head("b", slots=4, used=1)], Room(4), 3, ("a", 2)),
        ([head("a", slots=1, most=8)], Room(4, project_slots=3), 4, ("a", 3)),
        # Quotas of the project: others go on.
        ([head("a", used=0, jobs=2), head("b", used=3)], Room(8, project_jobs=2), 5, None),
        ([head("a", used=0, jobs=2), head("b", used=3, jobs=1)], Room(8, project_jobs=2), 5, ("b", 1)),
        ([head("a", used=2, slots=2), head("b", used=3)], Room(8, project_slots=3), 3, None),
    ],
)
def test_whose_turn_it_is(heads: list[Head], room: Room, free: int, chosen: tuple[str, int] | None) -> None:
    found = choose(heads, room, free)
    assert (None if found is None else (found[0].project, found[1])) == chosen


HEADS = st.lists(
    st.builds(
        head,
        st.sampled_from("abcdef"),
        slots=st.integers(1, 9),
        most=st.integers(0, 12),
        used=st.integers(0, 4),
        served=st.floats(0, 9),
        priority=st.integers(-100, 100),
        queued_at=st.integers(0, 9),
    ),
    max_size=6,
    unique_by=lambda one: one.project,
)
ROOMS = st.builds(Room, st.integers(0, 9), st.integers(1, 12), st.integers(1, 5))


@given(HEADS, ROOMS, st.integers(0, 9))
def test_what_is_chosen_fits_and_holds_the_least(heads: list[Head], room: Room, free: int) -> None:
    free = min(free, room.slots)
    found = choose(heads, room, free)
    may = [one for one in heads if hindrance(one, room) is None]
    if found is None:
        assert not may or turns(heads, room)[0].slots > free
        return
    chosen, slots = found
    assert chosen.slots <= slots <= min(max(chosen.slots, chosen.most), free)
    assert chosen.used.slots + slots <= room.project_slots
    assert all(chosen.used.slots <= other.used.slots for other in may)


@given(
    st.integers(1, 50), st.dictionaries(st.sampled_from("abcd"), st.tuples(st.booleans(), st.integers(0, 50)))
)
def test_a_place_is_that_of_taking_turns(mine: int, others: dict[str, tuple[bool, int]]) -> None:
    """Against the line itself: every project in its turn gives one job, until ours is given."""
    left = {name: number for name, (_, number) in others.items()}
    order = [n for n, (before, _) in others.items() if before] + [""]
    order += [n for n, (before, _) in others.items() if not before]
    given_out, ours = 0, 0
    while ours < mine:
        for name in order:
            if name == "":
                ours += 1
                given_out += 1
                if ours == mine:
                    break
            elif left[name]:
                left[name] -= 1
                given_out += 1
    before = {name: first for name, (first, _) in others.items()}
    assert place(mine, before, {name: number for name, (_, number) in others.items()}) == given_out


# The queue --------------------------------------------------------------------------------------------------


def finish(store: Store, job_id: str) -> None:
    store.runs.report(job_id, Report(1, 1, end=End("completed", result={})))


def test_an_endless_project_does_not_starve_another(store: Store, clock: Clock) -> None:
    mine = []
    for _ in range(6):
        clock.pass_(1)
        mine.append(submit(store, "a", priority=100).id)
    for _ in range(2):
        clock.pass_(1)
        assert store.queue.lease(2, 30) is not None
    clock.pass_(1)
    theirs = [submit(store, "b", priority=1).id, submit(store, "b").id]
    started = []
    for _ in range(4):  # a slot comes free, again and again, first of a, then of whoever holds one
        clock.pass_(1)
        finish(store, store.queue.working()[0].attempt.job_id)
        lease = store.queue.lease(2, 30)
        assert lease is not None and store.queue.lease(2, 30) is None
        started.append(lease.job.id)
    assert started == [theirs[0], mine[2], theirs[1], mine[3]]


def test_one_slot_goes_round(store: Store, clock: Clock) -> None:
    for project, priority in (("a", 100), ("a", 100), ("a", 100), ("b", 0), ("b", 0), ("c", -100)):
        clock.pass_(1)
        submit(store, project, priority=priority)
    order = []
    for _ in range(6):
        clock.pass_(1)
        lease = store.queue.lease(1, 30)
        assert lease is not None
        order.append(lease.job.project)
        finish(store, lease.job.id)
    assert order == ["a", "b", "c", "a", "b", "a"]


def test_a_range_counts_what_it_takes(store: Store, clock: Clock) -> None:
    job = submit(store, "a", slots=1, slots_most=8)
    clock.pass_(1)
    submit(store, "b")
    lease = store.queue.lease(4, 30)
    assert lease is not None and lease.job.id == job.id and lease.job.slots_held == 3
    assert store.runs.assignment(job.id, 1).slots == 3
    assert store.queue.lease(4, 30) is not None
    assert {name: one.slots for name, one in store.queue.used().items()} == {"a": 3, "b": 1}
    store.runs.report(job.id, Report(1, 1, end=End("interrupted")))
    assert store.queue.used()["a"].slots == 0
    again = store.jobs.get("a", job.id)
    assert (again.state, again.slots, again.slots_most, again.slots_held) == ("queued", 1, 8, 0)


def test_quotas_of_slots_and_jobs_leave_the_rest_to_others(store: Store, clock: Clock) -> None:
    for project in "aaab":
        clock.pass_(1)
        submit(store, project)
    room = Room(4, project_slots=3, project_jobs=2)
    started = [store.queue.lease(room, 30) for _ in range(4)]
    assert [lease and lease.job.project for lease in started] == ["a", "b", "a", None]


def why(store: Store, job_id: str, project: str = "a") -> Waiting:
    return reasons(store.db, project, [store.jobs.get(project, job_id)])[job_id]


def test_a_job_that_waits_says_why(store: Store, clock: Clock) -> None:
    first = submit(store, "a").id
    found = why(store, first)
    assert (found.why, found.slots, found.place) == ("dispatcher", None, None)
    assert found.message == "no dispatcher has run yet; it starts what waits here"
    store.queue.announce(Room(2, project_slots=2))
    assert why(store, first).message == "needs 1 slot of 2, and 2 are free: it is next; place 1 in line"
    submit(store, "b")
    for _ in range(2):
        clock.pass_(1)
        assert store.queue.lease(2, 30) is not None
    assert reasons(store.db, "a", [store.jobs.get("a", first)]) == {}  # it runs
    wide, last = submit(store, "a", slots=2, priority=1).id, submit(store, "a").id
    found = why(store, wide)
    assert (found.why, found.needed, found.free, found.slots) == ("project_slots", 2, 0, 2)
    assert found.message.startswith("needs 2 slots of 2, and the project holds 1 of the 2 that it may have")
    submit(store, "b")
    store.queue.announce(Room(2))
    found = why(store, last)
    assert found.message == "needs 1 slot of 2, and none is free (in use: a 1, b 1); place 4 in line" or (
        found.message == "needs 1 slot of 2, and none is free (in use: a 1, b 1); place 3 in line"
    )
    assert [(name, one.slots, one.jobs) for name, one in found.in_use] == [("a", 1, 1), ("b", 1, 1)]
    store.queue.announce(Room(1))
    found = why(store, wide)
    assert (found.why, found.place) == ("never", None)
    assert found.message == (
        "needs 2 slots, and the service has 1: it cannot start; scale it down, or cancel it"
    )
    store.queue.announce(Room(2, project_jobs=1))
    assert why(store, last).why == "project_jobs"


def test_a_job_that_recovers_says_when_it_is_tried_again(store: Store, clock: Clock) -> None:
    job_id = submit(store, "a").id
    assert store.queue.lease(1, 30) is not None
    store.queue.lost(job_id, 1, {"class": "lost", "code": "lost", "message": "the runner is gone"})
    found = why(store, job_id)
    assert (found.why, found.message, found.retry_at) == ("retry", "the runner is gone", clock() + 1)


def test_scaling_stays_within_what_there_is(store: Store) -> None:
    job_id = submit(store, "a").id
    store.queue.announce(Room(3, project_slots=2))
    with pytest.raises(BadValueError, match="9 workers need 9 slots, and a project may have 2; ask"):
        store.jobs.scale("a", job_id, 9)
    store.queue.announce(Room(3))
    assert store.queue.lease(3, 30) is not None
    assert store.jobs.scale("a", job_id, 2).slots_held == 2
    assert store.queue.used()["a"].slots == 2
    submit(store, "b")
    with pytest.raises(
        ConflictError, match=r"has 2 slots and would need 1 more, but jobs of other projects wait"
    ):
        store.jobs.scale("a", job_id, 3)
    assert store.queue.lease(3, 30) is not None
    with pytest.raises(
        ConflictError, match=r"has 2 slots and would need 1 more, but 0 are free; ask for fewer"
    ):
        store.jobs.scale("a", job_id, 3)
    assert store.jobs.scale("a", job_id, 0).slots_held == 1


# The disk ---------------------------------------------------------------------------------------------------


def test_grants_of_a_project_never_pass_its_quota(store: Store) -> None:
    quota = DiskQuota(project=1000, job=900)
    first, second = (submit(store, "a").id for _ in range(2))
    submit(store, "b")
    for _ in range(3):
        assert store.queue.lease(9, 30) is not None
    store.datasets.add("a", "ds_" + "a" * 64, name="x", size=100)
    assert store.runs.assignment(first, 1, quota).disk == 450  # half of what is left
    assert store.runs.assignment(second, 1, quota).disk == 450
    assert store.runs.heartbeat(first, 1, disk=450, quota=quota).disk == 450  # all of its share
    assert store.runs.heartbeat(second, 1, disk=50, quota=quota).disk == 250  # the other needs more
    assert store.runs.heartbeat(first, 1, disk=450, quota=quota).disk == 650
    assert store.disk_bytes("a") == 600
    store.runs.report(second, Report(1, 1, disk=60, end=End("completed", result={})), quota=quota)
    assert store.runs.heartbeat(first, 1, disk=650, quota=quota).disk == 840
    assert store.runs.heartbeat(first, 1, disk=650, quota=DiskQuota(10_000, 700)).disk == 700
    assert store.disk_bytes("a") == 810 and store.disk_bytes("b") == 0
    with pytest.raises(ConflictError, match="fills 810 bytes of disk, and may fill 800; delete jobs, models"):
        submit(store, "a", most_disk=800)


def test_a_model_counts_after_its_job_was_deleted_and_then_no_more(store: Store) -> None:
    job_id = submit(store, "a").id
    assert store.queue.lease(9, 30) is not None
    model = {"path": f"{job_id}/run/model", "bytes": 30}
    store.runs.report(job_id, Report(1, 1, disk=100, end=End("completed", result={}, model=model)))
    assert store.disk_bytes("a") == 100
    store.jobs.delete("a", job_id)
    assert store.disk_bytes("a") == 30
    kept = store.models.page("a").items[0]
    assert store.models.delete("a", kept.id) == (kept, False)
    assert store.disk_bytes("a") == 0


def filled(disk: Allotment, path: Path, count: int) -> None:
    fd = disk.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        disk.write(fd, memoryview(bytes(count)))
    finally:
        disk.close(fd)


def answering(disk: Allotment, monkeypatch: pytest.MonkeyPatch, *answers: int) -> None:
    """Whenever the writer waits, the next answer of the service comes."""
    left = iter(answers)
    monkeypatch.setattr(disk._changed, "wait", lambda: disk.hear(next(left)))


def test_an_allotment_holds_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Allotment(tmp_path, 100_000)
    filled(disk, tmp_path / "a", 50_000)
    assert 50_000 <= measured(tmp_path) <= disk.used <= 60_000
    disk.unlink(tmp_path / "a")
    assert disk.used <= 5_000
    filled(disk, tmp_path / "a", 80_000)
    answering(disk, monkeypatch, 100_000, 100_000)
    says = r"may have 100,000, .* What was stored before is intact. Delete jobs, models or datasets"
    with pytest.raises(QuotaError, match=says) as error:
        filled(disk, tmp_path / "b", 30_000)
    assert "checkpoint.keep_last" in str(error.value)
    assert measured(tmp_path) <= 100_000


def test_a_few_bytes_that_begin_a_block_count_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(Allotment(tmp_path, None), tmp_path / "a", 8_192)
    disk = Allotment(tmp_path, 10_000)  # which finds two whole blocks
    answering(disk, monkeypatch, 10_000, 10_000)
    fd = disk.open(tmp_path / "a", os.O_WRONLY | os.O_APPEND)
    with pytest.raises(QuotaError):
        disk.write(fd, memoryview(bytes(100)))
    disk.close(fd)
    assert measured(tmp_path) <= 10_000


def test_an_allotment_waits_for_a_larger_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Allotment(tmp_path, 20_000)
    answering(disk, monkeypatch, 20_000, 200_000)
    filled(disk, tmp_path / "a", 100_000)
    assert measured(tmp_path) >= 100_000


def test_no_quota_is_no_limit(tmp_path: Path) -> None:
    filled(Allotment(tmp_path, None), tmp_path / "a", 100_000)
