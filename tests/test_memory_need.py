"""The memory that a job needs, against what there is: refused before any of it is taken."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from distbp import TrainingJob, train
from distbp.cli import main as cli
from distbp.core.errors import JobError, NoMemoryError
from distbp.engine import memory_need
from distbp.engine.memory_need import check_memory, free_bytes, needed, size, too_much, total_bytes

GIB = 2**30


def job(*units: int, **more: Any) -> TrainingJob:
    layers = [{"type": "dense", "units": n} for n in units]
    data = {"train": {"format": "blobs", "samples": 64, "features": 4}}
    return TrainingJob.from_mapping(
        {"model": {"layers": layers}, "loss": "softmax_cross_entropy", "data": data, **more}
    )


def machine(root: Path, total: int, free: int, cgroup: str = "", **files: int | str) -> Path:
    """A file system that tells of a machine. files: below sys/fs/cgroup, with / as two underscores."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {total >> 10} kB\nMemAvailable: {free >> 10} kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, value in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("memory_", "memory.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "total", "free"),
    [
        ("", {}, 16, 8),
        ("0::/\n", {"memory_max": "max"}, 16, 8),
        ("0::/a/b\n", {"a__b__memory_max": "max", "a__memory_max": 4 * GIB, "a__memory_current": GIB}, 4, 3),
        # In a container the path may be the host's, and what is mounted is the container's own group.
        ("0::/docker/x\n", {"memory_max": 2 * GIB, "memory_current": GIB}, 2, 1),
        # What the system may drop of files is free.
        (
            "0::/\n",
            {
                "memory_max": 8 * GIB,
                "memory_current": 7 * GIB,
                "memory_stat": f"anon 5\nfile {6 * GIB}\ninactive_file {2 * GIB}\nactive_file {GIB}",
            },
            8,
            4,
        ),
        (
            "9:cpu:/\n4:memory:/x\n",
            {
                "memory__x__memory_limit_in_bytes": 3 * GIB,
                "memory__x__memory_usage_in_bytes": 2 * GIB,
                "memory__x__memory_stat": f"total_inactive_file {GIB}\ntotal_active_file 0",
                "memory__memory_limit_in_bytes": 2**63 - 4096,
                "memory__memory_usage_in_bytes": 9 * GIB,
            },
            3,
            2,
        ),
    ],
)
def test_what_there_is(tmp_path: Path, cgroup: str, files: dict[str, Any], total: int, free: int) -> None:
    root = machine(tmp_path, 16 * GIB, 8 * GIB, cgroup, **files)
    assert (total_bytes(root), free_bytes(root)) == (total * GIB, free * GIB)


def test_an_address_space_that_is_limited_counts() -> None:
    code = "from distbp.engine.memory_need import total_bytes; print(total_bytes())"
    limit = 3 * GIB

    def less() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    found = subprocess.run([sys.executable, "-c", code], preexec_fn=less, capture_output=True, text=True)
    assert int(found.stdout) == min(limit, total_bytes())


@pytest.mark.parametrize(
    ("units", "more", "path", "words"),
    [
        ((100_000, 100_000), {}, "model.layers.1", "make the layers narrower"),
        ((10**9,), {}, "model.layers.0", "optimizer state"),
        ((10**12, 10**12), {}, "model.layers.1", "EiB"),
        ((10**12, 10**12), {"dtype": "float64", "optimizer": "sgd"}, "model.layers.1", "parameters"),
        ((2000, 3), {"batch_size": 2**24, "data": {}}, "batch_size", "values of a batch"),
        (
            (10_000, 10_000, 3),
            {"shards": 1024, "workers": 1024, "batch_size": 1024, "optimizer": "sgd"},
            "model.layers.1",
            "fewer shards or workers",
        ),
    ],
)
def test_jobs_that_need_too_much(units: tuple[int, ...], more: dict[str, Any], path: str, words: str) -> None:
    need = needed(job(*units, **more), (4,), {})
    assert need is not None
    (fault,) = too_much(need, 16 * GIB, "this machine has {}")
    assert fault.path == path and words in fault.message
    assert f"needs {size(need.total)} of memory (" in fault.message
    assert "and this machine has 16.0 GiB" in fault.message
    assert too_much(need, need.total, "this machine has {}") == []


def test_the_parts_of_a_need() -> None:
    plain = needed(job(1000, 3, optimizer="sgd"), (1000,), {"train": 50})
    adam = needed(job(1000, 3, optimizer="adam"), (1000,), {"train": 50}, data=7)
    assert plain is not None and adam is not None
    vector = 4 * (1000 * 1000 + 1000 + 3000 + 3)
    assert plain.parts["parameters"] == 2 * vector and plain.parts["optimizer state"] == 0
    assert adam.parts["optimizer state"] == 4 * vector
    assert plain.parts["gradients"] == vector and adam.parts["data"] == 7
    rows, folds = (
        {"train": 50, "validation": 10, "test": 9},
        {"members": 3, "early_stopping": {"fold": "each"}},
    )
    apart = needed(job(5, 3, **folds, data={}), (1000,), rows, data=7, threads=2)
    assert apart is not None and apart.parts["data"] == 7 + 2 * 60 * 1000 * 4
    assert needed(job(5, 3), None, {}) is not None  # the inputs are not known: no fewer than one
    image = job(5, 3)
    assert needed(image, (2, 2), {}) is None  # said elsewhere: the shapes do not fit


