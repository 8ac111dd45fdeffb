"""From arrays to a model and back: labels of every kind, class weights, links, names of columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from distbp import (
    Control,
    DistbpError,
    JobError,
    Result,
    TrainingJob,
    connect,
    load_model,
    resume,
    submit,
    train,
)
from distbp.cli.main import group
from distbp.core.errors import ArgumentError, DataError, ModelError, RemoteError
from distbp.run.control import scale_run
from distbp.run.events import Started
from distbp.run.gradcheck import check_job
from distbp.run.plan.plan import plan_job
from distbp.run.verify import verify_run

RNG = np.random.default_rng(3)
X = RNG.normal(size=(90, 3))
SIDE = (X[:, 0] + X[:, 1] > 0).astype(int)
WEIGHTS = RNG.uniform(0.1, 2, 90)


@pytest.fixture(autouse=True)
def _numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about kernels, and compiling takes time."""
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


def job(units: int = 2, loss: str = "softmax_cross_entropy", **fields: Any) -> TrainingJob:
    plain = {
        "model": {"layers": [{"type": "dense", "units": units}]},
        "loss": loss,
        "epochs": 2,
        "workers": 0,
    }
    return TrainingJob(**{**plain, "batch_size": 16, **fields})


def splits(labels: Any, weights: Any = None) -> dict[str, Any]:
    """Training, validation and test sets, the last two smaller."""
    rows = {"train": slice(0, 90), "validation": slice(0, 40), "test": slice(31, 90)}
    parts = [X, labels] if weights is None else [X, labels, weights]
    return {split: tuple(part[of] for part in parts) for split, of in rows.items()}


def same_as_training(result: Result, data: dict[str, Any]) -> None:
    """`Model.evaluate` gives the numbers of training, to the last bit."""
    model = result.model()
    for split in ("validation", "test"):
        x, y, *weights = data[split]
        found = model.evaluate(x, y, weights=weights[0] if weights else None)
        assert {f"{split}_{name}": value for name, value in found.items()} == {
            name: value for name, value in result.metrics.items() if name.startswith(split)
        }


def test_whole_numbers_are_values_to_mse(tmp_path: Path) -> None:
    whole = np.round(X @ [3, -5, 8]).astype(int)
    assert whole.min() < 0
    digests = {
        train(job(1, "mse"), data=(X, y), output=tmp_path / str(i)).params_sha256
        for i, y in enumerate(
            [whole, whole.astype(float), whole.astype(np.int8), whole.astype(np.float32)[:, None]]
        )
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("fields", "weighted"),
    [
        ({}, False),
        ({"class_weight": {0: 1, 1: 10}}, False),
        ({"class_weight": [0.5, 3]}, True),
        ({"class_weight": "balanced", "shards": 5, "dtype": "float64"}, True),
        ({"loss": "hinge", "units": 2, "metrics": ["auc", "f1", "accuracy"]}, True),
        ({"loss": "sigmoid_cross_entropy", "units": 1, "shards": 3}, True),
        ({"loss": "mse", "units": 2}, False),
    ],
)
def test_evaluate_is_what_training_reported(fields: dict[str, Any], weighted: bool, tmp_path: Path) -> None:
    data = splits(SIDE, WEIGHTS if weighted else None)
    same_as_training(train(job(**fields), data=data, output=tmp_path / "run"), data)


def test_evaluate_computes_as_training_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels of this machine, which are not NumPy's, where it has others."""
    monkeypatch.setenv("DISTBP_KERNELS", "auto")
    data = splits(SIDE, WEIGHTS)
    result = train(job(class_weight={0: 1, 1: 10}), data=data, output=tmp_path / "run")
    assert result.model().kernels == result.model().facts["kernels"]
    same_as_training(result, data)


