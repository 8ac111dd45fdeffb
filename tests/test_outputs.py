"""Jobs with several outputs, from what a user writes to what the model says."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rigs import make_job

from distbp import Control, JobError, TrainingJob, load_model, resume, train
from distbp.cli import main as cli
from distbp.cli.describe import lines
from distbp.client import uploads
from distbp.core.errors import CheckpointError, DataError, Interrupted, ModelError
from distbp.core.sealed import sealed_json, unseal_json
from distbp.data.digest import table_record
from distbp.data.formats import Npz, from_arrays
from distbp.job.columns import targets_in
from distbp.job.losses import LossKind
from distbp.job.reference import reference
from distbp.job.schema import job_schema
from distbp.nn.losses import LOSSES
from distbp.nn.losses.several import names_of
from distbp.run import events
from distbp.run.gradcheck import check_job
from distbp.run.plan.describe import describe_job
from distbp.run.plan.picture import draw
from distbp.run.progress import summary
from distbp.run.result import Result
from distbp.run.run_directory import read_lines
from distbp.run.verify import verify_run

pytestmark = pytest.mark.usefixtures("numpy_kernels")
LAYERS = (
    {"type": "dense", "units": 8, "activation": "tanh", "name": "trunk"},
    {"type": "dense", "units": 3, "inputs": ["trunk"], "name": "kind"},
    {"type": "dense", "units": 2, "inputs": ["trunk"], "name": "place"},
    {"type": "dense", "units": 1, "inputs": ["trunk"], "name": "sure"},
)
LOSS = {
    "kind": "softmax_cross_entropy",
    "place": {"type": "mse", "factor": 0.25},
    "sure": {"type": "sigmoid_cross_entropy", "factor": 2},
}
NAMES = np.array(["cat", "dog", "owl"])
Targets = dict[str, Any]


def rows(count: int, seed: int = 0) -> tuple[np.ndarray, Targets]:
    """A class that has a name, two values, and yes or no, all of which can be learned."""
    x = np.random.default_rng(seed).normal(size=(count, 5))
    kind = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    return x, {"kind": NAMES[kind], "place": x[:, 1:3] + 1, "sure": x[:, 3] > 0.2}


DATA = {"train": rows(90), "validation": rows(33, 1), "test": rows(20, 2)}


def job(layers: Any = LAYERS, **fields: Any) -> TrainingJob:
    usual = {
        "loss": LOSS,
        "epochs": 6,
        "batch_size": 16,
        "optimizer": {"type": "adam", "learning_rate": 0.02},
    }
    return make_job(layers, **{**usual, **fields})


@pytest.fixture(scope="module")
def run(numpy_kernels: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train(job(), data=DATA, output=tmp_path_factory.mktemp("outputs") / "run")


def command(*words: str | Path) -> str:
    done = CliRunner().invoke(cli.group, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


# What a user writes -----------------------------------------------------------------------------------------


def test_every_spelling_is_the_same_job() -> None:
    first = job()
    full = {
        "sure": {"type": "sigmoid_cross_entropy", "outputs": "mean", "factor": 2.0},
        "place": {"factor": 0.25, "type": "mse"},
        "kind": {"type": "softmax_cross_entropy", "factor": 1},
    }
    assert job(loss=full) == first and job(loss=first.loss) == first
    assert TrainingJob.from_yaml(first.to_yaml()) == first
    assert TrainingJob.from_json(json.dumps(first.to_mapping())).digest == first.digest
    renamed = [
        {**one, **({"name": "base"} if one["name"] == "trunk" else {"inputs": ["base"]})} for one in LAYERS
    ]
    assert job(renamed).digest == first.digest  # names of layers within do not count
    assert job(loss={**LOSS, "place": "mse"}).digest != first.digest
    swapped = [LAYERS[0], LAYERS[1], {**LAYERS[3], "units": 2}, {**LAYERS[2], "units": 1}]
    assert job(swapped).digest != first.digest  # other layers have these losses


def test_a_job_with_one_loss_is_written_as_it_was() -> None:
    one = make_job()
    assert one.to_mapping()["loss"] == {"type": "softmax_cross_entropy", "label_smoothing": 0.0}
    assert (
        one.digest == "1268f9a5048283f2bcd4c26486fea293a06590f7ac53b7a550dac9dafc4caca8"
    )  # as before jobs had several


FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no such layer": (
        {"loss": {"kind": "softmax_cross_entropy", "plce": "mse"}},
        ["loss.plce: names no layer: 'plce' is not known; did you mean 'place'? known: kind, place, sure,"],
    ),
    "no such loss": (
        {"loss": {**LOSS, "place": "msse", "sure": "mea"}},
        ["loss.place: 'msse' is not known; did you mean 'mse'?", "loss.sure: 'mea' is not known; did you"],
    ),
    "no targets": (
        {"data": {"train": {"format": "table", "path": "a.csv"}, "target": {}}},
        ["data.target: must be a mapping of at least 1, not of 0"],
    ),
    "classes with a scale": (
        {
            "data": {
                "train": {"format": "table", "path": "a.csv"},
                "target": {
                    "kind": {"column": "a", "scale": "standard"},
                    "place": {"column": "b", "scale": "standard", "clip": True},
                    "sure": {"column": "c", "clip": True},
                },
            }
        },
        [
            "data.target.kind.scale: is for values, and softmax_cross_entropy takes classes; leave it out",
            "data.target.sure.clip: is for values, and sigmoid_cross_entropy takes classes; leave it out",
        ],
    ),
    "no layer has a name": (
        {
            "model": {"layers": [{"type": "dense", "units": 2}]},
            "loss": {"kind": "softmax_cross_entropy"},
        },
        ["loss.kind: names no layer: 'kind' is not known, as no layer has a name; give the layers of the"],
    ),
    "no loss": (
        {"loss": {"kind": "softmax_cross_entropy", "place": "mse"}},
        [
            "model.layers.3: no layer takes the output of this one ('sure'), and it has no loss; name it in"
            " loss, or in the inputs of a later layer, or take it out"
        ],
    ),
    "a loss that does not fit": (
        {"loss": {**LOSS, "sure": "softmax_cross_entropy", "place": {"type": "nll", "factor": 3}}},
        [
            "loss.place: nll takes the probabilities of a softmax, but layer 'place' ends in 'linear'",
            "loss.sure: softmax_cross_entropy chooses between classes, but layer 'sure' has 1 output;",
        ],
    ),
    "wrong within": (
        {
            "loss": {
                "kind": {"type": "softmax"},
                "place": {"type": "mse", "factor": -1},
                "sure": {"factor": 1},
            }
        },
        [
            "loss.kind.type: 'softmax' is not known; did you mean 'softmax_cross_entropy'?",
            "loss.place.factor: must be a number at least 0, not -1",
            "loss.sure.type: is required (which loss)",
        ],
    ),
    "no factor": (
        {
            "loss": {
                **LOSS,
                "sure": {"type": "mse", "factor": "much"},
                "kind": {"type": "mse", "factor": True},
                "place": {"type": "mse", "factor": 10**400},
            }
        },
        [
            "loss.kind.factor: must be a number at least 0, not true",
            "loss.place.factor: must be a number at least 0, not a very large number",
            "loss.sure.factor: must be a number at least 0, not 'much'",
        ],
    ),
    "nothing is learned": (
        {"loss": {name: {"type": "mse", "factor": 0} for name in LOSS}},
        ["loss: has the factor 0 for every output, so nothing is learned; raise one"],
    ),
    "metrics": (
        {"metrics": ["accuracy", "kind.acuracy", "sure.mae"]},
        [
            "metrics.0: 'accuracy' names no output; write output.metric, with an output of kind, place, sure",
            "metrics.1: 'acuracy' is not known; did you mean 'accuracy'?",
            "metrics.2: 'mae' does not apply to a binary loss",
        ],
    ),
    "what is watched": (
        {"early_stopping": {"metric": "validation_kind.acc"}},
        ["early_stopping.metric: 'validation_kind.acc' is not measured by this job; did you mean"],
    ),
    "what is for one loss": (
        {"class_weight": "balanced", "data": {"targets": "inputs"}},
        [
            "class_weight: is of the classes of one loss, and this job has several outputs",
            "data.targets: is for one loss, and this job has several outputs",
        ],
    ),
    "a column for each output": (
        {"data": {"train": {"format": "table", "path": "a.csv"}, "target": "kind"}},
        ["data.target: names one column, but there are the outputs kind, place, sure; write a mapping from"],
    ),
    "columns of other outputs": (
        {
            "data": {
                "train": {"format": "table", "path": "a.csv"},
                "target": {"kind": "a", "plce": {"column": "b", "scale": "standrd"}},
            }
        },
        ["data.target.plce.scale: must be 'none' or 'standard', not 'standrd'"],
    ),
    "columns that are missing": (
        {
            "data": {
                "train": {"format": "table", "path": "a.csv"},
                "target": {"kind": "a", "plce": "b"},
                "windows": {"length": 3},
                "time": "t",
            }
        },
        [
            "data.target.plce: is of no output: 'plce' is not known; did you mean 'place'?",
            "data.target.place: is required (the column of this output)",
            "data.target.sure: is required (the column of this output)",
            "data.windows: are for one target, and this job has several outputs; give it one loss",
        ],
    ),
    "arrays of an archive": (
        {"data": {"train": {"format": "npz", "path": "a.npz", "targets": {"kind": 5}}}},
        ["data.train.targets.kind: must be text, not 5"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told_all_at_once(name: str) -> None:
    fields, messages = FAULTS[name]
    with pytest.raises(JobError) as refused:
        job(**fields)
    told = [f"{fault.path}: {fault.message}" for fault in refused.value.faults]
    assert len(told) == len(messages), told
    for message in messages:
        assert any(one.startswith(message) for one in told), (message, told)


def test_a_mapping_of_columns_needs_several_losses() -> None:
    message = "data.target: has no column, so it is a mapping from outputs, but loss is one; name the column"
    with pytest.raises(JobError, match=message):
        make_job(data={"train": {"format": "table", "path": "a.csv"}, "target": {"kind": "a"}})


@pytest.mark.parametrize("name", ["volume", "price", "columns", "scale", "clip", "types", "tape"])
def test_outputs_may_have_names_like_those_of_fields(name: str) -> None:
    layers = [
        {"type": "dense", "units": 1, "name": "other"},
        {"type": "dense", "units": 1, "name": name, "inputs": ["input"]},
    ]
    data = {"train": {"format": "table", "path": "a.csv"}, "target": {name: "a", "other": "b"}}
    found = job(layers, loss={name: "mse", "other": "mae"}, data=data)
    assert names_of(found.loss) == tuple(sorted((name, "other")))
    assert {output: one.column for output, one in targets_in(found.data.target).items()} == data["target"]


def test_one_class_loss_takes_no_scale() -> None:
    data = {"train": {"format": "table", "path": "a.csv"}, "target": {"column": "a", "scale": "standard"}}
    message = "data.target.scale: is for values, and softmax_cross_entropy takes classes; leave it out"
    with pytest.raises(JobError, match=message):
        make_job(data=data)


def test_a_loss_without_values_below_0_takes_no_scale() -> None:
    data = {"train": {"format": "table", "path": "a.csv"}, "target": {"column": "a", "scale": "standard"}}
    message = "data.target.scale: gives values below 0, and poisson takes none; leave it out"
    with pytest.raises(JobError, match=message):
        make_job(data=data, loss="poisson")


def test_too_many_outputs() -> None:
    kind = LossKind("losses", "loss", {"losses": LOSSES})
    with pytest.raises(ValueError, match="must be a mapping of at most 1000 outputs, not of 1001"):
        kind.validate({str(n): "mse" for n in range(1001)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"place": rows(90)[1]["place"][:, :1]},
            r"layer 'place' has 2 outputs, but the targets have 1 column;",
        ),
        ({"kind": np.arange(90) % 4}, r"layer 'kind' has 3 outputs, but the labels are of 4 classes"),
        ({"sure": rows(90)[1]["place"][:, 0]}, r"takes targets from 0 to 1, but this one is"),
        ({"place": np.full((90, 2), np.nan)}, r"'place': row 0, column 0 of the train targets is NaN"),
        ({"place": np.zeros((89, 2))}, r"'place': 89 targets for the 90 rows"),
        (
            {"other": np.zeros(90)},
            r"targets for 'other', which has no loss; the outputs are kind, place, sure",
        ),
        ({"kind": None}, r"no targets for 'kind'; the outputs are kind, place, sure"),
    ],
)
def test_targets_that_do_not_fit(change: Targets, message: str, tmp_path: Path) -> None:
    x, y = rows(90)
    y = {name: values for name, values in {**y, **change}.items() if values is not None}
    with pytest.raises((JobError, DataError), match=message):
        train(job(), data=(x, y), output=tmp_path / "run")


def test_named_targets_and_unnamed_ones_are_not_mixed(tmp_path: Path) -> None:
    x, y = rows(90)
    with pytest.raises(
        DataError, match="the outputs kind, place, sure have a loss each, but the targets are one"
    ):
        train(job(), data=(x, y["kind"]), output=tmp_path / "run")
    with pytest.raises(
        DataError, match=r"the targets have names \(kind, place, sure\), but the job has one loss"
    ):
        train(make_job(), data=(x, y), output=tmp_path / "run")


def test_a_frame_has_a_column_for_each_output(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    x, y = rows(90)
    frame = pd.DataFrame({"kind": y["kind"], "sure": y["sure"]})
    layers, losses = [LAYERS[0], LAYERS[1], LAYERS[3]], {"kind": LOSS["kind"], "sure": LOSS["sure"]}
    two = job(layers, loss=losses, epochs=1)
    named = {name: frame[name].to_numpy() for name in frame}
    result = train(two, data=(x, frame), output=tmp_path / "frame")
    assert result.params_sha256 == train(two, data=(x, named), output=tmp_path / "named").params_sha256
    assert result.model().evaluate(x, frame) == result.model().evaluate(x, named)


def test_bad_rows_of_any_output_are_left_out() -> None:
    x, y = rows(10)
    y["place"][3, 1] = np.inf
    y["kind"] = np.where(np.arange(10) == 7, "", y["kind"])
    table = from_arrays(x, y, bad_rows="skip")
    assert len(table) == 8 and table.skipped == {"Inf in the targets": 1, "missing targets": 1}
    assert table.targets is not None and table.targets["place"].shape == (8, 2)


def test_the_digest_is_of_all_targets() -> None:
    x, y = rows(20)
    first = table_record(from_arrays(x, y))["targets"]
    assert table_record(from_arrays(x, dict(y)))["targets"] == first
    for name, values in y.items():
        changed = np.roll(values, 1, axis=0)
        assert table_record(from_arrays(x, {**y, name: changed}))["targets"] != first
    renamed = {"which" if name == "kind" else name: values for name, values in y.items()}
    assert table_record(from_arrays(x, renamed))["targets"] != first


# Training ---------------------------------------------------------------------------------------------------


def test_the_loss_is_the_sum_of_all(run: Result) -> None:
    epochs = read_lines(run.path / "metrics.jsonl")
    for line in (
        *epochs,
        {f"validation_{k}": v for k, v in run.model().evaluate(*DATA["validation"]).items()},
    ):
        own = [line[f"validation_{name}.loss"] for name in LOSS]
        assert line["validation_loss"] == pytest.approx(own[0] + 0.25 * own[1] + 2 * own[2], rel=1e-6)
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    measured = {name.removeprefix("test_") for name in run.metrics if name.startswith("test_")}
    assert measured == {
        "loss", "kind.loss", "place.loss", "sure.loss", "kind.accuracy", "place.rmse", "place.r2",
        "sure.accuracy",
    }  # fmt: skip
    assert run.metrics["test_kind.accuracy"] > 0.5
    verdict = verify_run(run.path, data=DATA)
    assert verdict.equal, verdict


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_factor_of_0_is_a_job_without_that_output(dtype: str, tmp_path: Path) -> None:
    """The layers that both have come to the same bits."""
    x, y = rows(90)
    zero = {name: {"type": "mse", "factor": 0} for name in ("place", "sure")}
    layers = LAYERS[:2]
    both = train(
        job(loss={**zero, "kind": "softmax_cross_entropy"}, dtype=dtype),
        data=(x, y),
        output=tmp_path / "both",
    ).model()
    alone = train(
        job(layers, loss="softmax_cross_entropy", dtype=dtype), data=(x, y["kind"]), output=tmp_path / "alone"
    ).model()
    np.testing.assert_array_equal(both.vector[: alone.vector.size], alone.vector)
    np.testing.assert_array_equal(both.predict(x)["kind"], alone.predict(x))
    np.testing.assert_array_equal(both.predict_proba(x)["kind"], alone.predict_proba(x))


def test_a_stopped_run_goes_on_to_the_same_bits(run: Result, tmp_path: Path) -> None:
    control = Control()

    def stop(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded):
            control.stop()

    with pytest.raises(Interrupted):
        train(job(), data=DATA, output=tmp_path / "run", control=control, listener=stop)
    x, y = DATA["train"]
    with pytest.raises(CheckpointError, match="targets"):
        resume(tmp_path / "run", data={**DATA, "train": (x, {**y, "sure": ~y["sure"]})})
    again = resume(tmp_path / "run", data=DATA)
    assert again.params_sha256 == run.params_sha256
    assert (again.path / "metrics.jsonl").read_bytes() == (run.path / "metrics.jsonl").read_bytes()


def test_early_stopping_and_plateau_watch_an_output(tmp_path: Path) -> None:
    schedule = {"type": "reduce_on_plateau", "metric": "validation_place.r2", "mode": "max", "patience": 1}
    found = train(
        job(
            epochs=50,
            early_stopping={"metric": "validation_kind.accuracy", "patience": 2, "min_delta": 0.5},
            optimizer={"type": "sgd", "learning_rate": 1e-4, "schedule": schedule},
        ),
        data=DATA,
        output=tmp_path / "run",
    )
    assert found.status == "stopped early"


def test_gradients_of_a_job() -> None:
    report = check_job(job(), given=DATA)
    assert report.passed, str(report)


def test_members_are_averaged_output_by_output(tmp_path: Path) -> None:
    found = train(job(members=2, epochs=2), data=DATA, output=tmp_path / "run")
    model, (x, y) = load_model(found.path / "model"), DATA["test"]
    each = [load_model(found.path / "members" / str(n) / "model").predict_proba(x) for n in range(2)]
    mean = {name: (each[0][name] + each[1][name]) / 2 for name in ("kind", "sure")}
    for name, p in model.predict_proba(x).items():
        np.testing.assert_allclose(p, mean[name], rtol=1e-5)
    measured = model.evaluate(x, y)
    assert {f"test_{name}": value for name, value in measured.items()}.items() <= found.metrics.items()
    chances = np.where(y["sure"], mean["sure"], 1 - mean["sure"])
    assert measured["sure.loss"] == pytest.approx(-np.log(chances).mean(), rel=1e-4)


def test_an_archive_names_the_targets_of_each_output(run: Result, tmp_path: Path) -> None:
    sources = {}
    for split, (x, y) in DATA.items():
        np.savez(tmp_path / f"{split}.npz", inputs=x, **y)
        sources[split] = {"format": "npz", "path": f"{split}.npz", "targets": {name: name for name in y}}
    named = job(data=sources)
    found = train(named, folder=tmp_path, output=tmp_path / "run")
    assert found.params_sha256 == run.params_sha256
    measured = json.loads(command("evaluate", found.path, "--split", "test", "--json"))
    assert measured.pop("rows") == 20
    assert {f"test_{name}": value for name, value in measured.items()}.items() <= found.metrics.items()
    again = json.loads(command("evaluate", found.path / "model", tmp_path / "test.npz", "--json"))
    assert again["kind.loss"] == measured["kind.loss"]


def test_what_is_sent_to_a_service_opens_to_what_was_given(tmp_path: Path) -> None:
    x, y = rows(12)
    table = from_arrays(x, y)
    with open(tmp_path / "sent.npz", "wb") as file:
        source = uploads._arrays(table)(file)("sent.npz")
    assert isinstance(source, Npz) and source.targets == {name: f"targets.{name}" for name in y}
    assert table_record(source.open(tmp_path))["targets"] == table_record(table)["targets"]


# The model --------------------------------------------------------------------------------------------------


def test_a_model_predicts_every_output(run: Result) -> None:
    model, (x, y) = load_model(run.path / "model"), DATA["test"]
    outputs, found, chances = model.outputs(x), model.predict(x), model.predict_proba(x)
    assert list(found) == list(outputs) == ["kind", "place", "sure"] and list(chances) == ["kind", "sure"]
    assert [outputs[name].shape for name in found] == [(20, 3), (20, 2), (20, 1)]
    assert (found["kind"] == NAMES[outputs["kind"].argmax(axis=1)]).all()
    np.testing.assert_array_equal(found["place"], outputs["place"])
    assert found["sure"].dtype == bool and (found["sure"] == (outputs["sure"][:, 0] > 0)).all()
    np.testing.assert_allclose(chances["kind"].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(chances["sure"], 1 / (1 + np.exp(-outputs["sure"][:, 0])), rtol=1e-6)
    measured = model.evaluate(x, y)
    assert measured["kind.accuracy"] == pytest.approx((found["kind"] == y["kind"]).mean())
    assert measured["place.rmse"] == pytest.approx(
        np.sqrt(((found["place"] - y["place"]) ** 2).mean()), rel=1e-5
    )
    assert model.evaluate(x, y, metrics=["kind.top_2"]).keys() == {
        "loss", "kind.loss", "place.loss", "sure.loss", "kind.top_2",
    }  # fmt: skip
    assert np.isnan(list(model.evaluate(x[:0], {}).values())).all()
    assert repr(model).startswith(
        "<Model for kind (classification), place (regression), sure (binary): 5 to 6"
    )
    assert model.classes == {"kind": ("cat", "dog", "owl"), "place": None, "sure": (False, True)}
    with pytest.raises(ModelError, match="has several outputs, and no score is that of all; use evaluate"):
        model.score(x, y)
    with pytest.raises(DataError, match="no targets for 'sure'"):
        model.evaluate(x, {name: y[name] for name in ("kind", "place")})


def test_a_model_without_probabilities(tmp_path: Path) -> None:
    layers = [{**LAYERS[0]}, {**LAYERS[2], "name": "a"}, {**LAYERS[2], "name": "b"}]
    x, y = rows(20)
    values = job(layers, loss={"a": "mse", "b": "mae"}, epochs=1)
    model = train(values, data=(x, {"a": y["place"], "b": y["place"]}), output=tmp_path / "run").model()
    with pytest.raises(ModelError, match="'a: mse, b: mae' gives outputs, no probabilities; use predict"):
        model.predict_proba(x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["cat", "dog", "owl"]}, "classes is not a mapping from the outputs"),
        ({"classes": {"kind": ["cat", "dog"], "place": None, "sure": None}}, "classes is not a list of 3"),
        ({"loss": {"kind": {"type": "softmax_cross_entropy"}}}, "and it has no loss"),
        ({"loss": {"type": "mse"}}, "no layer takes the output of this one"),
        ({"task": "binary"}, "output_shape or task does not follow"),
        (
            {"class_weights": [1, 1, 1, 1, 1, 1]},
            "class_weights is given, but the loss 'kind: softmax_cross_entropy, place: mse, sure: sigmoid",
        ),
    ],
)
def test_damaged_models_are_refused(
    run: Result, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (run.path / "model").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = unseal_json((folder / "model.json").read_bytes())
    (folder / "model.json").write_bytes(sealed_json({**content, **change}))
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_the_command_writes_columns_for_each_output(run: Result, tmp_path: Path) -> None:
    x, _ = DATA["test"]
    np.save(tmp_path / "x.npy", x)
    text = command("predict", run.path, tmp_path / "x.npy", "--probabilities")
    table = list(csv.DictReader(io.StringIO(text)))
    found, chances = run.model().predict(x), run.model().predict_proba(x)
    assert list(table[0]) == [
        "row", "kind.prediction", "kind.probability_cat", "kind.probability_dog", "kind.probability_owl",
        "place.prediction_0", "place.prediction_1", "sure.prediction", "sure.probability",
    ]  # fmt: skip
    assert [row["kind.prediction"] for row in table] == found["kind"].tolist()
    assert [float(row["place.prediction_1"]) for row in table] == found["place"][:, 1].tolist()
    assert [float(row["kind.probability_dog"]) for row in table] == chances["kind"][:, 1].tolist()


def test_names_of_metrics_stand_apart_from_their_values(run: Result) -> None:
    said = {line.split("  ")[1]: line.split()[-1] for line in summary(run).splitlines()[1:10]}
    assert {"validation kind.accuracy", "validation sure.accuracy", "validation loss"} <= said.keys()


def test_weights_are_taken_over_from_a_model_with_one_output(tmp_path: Path) -> None:
    x, y = rows(90)
    first = train(
        job(LAYERS[:2], loss="softmax_cross_entropy"), data=(x, y["kind"]), output=tmp_path / "first"
    )
    then = train(job(epochs=1), data=DATA, output=tmp_path / "then", init=first.path)
    assert any("begin" in note or "taken" in note or "layers" in note for note in then.notes)


# What is said of it -----------------------------------------------------------------------------------------


def test_describe_shows_the_outputs(tmp_path: Path) -> None:
    found = describe_job(job(), given=DATA, tape=True)
    assert found.tape is not None
    ops = [row.op for row in found.tape if row.section == "loss"]
    assert ops.count("join_loss") == 3 and ops.count("take_labels") == 1 and ops.count("copy_columns") == 5
    text = list(lines(describe_job(job(), given=DATA)))
    for words in ("'kind' (units 3); loss softmax_cross_entropy", "'place' (units 2); loss 0.25 x mse"):
        assert any(words in line for line in text), text
    assert any("kind: 3, place: 2, sure: 1" in line for line in text)
    svg = draw(found.graph, found.input_shape, found.name)
    for words in (
        "output kind",
        "loss: softmax_cross_entropy",
        "output place",
        "loss: 0.25 x mse",
        "output sure",
    ):
        assert words in svg


def test_schema_and_reference_know_of_it() -> None:
    schema = job_schema()["properties"]["loss"]
    mapping = next(one for one in schema["anyOf"] if one.get("type") == "object")
    assert mapping["additionalProperties"]["anyOf"][1]["properties"]["factor"]["minimum"] == 0
    assert "a mapping from the names of layers to losses" in reference()
