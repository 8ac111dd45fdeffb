"""A Ray of one's own: nobody else reaches it, it ends with its trainer however that ends, and a stop is heard
at any moment of it. Real processes, each with a Ray of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from leftovers import wait_for_end
from rigs import classes, make_job

from distbp import Control, resume, train
from distbp.core.errors import Interrupted
from distbp.run import events
from distbp.run.run_directory import METRICS
from distbp.team.ray import keeper as ray_keeper
from distbp.team.ray.session import RaySession

WAIT_S = 120.0
JOB = """
name: long
data: {train: {format: blobs, samples: 400, features: 4}}
model: {layers: [{type: dense, units: 3}]}
loss: softmax_cross_entropy
batch_size: 8
epochs: 1000000
shards: 2
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


class Training:
    """`distbp train --workers 1` in a process of its own, whose embedded Ray lies below `base`."""

    def __init__(self, base: Path, run: Path) -> None:
        self.base, self.run = base, run
        (base / "job.yaml").write_text(JOB)
        words = ["train", str(base / "job.yaml"), "--workers", "1", "--output", str(run), "--json"]
        mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "distbp.cli.main", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**mine, "TMPDIR": str(base)},
            start_new_session=True,
        )

    def read_until(self, event: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if json.loads(line)["event"] == event:
                return
        pytest.fail(f"it ended before {event}: {self.process.communicate()[1]}")

    def folder(self) -> Path | None:
        return next(self.base.glob("distbp-ray-*"), None)

    def processes(self) -> set[int]:
        """Everything that has a file of this Ray open."""
        folder = self.folder()
        return set(ray_keeper.holders(str(folder), "")) if folder else set()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        _, words = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, words


def until(happened: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := happened()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)
    return found


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    with short_folder() as base:
        made = Training(base, tmp_path / "run")
        try:
            yield made
        finally:
            made.process.kill()
            made.process.communicate()
            until(lambda: made.folder() is None, "the keeper removes the folder")


@contextmanager
def short_folder() -> Iterator[Path]:
    """Sockets want short paths: pytest's are too long."""
    base = Path(f"/tmp/db{os.getpid()}")
    base.mkdir(mode=0o755)
    try:
        yield base
    finally:
        (base / "job.yaml").unlink()
        base.rmdir()  # nothing else is left in it


def listening(processes: set[int]) -> set[str]:
    """Addresses, as the kernel writes them, at which these processes listen."""
    inodes = set()
    for process in processes:
        with suppress(OSError):
            for fd in Path(f"/proc/{process}/fd").iterdir():
                with suppress(OSError):
                    inodes.add(str(fd.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                found.add(words[1].rpartition(":")[0])
    return found


LOOPBACK = {
    "0100007F",  # 127.0.0.1
    "0000000000000000FFFF00000100007F",  # the same, for sockets of IPv6
    "00000000000000000000000001000000",  # ::1
}


def test_nobody_else_reaches_it_and_nothing_outlives_a_trainer_that_is_killed(training: Training) -> None:
    training.read_until("epoch_ended")
    folder = training.folder()
    assert folder is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.getuid()
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
    processes = training.processes()
    assert len(processes) >= 6, "trainer, GCS, raylet, two agents, a worker and more"
    lines = {process: Path(f"/proc/{process}/cmdline").read_text("utf-8") for process in processes}
    assert not [line for line in lines.values() if re.search(r"monitor\.py|dashboard\.py", line)]
    addresses = listening(processes)
    assert addresses and addresses <= LOOPBACK
    training.send(signal.SIGKILL)
    assert training.end()[0] == -signal.SIGKILL
    until(lambda: not folder.exists(), "the keeper removes the folder")
    for process in processes:
        wait_for_end(process, WAIT_S)
    assert not list(ray_keeper.holders(str(folder), ""))


def stopped(training: Training, begins: str = "stopped by SIGTERM after step ") -> None:
    """It ended as is promised for SIGTERM, and left no Ray; the run goes on."""
    code, words = training.end()
    assert (code, words.count("\n")) == (143, 1), words
    assert words.startswith(begins), words
    assert words.endswith(f"; a checkpoint was written. Go on with: distbp resume {training.run}\n")
    assert training.folder() is None
    control = Control()

    def listen(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded):
            control.stop()

    with pytest.raises(Interrupted):
        resume(training.run, workers=0, control=control, listener=listen)


def test_sigterm_twice_while_ray_starts(training: Training) -> None:
    until(lambda: (training.run / "job.yaml").exists() and training.processes(), "Ray begins to start")
    training.send(signal.SIGTERM)
    training.read_until("checkpoint_saved")
    training.send(signal.SIGTERM)
    stopped(training, "stopped by SIGTERM after step 0;")


def test_sigterm_while_it_trains_and_again_while_ray_ends(training: Training) -> None:
    training.read_until("epoch_ended")
    training.send(signal.SIGTERM)
    training.read_until("checkpoint_saved")
    while training.process.poll() is None:  # as often as it can be sent
        training.send(signal.SIGTERM)
    stopped(training)


def test_one_after_another_in_one_process_and_handlers_stay(tmp_path: Path) -> None:
    """Ray takes no signal from a program, and a second one needs the token of the first. A process that is
    forked then cannot use Ray, and is told of it."""
    program = """
import multiprocessing, signal, sys
from distbp import DistbpError, train
from test_embedded_ray import DATA, small
def heard(number, frame): raise SystemExit("heard")
signal.signal(signal.SIGTERM, heard)
print(*(train(small(), data=DATA, output=f"{sys.argv[1]}/{n}", workers=1).params_sha256 for n in (1, 2)))
def child():
    try: train(small(), data=DATA, output=f"{sys.argv[1]}/forked", workers=1)
    except DistbpError as error: print(error)
    print(train(small(), data=DATA, output=f"{sys.argv[1]}/alone", workers=0).params_sha256, flush=True)
sys.stdout.flush()
forked = multiprocessing.get_context("fork").Process(target=child)
forked.start()
forked.join()
signal.raise_signal(signal.SIGTERM)
"""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    mine |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=mine, capture_output=True, text=True
    )
    expected = train(small(), data=DATA, output=tmp_path / "inline", workers=0).params_sha256
    assert done.stdout.splitlines() == [
        f"{expected} {expected}",
        "this process was forked from one that had used Ray, so Ray would wait for ever in it. Start"
        " processes with multiprocessing.get_context('spawn'), or set workers: 0",
        expected,
    ], done.stderr
    assert (done.returncode, done.stderr) == (1, "heard\n")


DATA = classes(64)


def small() -> Any:
    return make_job(shards=2, epochs=2)


def test_what_was_dropped_is_freed_before_ray_ends(tmp_path: Path) -> None:
    """A reference to an object of Ray's that is freed while Ray ends makes Ray end the process."""
    script = tmp_path / "leaves.py"
    script.write_text(
        "import gc, weakref\n"
        "from distbp.team.ray.session import RaySession\n"
        "class Box: pass\n"
        "if __name__ == '__main__':\n"
        "    session = RaySession(1)\n"
        "    session.wait()\n"
        "    import ray\n"
        "    gc.disable()\n"
        "    box = Box()\n"
        "    box.itself, box.reference, found = box, ray.put(1), weakref.ref(box)\n"
        "    del box\n"
        "    end = ray.shutdown\n"
        "    ray.shutdown = lambda: print('freed' if found() is None else 'waits') or end()\n"
        "    session.leave()\n"
        "    session.close()\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "freed\n"), done.stderr


@pytest.mark.usefixtures("ray_here")
def test_a_team_of_one_process_gets_workers_and_gives_them_back(tmp_path: Path) -> None:
    control, wanted, run = Control(), [2, 1, 0], tmp_path / "run"
    had: list[int] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded) and event.epoch == 2 and wanted:
            control.scale(wanted.pop(0))
        elif isinstance(event, events.TeamChanged):
            found = re.search(r"asked for; there (?:is|are) (\d+) now", event.reason)
            had.append(int(found[1]) if found else -1)
            if wanted:
                control.scale(wanted.pop(0))

    job = make_job(shards=4, epochs=60, batch_size=8, optimizer={"type": "adam"})
    result = train(job, data=DATA, output=run, workers=0, control=control, listener=listen)
    other = train(job, data=DATA, output=tmp_path / "other", workers=0)
    assert result.params_sha256 == other.params_sha256
    assert result.attempt == 1
    assert next(n for n in had if n >= 0) == 2
    assert not wanted
    assert (run / METRICS).read_bytes() == (tmp_path / "other" / METRICS).read_bytes()


@pytest.mark.usefixtures("ray_here")
def test_workers_are_as_nice_as_the_trainer() -> None:
    """Ray's default, 15, leaves them 3 percent of a processor that another program uses too."""
    import ray

    @ray.remote(num_cpus=0)
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, 0)

    assert ray.get(niceness.remote()) == os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(("workers", "then"), [(0, 1), (2, 0)])
def test_another_team_at_the_end_of_an_epoch_changes_no_metric(
    workers: int, then: int, tmp_path: Path
) -> None:
    """The health of the last step is known to the team that made it."""
    control, moments = Control(), [16, 24]

    def listen(event: events.Event) -> None:
        if isinstance(event, events.Progressed) and event.step in moments:
            moments.remove(event.step)
            control.scale(then)

    job = make_job(shards=4, epochs=6, batch_size=8, optimizer={"type": "adam"})
    train(job, data=DATA, output=tmp_path / "run", workers=workers, control=control, listener=listen)
    train(job, data=DATA, output=tmp_path / "other", workers=0)
    assert not moments
    assert (tmp_path / "run" / METRICS).read_bytes() == (tmp_path / "other" / METRICS).read_bytes()


def test_a_folder_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from distbp.core.errors import ExchangeError
    from distbp.team.ray import session as ray_session

    monkeypatch.setattr(ray_session, "_place", lambda: tmp_path / "absent" / "folder")
    monkeypatch.setattr(ray_session, "_without_token", lambda: False)
    monkeypatch.setattr(ray_session, "_connected", lambda: False)
    session = RaySession(1)
    with pytest.raises(
        ExchangeError, match=r"Ray cannot be started on this machine: .*absent/folder: No such"
    ):
        session.wait()
    session.close()


@pytest.mark.parametrize(("failures", "tries"), [(2, 3), (9, 4)])
def test_a_ray_that_is_too_slow_to_start_is_started_again(
    monkeypatch: pytest.MonkeyPatch, failures: int, tries: int
) -> None:
    from distbp.core.errors import ExchangeError
    from distbp.team.ray import session as ray_session

    folders: list[Path] = []

    def connect(address: str | None, cpus: int, home: Path, folder_made: Callable[[], None]) -> None:
        folder_made()
        assert home.is_dir() and not any(home.iterdir())  # nothing of the one before
        (home / "token").touch()
        folders.append(home)
        if len(folders) <= failures:
            raise ExchangeError(
                "Ray cannot be started on this machine: The current node timed out during startup"
            )

    monkeypatch.setattr(ray_session, "_connect", connect)
    monkeypatch.setattr(ray_session, "_without_token", lambda: False)
    monkeypatch.setattr(ray_session, "_connected", lambda: False)
    # The real one must not be imported but by a session.
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(shutdown=lambda: None))
    session = RaySession(1)
    if failures < tries:
        session.wait()
    else:
        with pytest.raises(ExchangeError, match="timed out during startup"):
            session.wait()
    session.close()
    assert len(folders) == tries
    assert not folders[0].exists()