def test_the_command_line_evaluates_as_training_did(tmp_path: Path) -> None:
    names = np.where(SIDE == 1, "spam", "ham")
    for split, arrays in splits(names, WEIGHTS).items():
        np.savez(
            tmp_path / f"{split}.npz", **dict(zip(("inputs", "targets", "weights"), arrays, strict=True))
        )
    data = {s: {"format": "npz", "path": f"{s}.npz", "weights": "weights"} for s in ("train", "validation")}
    result = train(
        job(data=data, class_weight={"spam": 7, "ham": 0.5}), folder=tmp_path, output=tmp_path / "run"
    )
    said = CliRunner().invoke(group, ["evaluate", str(tmp_path / "run"), "--split", "validation", "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.output)["loss"] == result.metrics["validation_loss"]
    said = CliRunner().invoke(
        group, ["predict", str(tmp_path / "run"), "--split", "train", "--probabilities"]
    )
    assert said.exit_code == 0, said.output
    rows = list(csv.DictReader(io.StringIO(said.output)))
    assert [row["prediction"] for row in rows] == result.model().predict(X).tolist()
    assert list(rows[0]) == ["row", "prediction", "probability_ham", "probability_spam"]


def test_the_command_line_leaves_out_the_rows_that_training_left_out(tmp_path: Path) -> None:
    x = X.astype(np.float64)
    x[3, 0] = 1e39  # beyond float32
    np.savez(tmp_path / "train.npz", inputs=x, targets=SIDE)
    data = {"train": {"format": "npz", "path": "train.npz"}, "bad_rows": "skip"}
    result = train(job(data=data, epochs=1), folder=tmp_path, output=tmp_path / "run")
    assert sum(result.skipped["train"].values()) == 1
    said = CliRunner().invoke(group, ["evaluate", str(tmp_path / "run"), "--split", "train"])
    assert said.exit_code == 0, said.output
    assert f"bad_rows: skip left out 1 of {len(X)} train rows" in said.output
    said = CliRunner().invoke(group, ["predict", str(tmp_path / "run"), "--split", "train"])
    assert said.exit_code == 0, said.output
    assert [int(row["row"]) for row in csv.DictReader(io.StringIO(said.output))][:4] == [0, 1, 2, 4]


@pytest.mark.parametrize(
    ("no", "yes"), [("no", "yes"), (False, True), (-1, 1), (10, 30)], ids=["text", "bool", "below 0", "gap"]
)
@pytest.mark.parametrize(("loss", "units"), [("nll", 2), ("quadratic", 2), ("binary_cross_entropy", 1)])
def test_predict_gives_the_labels_back(loss: str, units: int, no: Any, yes: Any, tmp_path: Path) -> None:
    if units == 1 and isinstance(no, int) and not isinstance(no, bool):
        pytest.skip("numbers are values to this loss")
    activation = {"nll": "softmax", "binary_cross_entropy": "sigmoid"}.get(loss, "linear")
    layers = [{"type": "dense", "units": units, "activation": activation}]
    data = splits(np.where(SIDE == 1, yes, no))
    fields = {"model": {"layers": layers}, "optimizer": {"type": "adam", "learning_rate": 0.05}, "epochs": 10}
    result = train(job(loss=loss, **fields), data=data, output=tmp_path / "run")
    model = result.model()
    assert model.classes == (no, yes)
    plain = train(job(loss=loss, **fields), data=splits(SIDE), output=tmp_path / "plain")
    assert plain.params_sha256 == result.params_sha256
    predicted = model.predict(X)
    assert set(predicted.tolist()) == {no, yes}
    assert (predicted == np.where(SIDE == 1, yes, no)).mean() > 0.9
    same_as_training(result, data)


def test_counts_are_predicted_as_counts(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, size=(2000, 2))
    rate = np.exp(x @ [1.5, -1.0] + 2)
    counts = np.random.default_rng(1).poisson(rate)
    fields = {"epochs": 30, "optimizer": {"type": "adam", "learning_rate": 0.05}}
    result = train(
        job(1, "poisson", metrics=["r2", "rmse", "mae"], **fields),
        data={"train": (x, counts), "validation": (x, rate)},
        output=tmp_path / "run",
    )
    predicted = result.model().predict(x)
    np.testing.assert_allclose(predicted, rate, rtol=0.3)
    error = predicted - rate
    assert result.metrics["validation_r2"] > 0.95
    assert result.metrics["validation_rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
    assert result.metrics["validation_mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    assert result.model().evaluate(x, rate)["r2"] == result.metrics["validation_r2"]


def test_targets_out_of_range_are_refused_before_training(tmp_path: Path) -> None:
    wrong = np.array(SIDE, float)
    wrong[7] = 3
    text = "row 7, column 0: sigmoid_cross_entropy takes targets from 0 to 1, but this one is 3"
    for split in ("train", "validation", "test"):
        with pytest.raises(DataError, match=f"the {split} arrays: {text}"):
            train(
                job(1, "sigmoid_cross_entropy"),
                data={"train": (X, SIDE), split: (X, wrong)},
                output=tmp_path / "run",
            )
    assert not (tmp_path / "run").exists()
    model = train(job(1, "sigmoid_cross_entropy"), data=(X, SIDE), output=tmp_path / "run").model()
    with pytest.raises(DataError, match=text):
        model.evaluate(X, wrong)


# Class weights ----------------------------------------------------------------------------------------------


def test_a_class_without_rows_is_balanced_with_weight_1_and_told(tmp_path: Path) -> None:
    said: list[Any] = []
    labels = np.repeat([0, 2], [60, 30])
    result = train(
        job(4, class_weight="balanced"), data=(X, labels), output=tmp_path / "run", listener=said.append
    )
    note = "no training row is of class 1, 3; class_weight: balanced gives it weight 1"
    assert result.model().class_weights == (90 / (2 * 60), 1, 90 / (2 * 30), 1)
    assert result.notes[0] == note  # and then what the verdict on so short a run is
    assert next(event for event in said if isinstance(event, Started)).notes == (note,)
    np.savez(tmp_path / "t.npz", inputs=X, targets=labels)
    file = tmp_path / "job.yaml"
    data = {"train": {"format": "npz", "path": "t.npz"}}
    file.write_text(job(4, class_weight="balanced", data=data).to_yaml())
    assert f"note: {note}" in CliRunner().invoke(group, ["validate", str(file)]).output


@pytest.mark.parametrize(
    ("labels", "given", "weights"),
    [
        (["no", "yes"], {"yes": 5}, (1, 5)),
        (["1", "2"], {1: 5, "2": 3}, (5, 3)),
        ([-1, 1], {-1: 5, 1: 3}, (5, 3)),
        ([10, 30], {"30": 3}, (1, 3)),
        ([False, True], {True: 3}, (1, 3)),
        ([False, True], {"True": 3, "false": 2}, (2, 3)),
        ([False, True], {0: 2, 1: 3}, (2, 3)),
        (["no", "yes"], np.array([2, 3]), (2, 3)),
        ([0, 1], {np.int64(1): np.float32(3)}, (1, 3)),
        ([0, 1], (2, 3), (2, 3)),
    ],
)
def test_class_weights_by_name(labels: Any, given: Any, weights: Any, tmp_path: Path) -> None:
    wanted = job(class_weight=given, epochs=1)
    assert TrainingJob.from_yaml(wanted.to_yaml()).class_weight == wanted.class_weight
    result = train(wanted, data=(X, np.array(labels)[SIDE]), output=tmp_path / "run")
    assert result.model().class_weights == weights


def test_a_series_of_class_weights_goes_by_its_index() -> None:
    pd = pytest.importorskip("pandas")
    assert job(class_weight=pd.Series([5, 2], index=[1, 0])).class_weight == {1: 5, 0: 2}


def test_class_weights_for_no_class(tmp_path: Path) -> None:
    with pytest.raises(
        JobError, match=r"class_weight.maybe: is not a class of the training set, which has a, b"
    ):
        train(job(class_weight={"maybe": 2}), data=(X, np.array(["a", "b"])[SIDE]), output=tmp_path / "run")
    with pytest.raises(
        JobError, match="class_weight: names class 1 twice, as a number and as text; keep one"
    ):
        job(class_weight={1: 5, "1": 2})
    for twice in ({1: 5, "true": 2}, {"True": 5, "true": 2}, {0: 5, "false": 2}):
        with pytest.raises(
            JobError, match=r"class_weight\.\w+: is the class that .* names too; write it once"
        ):
            train(job(class_weight=twice), data=(X, SIDE == 1), output=tmp_path / "run")
    with pytest.raises(JobError, match="class_weight: is 0 for every class, so nothing can be learned"):
        job(class_weight={0: 0, 1: 0})


@pytest.mark.parametrize(
    ("fields", "data", "split"),
    [
        ({"class_weight": {0: 0}}, {"train": (X, np.zeros(90, int))}, "train"),
        ({}, {"train": (X, SIDE, np.full(90, 1e-50))}, "train"),
        ({"class_weight": [1e-30, 1e-30]}, {"train": (X, SIDE, np.full(90, 1e-30))}, "train"),
        (
            {"class_weight": {0: 0}},
            {"train": (X, SIDE), "validation": (X, np.zeros(90, int))},
            "validation",
        ),
        ({}, {"train": (X, SIDE), "test": (X, SIDE, np.full(90, 1e-60))}, "test"),
    ],
)
def test_rows_that_weigh_nothing_are_refused(
    fields: dict[str, Any], data: dict[str, Any], split: str, tmp_path: Path
) -> None:
    with pytest.raises(
        DataError, match=f"the {split} arrays: all rows of the {split} set weigh 0 in float32"
    ):
        train(job(**fields), data=data, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Frames -----------------------------------------------------------------------------------------------------


def test_columns_of_a_frame_are_found_by_name(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=["age", "pay", "height"])
    shuffled = frame[["height", "age", "pay"]]
    labels = pd.Series(np.where(SIDE == 1, "yes", "no"), dtype="category")
    data = {"train": (frame, labels), "validation": (shuffled, labels)}
    result = train(job(data={"standardize": True}), data=data, output=tmp_path / "run")
    model = result.model()
    assert model.columns == ("age", "pay", "height")
    np.testing.assert_array_equal(model.outputs(shuffled), model.outputs(X))
    np.testing.assert_array_equal(model.predict_proba(shuffled), model.predict_proba(frame))
    same = model.evaluate(shuffled, labels)
    assert same["loss"] == result.metrics["validation_loss"] == model.evaluate(X, labels)["loss"]
    with pytest.raises(ModelError, match="the frame of inputs has no column 'pay'; training had the columns"):
        model.predict(frame[["age", "height"]])
    with pytest.raises(ModelError, match="has no column 'pay' and has a column 'Pay'; training had"):
        model.predict(frame.rename(columns={"pay": "Pay"}))
    with pytest.raises(ModelError, match="has a column 'more'; training had"):
        model.predict(frame.assign(more=1))
    with pytest.raises(DataError, match="the validation arrays has no column 'pay'"):
        train(
            job(),
            data={"train": (frame, labels), "validation": (frame[["age"]], labels)},
            output=tmp_path / "n",
        )


def test_columns_of_an_archive(tmp_path: Path) -> None:
    order = [2, 0, 1]
    names = np.array(["age", "pay", "height"])
    np.savez(tmp_path / "train.npz", inputs=X, targets=SIDE, columns=names)
    np.savez(tmp_path / "other.npz", inputs=X[:, order], targets=SIDE, columns=names[order])
    sources = {
        split: {"format": "npz", "path": f"{file}.npz", "columns": "columns"}
        for split, file in (("train", "train"), ("validation", "other"))
    }
    run = tmp_path / "run"
    result = train(job(data=sources), folder=tmp_path, output=run)
    found = result.model().evaluate(X, SIDE)
    assert found["loss"] == result.metrics["validation_loss"]
    other = json.dumps({**sources["validation"], "path": str(tmp_path / "other.npz")})
    said = CliRunner().invoke(group, ["evaluate", str(run), other, "--json"])
    assert json.loads(said.output)["loss"] == found["loss"], said.output
    np.savez(tmp_path / "train.npz", inputs=X, targets=SIDE, columns=names[:2])
    with pytest.raises(
        DataError, match=r"train.npz\[columns\]: an array of <U6, shape \(2,\); give a name of"
    ):
        train(job(data=sources), folder=tmp_path, output=tmp_path / "again")


# What callers give ------------------------------------------------------------------------------------------


def test_values_of_other_libraries_in_a_job() -> None:
    given = job(
        class_weight=np.array([1.0, 10.0]),
        shuffle=np.bool_(False),
        seed=np.uint8(3),
        batch_size=np.int64(8),
        audit=np.float32(0),
        dtype=np.float64,
        metrics=np.array(["accuracy", "f1"]),
        name=np.str_("net"),
        data={
            "folder": Path("there"),
            "train": {"format": "npz", "path": Path("x.npz"), "rows": np.array([0, 9])},
        },
        early_stopping={"metric": "train_loss", "restore_best": np.True_, "patience": np.int16(2)},
        optimizer={"type": "sgd", "learning_rate": np.float64(0.5)},
        model={"layers": [{"type": "dense", "units": np.int32(2)}]},
    )
    plain = TrainingJob.from_yaml(given.to_yaml())
    assert plain == given
    assert given.class_weight == (1, 10)
    assert given.dtype == job(dtype=np.dtype("f8")).dtype == "float64"
    assert given.data.folder == "there"
    assert given.data.train.rows == (0, 9)
    with pytest.raises(JobError, match=r"shuffle: must be true or false, not 1"):
        job(shuffle=np.int64(1))
    with pytest.raises(JobError, match=r"batch_size: must be a whole number at least 1 .*, not true"):
        job(batch_size=np.True_)


@pytest.mark.parametrize("data", [X, (X,), X.tolist(), {"train": X}, 5, "train", (X, SIDE, None, None)])
def test_data_of_the_wrong_kind(data: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ArgumentError,
        match=r"data for 'train' must be \(x, y\) or \(x, y, weights\), inputs and targets, not",
    ):
        train(job(), data=data, output=tmp_path / "run")
    with pytest.raises(
        RemoteError, match=r"^data(\['train'\])? must be \(inputs, targets\) or .*, not "
    ) as caught:
        submit(job(), data=data, url="http://127.0.0.1:1", token="t")
    assert caught.value.code == "invalid"
    with pytest.raises(ArgumentError, match="data has the key 'tran'; its keys are train, validation, test"):
        train(job(), data={"tran": (X, SIDE)})


CALLS: dict[str, tuple[Callable[..., Any], str]] = {
    "train a file": (lambda: train("job.yaml"), "the job must be a TrainingJob .made by"),
    "train a mapping": (lambda: train({"loss": "mse"}), "not a value of type dict"),
    "train on inputs alone": (lambda: train(job(), data=X), "or .x, None. with data.targets: inputs"),
    "submit": (
        lambda: submit("job.yaml", url="http://127.0.0.1:1", token="t"),
        "job must be a TrainingJob, not 'job.yaml'",
    ),
    "plan": (lambda: plan_job(None), "the job must be a TrainingJob .*, not None"),
    "gradcheck": (lambda: check_job("job.yaml"), "the job must be a TrainingJob"),
    "output": (
        lambda: train(job(), data=(X, SIDE), output=5),
        "output must be a path .text or pathlib.Path.",
    ),
    "folder": (lambda: train(job(), data=(X, SIDE), folder=b"x"), "folder must be a path"),
    "workers": (lambda: train(job(), data=(X, SIDE), workers="two"), "workers is 'two', but must be a whole"),
    "too many": (
        lambda: resume("r", workers=5000),
        "workers is 5000, but must be a whole number from 0 to 4096",
    ),
    "listener": (
        lambda: train(job(), data=(X, SIDE), listener=[]),
        "listener must be a function of one event",
    ),
    "address": (lambda: resume("r", address=6379), "address must be the address of a Ray cluster, as text"),
    "control": (lambda: resume("r", control="stop"), "control must be a distbp.Control, not a value of type"),
    "init": (lambda: train(job(), data=(X, SIDE), init=5), "init must be a path .text or pathlib.Path."),
    "disk": (lambda: resume("r", disk=5), "disk must be a distbp.core.storage.Disk, not a value"),
    "confined": (lambda: train(job(), data=(X, SIDE), confined="x"), "confined must be True or False"),
    "resume": (lambda: resume(None), "run_dir must be a path .text or pathlib.Path., not None"),
    "verify": (lambda: verify_run(3), "run_dir must be a path"),
    "verify a step": (lambda: verify_run("r", "last"), "step must be a whole number, counted from 1"),
    "load_model": (lambda: load_model(7), "the model's folder must be a path"),
    "Control.scale": (
        lambda: Control().scale(2.5),
        "workers is 2.5, but must be a whole number from 0 to 4096",
    ),
    "scale_run": (lambda: scale_run("r", True), "workers is True, but must be a whole number"),
    "connect": (lambda: connect(8080), "url must be an address, as http://host:8470, not 8080"),
    "from_file": (lambda: TrainingJob.from_file(3), "the job's file must be a path"),
    "from_yaml": (lambda: TrainingJob.from_yaml(3), "must be given as text, not as a value of type int"),
    "from_json": (
        lambda: TrainingJob.from_json(b"{}"),
        "must be given as text, not as a value of type bytes",
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_to_give_is_said(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made, text = CALLS[call]
    with pytest.raises(DistbpError, match=text):
        made()
    assert list(tmp_path.iterdir()) == []


def test_what_a_model_is_given(tmp_path: Path) -> None:
    model = train(job(epochs=1), data=(X, SIDE), output=tmp_path / "run").model()
    for x in (None, 5, "abc", [], {}, object(), [[1, "a", 2]]):
        with pytest.raises(ModelError):
            model.predict(x)
    for y in (None, 5, "abc", [], {}, object()):
        with pytest.raises(DataError):
            model.evaluate(X, y)
    for metrics in ("auc", 5, [1], object()):
        with pytest.raises(
            ArgumentError, match=r"metrics must be a list of names|each of metrics must be a name"
        ):
            model.evaluate(X, SIDE, metrics=metrics)
