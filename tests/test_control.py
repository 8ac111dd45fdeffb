"""Asking a run for workers, or to stop, while it trains."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rigs import classes, make_job

from distbp import Control, resume, train
from distbp.cli import main as cli
from distbp.core.errors import ExchangeError, Interrupted, StorageError
from distbp.core.interrupts import SIGNALS, Interrupts, Terminated, terminate
from distbp.run import events
from distbp.run.checkpoint import list_steps
from distbp.run.control import CONTROL, Requests, scale_run, take_file
from distbp.run.run_directory import METRICS, RunDirectory, read_lines
from distbp.team.inline import InlineTeam
from distbp.team.maker import TeamMaker

DATA = classes(70)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    monkeypatch.setattr("distbp.run.control.REQUESTS_S", 0.0)  # after every stretch


class ElasticTeam(InlineTeam):
    """A fake: as if it had workers."""

    workers = 2  # type: ignore[assignment]

    def scale(self, workers: int) -> str | None:
        if workers > 8:
            return "there are 8 CPUs"
        self.workers = workers
        return None


@pytest.fixture
def elastic(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(self: TeamMaker, blueprint: Any, data: Any, start: Any, attempt: int, changed: Any) -> Any:
        return ElasticTeam(blueprint, data, start, attempt)

    monkeypatch.setattr(TeamMaker, "__call__", make)


def job(**fields: Any) -> Any:
    return make_job(epochs=6, batch_size=16, **fields)


def reasons(path: Path) -> list[str]:
    return [line["reason"] for line in read_lines(path / "events.jsonl") if line["event"] == "team_changed"]


def at_epoch(epoch: int, act: Callable[[], None]) -> Callable[[events.Event], None]:
    def listen(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded) and event.epoch == epoch:
            act()

    return listen


def test_scaling_by_control(tmp_path: Path, elastic: None) -> None:
    control = Control()
    run = tmp_path / "run"
    result = train(
        job(), data=DATA, output=run, control=control, listener=at_epoch(2, lambda: control.scale(5))
    )
    assert result.workers == 5
    assert reasons(run) == ["5 workers were asked for; there are 5 now"]
    assert result.params_sha256 == train(job(), data=DATA, output=tmp_path / "other").params_sha256


def test_scaling_by_the_command(tmp_path: Path, elastic: None) -> None:
    run = tmp_path / "run"
    said: list[Any] = []

    def scale() -> None:
        said.append(CliRunner().invoke(cli.group, ["scale", str(run), "--workers", "3"]))

    result = train(job(), data=DATA, output=run, listener=at_epoch(2, scale))
    assert said[0].exit_code == 0
    assert said[0].stdout == (f"asked for 3 workers; {run / 'events.jsonl'} will record the change\n")
    assert result.workers == 3
    assert not [p.name for p in run.iterdir() if "control" in p.name]


def test_a_team_that_cannot_says_why(tmp_path: Path, elastic: None) -> None:
    control = Control()
    train(
        job(), data=DATA, output=tmp_path / "run", control=control,
        listener=at_epoch(1, lambda: control.scale(9)),
    )  # fmt: skip
    why = "9 workers were asked for, but this is not possible: there are 8 CPUs"
    assert reasons(tmp_path / "run") == [why]


def test_a_team_of_one_process_becomes_another_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 workers, then 2, then 0: while it trains, to the same bits. (Real ones: tests/exchange.)"""
    left: list[str] = []
    monkeypatch.setattr(
        TeamMaker, "_on_ray",
        lambda self, blueprint, data, start, attempt, changed, workers: ElasticTeam(
            blueprint, data, start, attempt
        ),
    )  # fmt: skip
    monkeypatch.setattr(TeamMaker, "_leave_ray", lambda self: left.append("Ray"))
    control, run = Control(), tmp_path / "run"
    wanted = [2, 0]

    def listen(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded) and wanted:
            control.scale(wanted.pop(0))

    result = train(job(workers=0), data=DATA, output=run, control=control, listener=listen)
    assert reasons(run) == [
        "2 workers were asked for; there are 2 now",
        "0 workers were asked for; there are 0 now",
    ]
    assert left == ["Ray"]
    assert (result.workers, result.attempt) == (0, 1)
    assert result.params_sha256 == train(job(), data=DATA, output=tmp_path / "other").params_sha256


