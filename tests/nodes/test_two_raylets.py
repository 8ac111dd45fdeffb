"""Two nodes and a trainer without CPUs, on the real Ray, without privileges."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from two_raylets import MORE, SHARDS, STEPS

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, str(HERE / "two_raylets.py"), str(tmp_path_factory.mktemp("ray"))],
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


@pytest.mark.parametrize("servers", ["one server", "two servers"])
def test_the_bits_are_those_of_one_process(found: dict[str, Any], servers: str) -> None:
    """Parameters, running statistics and validation sums, after each of two stretches."""
    assert found[servers]["measured"] == found["expected"]
    assert found[servers]["ledger"] == [1, STEPS + MORE, STEPS + MORE]


def test_the_server_is_where_cpus_are_and_workers_fill_node_after_node(found: dict[str, Any]) -> None:
    one = found["one server"]
    assert one["exchange"] == "shared memory + ray objects"
    assert one["cpus"] == {"server": 2, **{f"worker-{n}": 2 for n in (1, 2, 3, 4)}}


def test_one_vector_of_a_node_crosses_for_a_step(found: dict[str, Any]) -> None:
    [[calls, sent]] = found["one server"]["traffic"]
    assert sent == STEPS * found["size"]
    # One call for a step, and a few for the beginning and the rests between stretches.
    assert STEPS <= calls <= STEPS + 6


def test_each_server_gets_its_part_of_one_vector(found: dict[str, Any]) -> None:
    """Its own node has a relay then, like all others."""
    assert found["two servers"]["exchange"] == "ray objects"
    traffic = found["two servers"]["traffic"]
    assert traffic  # of one node, or of two where the first had no CPU free yet
    for calls, sent in traffic:
        assert sent == STEPS * found["size"]
        assert 2 * STEPS <= calls <= 2 * (STEPS + 6)


def test_any_team_makes_the_same_of_a_table(found: dict[str, Any]) -> None:
    measured = found["ids"]["measured"]
    assert len(measured) == 5
    assert all(one == measured["0 workers"] for one in measured.values())


def test_of_a_table_the_rows_travel_that_samples_name(found: dict[str, Any]) -> None:
    """A node's workers compute at most 40 rows of 6 ids: of 9 float32 numbers, and a row's number of two
    bytes. A server's cut is within a row, which travels as it is."""
    traffic = found["ids"]["traffic"]
    rest = found["ids"]["size"] - 4 * 5_000 * 9
    assert traffic["3 workers, 1 servers"] and traffic["3 workers, 2 servers"]
    for sent in [sent for every in traffic.values() for sent in every]:
        assert STEPS * rest < sent <= STEPS * (40 * 6 * (4 * 9 + 2) + rest + 4 * 9)
        assert sent < STEPS * found["ids"]["size"] / 10


def test_only_the_shards_that_a_node_hosts_are_sent_there(found: dict[str, Any]) -> None:
    assert found["one server"]["sent"] == [list(range(SHARDS // 2)), list(range(SHARDS // 2, SHARDS))]


def test_a_node_without_workers_is_left(found: dict[str, Any]) -> None:
    assert found["one server"]["at the end"] == ["shared memory", 2]
    assert len([note for note in found["one server"]["notes"] if "was sent away" in note]) == 2


def test_networks_that_train_apart_get_one_object_with_all_rows(found: dict[str, Any]) -> None:
    apart = found["apart"]
    assert apart["digests"][0] == apart["digests"][1]
    assert apart["metrics"][0] == apart["metrics"][1]
    assert (apart["objects"], apart["nodes"]) == (1, [2, 2])


def test_a_node_that_would_compute_other_bits_is_avoided(found: dict[str, Any]) -> None:
    """Three networks train on the other one, one after the other."""
    if platform.machine() != "x86_64":
        pytest.skip("the name of another core type is known for x86-64 only")
    (told,) = found["refused"]["told"]
    assert re.match(
        r"a worker on node \w+ would compute other bits \(.* Nehalem there.*\); it is refused", told
    )
    (node,) = set(found["refused"]["nodes"])
    assert len(found["refused"]["nodes"]) == 3
    assert node[:12] not in told


def test_when_one_server_is_lost_the_attempt_ends(found: dict[str, Any]) -> None:
    for when in ("loss when asked", "loss"):
        assert found["two servers"][when].startswith("the parameter server died")


def test_a_server_whose_node_has_left_is_a_server_lost(found: dict[str, Any]) -> None:
    """So the trainer begins a new attempt elsewhere."""
    assert "node" in found["loss of a home"]
    assert found["loss of a home"].startswith("the parameter server died (The actor is not schedulable")