def test_states_that_are_carried_from_window_to_window_count() -> None:
    layers = [{"type": "lstm", "units": 100, "return_sequences": True}, {"type": "dense_steps", "units": 1}]
    fields = {"model": {"layers": layers}, "loss": "mse", "batch_size": 64, "workers": 2, "shards": 4}
    whole, cut = (
        needed(TrainingJob.from_mapping({**fields, "data": data}), (10, 3), {"train": 1000})
        for data in ({}, {"truncated_bptt_steps": 10})
    )
    assert whole is not None and cut is not None
    states = 64 * 200 * 4  # of each row of a batch the state and the cell
    assert cut.parts["parameters"] - whole.parts["parameters"] == 2 * states
    assert cut.parts["gradients"] - whole.parts["gradients"] == 5 * states


@pytest.mark.heavy
def test_an_estimate_is_no_more_than_what_training_takes(tmp_path: Path) -> None:
    """Nobody may be refused who would fit: the peak of a run is above the need."""
    code = r"""
import re, numpy as np, distbp
from distbp.engine.memory_need import needed
layers = [{"type": "dense", "units": n} for n in (2000, 2000, 3)]
job = distbp.TrainingJob.from_mapping({"model": {"layers": layers}, "loss": "softmax_cross_entropy",
    "batch_size": 8, "max_steps": 2, "workers": 0, "optimizer": "adam", "shards": 1})
x, y = np.ones((16, 500), np.float32), np.arange(16) % 3
peak = lambda: 1024 * int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
before = peak()
distbp.train(job, data=(x, y), output="run")
print(needed(job, (500,), {"train": 16}).total, peak() - before)
"""
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    need, took = map(int, found.stdout.split())
    assert 0.3 * took < need < took


def test_more_than_there_is_and_more_than_is_free_are_told_apart(tmp_path: Path) -> None:
    root = machine(tmp_path, 16 * GIB, 2 * GIB)
    need = needed(job(16_000, 16_000), (4,), {})
    with pytest.raises(
        NoMemoryError, match=r"needs 6\.7 GiB of memory \(.*\), and 2.0 GiB of 16.0 GiB is free now"
    ):
        check_memory(need, root)
    with pytest.raises(
        JobError, match=r"needs .* of memory \(.*\), and this process may have 16.0 GiB"
    ) as error:
        check_memory(needed(job(10**6, 10**6), (4,), {}), root)
    assert not isinstance(error.value, NoMemoryError)
    check_memory(needed(job(100, 3), (4,), {}), root)


@pytest.mark.parametrize("units", ["100000, 100000", "1000000000", "1000000000000, 1000000000000"])
def test_train_and_validate_refuse_in_words(tmp_path: Path, units: str) -> None:
    layers = ", ".join(f"{{type: dense, units: {n}}}" for n in units.split(", "))
    text = f"data: {{train: {{format: blobs}}}}\nmodel: {{layers: [{layers}]}}\nloss: mse\n"
    (tmp_path / "job.yaml").write_text(text)
    for words in (["validate"], ["validate", "--no-data"], ["train", "--output", str(tmp_path / "run")]):
        found = CliRunner().invoke(cli.group, [*words, str(tmp_path / "job.yaml")])
        assert found.exit_code == 2, found.output
        assert "of memory (" in found.output and "this process may have" in found.output
        assert "Traceback" not in found.output
    assert not (tmp_path / "run").exists()


def test_class_weights_of_very_many_classes_take_no_time() -> None:
    wide = job(10**12, class_weight="balanced", data={})
    with pytest.raises(JobError, match="of memory"):
        train(wide, data=(np.ones((8, 4), np.float32), np.arange(8) % 3))


def test_running_out_all_the_same_is_said_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def out(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 40.0 GiB")

    monkeypatch.setattr(memory_need, "needed", out)
    monkeypatch.setattr("distbp.run.train.needed", out)
    (tmp_path / "job.yaml").write_text(
        "data: {train: {format: blobs}}\nmodel: {layers: [{type: dense, units: 3}]}\nloss: mse\n"
    )
    found = CliRunner().invoke(cli.group, ["validate", str(tmp_path / "job.yaml")])
    assert found.exit_code == 2
    assert found.stderr == "error: the memory of this machine ran out: Unable to allocate 40.0 GiB\n"
