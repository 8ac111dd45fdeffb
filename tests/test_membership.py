"""How many workers there should be, and who hosts what: pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbp.team.membership import cpus_each, frozen, places, spread, target


@pytest.mark.parametrize(
    ("current", "free", "awaited", "expected"),
    [
        (1, 0.0, 0.0, 1),
        (1, 3.0, 0.0, 4),
        (1, 3.9, 0.0, 4),  # whole CPUs only
        (1, 99.0, 0.0, 6),  # never more than most
        (4, 2.0, 2.0, 4),  # what is free goes to those who wait
        (4, 0.0, 1.0, 3),  # one worker makes room
        (4, 0.0, 0.5, 3),  # half a CPU is not to be had otherwise
        (4, 1.0, 9.0, 2),  # never fewer than least
        (5, 0.0, 1.0, 4),  # one of the five waits itself, in vain
    ],
)
def test_a_range_follows_the_cluster(current: int, free: float, awaited: float, expected: int) -> None:
    assert target(current, 3, 2 if awaited > 5 else 1, 6, free, awaited) == expected


@given(current=st.integers(0, 50), free=st.floats(0, 100), awaited=st.floats(0, 100))
def test_a_number_is_kept(current: int, free: float, awaited: float) -> None:
    assert target(current, 7, 4, 4, free, awaited) == 7
    assert target(current, 7, 0, 0, free, awaited) == 7


@given(
    current=st.integers(0, 50), least=st.integers(1, 9), more=st.integers(1, 9),
    free=st.floats(0, 100), awaited=st.floats(0, 100),
)  # fmt: skip
def test_a_range_is_never_left(current: int, least: int, more: int, free: float, awaited: float) -> None:
    most = least + more
    found = target(current, least, least, most, free, awaited)
    assert least <= found <= most
    # Whatever was decided is a state to stay in: no worker comes and goes without a reason from outside.
    then_free = free - awaited - (found - current)
    if 0 <= then_free < 1:
        assert target(found, found, least, most, then_free, 0.0) == found


@given(shards=st.integers(1, 40), nodes=st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
def test_every_shard_has_one_host_and_nodes_host_neighbors(shards: int, nodes: list[str]) -> None:
    members = [(node, number) for number, node in enumerate(nodes)]
    ranges = spread(shards, members)
    hosted = sorted((r.start, r.stop, m) for m, given in ranges.items() for r in given)
    assert [s for a, b, _ in hosted for s in range(a, b)] == list(range(shards))
    order = [nodes[member] for _, _, member in hosted]
    assert order == sorted(order)


def test_frozen() -> None:
    assert frozen({1: 0.2, 2: 5.1, 3: 5.0}, 5.0) == [2]


def test_places() -> None:
    cpus = {"home": 2.0, "big": 4.0, "small": 1.5}
    assert places("home", cpus, ["home"]) == ["home", "big", "big", "big", "big", "small"]
    assert places("home", cpus, [], doubtful={"big"}) == ["home", "home", "small"]


@pytest.mark.parametrize(
    ("cpus", "networks", "workers", "expected"),
    [
        ([8.0], 3, 2, 1),
        ([8.0], 2, 8, 4),
        ([8.0], 3, 8, 2),
        ([4.0, 4.0], 2, 8, 4),
        ([1.0] * 8, 2, 8, 1),
        ([3.0, 1.0], 2, 4, 1),  # the second network has no room of two CPUs
        ([3.0, 3.0, 1.0], 2, 7, 3),
        ([], 2, 8, 1),
    ],
)
def test_networks_that_train_apart_share_the_cpus_of_the_workers(
    cpus: list[float], networks: int, workers: int, expected: int
) -> None:
    assert cpus_each(cpus, networks, workers) == expected
