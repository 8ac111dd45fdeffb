"""A run that is stopped, killed or damaged goes on to the same bits as one that was not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disks import in_child
from rigs import classes, make_job

from distbp import TrainingJob, resume, train
from distbp.core.errors import CheckpointError, DataError, Interrupted, JobError, StorageError
from distbp.core.storage import Disk
from distbp.engine.parameter_server import ParameterServer
from distbp.engine.worker import Worker
from distbp.run import events
from distbp.run.agreement import shard_changes
from distbp.run.blueprints import make_blueprint
from distbp.run.checkpoint import list_steps
from distbp.run.result import Result
from distbp.run.run_directory import is_run, read_lines
from distbp.run.splits import open_splits
from distbp.run.verify import verify_run

pytestmark = pytest.mark.usefixtures("numpy_kernels")
DATA = {"train": classes(70, weighted=True), "validation": classes(33, seed=1), "test": classes(20, seed=2)}
STEPS_PER_EPOCH = 5  # 4 of 16 rows and one of 6
LAYERS = (
    {"type": "dense", "units": 7, "activation": "tanh"},
    {"type": "dropout", "rate": 0.2},
    {"type": "batch_normalization"},
    {"type": "dense", "units": 3},
)
# State of every kind: slots, running statistics, dropout, plateau, patience, the best so far.
JOB = make_job(
    LAYERS,
    batch_size=16,
    shards=3,
    epochs=6,
    optimizer={
        "type": "adam",
        "learning_rate": 0.05,
        "schedule": {"type": "reduce_on_plateau", "patience": 0, "threshold": 0.2, "factor": 0.5},
    },
    early_stopping={"metric": "train_loss", "patience": 4},
    class_weight=[1, 2, 1.5],
    checkpoint={"every_steps": 3},
)


@pytest.fixture(scope="module")
def whole(numpy_kernels: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The run that nothing happened to."""
    return run(tmp_path_factory.mktemp("whole") / "run")


def run(path: Path, job: TrainingJob = JOB, listener: events.Listener | None = None) -> Result:
    return train(job, data=DATA, output=path, listener=listener)


def go_on(path: Path, listener: events.Listener | None = None) -> Result:
    """What somebody does who finds the run dead."""
    return resume(path, data=DATA, listener=listener) if is_run(path) else run(path, listener=listener)


def metrics_of(result: Result) -> bytes:
    return (result.path / "metrics.jsonl").read_bytes()


def assert_same(result: Result, whole: Result) -> None:
    assert result.params_sha256 == whole.params_sha256
    assert metrics_of(result) == metrics_of(whole)
    assert dict(result.metrics) == dict(whole.metrics)
    assert (result.status, result.steps, result.epochs) == (whole.status, whole.steps, whole.epochs)
    weights = "model/weights.safetensors"
    assert (result.path / weights).read_bytes() == (whole.path / weights).read_bytes()


