"""A table that is trained to a class and a number at once: each output has a column."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from houses import houses, write

from distbp import JobError, TrainingJob, load_model, train
from distbp.cli.main import group
from distbp.core.errors import DataError, ModelError
from distbp.data.columns.plan import Plan
from distbp.run.result import Result

LAYERS = [
    {"type": "dense", "units": 16, "activation": "relu", "name": "trunk"},
    {"type": "dense", "units": 1, "inputs": ["trunk"], "name": "worth"},
    {"type": "dense", "units": 4, "inputs": ["trunk"], "name": "place"},
]
TARGET = {"worth": {"column": "price", "scale": "standard"}, "place": "city"}


def made(rows: int = 240, seed: int = 1) -> pa.Table:
    """Every row has a city; where it lies can be seen from the area."""
    table = houses(rows, seed).drop_columns(["code"])
    city = np.array(["Ghent", "Lyon", "Oslo", "Porto"])[np.arange(rows) % 4]
    area = np.arange(rows) % 4 * 50 + np.random.default_rng(seed).normal(0, 3, rows)
    table = table.set_column(table.column_names.index("city"), "city", pa.array(city))
    return table.set_column(table.column_names.index("area"), "area", pa.array(area))


def job(path: Path | None, **fields: Any) -> TrainingJob:
    data = {"target": TARGET, "split": {"validation": 0.2, "test": 0.2}, **fields.pop("data", {})}
    if path is not None:
        data["train"] = {"format": "table", "path": str(path)}
    usual = {
        "data": data,
        "model": {"layers": LAYERS},
        "loss": {"worth": {"type": "mse", "factor": 0.5}, "place": "softmax_cross_entropy"},
        "optimizer": {"type": "adam", "learning_rate": 0.02},
        "epochs": 12,
        "batch_size": 16,
        "workers": 0,
    }
    return TrainingJob.from_mapping({**usual, **fields})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTBP_KERNELS", "numpy")
        return train(job(write(made(), folder / "h.csv")), output=folder / "run")


def command(*words: str | Path) -> str:
    done = CliRunner().invoke(group, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_class_and_a_number_are_learned_at_once(run: Result) -> None:
    assert run.metrics["test_place.accuracy"] > 0.8 and run.metrics["test_worth.r2"] > 0
    assert any("losses and metrics of values are in deviations of 'price'" in note for note in run.notes)
    model = load_model(run.path / "model")
    assert model.classes == {"place": ("Ghent", "Lyon", "Oslo", "Porto"), "worth": None}
    raw = made(60, seed=2)
    found = model.predict(raw)
    assert (found["place"] == np.array(raw["city"])).mean() > 0.8
    price = raw["price"].to_numpy()
    assert np.abs(found["worth"] - price).mean() < np.abs(price - price.mean()).mean()  # in its own unit
    targets = {"worth": price, "place": np.array(raw["city"])}
    measured = model.evaluate(raw, targets)
    assert measured["place.accuracy"] == pytest.approx((found["place"] == targets["place"]).mean())
    scaled = model.plan.targets["worth"] if model.plan else None
    assert scaled is not None and scaled.name == "price" and scaled.scaled
    error = np.sqrt(np.mean((found["worth"] - price) ** 2)) / scaled.spread
    assert measured["worth.rmse"] == pytest.approx(error, rel=1e-4)


def test_the_plan_comes_back_from_its_json(run: Result) -> None:
    plan = load_model(run.path / "model").plan
    assert plan is not None
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again.to_json() == plan.to_json() and list(again.targets) == ["place", "worth"]
    for damage in ({"targets": {}}, {"targets": {"": plan.to_json()["targets"]["place"]}}):
        with pytest.raises(DataError, match="the model's table is damaged"):
            Plan.from_json({**plan.to_json(), **damage})


def test_the_same_bits_from_files_and_frames_however_often(run: Result, tmp_path: Path) -> None:
    again = train(job(write(made(), tmp_path / "h.parquet")), output=tmp_path / "a")
    frame = train(job(None), data=made(), output=tmp_path / "b")
    assert {again.params_sha256, frame.params_sha256} == {run.params_sha256}


def test_a_prepared_table_is_kept_with_all_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distbp.data import digest
    from distbp.data.columns import opening

    monkeypatch.setattr(digest, "_SETTLED_NS", 0)
    monkeypatch.setattr(opening, "_CELLS_BYTES", 0)
    monkeypatch.setenv("DISTBP_CACHE", str(tmp_path / "cache"))
    path = write(made(), tmp_path / "h.csv")
    first = train(job(path), output=tmp_path / "a")
    assert len(list((tmp_path / "cache" / "tables").iterdir())) == 1
    monkeypatch.setattr(opening, "_prepared", None)  # which would be called if nothing was kept
    assert train(job(path), output=tmp_path / "b").params_sha256 == first.params_sha256


def test_the_commands(run: Result, tmp_path: Path) -> None:
    raw = made(30, seed=3)
    inputs = write(raw.drop_columns(["price", "city"]), tmp_path / "new.csv")
    table = list(csv.DictReader(io.StringIO(command("predict", run.path, inputs))))
    found = load_model(run.path / "model").predict(raw)
    assert list(table[0]) == ["row", "place.prediction", "worth.prediction"]
    assert [row["place.prediction"] for row in table] == found["place"].tolist()
    measured = json.loads(command("evaluate", run.path, write(raw, tmp_path / "t.csv"), "--json"))
    assert measured["place.accuracy"] == pytest.approx((found["place"] == np.array(raw["city"])).mean())
    held_out = json.loads(command("evaluate", run.path, "--split", "test", "--json"))
    assert held_out["worth.rmse"] == pytest.approx(run.metrics["test_worth.rmse"], rel=1e-5)
    lost = CliRunner().invoke(group, ["evaluate", str(run.path), str(inputs)])
    assert "has no column 'city', the target to compare with" in lost.output


def test_stratified_by_the_target_that_has_classes(tmp_path: Path) -> None:
    """Of 40 rows of each class a fifth: 8."""
    layers = [{**LAYERS[0]}, LAYERS[1], {**LAYERS[2], "name": "zone"}]
    fields = {"model": {"layers": layers}, "loss": {"worth": "mse", "zone": "softmax_cross_entropy"}}
    zone = {"worth": "price", "zone": "city"}
    one = train(job(None, data={"target": zone}, **fields, epochs=1), data=made(160), output=tmp_path / "run")
    kept = load_model(one.path / "model").evaluate(
        made(160), {"worth": made(160)["price"], "zone": made(160)["city"]}
    )
    assert kept["zone.loss"] > 0 and not any("has no row of class" in note for note in one.notes)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"worth": "prise", "place": "city"}, r"data\.target\.worth: .*'prise'.*did you mean 'price'"),
        (
            {"worth": "price", "place": {"column": "city", "scale": "standard"}},
            r"data\.target\.place\.scale: is for values, and softmax_cross_entropy takes",
        ),
        ({"worth": "price", "place": "built"}, r"."),
    ],
)
def test_columns_that_cannot_be_targets(target: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((JobError, DataError), match=message):
        train(job(None, data={"target": target}), data=made(), output=tmp_path / "run")


def test_a_target_is_no_input_and_has_one_role(tmp_path: Path) -> None:
    path = write(made(20), tmp_path / "h.csv")
    with pytest.raises(JobError, match=r"data\.columns\.city: is the target"):
        job(path, data={"columns": {"city": "category"}})
    with pytest.raises(
        JobError, match=r"data\.group: names the column 'city', which is data\.target already"
    ):
        job(path, data={"group": "city"})
    with pytest.raises(JobError, match=r"data\.target: is required|data\.target: names the targets"):
        train(job(None, data={"target": None}), data=made(), output=tmp_path / "run")


def test_targets_for_other_outputs_in_evaluate(run: Result) -> None:
    with pytest.raises(DataError, match="no targets for 'place'"):
        load_model(run.path / "model").evaluate(made(10), {"worth": np.zeros(10)})
    with pytest.raises((DataError, ModelError), match="give a mapping"):
        load_model(run.path / "model").evaluate(made(10), np.zeros(10))
