"""The model of a step's time, and the simulation that it is checked against."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbp.run.plan.simulate import shared_link, simulate
from distbp.run.plan.speed_model import Layout, Machine, Work, node_counts, node_limit, step_time

WORK = Work(shards=1024, shard_s=2e-3, bytes=4_000_000, update_s=1e-3)
MACHINE = Machine(cores=8)
works = st.builds(
    Work,
    shards=st.integers(1, 1024),
    shard_s=st.floats(1e-5, 1e-1),
    bytes=st.integers(4, 4 * 10**8),
    update_s=st.floats(1e-6, 0.1),
    jitter=st.floats(0, 0.2),
)
layouts = st.builds(Layout, st.integers(0, 16), st.integers(1, 8), st.booleans())
workers = st.integers(1, 1024)


def test_a_step_by_hand() -> None:
    # 3 nodes of 8 workers, 1024 / 24 = 42.7: 43 shards of 2 ms. The vector, 4 MB, takes 3.2 ms on the link.
    found = step_time(WORK, MACHINE, 24)
    assert found.compute_s == pytest.approx(43 * 2e-3)
    assert found.wake_s == pytest.approx(60e-6 + 8 * 8e-6)
    # The server joins 8 + 2 answers: 9 additions of 0.28 ms; the nodes 7 each, at the same time.
    assert found.join_s == pytest.approx((9 + 7) * 4e6 * 7e-11)
    assert found.network_s == pytest.approx(2 * 100e-6 + (2 + 2) * 3.2e-3 + 1.1e-3 + 2 * 3.5e-4)
    assert found.update_s == 1e-3
    assert found.limit == "compute"


@given(work=works)
def test_one_worker_is_compute_and_exchange(work: Work) -> None:
    inline, one = step_time(work, MACHINE, 0), step_time(work, MACHINE, 1)
    assert inline.total_s == work.shards * work.shard_s + work.update_s
    assert one.total_s == pytest.approx(inline.total_s + MACHINE.wake_s + MACHINE.answer_s)
    assert step_time(replace(work, inline_s=1e-4), MACHINE, 0).total_s == 1e-4  # as it was measured


@given(work=works, count=workers, layout=layouts, times=st.floats(1.0, 100.0))
def test_better_machines_are_never_slower(work: Work, count: int, layout: Layout, times: float) -> None:
    now = step_time(work, MACHINE, count, layout).total_s
    for better in (
        replace(MACHINE, bandwidth=MACHINE.bandwidth * times),
        replace(MACHINE, latency_s=MACHINE.latency_s / times),
        replace(MACHINE, wake_s=MACHINE.wake_s / times),
        replace(MACHINE, join_s_per_byte=MACHINE.join_s_per_byte / times),
    ):
        assert step_time(work, better, count, layout).total_s <= now * (1 + 1e-12)


@given(work=works, count=workers, layout=layouts)
def test_more_servers_are_never_slower(work: Work, count: int, layout: Layout) -> None:
    more = replace(layout, servers=layout.servers + 1)
    assert step_time(work, MACHINE, count, more).total_s <= step_time(
        work, MACHINE, count, layout
    ).total_s * (1 + 1e-12)


@given(work=works, count=workers, layout=layouts)
def test_combining_never_makes_the_network_slower(work: Work, count: int, layout: Layout) -> None:
    on = step_time(work, MACHINE, count, replace(layout, combine=True))
    off = step_time(work, MACHINE, count, replace(layout, combine=False))
    assert on.network_s <= off.network_s * (1 + 1e-12)


@given(work=works, count=workers, layout=layouts)
def test_workers_without_shards_change_nothing(work: Work, count: int, layout: Layout) -> None:
    busy = node_counts(work, MACHINE, count, layout)
    assert sum(busy) == min(count, work.shards)
    more = step_time(work, MACHINE, work.shards + count, layout).total_s
    assert more == step_time(work, MACHINE, work.shards, layout).total_s


def test_more_workers_than_cores_do_not_help() -> None:
    crowded = Layout(per_node=16)
    assert step_time(WORK, MACHINE, 16, crowded).total_s >= step_time(WORK, MACHINE, 8).total_s


def test_ranges_and_combining_move_the_limit_of_the_server() -> None:
    alone = node_limit(WORK, MACHINE, Layout(combine=False))
    combined = node_limit(WORK, MACHINE)
    ranges = node_limit(WORK, MACHINE, Layout(servers=4))
    assert alone < combined < ranges


# The simulation ----------------------------------------------------------------------------------------

TOLERANCE = 0.05  # without jitter, on full nodes
TOLERANCE_JITTER = 0.25


@pytest.mark.parametrize("count", [0, 1, 2, 8, 16, 64, 256, 1024])
@pytest.mark.parametrize("layout", [Layout(), Layout(servers=4), Layout(combine=False)], ids=str)
@pytest.mark.parametrize("shard_s", [1e-4, 2e-3, 5e-2])
def test_it_agrees_with_the_closed_form(count: int, layout: Layout, shard_s: float) -> None:
    work = replace(WORK, shard_s=shard_s)
    predicted = step_time(work, MACHINE, count, layout).total_s
    assert simulate(work, MACHINE, count, layout, steps=1) == pytest.approx(predicted, rel=TOLERANCE)
    uneven = replace(work, jitter=0.1)
    predicted = step_time(uneven, MACHINE, count, layout).total_s
    assert simulate(uneven, MACHINE, count, layout) == pytest.approx(predicted, rel=TOLERANCE_JITTER)


@given(work=works, count=workers, layout=layouts)
def test_the_closed_form_is_never_too_short_without_jitter(work: Work, count: int, layout: Layout) -> None:
    even = replace(work, jitter=0.0)
    played = simulate(even, MACHINE, count, layout, steps=1)
    assert played <= step_time(even, MACHINE, count, layout).total_s * (1 + 1e-9)


def test_the_same_seed_gives_the_same_answer() -> None:
    work = replace(WORK, jitter=0.3)
    assert simulate(work, MACHINE, 32, seed=4) == simulate(work, MACHINE, 32, seed=4)
    assert simulate(work, MACHINE, 32, seed=4) != simulate(work, MACHINE, 32, seed=5)


def test_a_link_by_hand() -> None:
    # 10 bytes/s. The first flows alone for 1 s (10 of 20 bytes); then both at 5: the first has 10 left and
    # ends at 3 s, when the second has 10 of 20; alone again, it ends at 4 s.
    assert shared_link([0.0, 1.0], 20, 10, 10) == pytest.approx([3.0, 4.0])
    assert shared_link([1.0, 0.0], 20, 10, 10) == pytest.approx([4.0, 3.0])
    assert shared_link([0.0, 0.0], 20, 10, 10) == pytest.approx([4.0, 4.0])
    assert shared_link([0.0], 20, 10, 5) == pytest.approx([4.0])  # its own link is the narrower one


@given(starts=st.lists(st.floats(0, 10), min_size=1, max_size=20), size=st.floats(0.1, 100))
def test_a_link_carries_no_more_than_it_can(starts: list[float], size: float) -> None:
    ends = shared_link(starts, size, 10.0, 4.0)
    assert all(end >= start + size / 4.0 - 1e-6 for start, end in zip(starts, ends, strict=True))
    assert max(ends) >= min(starts) + size * len(starts) / 10.0 - 1e-6
    assert max(ends) <= max(starts) + size * len(starts) / 4.0 + 1e-6
