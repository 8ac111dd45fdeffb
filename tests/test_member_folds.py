"""Members that each measure on a fold of their own: `early_stopping.fold`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rigs import DATA, STATEFUL_JOB, files_of, make_job

from distbp import TrainingJob, resume, train
from distbp.core.errors import DataError, Interrupted, JobError
from distbp.core.interrupts import Control
from distbp.data.folds import fold_rows
from distbp.job.members import member_job
from distbp.model.folder import load_model
from distbp.run import events
from distbp.run.result import Result
from distbp.run.verify import verify_run

pytestmark = pytest.mark.usefixtures("numpy_kernels")
SINGLE = STATEFUL_JOB.replace(early_stopping={"patience": 2, "fold": "each"}, class_weight="balanced")
JOB = SINGLE.replace(members=3)


@pytest.fixture(scope="module")
def whole(numpy_kernels: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train(JOB, data=DATA, output=tmp_path_factory.mktemp("whole") / "run")


def test_network_0_measures_on_the_validation_set(whole: Result, tmp_path: Path) -> None:
    alone = train(SINGLE.replace(early_stopping={"patience": 2}), data=DATA, output=tmp_path / "alone")
    assert whole.members[0]["params_sha256"] == alone.params_sha256
    assert whole.members[0]["metrics"] == alone.metrics


def test_network_2_is_a_job_on_the_rows_of_fold_2(whole: Result, tmp_path: Path) -> None:
    """By hand: the same job without folds, on the rows that the fold leaves to train."""
    (x, y, weights), (x_validation, y_validation) = DATA["train"], DATA["validation"]
    trains, measures = fold_rows(len(y), len(y_validation), 2, y)
    both = [np.concatenate(pair) for pair in ((x, x_validation), (y, y_validation))]
    both.append(np.concatenate((weights, np.ones(len(y_validation)))))
    data = {
        "train": [each[trains] for each in both],
        "validation": [each[measures] for each in both],
        "test": DATA["test"],
    }
    job = member_job(JOB, 2)
    assert job.early_stopping is not None and job.early_stopping.fold == 2
    by_hand = train(job.replace(early_stopping={"patience": 2}), data=data, output=tmp_path / "hand")
    assert by_hand.params_sha256 == whole.members[2]["params_sha256"]
    assert by_hand.metrics == whole.members[2]["metrics"]
    alone = train(job, data=DATA, output=tmp_path / "alone")
    assert alone.params_sha256 == by_hand.params_sha256


def test_validation_metrics_are_means_and_test_metrics_of_the_mean(whole: Result) -> None:
    for name in ("train_loss", "validation_loss", "validation_accuracy"):
        mean = np.mean([one["metrics"][name] for one in whole.members])
        assert whole.metrics[name] == pytest.approx(mean)
    found = whole.model().evaluate(*DATA["test"])
    assert found == {name: whole.metrics[f"test_{name}"] for name in found}
    note = "each network measures on a fold of its own; validation metrics are means over networks"
    assert note in whole.notes


def test_the_same_bits_one_after_the_other(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTBP_PROCESSORS", "1")
    found = train(JOB, data=DATA, output=tmp_path / "run")
    assert files_of(found.path) == files_of(whole.path)
    assert found.metrics == whole.metrics


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(whole: Result, tmp_path: Path) -> None:
    control, path = Control(), tmp_path / "run"

    def listen(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded) and event.member:
            control.stop("the test")

    with pytest.raises(Interrupted):
        train(JOB, data=DATA, output=path, control=control, listener=listen)
    found = resume(path, data=DATA)
    assert files_of(found.path) == files_of(whole.path)
    assert found.metrics == whole.metrics


def test_verify(whole: Result, tmp_path: Path) -> None:
    assert verify_run(whole.path, data=DATA).equal
    assert verify_run(whole.path / "members/1", data=DATA).equal
    path = tmp_path / "run"
    shutil.copytree(whole.path, path)
    done = json.loads((path / "result.json").read_text())
    done["metrics"]["validation_loss"] -= 0.1
    (path / "result.json").write_text(json.dumps(done))
    assert "result.json says validation_loss" in verify_run(path, data=DATA).changed[0]


def test_r2_is_that_of_the_rows_of_the_fold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    y = x @ [1.0, 2.0] + rng.normal(size=60)
    job = make_job(
        ({"type": "dense", "units": 1},), loss="mse", epochs=3, members=2, metrics=["r2"], shards=1
    )
    job = job.replace(early_stopping={"fold": "each"})
    data = {"train": (x[:45], y[:45]), "validation": (x[45:], y[45:])}
    result = train(job, data=data, output=tmp_path / "run")
    measures = fold_rows(45, 15, 1)[1]
    own = Result.from_json(json.loads((result.path / "members/1/result.json").read_text()))
    predicted = load_model(result.path / "members/1/model").predict(x[measures]).ravel()
    there = y[measures]
    r2 = 1 - np.sum((there - predicted) ** 2) / np.sum((there - there.mean()) ** 2)
    assert own.metrics["validation_r2"] == pytest.approx(r2, abs=1e-5)


def kinds() -> Iterator[tuple[str, Any, Any, Any, dict[str, Any]]]:
    """(name, layers, inputs, targets of 40 rows, other fields of the job)."""
    rng = np.random.default_rng(0)
    x, values, turns = rng.normal(size=(40, 5)), rng.normal(size=40), np.arange(40) % 2
    one, two = {"type": "dense", "units": 1}, {"type": "dense", "units": 2}
    yield "text", [two], x, np.array(["a", "bbbb"])[turns], {"loss": "softmax_cross_entropy"}
    series = [rng.normal(size=(1 + number % 6, 3)) for number in range(40)]
    yield "lengths", [{"type": "elman", "units": 2}, one], series, values, {"loss": "mse"}
    outputs = [{**one, "name": "a"}, {**two, "name": "b", "inputs": ["input"]}]
    losses = {"a": "mse", "b": "softmax_cross_entropy"}
    yield "outputs", outputs, x, {"a": values, "b": turns}, {"loss": losses}
    images = rng.integers(0, 255, size=(40, 1, 4, 4)).astype(np.uint8)
    fields = {"loss": "sigmoid_cross_entropy", "data": {"scale": 255}}
    yield "images", [{"type": "flatten"}, one], images, turns, fields
    yield "whole batches", [one], x, values, {"loss": "mse", "optimizer": "lbfgs", "batch_size": "full"}


@pytest.mark.parametrize(
    ("layers", "x", "y", "fields"), [pytest.param(*rest, id=name) for name, *rest in kinds()]
)
def test_rows_of_any_kind(layers: Any, x: Any, y: Any, fields: dict[str, Any], tmp_path: Path) -> None:
    job = {"model": {"layers": layers}, "epochs": 2, "batch_size": 8, "workers": 0, "members": 3, **fields}
    job["early_stopping"] = {"fold": "each"}
    few = {name: part[:9] for name, part in y.items()} if isinstance(y, dict) else y[:9]
    if fields["loss"] == "sigmoid_cross_entropy":
        few = few * 1.0  # whole numbers train, and floats measure
    data = {"train": (x, y), "validation": (x[:9], few)}
    result = train(TrainingJob.from_mapping(job), data=data, output=tmp_path / "run")
    assert len({one["params_sha256"] for one in result.members}) == 3
    assert verify_run(result.path, data=data).equal


def test_restarts_measure_on_the_same_rows() -> None:
    plain = STATEFUL_JOB.replace(restarts=2)
    folds = plain.replace(early_stopping={"patience": 2, "fold": "each"})
    assert member_job(folds, 1).digest == member_job(plain, 1).digest


def test_the_digest_knows_folds_that_change_the_bits_only() -> None:
    def digest(members: int, fold: Any) -> str:
        return STATEFUL_JOB.replace(members=members, early_stopping={"patience": 2, "fold": fold}).digest

    assert {digest(1, None), digest(1, 0), digest(1, "each")} == {STATEFUL_JOB.digest}
    assert digest(2, None) == digest(2, 0)
    assert len({digest(2, None), digest(2, "each"), digest(2, 1), digest(1, 1)}) == 4


TABLE = {"train": {"format": "table", "path": "t.csv"}, "target": "y"}


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({**TABLE, "split": {"validation": 0.2}, "group": "g"}, "data.group"),
        ({**TABLE, "split": {"validation": 0.2, "by": "time"}, "time": "t"}, "data.time"),
        ({**TABLE, "split": {"validation": 0.2}, "windows": {"length": 3}, "time": "t"}, "data.windows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_that_are_kept_apart_are_not_mixed(data: Any, field: str) -> None:
    layers = [{"type": "dense", "units": 1}]
    if "windows" in data:
        layers = [{"type": "flatten"}, *layers]
    fields = {"data": data, "model": {"layers": layers}, "loss": "mse", "members": 2}
    TrainingJob.from_mapping({**fields, "early_stopping": {"fold": 0}})
    text = (
        f"early_stopping.fold: would mix rows that {field} keeps apart in training and validation; leave fold"
    )
    with pytest.raises(JobError, match=text.replace(".", r"\.")):
        TrainingJob.from_mapping({**fields, "early_stopping": {"fold": "each"}})


@pytest.mark.parametrize("fold", [-1, 100, "all", True, 1.5])
def test_folds_that_there_are_not(fold: Any) -> None:
    with pytest.raises(JobError, match=r"early_stopping\.fold: must be a whole number .*each"):
        STATEFUL_JOB.replace(early_stopping={"fold": fold})


def test_folds_need_validation_rows(tmp_path: Path) -> None:
    text = r"early_stopping\.fold: cuts .* but there is no validation set; give one, or leave fold out"
    for number, fold in enumerate(("each", 1)):
        job = JOB.replace(early_stopping={"metric": "train_loss", "fold": fold})
        with pytest.raises(JobError, match=text):
            train(job, data={"train": DATA["train"]}, output=tmp_path / str(number))


def test_rows_that_are_too_many_to_copy_are_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTBP_PREPARE_BYTES", "100")
    with pytest.raises(DataError, match=r"early_stopping\.fold copies the rows for every network, 0 MB"):
        train(JOB, data=DATA, output=tmp_path / "run")
    assert not (tmp_path / "run/members").exists()