@pytest.mark.parametrize("stops", [False, True])
def test_where_workers_cannot_be_had_one_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    control, run = Control(), tmp_path / "run"

    def cannot(self: TeamMaker, *rest: Any) -> Any:
        if stops:
            control.stop()
            self._check()
        raise ExchangeError("Ray cannot be started on this machine: no")

    monkeypatch.setattr(TeamMaker, "_on_ray", cannot)
    listener = at_epoch(2, lambda: control.scale(2))
    if stops:
        with pytest.raises(Interrupted, match=r"^stopped by a call of stop\(\) after step \d+; a checkpoint"):
            train(job(workers=0), data=DATA, output=run, control=control, listener=listener)
        result = resume(run, data=DATA)
    else:
        result = train(job(workers=0), data=DATA, output=run, control=control, listener=listener)
    why = "the run is to stop" if stops else "Ray cannot be started on this machine: no"
    assert reasons(run) == [f"2 workers were asked for, but this is not possible: {why}"]
    assert result.params_sha256 == train(job(), data=DATA, output=tmp_path / "other").params_sha256


def test_stopped_while_its_workers_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a checkpoint to go on from, though no step was taken; and one of a run that goes on stays."""
    control, run = Control(), tmp_path / "run"

    def start(self: TeamMaker, *rest: Any) -> Any:
        self._control.stop("SIGTERM")
        self._check()

    with monkeypatch.context() as patch:
        patch.setattr(TeamMaker, "_on_ray", start)
        patch.setattr(TeamMaker, "__enter__", lambda self: self)
        with pytest.raises(Interrupted, match=r"^stopped by SIGTERM after step 0; a checkpoint was written"):
            train(job(), data=DATA, output=run, workers=2, control=control)
        with pytest.raises(Interrupted, match=r"^stopped by SIGTERM after step 0; a checkpoint was written"):
            resume(run, data=DATA, workers=2)
    assert list_steps(run / "checkpoints") == [0]
    done = resume(run, data=DATA)
    other = train(job(), data=DATA, output=tmp_path / "other")
    assert done.params_sha256 == other.params_sha256
    assert (run / METRICS).read_bytes() == (other.path / METRICS).read_bytes()


def test_stopped_before_it_began(tmp_path: Path) -> None:
    control = Control()
    control.stop()
    with pytest.raises(
        Interrupted,
        match=r"^stopped by a call of stop\(\) before training began. Nothing is lost; start it again$",
    ):
        train(job(), data=DATA, output=tmp_path / "run", control=control)
    assert not (tmp_path / "run").exists()
    train(job(), data=DATA, output=tmp_path / "run", listener=at_epoch(2, lambda: None))
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(Interrupted, match=r"before training began. Go on with: distbp resume .*run$"):
        resume(tmp_path / "run", data=DATA, control=control)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """It does not wait for the end of what may take long, and leaves nothing behind."""

    def read(*rest: Any, **more: Any) -> Any:
        os.kill(os.getpid(), number)
        pytest.fail("the signal came to nothing")

    monkeypatch.setattr("distbp.run.train.open_splits", read)
    former = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"^stopped by {number.name} before training began"):
        train(job(), data=DATA, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert signal.getsignal(number) == former


def test_stopping_for_the_second_time_and_by_another_changes_nothing() -> None:
    control = Control()
    with Interrupts(control):
        for number in (signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):  # Ctrl-C is for the impatient
            os.kill(os.getpid(), signal.SIGINT)
    assert control.stopped_by == "SIGTERM"


def test_a_command_that_was_stopped_is_not_interrupted_in_its_last_words() -> None:
    former = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        signal.signal(signal.SIGTERM, terminate)
        with Interrupts(Control()):
            pass
        assert signal.getsignal(signal.SIGTERM) is terminate
        with Interrupts(Control()):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        signal.signal(signal.SIGTERM, terminate)
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def test_stopping(tmp_path: Path) -> None:
    control = Control()
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match=r"^stopped by a call of stop\(\) after step \d+; a checkpoint was"):
        train(job(), data=DATA, output=run, control=control, listener=at_epoch(2, control.stop))
    done = resume(run, data=DATA, control=Control())
    assert done.params_sha256 == train(job(), data=DATA, output=tmp_path / "other").params_sha256


def test_a_request_meant_for_a_process_that_is_gone(tmp_path: Path, elastic: None) -> None:
    control = Control()
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(job(), data=DATA, output=run, control=control, listener=at_epoch(2, control.stop))
    (run / CONTROL).write_text('{"workers": 7}')
    assert resume(run, data=DATA).workers == 2
    assert not (run / CONTROL).exists()


# The file -----------------------------------------------------------------------------------------------


@pytest.fixture
def driven(tmp_path: Path) -> Path:
    """A run directory whose lock another process holds."""
    with RunDirectory.create(tmp_path / "run", "job"):
        pass
    return tmp_path / "run"


def test_the_last_request_counts(driven: Path) -> None:
    with RunDirectory.open(driven):
        scale_run(driven, 3)
        scale_run(driven, 4)
        assert take_file(driven) == 4
        assert take_file(driven) is None


def test_one_thread_at_a_time_takes_the_file(driven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one thread overwrites what another has taken and not read yet."""
    inside: list[Path] = []
    alone: list[bool] = []
    others: list[threading.Thread] = []

    def take(path: Path) -> int:
        inside.append(path)
        alone.append(len(inside) == 1)
        if not others:
            others.append(threading.Thread(target=requests.asked))
            others[0].start()
            others[0].join(0.1)  # whoever is let in needs far less
        inside.pop()
        return len(alone)

    requests = Requests(Control(), driven, clock=itertools.count(1).__next__)
    monkeypatch.setattr("distbp.run.control.take_file", take)
    requests.asked()
    others[0].join()
    assert alone == [True, True]
    assert requests.latest == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"workers": -1}', '{"workers": true}', '{"other": 1}'])
