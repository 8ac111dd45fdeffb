"""What is told before training, with names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from houses import houses, job

from distbp import TrainingJob, train
from distbp.cli.main import group
from distbp.run.events import Event, Started
from distbp.run.splits import open_splits


def test_columns_that_say_nothing_or_too_much(tmp_path: Path) -> None:
    frame = houses().to_pandas().assign(country="BE", zero=0, empty=np.nan)
    frame["euros"] = frame["price"] * 1000 + 5
    frame["note"] = [f"text {i}" for i in range(len(frame))]
    frame.to_csv(tmp_path / "h.csv", index=False)
    splits = open_splits(job("h.csv", columns={"empty": "number"}), tmp_path)
    assert list(splits.notes) == [
        "columns left out of the inputs: 'note' (text, 300 levels); to use one, say in data.columns what"
        " it is",
        "columns with one value in all training rows, which say nothing: 'country', 'zero', 'empty'",
        "columns that nearly equal the target 'price', up to scale: 'euros'; if they are not known when"
        " you predict,"
        " drop them",
        f"losses and metrics of values are in deviations of 'price' ({splits.plan.target.spread:.4g});"
        " predictions"
        " are in its own units",
    ]
    told: list[Event] = []
    train(job("h.csv").replace(epochs=1), folder=tmp_path, output=tmp_path / "run", listener=told.append)
    started = next(event for event in told if isinstance(event, Started))
    assert any("'euros'" in note for note in started.notes)


@pytest.mark.parametrize("size", [1.0, 1e-300, 1e300])
def test_a_copy_of_the_target_is_told_and_nothing_else_at_any_size(size: float, tmp_path: Path) -> None:
    frame = houses().to_pandas()
    frame["price"] *= size
    frame["euros"] = frame["price"] * 2 + size
    frame.to_csv(tmp_path / "h.csv", index=False)
    found = [note for note in open_splits(job("h.csv"), tmp_path).notes if "nearly equal" in note]
    assert len(found) == 1 and found[0].startswith(
        "columns that nearly equal the target 'price', up to scale: 'euros';"
    )


def classes(**data: object) -> TrainingJob:
    return job("h.csv", target="price", **data).replace(
        loss="softmax_cross_entropy", metrics=None, model={"layers": [{"type": "dense", "units": 3}]}
    )


@pytest.mark.parametrize(("names", "said"), [(["a", "b", "rare"], "rare"), ([0, 1, 7], "7")])
def test_classes_that_a_split_does_not_have(names: list[object], said: str, tmp_path: Path) -> None:
    frame = houses().to_pandas()
    frame["price"] = [names[2] if i < 2 else names[i % 2] for i in range(len(frame))]
    frame.to_csv(tmp_path / "h.csv", index=False)
    notes = open_splits(classes(), tmp_path).notes
    assert [n for n in notes if "class" in n] == [
        f"the test set has no row of class '{said}'",
        f"the validation set has no row of class '{said}'",
    ]


def test_classes_that_a_file_of_its_own_does_not_have(tmp_path: Path) -> None:
    frame = houses().to_pandas()
    frame["price"] = [("low", "mid", "high")[i % 3] for i in range(len(frame))]
    frame[:200].to_csv(tmp_path / "h.csv", index=False)
    other = frame[200:]
    other[other["price"] != "mid"].to_csv(tmp_path / "v.csv", index=False)
    given = {"validation": {"format": "table", "path": "v.csv"}, "split": {"validation": 0, "test": 0.2}}
    notes = open_splits(classes(**given), tmp_path).notes
    assert [note for note in notes if "class" in note] == ["the validation set has no row of class 'mid'"]


@pytest.mark.parametrize("loss", ["sigmoid_cross_entropy", "softmax_cross_entropy"])
def test_a_class_of_two_that_a_file_does_not_have(loss: str, tmp_path: Path) -> None:
    frame = houses().to_pandas()
    frame.to_csv(tmp_path / "h.csv", index=False)
    frame[frame["garden"]].to_csv(tmp_path / "v.csv", index=False)
    given = {"validation": {"format": "table", "path": "v.csv"}, "split": None}
    units = 1 if loss.startswith("sig") else 2
    fields = {"loss": loss, "model": {"layers": [{"type": "dense", "units": units}]}, "metrics": None}
    notes = open_splits(job("h.csv", target="garden", **given).replace(**fields), tmp_path).notes
    assert "the validation set has no row of class 'False'" in notes


@pytest.mark.parametrize("text", [True, False])
def test_rows_that_two_sets_have(text: bool, tmp_path: Path) -> None:
    """Rows 0 to 9 of the training set are in the validation set, rows 0 to 4 with another target."""
    frame = houses().to_pandas().head(120)
    if text:
        frame["price"] = [("low", "mid", "high")[i % 3] for i in range(len(frame))]
    other = frame.head(10).copy()
    other["price"] = [frame["price"][i + (i < 5)] for i in range(10)]
    frame.head(100).to_csv(tmp_path / "h.csv", index=False)
    pd.concat([frame.tail(20), other]).to_csv(tmp_path / "v.csv", index=False)
    more = {"validation": {"format": "table", "path": "v.csv"}, "split": None}
    asked = classes(**more) if text else job("h.csv", **more)
    notes = [note for note in open_splits(asked, tmp_path).notes if "are in the training set" in note]
    assert notes == [
        "5 of 30 rows of the validation set are in the training set too, with the same target, so it"
        " measures too well"
    ]


def test_a_column_that_numbers_the_rows_is_dropped_by_a_first_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = houses().to_pandas()
    frame.insert(0, "id", np.arange(1, 301))
    frame.to_csv("h.csv", index=False)
    done = CliRunner().invoke(
        group, ["data", "describe", "h.csv", "--target", "price", "--write-job", "j.yaml"]
    )
    assert "columns that only number the rows, and are dropped by a first job: id\n" in done.stdout
    columns = TrainingJob.from_file("j.yaml").data.columns
    assert columns is not None
    assert columns["id"].type == "drop"
    assert columns["rooms"].type == "number"


CENSUS = (
    "39, State-gov, 77516, Bachelors, <=50K\n50, ?, 83311, Bachelors, >50K\n38, Private, ?, 7th-8th, <=50K\n"
)


def test_a_table_as_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks after commas, no header, "?" for what is missing, an empty line at the end, no suffix."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("distbp.job.recipes.EPOCHS", 3)
    Path("adult.data").write_text(CENSUS * 40 + "\n")
    words = ["train", "adult.data", "--target", "4", "--workers", "0", "--output", "run"]
    done = CliRunner().invoke(group, words)
    assert done.exit_code == 0, done.output
    plan = json.loads(Path("run/model/model.json").read_text())["table"]
    by_name = {column["name"]: column for column in plan["columns"]}
    assert by_name["1"]["levels"] == ["Private", "State-gov"]
    assert by_name["1"]["other"] and by_name["2"]["indicator"]
    Path("rows.data").write_text("44, Private, ?, Masters\n")
    predicted = CliRunner().invoke(group, ["predict", "run", "rows.data"])
    assert predicted.stdout.splitlines()[1].split(",")[1] in ("<=50K", ">50K")
    assert (
        predicted.stderr == "note: cells with levels that have no column of their own in the model: '3' (1)\n"
    )


def test_columns_that_name_the_target_or_the_rows(tmp_path: Path) -> None:
    """A class by another name, and numbers that only tell rows apart."""
    frame = houses().to_pandas()
    frame["price"] = np.where(frame["price"] > 150, "dear", "cheap")
    frame["sign"] = np.where(frame["price"] == "dear", "A", "B")
    frame["flag"] = frame["price"] == "dear"
    frame["number"] = np.random.default_rng(0).permutation(len(frame)) * 7 + 1000
    frame.to_csv(tmp_path / "h.csv", index=False)
    notes = open_splits(classes(), tmp_path).notes
    assert notes == (
        "columns with another whole number in every training row, as ids have: 'number'; drop those that"
        " only name the rows",
        "columns whose values name those of the target 'price', one for one: 'sign', 'flag'; if they are not"
        " known when you predict, drop them",
    )


def test_columns_that_nearly_name_the_target(tmp_path: Path) -> None:
    frame = houses(1000).to_pandas()
    dear = (frame["price"] > frame["price"].median()).to_numpy()
    frame["price"] = np.where(dear, "dear", "cheap")
    for name, wrong in (("near", 3), ("far", 30)):
        flipped = dear.copy()
        flipped[:wrong] ^= True
        frame[name] = np.where(flipped, "A", "B")
    frame.loc[frame.index[-1], "near"] = "C"
    frame["rare"] = np.where(np.arange(len(frame)) % 200, "usual", "rare")
    frame.to_csv(tmp_path / "h.csv", index=False)
    notes = open_splits(classes(split=None), tmp_path).notes
    assert notes == (
        "columns whose values name those of the target 'price', nearly one for one: 'near'; if they are not"
        " known when you predict, drop them",
    )


def test_more_rows_than_are_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distbp.data.columns.noticing.CHUNK_ROWS", 150)
    frame = houses().to_pandas().assign(country="BE", zero=0, empty=np.nan, late=0, gone=np.nan)
    frame.loc[290, ["late", "gone"]] = 1
    frame["id"] = np.arange(len(frame)) * 2
    frame.to_csv(tmp_path / "h.csv", index=False)
    kinds = {"empty": "number", "gone": "number"}
    assert open_splits(job("h.csv", columns=kinds, split=None), tmp_path).notes[:2] == (
        "columns with one value in all training rows, which say nothing: 'country', 'zero', 'empty'",
        "columns with another whole number in each of the first 150 training rows, as ids have: 'id'; drop"
        " those that only name the rows",
    )
