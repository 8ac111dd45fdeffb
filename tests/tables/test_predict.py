"""A model that was trained on a table takes raw rows back, from Python and from the command line."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from houses import houses, job, write

from distbp import TrainingJob, load_model, train
from distbp.cli.main import group
from distbp.core.errors import DataError, ModelError
from distbp.model.predictor import Model
from distbp.run.verify import verify_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("houses")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTBP_KERNELS", "numpy")
        train(job(write(houses(), folder / "h.csv")), output=folder / "run")
    return folder / "run"


@pytest.fixture
def model(run: Path) -> Model:
    return load_model(run / "model")


def cli(*words: str | Path) -> Result:
    return CliRunner().invoke(group, [str(word) for word in words])


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_run_on_a_table_can_be_verified_and_resumed(run: Path) -> None:
    assert verify_run(run).equal
    assert cli("resume", run).exit_code == 0


def test_the_plan_is_in_the_model(run: Path, model: Model) -> None:
    assert model.plan is not None
    held = json.loads((run / "model" / "model.json").read_text())
    assert held["table"] == model.plan.to_json()
    assert model.plan.names[:2] == ["rooms", "area"]


def test_every_spelling_of_rows(model: Model) -> None:
    table = houses().drop_columns(["price"])
    frame = table.to_pandas()
    wanted = model.predict(table)
    assert abs(wanted - houses()["price"].to_numpy()).mean() < 30  # in its own units, which are hundreds
    shuffled = frame[frame.columns[::-1]]
    texts = {
        name: [None if v is None else str(v) for v in table[name].to_pylist()] for name in table.column_names
    }
    for rows in (
        frame,
        shuffled,
        frame.astype({"city": "category"}),
        table.to_batches()[0],
        table.to_pydict(),
        table.to_pylist(),
        texts,
        {name: frame[name].to_numpy() for name in frame},
    ):
        np.testing.assert_array_equal(model.predict(rows), wanted)


def test_one_row(model: Model) -> None:
    row = {"rooms": 3, "area": 61.5, "city": "Oslo", "code": "00007", "built": "2001-02-03", "garden": "yes"}
    assert model.predict(row).shape == (1,)
    assert model.predict([row, {**row, "area": None}]).shape == (2,)


def test_rows_of_no_number(model: Model) -> None:
    assert model.predict(houses().slice(0, 0)).shape == (0,)


def test_unseen_levels_and_strange_columns_are_counted(model: Model) -> None:
    frame = houses(6).to_pandas()
    frame.loc[[1, 2], "city"] = "Atlantis"
    frame["colour"] = "red"
    with pytest.warns(UserWarning) as told:
        model.predict(frame)
    assert [str(one.message) for one in told] == [
        "cells with levels that have no column of their own in the model: 'city' (2)",
        "columns that the model does not use: 'colour'",
    ]
    assert model.encoded(frame).seen.unseen == {"city": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda f: f.drop(columns=["area", "code"]),
            "the data has no column 'area', 'code'; the model needs 'rooms', 'area', 'city', 'code', 'built',"
            " 'garden', in any order",
        ),
        (
            lambda f: f.assign(area=["12", "x", "3"], built=["2020-01-01", None, "soon"]),
            "row 1, column 'area': 'x' is not a number; row 2, column 'built': 'soon' is not a date."
            " Mend these"
            " cells, or leave them empty",
        ),
        (
            lambda f: f.assign(area=["1,5", "2", "3"]),
            "'1,5' is not a number; for a decimal comma in CSV say decimal: ','. Mend these cells",
        ),
        (lambda f: f.assign(area=[1.0, np.inf, 2]), "row 1, column 'area': inf is not a number"),
        (
            lambda f: f.assign(garden=["yes", "no", "perhaps"]),
            "row 2, column 'garden': 'perhaps' is not yes or no",
        ),
        (lambda f: f.assign(area=[1.0, 1e300, 2]), "row 1"),
        (lambda f: f.to_numpy(), "the model takes rows with named columns: a frame, a mapping"),
        (
            lambda f: {**f.to_dict("list"), "area": [1]},
            "the columns have different lengths ('rooms' 3, 'area' 1",
        ),
        (lambda f: [*f.to_dict("records"), 7], "row 3 is not a mapping from column to value"),
    ],
)
def test_rows_that_cannot_be_taken(change: Any, said: str, model: Model) -> None:
    with pytest.raises(ModelError) as caught:
        model.predict(change(houses(3).to_pandas()))
    assert said in str(caught.value)


def test_all_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    frame = (
        pd.DataFrame(np.random.default_rng(0).normal(size=(40, 30)))
        .add_prefix("c")
        .assign(price=1.0 * np.arange(40))
    )
    frame.to_csv(tmp_path / "h.csv", index=False)
    model = train(job(tmp_path / "h.csv").replace(epochs=1), output=tmp_path / "run").model()
    with pytest.raises(ModelError) as caught:
        model.predict(frame[["c0"]])
    assert all(f"'c{number}'" in str(caught.value).split(";")[0] for number in range(1, 30))
    (tmp_path / "p").mkdir()
    frame.to_csv(tmp_path / "p" / "1.csv", index=False)
    frame[["c0", "price"]].to_csv(tmp_path / "p" / "2.csv", index=False)
    with pytest.raises(DataError) as refused:
        train(job(tmp_path / "p"), output=tmp_path / "none")
    assert all(f"'c{number}'" in str(refused.value) for number in range(1, 30))


def test_evaluation_is_that_of_training(run: Path, model: Model, tmp_path: Path) -> None:
    result = json.loads((run / "result.json").read_text())["metrics"]
    said = json.loads(cli("evaluate", run, "--json").stdout)
    assert said["r2"] == result["test_r2"]
    assert said["loss"] == result["test_loss"]
    rows = houses(60, seed=4)
    write(rows, tmp_path / "more.parquet")
    note = "note: losses and metrics of values are in deviations of 'price' ("
    assert note in cli("evaluate", run, tmp_path / "more.parquet").stderr
    found = model.evaluate(rows, rows["price"].to_numpy())
    assert json.loads(cli("evaluate", run, tmp_path / "more.parquet", "--json").stdout) == {
        "rows": 60,
        **found,
    }
    assert found["r2"] > 0.5


def test_evaluation_weighs_rows_as_training_does(tmp_path: Path) -> None:
    frame = houses().to_pandas().assign(count=np.random.default_rng(2).integers(0, 9, 300))
    frame.to_csv(tmp_path / "h.csv", index=False)
    test = frame[200:]
    test.to_csv(tmp_path / "test.csv", index=False)
    source = {"format": "table", "path": str(tmp_path / "test.csv")}
    asked = job(tmp_path / "h.csv", weight="count", split=None, test=source)
    metrics = train(asked, output=tmp_path / "run").metrics
    trained = {"loss": metrics["test_loss"], "r2": metrics["test_r2"]}
    for words in ((), (tmp_path / "test.csv",)):
        said = json.loads(cli("evaluate", tmp_path / "run", *words, "--json").stdout)
        assert said == {"rows": 100, **trained}
    model = load_model(tmp_path / "run" / "model")
    y = test["price"]
    assert model.evaluate(test, y) == model.evaluate(test, y, weights=test["count"]) == trained
    plain = test.drop(columns="count")
    assert model.evaluate(plain, y) == model.evaluate(test, y, weights=np.ones(100)) != trained
    plain.to_csv(tmp_path / "plain.csv", index=False)
    note = "note: there is no column 'count', the weight of the job: all rows count alike\n"
    assert note in cli("evaluate", tmp_path / "run", tmp_path / "plain.csv").stderr
    assert cli("predict", tmp_path / "run", tmp_path / "test.csv").stderr == ""
    said = r"the data: row 0, column 'count': -1 is a weight below 0. Mend it, or leave such rows out"
    with pytest.raises(DataError, match=said):
        model.evaluate(test.assign(count=-1), y)


def test_a_file_is_read_as_that_of_training_was(tmp_path: Path) -> None:
    def lines(rows: pa.Table) -> str:
        path = tmp_path / "plain.csv"
        rows.to_pandas().to_csv(path, index=False, sep=";", decimal=",")
        return "# from the office\n# of houses\n" + path.read_text().replace("Oslo", "OSLO")

    reading = {"skip_lines": 2, "decimal": ",", "replace": {"OSLO": "Oslo"}, "encoding": "cp1252"}
    (tmp_path / "h.csv").write_text(lines(houses()))
    source = {"format": "table", "path": str(tmp_path / "h.csv"), **reading}
    model = train(job(tmp_path / "h.csv", train=source), output=tmp_path / "run").model()
    rows = houses(20, seed=5)
    (tmp_path / "more.csv").write_text(lines(rows))
    done = cli("predict", tmp_path / "run", tmp_path / "more.csv")
    assert [float(row["prediction"]) for row in read(done.stdout)] == model.predict(rows).tolist()
    said = "decimal ',', encoding 'cp1252', replace {'OSLO': 'Oslo'}, skip_lines 2"
    assert done.stderr == f"note: read as in training: {said}\n"
    write(rows, tmp_path / "other.csv")  # what is written out is read as it says
    done = cli("predict", tmp_path / "run", f"{{format: table, path: {tmp_path / 'other.csv'}}}")
    assert [float(row["prediction"]) for row in read(done.stdout)] == model.predict(rows).tolist()
    assert done.stderr == ""


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".parquet", ".feather", ".jsonl"])
def test_the_command_line_predicts_rows(suffix: str, run: Path, model: Model, tmp_path: Path) -> None:
    rows = houses(20, seed=5).select(["price", "garden", "built", "code", "city", "area", "rooms"])
    done = cli("predict", run, write(rows, tmp_path / f"rows{suffix}"))
    assert done.exit_code == 0, done.output
    assert [float(row["prediction"]) for row in read(done.stdout)] == model.predict(rows).tolist()
    assert done.stderr == ""


def test_the_command_line_says_what_it_noticed(run: Path, tmp_path: Path) -> None:
    frame = houses(5).to_pandas().assign(city="Atlantis", pool=1)
    frame.to_csv(tmp_path / "r.csv", index=False)
    done = cli("predict", run, tmp_path / "r.csv", "-o", tmp_path / "out.csv")
    assert "5 predictions in" in done.stdout
    assert done.stderr.splitlines() == [
        "note: cells with levels that have no column of their own in the model: 'city' (5)",
        "note: columns that the model does not use: 'pool'",
    ]
    frame.drop(columns=["rooms", "area"]).to_csv(tmp_path / "r.csv", index=False)
    done = cli("predict", run, tmp_path / "r.csv")
    assert (done.exit_code, "r.csv has no column 'rooms', 'area'; the model needs" in done.stderr) == (
        3,
        True,
    )
    (tmp_path / "r.csv").write_text(
        "rooms,area,city,code,built,garden\n1,2,Oslo,1,2020-01-01,yes\n1,big,,1,,no\n"
    )
    done = cli("predict", run, tmp_path / "r.csv")
    assert "r.csv: row 1, column 'area': 'big' is not a number" in done.stderr
    (tmp_path / "r.csv").write_text("rooms,area,city,code,built,garden\n1,2,Oslo,1,2020-01-01,yes\n")
    assert "has no column 'price', the target" in cli("evaluate", run, tmp_path / "r.csv").stderr


def test_targets_of_text_are_refused(model: Model) -> None:
    with pytest.raises(DataError, match="mse takes numbers, but the targets are text"):
        model.evaluate(houses(3), ["a", "b", "c"])


def test_classes_come_back_by_name(tmp_path: Path) -> None:
    table = houses()
    dear = np.where(table["price"].to_numpy() > 300, "dear", "cheap")
    write(table.set_column(6, "price", pa.array(dear)), tmp_path / "h.csv")
    classes = job("h.csv", target="price").replace(
        loss="softmax_cross_entropy", metrics=["accuracy"], model={"layers": [{"type": "dense", "units": 2}]}
    )
    model = train(classes, folder=tmp_path, output=tmp_path / "run").model()
    assert set(model.predict(table.drop_columns(["price"])).tolist()) == {"cheap", "dear"}
    assert model.predict_proba(table.slice(0, 3).drop_columns(["price"])).shape == (3, 2)
    assert model.evaluate(table, dear)["accuracy"] > 0.7
    done = cli("evaluate", tmp_path / "run", tmp_path / "h.csv", "--json")
    assert json.loads(done.stdout)["accuracy"] == model.evaluate(table, dear)["accuracy"]
    first = cli("predict", tmp_path / "run", tmp_path / "h.csv", "--probabilities").stdout.splitlines()[0]
    assert first == "row,prediction,probability_cheap,probability_dear"


def test_whole_numbers_as_classes(tmp_path: Path) -> None:
    frame = houses().to_pandas()
    frame["price"] = np.where(frame["price"] > 300, 7, 3)
    frame.to_parquet(tmp_path / "h.parquet")
    classes = job("h.parquet", target="price").replace(
        loss="softmax_cross_entropy", metrics=None, model={"layers": [{"type": "dense", "units": 2}]}
    )
    model = train(classes, folder=tmp_path, output=tmp_path / "run").model()
    assert set(model.predict(frame).tolist()) == {3, 7}


def test_a_model_of_arrays_says_so(tmp_path: Path) -> None:
    plain = job("x.csv").replace(data={})
    x = np.random.default_rng(0).normal(size=(40, 3))
    model = train(plain, data=(x, x.sum(axis=1)), output=tmp_path / "run").model()
    with pytest.raises(
        ModelError, match="not trained on a table with named columns; give an array of inputs"
    ):
        model.encoded(pd.DataFrame(x))


def test_a_plan_that_does_not_fit_the_layers(run: Path, tmp_path: Path) -> None:
    from distbp.core.sealed import sealed_json, unseal_json

    content = unseal_json((run / "model" / "model.json").read_bytes())
    content["table"]["columns"].pop()
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes((run / "model" / "weights.safetensors").read_bytes())
    (folder / "model.json").write_bytes(bytes(sealed_json(content)))
    with pytest.raises(ModelError, match=r"its table makes 7 cells of a row, not inputs of shape \[8\]"):
        load_model(folder)


def test_a_service_takes_a_list_of_mappings(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    from distbp_service.api.config import Limits
    from distbp_service.api.prediction import Predictions
    from distbp_service.errors import BadValueError

    service = Predictions(None, Limits())  # type: ignore[arg-type]
    monkeypatch.setattr(service, "loaded", lambda _: model)
    rows = json.loads(
        houses(4).drop_columns(["price"]).to_pandas().to_json(orient="records", date_format="iso")
    )
    found = service.predict(None, rows, probabilities=False)  # type: ignore[arg-type]
    assert found.predictions == model.predict(houses(4)).tolist()
    for bad, said in (
        ([[1, 2, 3]], "row 0 is not a mapping from column to value"),
        ([{"rooms": 1}], "the data has no column 'area', 'city', 'code', 'built', 'garden'"),
        ([{**rows[0], "area": {"a": [1]}}], "row 0, column 'area'"),
        ([{**rows[0], "city": ["Oslo"]}], "row 0, column 'city'"),
        ([{**rows[0], "built": 3}], "row 0, column 'built': 3 is not a date"),
    ):
        with pytest.raises(BadValueError, match=re.escape(said)):
            service.predict(None, bad, probabilities=False)  # type: ignore[arg-type]


def test_a_model_of_other_columns_is_told_of(run: Path, tmp_path: Path) -> None:
    write(houses(seed=8), tmp_path / "h.csv")
    found = cli("validate", write_job(tmp_path, str(run)), "--json")
    assert any(
        "init: the columns of the table become other inputs" in note
        for note in json.loads(found.stdout)["notes"]
    )


def write_job(folder: Path, init: str) -> Path:
    (folder / "job.yaml").write_text(job("h.csv").replace(init=init).to_yaml())
    return folder / "job.yaml"


@pytest.mark.parametrize("loss", ["sigmoid_cross_entropy", "softmax_cross_entropy"])
def test_booleans_as_classes(loss: str, tmp_path: Path) -> None:
    """Those of typed files and frames come back as booleans, text as text; each model measures both."""
    table = houses(120)
    frame = table.to_pandas()
    frame.to_csv(tmp_path / "h.csv", index=False)  # True and False
    write(table, tmp_path / "h.parquet")
    write(table, tmp_path / "h.jsonl")
    found = {}
    for suffix in ("csv", "parquet", "jsonl"):
        units = 1 if loss == "sigmoid_cross_entropy" else 2
        fields = job(tmp_path / f"h.{suffix}", target="garden", split=None).model_dump(mode="json")
        layers = [{"type": "dense", "units": units}]
        asked = TrainingJob(**{**fields, "loss": loss, "model": {"layers": layers}, "metrics": ["accuracy"]})
        result = train(asked, output=tmp_path / suffix)
        model = result.model()
        said = [
            cli("evaluate", tmp_path / suffix, tmp_path / f"h.{one}").stdout for one in ("csv", "parquet")
        ]
        assert said[0].splitlines()[1:] == said[1].splitlines()[1:]
        accuracy = model.evaluate(table, frame["garden"])["accuracy"]
        right = model.predict(table).astype(str) == frame["garden"].astype(str)
        assert accuracy == right.mean()
        found[suffix] = (model.classes, result.params_sha256)
    assert [classes for classes, _ in found.values()] == [("False", "True"), (False, True), (False, True)]
    assert len({digest for _, digest in found.values()}) == 1


def test_targets_of_a_file_that_cannot_be_compared_with(tmp_path: Path) -> None:
    """A class of 1.7 is not taken for 1."""
    rows = [f"{n},{n % 3}\n" for n in range(60)]
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(rows))
    fields = job(tmp_path / "t.csv", target="y").model_dump(mode="json")
    loss, layers = "softmax_cross_entropy", [{"type": "dense", "units": 3}]
    asked = {**fields, "loss": loss, "model": {"layers": layers}, "metrics": ["accuracy"]}
    train(TrainingJob(**asked), output=tmp_path / "run")
    (tmp_path / "u.csv").write_text("a,y\n1,1.0\n2,1.7\n")
    assert "row 1: 1.7 is not a label" in cli("evaluate", tmp_path / "run", tmp_path / "u.csv").stderr
    (tmp_path / "u.csv").write_text("a,y\n1,1.0\n2,\n")
    said = cli("evaluate", tmp_path / "run", tmp_path / "u.csv").stderr
    assert "row 1, column 'y': the target is missing. Mend it, or leave such rows out\n" in said


def test_bad_rows_of_a_file_are_left_out_where_the_job_says_so(tmp_path: Path) -> None:
    """As in training: the metrics are those of the rows that are left."""
    frame = houses().to_pandas().assign(count=1)
    good = frame[200:]
    good.to_csv(tmp_path / "good.csv", index=False)
    bad = frame[:5].astype(object)
    bad.loc[0, "price"], bad.loc[1, "area"], bad.loc[2, "area"] = None, "big", "inf"
    bad.loc[3, "count"], bad.loc[4, "area"] = -1, 1e300
    lines = pd.concat([bad, good]).to_csv(index=False).splitlines(keepends=True)
    (tmp_path / "bad.csv").write_text("".join([*lines, lines[0], "1,2\n"]))
    write(houses().append_column("count", pa.array([1] * 300)), tmp_path / "h.csv")
    asked = job(tmp_path / "h.csv", bad_rows="skip", weight="count")
    train(asked, output=tmp_path / "run")
    wanted = json.loads(cli("evaluate", tmp_path / "run", tmp_path / "good.csv", "--json").stdout)
    done = cli("evaluate", tmp_path / "run", tmp_path / "bad.csv", "--json")
    assert json.loads(done.stdout) == wanted and wanted["rows"] == 100
    said = cli("evaluate", tmp_path / "run", tmp_path / "bad.csv").stdout.splitlines()
    assert said[:2] == [
        f"100 rows of {tmp_path / 'bad.csv'}",
        "  bad_rows: skip left out 7 of 107 rows (1: the header again, 1: a wrong number of cells,"
        " 1: no number in 'area', 1: Inf in 'area', 1: missing target, 1: weight below 0,"
        " 1: too large inputs)",
    ]
    assert cli("predict", tmp_path / "run", tmp_path / "bad.csv").exit_code == 3  # each row needs an answer