def stop_at(step: int, number: int = signal.SIGTERM) -> Callable[[], None]:
    """Within a step, a signal to this process."""
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Calls a function just before a step is applied, once."""

    def arrange(step: int, action: Callable[[], None]) -> None:
        apply = ParameterServer.apply
        waiting = [action]

        def watched(self: ParameterServer, number: int, *rest: Any) -> None:
            if number == step and waiting:
                waiting.pop()()
            apply(self, number, *rest)

        monkeypatch.setattr(ParameterServer, "apply", watched)

    return arrange


# Signals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("step", [0, 6, 9, 29])
def test_a_signal_writes_a_checkpoint_and_the_run_goes_on_from_it(
    whole: Result, tmp_path: Path, at_step: Any, name: str, step: int
) -> None:
    path = tmp_path / "run"
    former = signal.getsignal(signal.SIGTERM)
    at_step(step, stop_at(step, getattr(signal, name)))
    if step == 29:  # the last step: there is nothing left to interrupt
        assert_same(run(path), whole)
        return
    with pytest.raises(Interrupted) as caught:
        run(path)
    assert (caught.value.step, caught.value.run_dir, caught.value.signal_name) == (step + 1, str(path), name)
    assert list_steps(path / "checkpoints")[-1] == step + 1
    assert signal.getsignal(signal.SIGTERM) == former
    told: list[events.Event] = []
    result = resume(path, data=DATA, listener=told.append)
    assert_same(result, whole)
    started = next(event for event in told if not isinstance(event, events.Waiting))
    assert isinstance(started, events.Started)
    assert (started.first_step, started.attempt, result.attempt) == (step + 1, 2, 2)


def test_a_signal_before_the_first_step(whole: Result, tmp_path: Path) -> None:
    def listener(event: events.Event) -> None:
        if isinstance(event, events.Started):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped by SIGINT after step 0"):
        run(tmp_path / "run", listener=listener)
    assert_same(resume(tmp_path / "run", data=DATA), whole)


def test_stopped_again_and_again(whole: Result, tmp_path: Path) -> None:
    path, chooser, stops = tmp_path / "run", random.Random(3), 0

    def listener(event: events.Event) -> None:
        often = isinstance(event, events.Progressed | events.EpochEnded | events.CheckpointSaved)
        if often and chooser.random() < 0.4:
            os.kill(os.getpid(), signal.SIGTERM)

    while True:
        try:
            result = go_on(path, listener)
            break
        except Interrupted:
            stops += 1
    assert stops > 3
    assert result.attempt == stops + 1
    assert_same(result, whole)


# Death ---------------------------------------------------------------------------------------------------


class Points:
    """Counts the moments at which a process may die: before a shard's sums, before an update, and before
    every call on the disk. `act` is called at the chosen one."""

    def __init__(self, chosen: int = -1, act: Callable[[], None] = lambda: None) -> None:
        self.kinds: list[str] = []
        self._chosen, self._act = chosen, act

    def pass_by(self, kind: str) -> None:
        self.kinds.append(kind)
        if len(self.kinds) - 1 == self._chosen:
            self._act()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for owner, name in ((Worker, "compute"), (ParameterServer, "apply")):
            patch.setattr(owner, name, self._before(f"step {name}", getattr(owner, name)))
        for name in ("write", "fsync", "mkdir", "rename", "unlink", "truncate", "open"):
            patch.setattr(Disk, name, self._before(f"disk {name}", getattr(Disk, name)))

    def _before(self, kind: str, function: Any) -> Any:
        def watched(*arguments: Any, **named: Any) -> Any:
            self.pass_by(kind)
            return function(*arguments, **named)

        return watched


def killed(path: Path, point: int) -> bool:
    """Goes on with the run in a child that is killed with SIGKILL at `point`; False if it came to its end."""

    def child() -> None:
        Points(point, lambda: os.kill(os.getpid(), signal.SIGKILL)).install(pytest.MonkeyPatch())
        go_on(path)

    status = in_child(child)
    assert status in (0, -signal.SIGKILL)
    return status != 0


@pytest.fixture(scope="module")
def moments(numpy_kernels: None, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The kinds of all points of the whole run, in order."""
    points = Points()
    with pytest.MonkeyPatch.context() as patch:
        points.install(patch)
        run(tmp_path_factory.mktemp("counted") / "run")
    return points.kinds


@pytest.mark.parametrize("number", range(20))
def test_killed_anywhere_the_run_ends_with_the_same_bits(
    whole: Result, moments: list[str], tmp_path: Path, number: int
) -> None:
    kind = "step" if number % 2 else "disk"  # the latter also in the middle of checkpoints and of the model
    chooser = random.Random(1000 + number)
    point = chooser.choice([i for i, name in enumerate(moments) if name.startswith(kind)])
    path = tmp_path / "run"
    assert killed(path, point)
    if number % 4 == 0:
        killed(path, chooser.randrange(60))  # and once more, soon after it was taken up again
    assert_same(go_on(path), whole)
    assert not [p.name for p in (path / "checkpoints").iterdir() if not p.name.startswith("step-")]


# Damage --------------------------------------------------------------------------------------------------


def interrupted_run(path: Path, at_step: Any, step: int = 16) -> Path:
    at_step(step, stop_at(step))
    with pytest.raises(Interrupted):
        run(path)
    return path


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
    whole: Result, tmp_path: Path, at_step: Any
) -> None:
    path = interrupted_run(tmp_path / "run", at_step)
    newest = path / "checkpoints/step-00000017/state.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    told: list[events.Event] = []
    result = resume(path, data=DATA, listener=told.append)
    assert_same(result, whole)
    aside, started, *_ = (event for event in told if not isinstance(event, events.Waiting))
    assert isinstance(aside, events.CheckpointSetAside)
    assert "does not have the SHA-256" in aside.reason
    assert Path(aside.path).name == "damaged-step-00000017"
    assert isinstance(started, events.Started)
    assert started.first_step == 15
    logged = [line["event"] for line in read_lines(path / "events.jsonl")]
    assert "checkpoint_set_aside" in logged


