"""Named columns of a table that enter a network together, by a slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from houses import houses, write

from distbp import JobError, TrainingJob, load_model, train
from distbp.cli.main import group
from distbp.run.explain.check import check
from distbp.run.explain.step import explain_job

PLACE = {"type": "slice", "columns": ["city"], "inputs": ["input"], "name": "place"}
SIZE = {"type": "slice", "columns": ["a*"], "inputs": ["input"], "name": "size"}
BRANCHES = [
    {"type": "dense", "units": 3, "activation": "tanh", "inputs": ["place"], "name": "where"},
    {"type": "concatenate", "inputs": ["where", "size"]},
    {"type": "dense", "units": 1},
]


def job(path: Path, layers: list[dict[str, Any]], **fields: Any) -> TrainingJob:
    data = {
        "train": {"format": "table", "path": str(path)},
        "target": {"column": "price", "scale": "standard"},
        "columns": {"area": {"kind": "number", "scale": "standard"}, "code": "drop", "others": "auto"},
        "split": {"validation": 0.2},
    }
    usual = {"data": data, "model": {"layers": layers}, "loss": "mse", "epochs": 2, "batch_size": 16}
    return TrainingJob.from_mapping({**usual, "optimizer": "adam", "workers": 0, "seed": 3, **fields})


def faults(path: Path, layers: list[dict[str, Any]], tmp_path: Path) -> list[str]:
    with pytest.raises(JobError) as raised:
        train(job(path, layers), output=tmp_path / "run")
    return [str(fault) for fault in raised.value.faults]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(houses(200, 1), tmp_path / "h.csv")


def test_a_slice_has_the_features_of_its_columns(path: Path, tmp_path: Path) -> None:
    """The same bits as where the places of the features are counted by hand."""
    named = train(job(path, [PLACE, SIZE, *BRANCHES]), output=tmp_path / "named")
    plan = load_model(named.path / "model").plan
    assert plan is not None
    made = plan.entry.made
    assert list(made) == [column.name for column in plan.columns]
    assert sorted(place for places in made.values() for place in places) == list(range(len(plan.names)))
    assert all(plan.names[place].startswith("city") for place in made["city"])

    def counted(name: str, places: list[int]) -> dict[str, Any]:
        return {
            "type": "slice",
            "start": places[0],
            "stop": places[-1] + 1,
            "inputs": ["input"],
            "name": name,
        }

    by_hand = [counted("place", made["city"]), counted("size", made["area"]), *BRANCHES]
    assert train(job(path, by_hand), output=tmp_path / "hand").params_sha256 == named.params_sha256


def test_columns_that_lie_apart(path: Path, tmp_path: Path) -> None:
    """In the order of the list, each once, on raw rows, too."""
    layers = [{"type": "slice", "columns": ["rooms", "area", "roo*"]}, {"type": "dense", "units": 1}]
    result = train(job(path, layers), output=tmp_path / "run")
    assert "no layer takes the columns 'city', 'built', 'garden'; they have no influence" in result.notes
    model = load_model(result.path / "model")
    assert model.plan is not None and model.network.shapes[1] == (
        len(model.plan.entry.made["rooms"]) + len(model.plan.entry.made["area"]),
    )
    rows = houses(200, 1).drop_columns(["code", "price"]).slice(0, 30)
    found = model.predict(rows)
    others = rows.set_column(rows.column_names.index("city"), "city", [["Oslo"] * 30])
    assert np.array_equal(found, model.predict(others))  # what is in no slice has no influence


@pytest.mark.parametrize("columns", [["rooms", "area"], ["city", "rooms"]])
def test_a_step_of_them_is_explained(columns: list[str], path: Path, tmp_path: Path) -> None:
    """Its input are the cells of the row; the first layer is what the table's plan makes of them."""
    layers = [{"type": "slice", "columns": columns}, {"type": "dense", "units": 1}]
    found = explain_job(job(path, layers), sample=1)
    assert (found.input.shape, found.layers[0].a.shape) == ((7,), (14,))
    assert check(found.to_json()).largest < 1e-12


def test_what_is_wrong_with_the_names(path: Path, tmp_path: Path) -> None:
    dense = {"type": "dense", "units": 1}
    wrong = [{"type": "slice", "columns": ["ctiy", "q*"]}, dense]
    near, none = faults(path, wrong, tmp_path)
    assert near.startswith("model.layers.0.columns.0: 'ctiy' is not known; did you mean 'city'? known: ")
    assert none.startswith("model.layers.0.columns.1: 'q*' is not known; known: ")
    (fault,) = faults(path, [dense, {"type": "slice", "columns": ["city"]}, dense], tmp_path)[:1]
    assert fault == "model.layers.1.columns: are those of the data: give it inputs: [input]"
    (fault,) = faults(path, [{"type": "input", "name": "city", "shape": [3]}, dense], tmp_path)
    assert str(fault) == (
        "model.layers.0: is for arrays; of a table name columns in a layer of the type slice"
    )
    (fault,) = faults(path, [{"type": "slice", "columns": ["city"], "start": 1}, dense], tmp_path)
    assert fault == "model.layers.0.columns: stands in place of start and stop; leave these out"


def test_arrays_have_no_columns(tmp_path: Path) -> None:
    layers = [{"type": "slice", "columns": ["city"]}, {"type": "dense", "units": 1}]
    fields = {"model": {"layers": layers}, "loss": "mse", "epochs": 1, "optimizer": "sgd", "batch_size": 4}
    with pytest.raises(JobError, match=r"model\.layers\.0\.columns: is for tables; write start and stop"):
        TrainingJob.from_mapping({**fields, "data": {"train": {"format": "moons", "samples": 20}}})
    with pytest.raises(JobError, match=r"model\.layers\.0\.columns: is for tables; write start and stop"):
        x = np.zeros((8, 3), np.float32)
        train(TrainingJob.from_mapping(fields), data=(x, x[:, :1]), output=tmp_path / "run")


def test_describe_names_the_columns(path: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(job(path, [PLACE, SIZE, *BRANCHES]).to_yaml())
    done = CliRunner().invoke(group, ["describe", str(tmp_path / "job.yaml")])
    assert done.exit_code == 0, done.output
    assert "slice 'place' (columns city)" in done.stdout, done.stdout
