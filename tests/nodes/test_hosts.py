"""Training across hosts with networks, processes and memory of their own, through the loss of hosts.

One cluster and one run for the whole story, since starting Ray on four hosts takes longer than all the rest.
The run is longer than the story; it is stopped after it, and finished inline, to the undisturbed bits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hosts import Host, hosts, why_not
from training import Training, write_job

from distbp import TrainingJob, resume, train

NOTICED_S = 10.0  # the promise: a node that is cut off or frozen is noticed within this time
WORKERS = 5


@pytest.fixture
def four(tmp_path: Path) -> Iterator[list[Host]]:
    reason = why_not()
    if reason:
        pytest.skip(f"{reason}; test_two_raylets.py covers training across nodes")
    with hosts(4, tmp_path) as made:
        yield made


def start_cluster(head: Host, others: dict[Host, int], cpus: int = 1) -> None:
    started = [head.start_ray(cpus)]
    said = started[0].communicate(timeout=90)[0]
    assert started[0].returncode == 0, said
    started = [host.start_ray(count, head) for host, count in others.items()]
    for one in started:
        said = one.communicate(timeout=90)[0]
        assert one.returncode == 0, said


def job() -> TrainingJob:
    rows = {"format": "blobs", "samples": 60_400, "features": 8, "classes": 4, "noise": 9.0, "seed": 3}
    return TrainingJob(
        name="hosts",
        data={"train": {**rows, "rows": [0, 60_000]}, "validation": {**rows, "rows": [60_000, 60_400]}},
        model={
            "layers": [{"type": "dense", "units": 12, "activation": "tanh"}, {"type": "dense", "units": 4}]
        },
        loss="softmax_cross_entropy",
        optimizer={"type": "momentum", "learning_rate": 0.05},
        batch_size=30,
        epochs=10,
        shards=8,
        seed=11,
    )


@pytest.mark.slow  # a minute, and more where others use the machine
def test_the_same_bits_through_the_loss_of_hosts(four: list[Host], tmp_path: Path) -> None:
    head, near, far, spare = four
    start_cluster(head, {near: 2, far: 2})
    expected = train(job(), output=tmp_path / "inline", workers=0)
    path = write_job(tmp_path, job())
    arguments = ["train", str(path), "--output", str(tmp_path / "run"), "--workers", str(WORKERS)]
    with closing(Training(head, head, arguments)) as training:
        began = training.wait_for(lambda e: e["event"] == "started")
        assert (began["workers"], began["exchange"]) == (WORKERS, "shared memory + ray objects")
        training.wait_for_steps(20)

        # A pulled cable and a frozen host, both at once: the head's own worker takes all shards.
        near.cut_off()
        far.freeze()
        lost_at = time.monotonic()
        for _ in range(4):
            reason = training.wait_for_change("left with node")
            assert "gave no sign of life for 5 s" in reason
        assert time.monotonic() - lost_at < NOTICED_S
        training.wait_for_steps(20)

        # They come back, and new workers on them join; a host that was never there joins too.
        near.reconnect()
        far.thaw()
        joining = spare.start_ray(2, head)
        training.wait_for_change("a worker joined")
        training.wait_for_change("5 go on")
        said = joining.communicate(timeout=90)[0]
        assert joining.returncode == 0, said
        training.wait_for_steps(20)

        # Ray's own process on a host is killed, and its workers with it.
        for host in (near, far):
            host.kill_raylet()
        training.wait_for_change("left with node")
        training.wait_for_steps(20)
        assert training.stop() == 143, training.said()
        assert not [e for e in training.events if e["event"] == "error"]

    stopped = resume(tmp_path / "run", workers=0)
    assert stopped.params_sha256 == expected.params_sha256
    assert stopped.metrics == expected.metrics
    assert stopped.attempt == 2  # the first attempt lasted through everything


@pytest.mark.slow  # Ray ends a driver a minute after it lost the head
def test_a_run_whose_head_is_lost_goes_on_elsewhere(four: list[Host], tmp_path: Path) -> None:
    """Steps go on for a minute, then Ray ends the trainer, which has no chance to say anything. The run
    directory has all that is needed. The job is longer than that minute, and finished inline in the end."""
    head, worker, new_head, new_worker = four
    start_cluster(head, {worker: 2})
    short = job().replace(epochs=None, max_steps=60_000, checkpoint={"every_steps": 100})
    expected = train(short, output=tmp_path / "inline", workers=0)
    path = write_job(tmp_path, short)
    run = tmp_path / "run"
    # The trainer is not on the head.
    arguments = ["train", str(path), "--output", str(run), "--workers", "3"]
    with closing(Training(worker, head, arguments)) as training:
        training.wait_for(lambda e: e["event"] == "checkpoint_saved")
        head.power_off()
        assert training.end(within_s=150) != 0
    assert not (run / "result.json").exists()

    start_cluster(new_head, {new_worker: 2})
    with closing(Training(new_head, new_head, ["resume", str(run), "--workers", "3"])) as training:
        training.wait_for_steps(200)
        assert training.stop() == 143, training.said()
    finished = resume(run, workers=0)
    assert finished.params_sha256 == expected.params_sha256
    assert finished.metrics == expected.metrics
    assert finished.attempt == 3