def test_only_damaged_checkpoints(tmp_path: Path, at_step: Any) -> None:
    path = interrupted_run(tmp_path / "run", at_step)
    for state in path.glob("checkpoints/step-*/state.safetensors"):
        state.write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"every checkpoint in .* is damaged; train again from the start"
    ):
        resume(path, data=DATA)


def test_arrays_must_be_given_again(tmp_path: Path, at_step: Any) -> None:
    with pytest.raises(
        DataError, match=r"was begun with data from Python, such as arrays, which it does not keep; give"
    ):
        resume(interrupted_run(tmp_path / "run", at_step))


def edit(path: Path, old: str, new: str) -> None:
    text = (path / "job.yaml").read_text()
    assert old in text
    (path / "job.yaml").write_text(text.replace(old, new))


def test_a_changed_job_is_refused(tmp_path: Path, at_step: Any) -> None:
    path = interrupted_run(tmp_path / "run", at_step)
    edit(path, "learning_rate: 0.05", "learning_rate: 0.06")
    with pytest.raises(CheckpointError) as caught:
        resume(path, data=DATA)
    assert str(caught.value) == (
        "the checkpoint of step 17 was written for another job or other data:\n"
        "  the job: optimizer.learning_rate was 0.05, and is 0.06 in job.yaml\n"
        "Put them back as they were, or train in a fresh directory"
    )