def test_files_that_make_no_sense_ask_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / CONTROL).write_text(text)
    assert take_file(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_who_cannot_be_asked(tmp_path: Path, driven: Path) -> None:
    with pytest.raises(StorageError, match=r"is not a run directory; give the folder that 'distbp train'"):
        scale_run(tmp_path, 2)
    with pytest.raises(StorageError, match=r"is not running.* distbp resume .*run --workers 2$"):
        scale_run(driven, 2)
    (driven / "result.json").write_text(json.dumps({"status": "completed"}))
    with pytest.raises(StorageError, match=r"has ended, so its workers cannot be changed$"):
        scale_run(driven, 2)
    assert not (driven / CONTROL).exists()


@pytest.mark.parametrize("workers", [-1, 4097, 2.0, True, "2"])
def test_numbers_that_are_none(workers: Any) -> None:
    with pytest.raises(ValueError, match="must be a whole number from 0 to 4096"):
        Control().scale(workers)


def test_requests_from_many_threads() -> None:
    control = Control()
    threads = [threading.Thread(target=control.scale, args=(3,)) for _ in range(8)]
    threads += [threading.Thread(target=control.stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (control.asked(), control.stopped_by) == (3, "a call of stop()")
    assert control.asked() is None
    control.scale(2)
    control.scale(4)
    assert control.asked() == 4  # the last one counts


def test_the_next_team_knows_what_was_asked_for_last(tmp_path: Path) -> None:
    control = Control()
    requests = Requests(control, tmp_path)
    assert (requests.asked(), requests.latest) == (None, None)
    control.scale(2)
    assert [requests.asked(), requests.asked(), requests.latest] == [2, None, 2]
    control.scale(3)
    assert [requests.asked(), requests.asked(), requests.latest] == [3, None, 3]
