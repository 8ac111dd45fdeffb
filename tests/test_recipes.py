"""Recipes that are written out when a job is read, and fields that are set from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from distbp import TrainingJob
from distbp.cli.main import group
from distbp.core.errors import JobError
from distbp.data.formats import TableFiles
from distbp.job.columns import Split, Target
from distbp.job.data_checks import notes_about
from distbp.job.overrides import overridden
from distbp.job.parts import Data
from distbp.job.recipes import batch_size, with_folds
from distbp.job.text import read_yaml

DATA = {"train": "digits", "validation": {"format": "digits", "split": "test"}}
RECIPE: dict[str, Any] = {
    "data": DATA,
    "model": {"recipe": "table", "outputs": 10},
    "loss": "softmax_cross_entropy",
}


def test_the_recipe_written_out() -> None:
    job = TrainingJob.from_mapping(RECIPE)
    assert [layer.type for layer in job.model.layers] == ["dense", "dropout"] * 3 + ["dense"]
    assert [layer.units for layer in job.model.layers if layer.type == "dense"] == [256, 256, 256, 10]
    assert {layer.rate for layer in job.model.layers if layer.type == "dropout"} == {0.15}
    assert job.optimizer.type == "adamw"
    assert (job.optimizer.learning_rate, job.optimizer.weight_decay) == (1e-3, 1e-2)
    schedule = job.optimizer.schedule
    assert (schedule.type, schedule.warmup_epochs, schedule.then.type) == ("warm_up", 2, "cosine")
    assert schedule.then.period_epochs is None  # the rest
    assert (job.epochs, job.batch_size) == (100, 64)
    assert job.early_stopping is not None
    assert (job.early_stopping.metric, job.early_stopping.patience) == ("validation_loss", 20)
    text = job.to_yaml()
    assert "recipe" not in text
    again = TrainingJob.from_yaml(text)
    assert again == job
    assert again.digest == job.digest


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"epochs": 1}, {"schedule": "cosine", "epochs": 1}),
        ({"epochs": 5}, {"schedule": "warm_up", "epochs": 5}),
        (
            {"optimizer": {"learning_rate": 0.01}},
            {"learning_rate": 0.01, "type": "adamw", "weight_decay": 0.01},
        ),
        ({"optimizer": "sgd"}, {"type": "sgd", "schedule": "constant"}),
        ({"batch_size": 7}, {"batch_size": 7}),
        ({"model": {"recipe": "table", "outputs": 10, "rows": 150}}, {"batch_size": 32}),
        ({"early_stopping": None}, {"patience": None}),
        ({"early_stopping": {"patience": 3}}, {"patience": 3}),
        ({"data": {"train": "digits"}}, {"patience": None}),
    ],
)
def test_what_the_job_says_stays(fields: dict[str, Any], found: dict[str, Any]) -> None:
    job = TrainingJob.from_mapping({**RECIPE, **fields})
    there = {
        "type": job.optimizer.type,
        "learning_rate": job.optimizer.learning_rate,
        "weight_decay": getattr(job.optimizer, "weight_decay", None),
        "schedule": job.optimizer.schedule.type,
        "epochs": job.epochs,
        "batch_size": job.batch_size,
        "patience": None if job.early_stopping is None else job.early_stopping.patience,
    }
    assert {name: there[name] for name in found} == found


def test_a_trial_of_one_epoch_is_allowed() -> None:
    """A job that was written out keeps its warm-up, which is longer than a trial."""
    full = TrainingJob.from_mapping(RECIPE).to_mapping()
    job = TrainingJob.from_mapping(overridden(full, ["epochs=1"], "job.yaml"))
    told = "the warm-up of 2 epochs does not end: training ends after 1, below the base rate"
    assert told in notes_about(job, {}, 1)
    assert told not in notes_about(job.replace(epochs=2), {}, 1)


TABLE = {"train": {"format": "table", "path": "t.csv"}, "target": "y", "split": {"validation": 0.2}}
REALMLP = {"recipe": "realmlp", "outputs": 10}


def test_realmlp_of_classes_in_arrays() -> None:
    job = TrainingJob.from_mapping({**RECIPE, "model": REALMLP})
    types = [layer.type for layer in job.model.layers]
    block = ["dense", "parametric_activation", "dropout"]
    assert types == ["smooth_clip", "periodic_embedding", "scale", *block * 3, "dense"]
    assert [layer.units for layer in job.model.layers if layer.type == "dense"] == [256, 256, 256, 10]
    assert {layer.function for layer in job.model.layers if layer.type == "parametric_activation"} == {"selu"}
    assert (job.epochs, job.batch_size, job.drop_last, job.loss.label_smoothing) == (256, 256, True, 0.1)
    assert (job.optimizer.learning_rate, job.optimizer.beta2, job.optimizer.weight_decay) == (
        0.04,
        0.95,
        0.02,
    )
    assert (job.optimizer.schedule.type, job.optimizer.decay_schedule.type) == ("cosine_log", "flat_cosine")
    assert job.data.standardize and job.data.columns is None
    assert job.early_stopping is not None
    found = (job.early_stopping.metric, job.early_stopping.patience, job.early_stopping.ties)
    assert found == ("validation_accuracy", 256, "last")
    text = job.to_yaml()
    assert "recipe" not in text
    again = TrainingJob.from_yaml(text)
    assert (again, again.digest) == (job, job.digest)


def test_realmlp_of_values_in_a_table() -> None:
    job = TrainingJob.from_mapping({"data": TABLE, "model": {"recipe": "realmlp"}, "loss": "mse"})
    assert job.model.layers[0].type == "scale"
    assert {layer.function for layer in job.model.layers if layer.type == "parametric_activation"} == {"mish"}
    assert (job.optimizer.learning_rate, job.epochs) == (0.2, 256)
    assert job.data.target is not None and job.data.columns is not None
    assert (job.data.target.scale, job.data.target.clip) == ("standard", True)
    others = job.data.columns["others"]
    assert (others.number.scale, others.number.clip, others.number.frequencies) == ("robust", "smooth", 16)
    assert (others.category.one_hot, others.category.signed, others.category.dimension) == (8, True, 8)
    assert job.early_stopping is not None and job.early_stopping.metric == "validation_loss"
    again = TrainingJob.from_yaml(job.to_yaml())
    assert (again, again.digest) == (job, job.digest)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"epochs": 5}, {"epochs": 5, "patience": 5}),
        ({"optimizer": {"learning_rate": 0.01}}, {"rate": 0.01, "beta2": 0.95}),
        ({"optimizer": "sgd"}, {"rate": 0.1, "beta2": None}),
        ({"loss": {"type": "softmax_cross_entropy", "label_smoothing": 0}}, {"smoothing": 0}),
        ({"early_stopping": None}, {"patience": None}),
        ({"metrics": []}, {"metric": "validation_loss"}),
        ({"parameter_groups": {"*.dense.bias": {"rate": 2}}}, {"biases": 2, "scales": 6}),
        ({"data": {**DATA, "scale": 16}}, {"standardize": False}),
    ],
)
def test_what_a_job_of_realmlp_says_stays(fields: dict[str, Any], found: dict[str, Any]) -> None:
    job = TrainingJob.from_mapping({**RECIPE, "model": REALMLP, **fields})
    groups = job.parameter_groups or {}
    there = {
        "epochs": job.epochs,
        "patience": None if job.early_stopping is None else job.early_stopping.patience,
        "metric": None if job.early_stopping is None else job.early_stopping.metric,
        "rate": job.optimizer.learning_rate,
        "beta2": getattr(job.optimizer, "beta2", None),
        "smoothing": job.loss.label_smoothing,
        "biases": groups["*.dense.bias"].rate,
        "scales": groups["*.scale.scale"].rate,
        "standardize": job.data.standardize,
    }
    assert {name: there[name] for name in found} == found


def test_columns_that_a_job_of_realmlp_names_stay() -> None:
    said = {**TABLE, "columns": {"a": "category"}, "target": {"column": "y", "clip": False}}
    job = TrainingJob.from_mapping({"data": said, "model": {"recipe": "realmlp"}, "loss": "mae"})
    assert job.data.columns is not None and job.data.target is not None
    assert job.data.columns["a"].type == "category" and job.data.columns["others"].number is not None
    assert (job.data.target.scale, job.data.target.clip) == ("standard", False)


def test_the_recipe_of_a_table_codes_numbers_in_bins_and_scales_values() -> None:
    job = TrainingJob.from_mapping({"data": TABLE, "model": {"recipe": "table"}, "loss": "mse"})
    assert job.data.target is not None and job.data.columns is not None
    assert (job.data.target.scale, job.data.target.clip) == ("standard", None)
    others = job.data.columns["others"]
    assert (others.number.bins, others.number.bin_height) == (32, 0.25)
    assert (others.number.scale, others.category) == ("standard", None)
    again = TrainingJob.from_yaml(job.to_yaml())
    assert (again, again.digest) == (job, job.digest)


@pytest.mark.parametrize(
    ("said", "loss", "model", "scale", "bins"),
    [
        ({}, "softmax_cross_entropy", {"outputs": 3}, "none", 32),
        ({}, "poisson", {}, "none", 32),  # which takes no value below 0
        ({}, "mae", {"rows": 499}, "standard", 0),
        ({"columns": {"others": "auto"}}, "mse", {"rows": 500}, "standard", 32),
        ({"columns": {"a": "category"}}, "mse", {}, "standard", 32),
        ({"columns": {"others": {"kind": "auto", "number": "number"}}}, "mse", {}, "standard", 0),
        ({"columns": {"others": "number"}}, "mse", {}, "standard", None),
        ({"target": {"column": "y", "scale": "none"}}, "mse", {}, "none", 32),
        ({"windows": {"length": 3}, "time": "t"}, "mse", {}, "standard", None),
    ],
)
def test_what_a_job_says_of_columns_stays(
    said: dict[str, Any], loss: str, model: dict[str, Any], scale: str, bins: int | None
) -> None:
    """bins: of `others`; None: the recipe writes nothing there."""
    job = TrainingJob.from_mapping(
        {"data": {**TABLE, **said}, "model": {"recipe": "table", **model}, "loss": loss}
    )
    assert isinstance(job.data.target, Target) and job.data.target.scale == scale
    others = (job.data.columns or {}).get("others")
    number = getattr(others, "number", None)
    assert (None if number is None else number.bins) == bins


@pytest.mark.parametrize("recipe", ["table", "realmlp"])
def test_a_recipe_leaves_the_preparation_of_a_model_alone(recipe: str) -> None:
    job = TrainingJob.from_mapping(
        {
            "data": TABLE,
            "model": {"recipe": recipe},
            "loss": "mse",
            "init": "before",
            "init_keeps": ["preparation"],
        }
    )
    assert job.data.columns is None and isinstance(job.data.target, Target)
    assert job.data.target.scale == "standard"  # as it was when that model was trained


def test_realmlp_leaves_arrays_to_the_preparation_of_a_model() -> None:
    going_on = {"init": "before", "init_keeps": ["preparation"]}
    assert not TrainingJob.from_mapping({**RECIPE, **going_on, "model": REALMLP}).data.standardize


def test_realmlp_scales_no_counts() -> None:
    job = TrainingJob.from_mapping({"data": TABLE, "model": {"recipe": "realmlp"}, "loss": "poisson"})
    assert isinstance(job.data.target, Target)
    assert (job.data.target.scale, job.data.target.clip) == ("none", True)


@pytest.mark.parametrize("recipe", ["table", "realmlp"])
def test_a_job_of_objects_is_that_of_mappings(recipe: str) -> None:
    def made(data: Any) -> TrainingJob:
        return TrainingJob(data=data, model={"recipe": recipe}, loss="mse")

    expected = made(TABLE)
    for name, value in (
        ("train", TableFiles(path="t.csv")),
        ("target", Target(column="y")),
        ("split", Split(validation=0.2)),
    ):
        assert made({**TABLE, name: value}) == expected
    assert made(Data(**TABLE)) == expected
    assert expected.early_stopping is not None


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        (
            {"loss": {"a": "mse", "b": "mse"}},
            "model.recipe: realmlp has one output, and loss names several; write the layers out, or give one"
            " loss",
        ),
        (
            {"data": {**TABLE, "windows": {"length": 3}, "time": "t"}},
            "model.recipe: realmlp takes one row of a table, and data.windows are several; take recipe:"
            " table",
        ),
        (
            {"data": {"truncated_bptt_steps": 3}},
            "model.recipe: realmlp has no recurrent layers for data.truncated_bptt_steps; write the layers"
            " out",
        ),
        (
            {"data": {**TABLE, "target": {"a": "y", "b": "z"}}},
            "data.target: has no column, so it is a mapping from outputs, but loss is one; name the"
            " column, or write a mapping in loss, too",
        ),
    ],
)
def test_what_a_recipe_has_no_network_for(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(JobError) as error:
        TrainingJob.from_mapping({"data": TABLE, "loss": "mse", "model": {"recipe": "realmlp"}, **fields})
    assert [str(one) for one in error.value.faults] == [fault]


@pytest.mark.parametrize(
    ("fields", "rows", "fold"),
    [
        ({"members": 5}, 49_999, "each"),
        ({"members": 5}, 50_000, None),
        ({"members": 5}, None, None),
        ({}, 200, None),
        ({"restarts": 5}, 200, None),
        ({"members": 5, "data": {**TABLE, "group": "g"}}, 200, None),
        ({"members": 5, "data": {**TABLE, "windows": {"length": 3}, "time": "t"}}, 200, None),
        ({"members": 5, "early_stopping": {"patience": 3}}, 200, None),
    ],
)
def test_members_on_folds_of_their_own(fields: dict[str, Any], rows: Any, fold: Any) -> None:
    model = {"recipe": "table", **({} if rows is None else {"rows": rows})}
    job = TrainingJob.from_mapping({"data": TABLE, "loss": "mse", "model": model, **fields})
    assert job.early_stopping is not None and job.early_stopping.fold == fold


def test_folds_of_a_first_job() -> None:
    page = {"data": TABLE, "early_stopping": {"patience": 20}}
    assert with_folds({**page, "members": 5}, 200)["early_stopping"] == {"patience": 20, "fold": "each"}
    for same in (page, {**page, "members": 5, "early_stopping": None}, {**page, "members": "5"}):
        assert with_folds(same, 200) is same
    assert with_folds({**page, "members": 5, "early_stopping": {"fold": 0}}, 200)["early_stopping"] == {
        "fold": 0
    }


def test_batches_by_rows() -> None:
    assert [batch_size(rows) for rows in (None, 1, 1_999, 2_000, 19_999, 20_000)] == [64, 32, 32, 64, 64, 256]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"recipe": "tabel"}, "model.recipe: must be 'table' or 'realmlp', not 'tabel'"),
        (
            {"recipe": "table", "layers": [{"type": "dense", "units": 1}]},
            "model.recipe: gives the layers; leave it or layers out",
        ),
        ({"outputs": 3}, r"model.outputs: is for a recipe; name one \(recipe: table\), or leave it out"),
        ({}, r"model.layers: is required \(from the inputs to the outputs\), or recipe"),
        ({"recipe": "table", "outputs": 0}, "model.outputs: must be a whole number at least 1, not 0"),
        ({"recipe": "table", "output": 3}, "model.output: 'output' is not known; did you mean 'outputs'"),
        (
            {"recipe": "table"},
            "softmax_cross_entropy chooses between classes, but the last layer has 1 output",
        ),
    ],
)
def test_faults_of_recipes(model: Any, message: str) -> None:
    with pytest.raises(JobError, match=message):
        TrainingJob.from_mapping({**RECIPE, "model": model})


JOB = """
data: {train: digits, columns: {}}
model: {layers: [{type: dense, units: 4}, {type: dense, units: 10}]}
loss: softmax_cross_entropy
"""


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("epochs=1", ("epochs",), 1),
        ("seed = 7", None, None),
        ("optimizer.learning_rate=1e-3", ("optimizer",), {"type": "adam", "learning_rate": 1e-3}),
        ("model.layers.0.units=64", ("model", "layers", 0, "units"), 64),
        ("model.layers.1={type: dense, units: 3}", ("model", "layers", 1), {"type": "dense", "units": 3}),
        ("loss.label_smoothing=0.1", ("loss",), {"type": "softmax_cross_entropy", "label_smoothing": 0.1}),
        ("data.train.split=test", ("data", "train"), {"format": "digits", "split": "test"}),
        ("early_stopping.patience=3", ("early_stopping",), {"patience": 3}),
        ("metrics=[accuracy, f1]", ("metrics",), ["accuracy", "f1"]),
        ("name=a=b", ("name",), "a=b"),
        ("early_stopping=", ("early_stopping",), None),
    ],
)
def test_settings(setting: str, path: Any, value: Any) -> None:
    found = overridden(read_yaml(JOB), [setting], "job.yaml")
    for key in path or ("seed",):
        found = found[key]
    assert found == (7 if path is None else value)


def test_every_setting_that_has_no_place_is_named() -> None:
    settings = ["epoch=1", "epochs", "model.layers.2.units=3", "model.layers.x=3", "loss=[", "seed=1"]
    with pytest.raises(JobError) as error:
        overridden(read_yaml(JOB), settings, "job.yaml")
    assert "epoch: 'epoch' is not known; did you mean 'epochs'?" in str(error.value)
    assert "'epochs' is not PATH=VALUE, for example optimizer.learning_rate=0.01" in str(error.value)
    assert str(error.value).count("model.layers is a list of 2, whose items are named 0 to 1") == 2
    assert "loss: is not valid YAML" in str(error.value)
    assert len(error.value.faults) == 5
    with pytest.raises(JobError, match=r"epochs\.x: epochs is 1, which has no fields"):
        overridden(read_yaml(JOB), ["epochs=1", "epochs.x=1"], "job.yaml")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="tables need pyarrow")
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    path = tmp_path / "job.yaml"
    path.write_text(JOB.replace(", columns: {}", ""))
    run = CliRunner()
    found = run.invoke(group, ["describe", str(path), "--yaml", "--set", "epochs=3", "--set", "seed=9"])
    job = TrainingJob.from_yaml(found.output)
    assert (job.epochs, job.seed, job.model.layers[0].units) == (3, 9, 4)
    found = run.invoke(group, ["validate", str(path), "--no-data", "--set", "optimizer.learning_rat=1"])
    assert found.exit_code == 2
    assert "did you mean 'learning_rate'?" in found.output
    table = tmp_path / "t.csv"
    table.write_text("a,b\n" + "".join(f"{i % 7},{i * 0.5}\n" for i in range(40)))
    output = str(tmp_path / "run")
    asked = ["--target", "b", "--set", "epochs=1", "--set", "model.layers.0.units=3", "--workers", "0"]
    found = run.invoke(group, ["train", str(table), *asked, "--output", output, "--set", "members=2"])
    assert found.exit_code == 0, found.output
    job = TrainingJob.from_file(tmp_path / "run/job.yaml")
    assert (job.epochs, job.members, job.model.layers[0].units) == (1, 2, 3)