def test_shards_that_another_version_would_choose_are_refused(
    tmp_path: Path, at_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(16, stop_at(16))
    with pytest.raises(Interrupted):
        train(JOB.replace(shards="auto"), data=DATA, output=tmp_path / "run")
    monkeypatch.setattr("distbp.job.training_job.automatic_shards", lambda *_: 4)
    told = "shards: auto is 4 with this version of distbp, and was 1 with the one that wrote it"
    with pytest.raises(CheckpointError) as caught:
        resume(tmp_path / "run", data=DATA)
    assert str(caught.value) == (
        f"the checkpoint of step 17 was written for another job or other data:\n  {told}\n"
        "Put them back as they were, or train in a fresh directory"
    )
    with pytest.raises(CheckpointError, match=rf"of step \d+: {told}\. Verify it with that one"):
        verify_run(tmp_path / "run", data=DATA)


@pytest.mark.parametrize(("steps", "said"), [(1, []), (50, ["was 1 with the one that wrote it"])])
def test_checkpoints_of_versions_that_did_not_say_their_shards(steps: int, said: list[str]) -> None:
    layers = ({"type": "dense_steps", "units": 128}, {"type": "flatten"}, {"type": "dense", "units": 3})
    job = make_job(layers, batch_size=32, shards="auto")
    x = np.zeros((64, steps, 128), np.float32)
    splits = open_splits(job, Path(), {"train": (x, np.arange(64) % 3)})
    found = shard_changes({}, make_blueprint(job, splits))
    assert len(found) == len(said) and all(part in text for part, text in zip(said, found, strict=True))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("change", ["inputs", "targets", "weights", "missing"])
def test_other_data_is_refused(tmp_path: Path, at_step: Any, split: str, change: str) -> None:
    path = interrupted_run(tmp_path / "run", at_step)
    x, y, *rest = DATA[split]
    how = f"the {change} of the {split} data are not what they were"
    given: dict[str, Any] = {
        **DATA,
        split: (x + (change == "inputs"), y[::-1] if change == "targets" else y, *rest),
    }
    if change == "weights":
        given[split] = (x, y) if rest else (x, y, np.ones(len(x)))
        how = f"the weights of the {split} data {'are gone' if rest else 'were added'}"
    if change == "missing":
        if split == "train":
            return  # said elsewhere
        del given[split]
        how = f"the {split} data is gone"
    with pytest.raises(CheckpointError) as caught:
        resume(path, data=given)
    assert str(caught.value) == (
        f"the checkpoint of step 17 was written for another job or other data:\n  {how}\n"
        "Put them back as they were, or train in a fresh directory"
    )


def test_every_row_counts(tmp_path: Path, at_step: Any) -> None:
    """One label in 20,000: where a sample of rows was compared, most of them could be changed."""
    x, y = classes(20_000)
    job = make_job(batch_size=1000, epochs=2)
    at_step(3, stop_at(3))
    with pytest.raises(Interrupted):
        train(job, data=(x, y), output=tmp_path / "run")
    other = y.copy()
    other[12_347] = (other[12_347] + 1) % 3
    with pytest.raises(CheckpointError, match="the targets of the train data are not what they were"):
        resume(tmp_path / "run", data=(x, other))
    assert resume(tmp_path / "run", data=(x, y)).steps == 40


def test_a_split_that_was_added_is_refused(tmp_path: Path, at_step: Any) -> None:
    at_step(3, stop_at(3))
    with pytest.raises(Interrupted):
        train(make_job(epochs=3), data=DATA["train"], output=tmp_path / "run")
    with pytest.raises(CheckpointError, match="the test data was added"):
        resume(tmp_path / "run", data={"train": DATA["train"], "test": DATA["test"]})


def test_a_job_that_became_wrong_is_refused_by_name(tmp_path: Path, at_step: Any) -> None:
    path = interrupted_run(tmp_path / "run", at_step)
    edit(path, "learning_rate: 0.05", "learning_rate: -1")
    with pytest.raises(JobError, match=r"job\.yaml has 1 fault:\n  optimizer\.learning_rate"):
        resume(path, data=DATA)


def test_what_cannot_change_the_result_may_be_changed(whole: Result, tmp_path: Path, at_step: Any) -> None:
    path = interrupted_run(tmp_path / "run", at_step)
    edit(path, "every_steps: 3", "every_steps: 50")
    assert_same(resume(path, data=DATA), whole)


@pytest.mark.parametrize("old", [b"train_loss", b"0."])
def test_metrics_that_were_changed_are_refused(tmp_path: Path, at_step: Any, old: bytes) -> None:
    path = interrupted_run(tmp_path / "run", at_step)
    lines = (path / "metrics.jsonl").read_bytes()
    (path / "metrics.jsonl").write_bytes(lines.replace(old, old[:-1] + b"1", 1))
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl was changed after the checkpoint was saved"):
        resume(path, data=DATA)


# The end of a run ----------------------------------------------------------------------------------------


def test_a_finished_run_gives_its_result(whole: Result) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole.path.rglob("*") if p.is_file() and p.name != ".lock"}
    again = resume(whole.path)  # not even the data is needed
    assert again == whole
    assert again.path == whole.path
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_run_directory_can_be_moved(whole: Result, tmp_path: Path, at_step: Any) -> None:
    path = interrupted_run(tmp_path / "run", at_step)
    moved = tmp_path / "elsewhere"
    path.rename(moved)
    result = resume(moved, data=DATA)
    assert result.path == moved
    assert_same(result, whole)


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist; give the folder that 'distbp train' wrote to"):
        resume(tmp_path / "none")


def test_two_processes_cannot_drive_one_run(tmp_path: Path) -> None:
    def listener(event: events.Event) -> None:
        if isinstance(event, events.Started):
            with pytest.raises(StorageError, match=f"is in use by process {os.getpid()}"):
                resume(tmp_path / "run", data=DATA)

    run(tmp_path / "run", listener=listener)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("files")
    x, y, _ = DATA["train"]
    np.savez(folder / "train.npz", x=x, y=y)
    yield folder


def test_data_in_files_is_found_again_from_anywhere(
    files: Path, tmp_path: Path, at_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(
        data={
            "train": {"format": "npz", "path": "train.npz", "inputs": "x", "targets": "y"},
            "standardize": True,
        },
        epochs=3,
    )
    plain = train(job, folder=files, output=tmp_path / "plain")
    at_step(11, stop_at(11))
    with pytest.raises(Interrupted):
        train(job, folder=files, output=tmp_path / "run")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    shutil.move(tmp_path / "run", elsewhere / "run")
    result = resume("run")
    assert_same(result, plain)
    assert json.loads((elsewhere / "run/result.json").read_text())["params_sha256"] == plain.params_sha256


def test_the_run_of_these_tests_has_state_of_every_kind(whole: Result) -> None:
    lines = read_lines(whole.path / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert len({line["learning_rate"] for line in lines}) > 2  # reduced on plateau, and again
    losses = [line["train_loss"] for line in lines]
    assert whole.metrics["train_loss"] == min(losses) < losses[-1]  # the best weights were restored
