"""Asking a run for workers, or to stop, while it trains."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rigs import classes, make_job

from distbp import Control, cli, events, resume, train
from distbp.control import CONTROL, NOTHING, Request, scale_run, take_file
from distbp.errors import Interrupted, StorageError
from distbp.exchange.inline import InlineTeam
from distbp.run_directory import RunDirectory, read_lines
from distbp.teams import TeamMaker

DATA = classes(70)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    monkeypatch.setattr("distbp.curves.draw", lambda lines, path: None)
    monkeypatch.setattr("distbp.trainer.REQUESTS_S", 0.0)  # after every stretch


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
    assert said[0].stdout == (f"asked for 3 workers; what came of it will stand in {run / 'events.jsonl'}\n")
    assert result.workers == 3
    assert not [p.name for p in run.iterdir() if "control" in p.name]


def test_a_team_that_cannot_says_why(tmp_path: Path, elastic: None) -> None:
    control = Control()
    train(
        job(), data=DATA, output=tmp_path / "run", control=control,
        listener=at_epoch(1, lambda: control.scale(9)),
    )  # fmt: skip
    assert reasons(tmp_path / "run") == ["9 workers were asked for, but cannot be, because there are 8 CPUs"]


def test_an_inline_team_says_what_to_do(tmp_path: Path) -> None:
    control = Control()
    train(
        job(), data=DATA, output=tmp_path / "run", control=control,
        listener=at_epoch(1, lambda: control.scale(2)),
    )  # fmt: skip
    assert reasons(tmp_path / "run") == [
        "2 workers were asked for, but cannot be, because this process computes everything itself. Stop it"
        " (Ctrl-C), and go on with: distbp resume RUN_DIR --workers 2"
    ]


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
        assert take_file(driven) == Request(4)
        assert take_file(driven) == NOTHING


@pytest.mark.parametrize("text", ["", "{", "[]", '{"workers": -1}', '{"workers": true}', '{"other": 1}'])
def test_files_that_make_no_sense_ask_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / CONTROL).write_text(text)
    assert take_file(tmp_path) == NOTHING
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
    assert control.take() == Request(3, True)
    assert control.take() == NOTHING
    assert pickle.loads(pickle.dumps(NOTHING)) == NOTHING
