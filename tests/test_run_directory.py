"""The run directory: what is refused, what stays after a crash, and the same bytes after a resume."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disks import WatchedDisk, dies_at, fails_from, in_child
from hypothesis import given
from hypothesis import strategies as st

from distbp.core.errors import CheckpointError, StorageError
from distbp.core.storage import Disk
from distbp.run.run_directory import (
    METRICS,
    RunDirectory,
    is_run,
    job_text,
    json_line,
    read_lines,
    read_result,
)

JOB = "name: é\n"


def test_a_new_run(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one"
    with RunDirectory.create(path, JOB, clock=lambda: 1_700_000_000.25) as run:
        run.append_event("started", workers=2, path=path)
        run.append_metric(
            {"train_loss": np.float32(0.1), "epoch": 1, "step": np.int64(3), "bad": float("nan")}
        )
        assert job_text(path) == JOB
        assert is_run(path)
        # At once, for `tail -f`:
        assert read_lines(path / METRICS) == [
            {"step": 3, "epoch": 1, "bad": None, "train_loss": 0.10000000149011612}
        ]
        assert (path / "events.jsonl").read_text() == (
            f'{{"time": "2023-11-14T22:13:20.250Z", "event": "started", "path": "{path}", "workers": 2}}\n'
        )
        assert read_result(path) is None
        run.write_result({"status": "done", "metrics": {"loss": np.float64(0.5), "auc": float("inf")}})
        assert read_result(path) == {"status": "done", "metrics": {"loss": 0.5, "auc": None}}
        assert run.checkpoints == path / "checkpoints"
        assert run.model == path / "model"
    run.close()  # again is fine
    assert sorted(p.name for p in path.iterdir()) == [
        ".lock",
        "events.jsonl",
        "job.yaml",
        "metrics.jsonl",
        "result.json",
    ]


def test_metrics_lines_are_spelled_one_way() -> None:
    record = {"b": 0.1 + 0.2, "epoch": 2, "a": [np.float64(1), True], "step": 7, "who": "é"}
    line = b'{"step": 7, "epoch": 2, "a": [1.0, true], "b": 0.30000000000000004, "who": "\xc3\xa9"}\n'
    assert json_line(record) == line
    assert json_line(dict(reversed(record.items()))) == line


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False) | st.integers()
    )
)
def test_lines_keep_every_bit(record: dict[str, float]) -> None:
    back = json.loads(json_line(record))
    assert back == {k: None if v in (float("inf"), float("-inf")) else v for k, v in record.items()}
    assert json_line(record).count(b"\n") == 1


# ---------------------------------------------------------------- refusals


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(
        StorageError, match=r"is not empty \(it holds thesis.tex\) and is not a run directory"
    ):
        RunDirectory.create(tmp_path, JOB)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, JOB).close()
    with pytest.raises(
        StorageError, match=r"holds a run already. Go on with it: distbp resume .*; or choose"
    ):
        RunDirectory.create(tmp_path, "name: other\n")
    assert (tmp_path / "job.yaml").read_text() == JOB


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="a part of the path is a file, not a folder"):
        RunDirectory.create(tmp_path / "file", JOB)


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"is not a run directory \(it has no job.yaml\); give the folder"):
        RunDirectory.open(tmp_path)
    with pytest.raises(StorageError, match="does not exist; give the folder that 'distbp train' wrote to"):
        RunDirectory.open(tmp_path / "absent")


def test_two_cannot_drive_one_run(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", JOB):
        message = (
            f"is in use by process {os.getpid()}: two processes cannot drive one run. Wait until it ends"
        )
        with pytest.raises(StorageError, match=message):
            RunDirectory.open(tmp_path / "run")
        script = (
            "import sys; from pathlib import Path; from distbp.run.run_directory import RunDirectory as R;"
        )
        script += "R.open(Path(sys.argv[1]))"
        other = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "run")],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        assert message in other.stderr
    RunDirectory.open(tmp_path / "run").close()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = (
        "import sys, os; from pathlib import Path; from distbp.run.run_directory import RunDirectory as R;"
    )
    script += "r = R.create(Path(sys.argv[1]), 'x'); os.kill(os.getpid(), 9)"
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    assert subprocess.run(command, cwd=Path(__file__).parents[1]).returncode == -9
    RunDirectory.open(tmp_path / "run").close()


def test_of_two_that_create_one_run_one_wins(tmp_path: Path) -> None:
    outcomes: list[object] = []

    def create() -> None:
        try:
            outcomes.append(RunDirectory.create(tmp_path / "run", JOB))
        except StorageError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [run for run in outcomes if isinstance(run, RunDirectory)]
    assert len(winners) == 1
    assert sum("in use by process" in str(o) or "holds a run already" in str(o) for o in outcomes) == 3
    winners[0].close()


# ---------------------------------------------------------------- resuming


def drive(run: RunDirectory, steps: range) -> None:
    for step in steps:
        run.append_metric({"step": step, "loss": 1 / (step + 1)})


@given(st.integers(0, 9), st.integers(0, 9), st.binary(max_size=9).filter(lambda b: b"\n" not in b))
def test_a_resumed_run_leaves_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, saved: int, more: int, torn: bytes
) -> None:
    folder = tmp_path_factory.mktemp("resume")
    with RunDirectory.create(folder / "whole", JOB) as run:
        drive(run, range(12))
    with RunDirectory.create(folder / "killed", JOB) as run:
        drive(run, range(saved))
        seal = run.metrics_seal()
        drive(run, range(saved, saved + more))
    with (folder / "killed" / METRICS).open("ab") as file:
        file.write(torn)
    with RunDirectory.open(folder / "killed") as run:
        run.rewind_metrics(*seal)
        drive(run, range(saved, 12))
        assert run.metrics_seal()[1] == hashlib.sha256((folder / "whole" / METRICS).read_bytes()).hexdigest()
    assert (folder / "killed" / METRICS).read_bytes() == (folder / "whole" / METRICS).read_bytes()


def test_torn_last_lines_go_when_the_run_is_opened(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, JOB).close()
    (tmp_path / "events.jsonl").write_bytes(b'{"event": "a"}\n{"event": ')
    assert read_lines(tmp_path / "events.jsonl") == [{"event": "a"}]
    with RunDirectory.open(tmp_path) as run:
        run.append_event("b")
    assert [line["event"] for line in read_lines(tmp_path / "events.jsonl")] == ["a", "b"]
    assert read_lines(tmp_path / "absent.jsonl") == []


@pytest.mark.parametrize("damage", [b"", b'{"step": 0', b'{"step": 0, "loss": 1.5}\n' + b"x" * 40, 1])
def test_metrics_that_were_changed_are_not_cut(tmp_path: Path, damage: bytes | int) -> None:
    with RunDirectory.create(tmp_path, JOB) as run:
        drive(run, range(2))
        seal = run.metrics_seal()
        if isinstance(damage, int):  # one digit of a value, and the file is as long as before
            damage = (tmp_path / METRICS).read_bytes().replace(b"0.5", b"0.4")
        (tmp_path / METRICS).write_bytes(damage)
        with pytest.raises(
            CheckpointError, match=f"its first {seal[0]} bytes are not what they were. Put the file back"
        ):
            run.rewind_metrics(*seal)
        assert (tmp_path / METRICS).read_bytes() == damage


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "a link": lambda file: file.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "endless": lambda file: (file.touch(), os.truncate(file, 1 << 42)),
}


@pytest.mark.parametrize("name", ["job.yaml", "events.jsonl", METRICS, "result.json", ".lock"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_file_of_a_run_is_refused_unread(tmp_path: Path, name: str, kind: str) -> None:
    RunDirectory.create(tmp_path, JOB).close()
    (tmp_path / name).unlink(missing_ok=True)
    HOSTILE[kind](tmp_path / name)
    if (name, kind) == (".lock", "endless"):  # never read, but by who finds it locked
        RunDirectory.open(tmp_path).close()
        return
    with pytest.raises((StorageError, CheckpointError), match=r"is not a run directory|cannot be used: "):
        RunDirectory.open(tmp_path).close()
        read_result(tmp_path)
        job_text(tmp_path)


# ---------------------------------------------------------------- full disks and crashes


def session(path: Path, disk: Disk) -> None:
    run = (
        RunDirectory.create(path, JOB, disk=disk) if not is_run(path) else RunDirectory.open(path, disk=disk)
    )
    try:
        run.append_metric({"step": 1})
        run.append_event("saved", step=run.metrics_seal()[0])
        run.rewind_metrics(0)
        run.append_metric({"step": 1})
        run.write_result({"status": "done"})
    finally:
        run.close()


def check_readable(path: Path) -> None:
    assert read_lines(path / METRICS) in ([], [{"step": 1}])
    assert len(read_lines(path / "events.jsonl")) <= 1
    assert read_result(path) in (None, {"status": "done"})
    assert not is_run(path) or (path / "job.yaml").read_text() == JOB


@pytest.mark.heavy
def test_killed_at_every_call(tmp_path: Path) -> None:
    counter = WatchedDisk(lambda number, name, arguments: None)
    session(tmp_path / "rehearsal", counter)
    for n in range(1, counter.count + 1):
        path = tmp_path / str(n)
        assert in_child(lambda n=n, path=path: session(path, dies_at(n, die=lambda: os._exit(7)))) == 7
        check_readable(path)
        with RunDirectory.open(path) if is_run(path) else RunDirectory.create(path, JOB) as run:
            run.rewind_metrics(0)
            run.append_metric({"step": 1})
        check_readable(path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_refused_at_every_change(tmp_path: Path, code: int) -> None:
    counter = WatchedDisk(lambda number, name, arguments: None)
    session(tmp_path / "rehearsal", counter)
    refused = 0
    for n in range(1, 30):
        path = tmp_path / str(n)
        try:
            session(path, fails_from(n, code, ("write", "fsync", "mkdir", "rename"), once=True))
        except StorageError as error:
            refused += 1
            assert str(error).startswith(("disk full: could not", "read-only disk: could not"))
        check_readable(path) if path.exists() else None
    assert refused >= 10


def test_a_line_that_did_not_fit_leaves_no_half(tmp_path: Path) -> None:
    class Small(Disk):
        """Takes half of a write, then is full."""

        full = False

        def write(self, fd: int, data: memoryview) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.full = len(data) > 20
            return super().write(fd, data[: len(data) // 2] if self.full else data)

    disk = Small()
    with RunDirectory.create(tmp_path, JOB, disk=disk) as run:
        run.append_metric({"step": 1})
        with pytest.raises(StorageError, match=r"disk full: could not write .*metrics\.jsonl"):
            run.append_metric({"step": 2, "text": "x" * 30})
        disk.full = False
        run.append_metric({"step": 3})
    assert (tmp_path / METRICS).read_text() == '{"step": 1}\n{"step": 3}\n'
