"""Jobs that go on with the preparation of a model: `init_keeps: [preparation]`. Nothing is fitted anew."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from houses import houses, job, write

from distbp import TrainingJob, load_model, resume, train
from distbp.cli.main import group
from distbp.core.errors import DataError, JobError
from distbp.data.columns import opening
from distbp.data.columns.rows import encode_given
from distbp.run.result import Result
from distbp.run.splits import open_splits
from distbp.run.verify import verify_run

COLUMNS: dict[str, Any] = {"code": {"kind": "category", "most": 12}, "area": {"kind": "number", "bins": 4}}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("houses")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTBP_KERNELS", "numpy")
        return train(job(write(houses(), folder / "h.csv"), columns=COLUMNS), output=folder / "run")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


def further(first: Result, path: Path | None, keeps: Any = ("preparation",), **data: Any) -> TrainingJob:
    return job(path, **data).replace(init=str(first.path), init_keeps=keeps)


def strange(rows: int = 60) -> pa.Table:
    """Other rows: prices of another size, a level that nobody knows, fewer of the known ones."""
    table = houses(rows, seed=9)
    city = pa.array(["Rome", "Oslo"] * (rows // 2))
    price = pa.array(1000 * table["price"].to_numpy())
    table = table.set_column(table.column_names.index("city"), "city", city)
    return table.set_column(table.column_names.index("price"), "price", price)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_new_rows_are_prepared_by_the_plan_of_the_model(tmp_path: Path, first: Result, suffix: str) -> None:
    path = write(strange().append_column("owner", pa.array(range(60))), tmp_path / f"new.{suffix}")
    wanted = further(first, path)
    splits, model = open_splits(wanted, tmp_path), first.model()
    assert splits.plan is not None and model.plan is not None
    assert splits.plan.to_json() == model.plan.to_json()
    assert "columns that the model does not use: 'owner'" in splits.notes
    assert any(re.match("cells with levels that have no column .*'city' ", note) for note in splits.notes)
    table, raw = splits.tables["train"], strange()
    numbers = [table.row_number(row) for row in range(len(table))]
    cells = encode_given(model.plan, raw.take(numbers), np.float32)  # as those of prediction
    np.testing.assert_array_equal(table.inputs, cells.inputs)
    code = model.plan.target
    price = raw["price"].to_numpy()[numbers]
    np.testing.assert_allclose(splits.meaning.targets["train"][:, 0], code.scale(price), rtol=1e-6)
    result = train(wanted, output=tmp_path / "run")
    assert not any("become other inputs" in note for note in result.notes)
    shutil.rmtree(tmp_path / "run/model")
    (tmp_path / "run/result.json").unlink()
    assert resume(tmp_path / "run").params_sha256 == result.params_sha256
    assert verify_run(tmp_path / "run").equal
    assert load_model(tmp_path / "run/model").plan is not None


def test_no_statistics_are_taken(tmp_path: Path, first: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*given: Any) -> None:
        raise AssertionError("something was fitted")

    monkeypatch.setattr(opening, "fit_column", fit)
    monkeypatch.setattr(opening, "moments", fit)
    train(further(first, write(strange(), tmp_path / "new.csv")), output=tmp_path / "run")


def test_the_same_rows_are_one_training(tmp_path: Path, first: Result) -> None:
    path = Path(first.path).parent / "h.csv"
    whole = train(job(path, columns=COLUMNS).replace(epochs=16), output=tmp_path / "whole")
    last = train(further(first, path, ("optimizer", "preparation")), output=tmp_path / "last")
    assert last.params_sha256 == whole.params_sha256
    frame = further(first, None, ("preparation", "optimizer"), train=None)
    given = train(frame, data=houses(), output=tmp_path / "frame")  # its bits, without its file's name
    assert given.params_sha256 == whole.params_sha256


def test_what_was_prepared_for_another_plan_is_not_used(
    tmp_path: Path, first: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTBP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(opening, "_CELLS_BYTES", 0)
    monkeypatch.setattr("distbp.data.digest._SETTLED_NS", -(10**18))
    path = write(strange(), tmp_path / "new.parquet")
    own = open_splits(job(path), tmp_path).plan
    for _ in range(2):
        kept = open_splits(further(first, path), tmp_path).plan
        assert own is not None and kept is not None and first.model().plan is not None
        assert kept.to_json() == first.model().plan.to_json() != own.to_json()


def classes(path: Path, **fields: Any) -> TrainingJob:
    """A job that predicts the city."""
    layers = [{"type": "dense", "units": 4}]
    said = {"loss": "softmax_cross_entropy", "metrics": None, "model": {"layers": layers}, **fields}
    return TrainingJob.from_mapping(
        {
            "data": {"train": {"format": "table", "path": str(path)}, "target": "city"},
            "epochs": 1, "workers": 0, **said,
        }
    )  # fmt: skip


def test_classes_keep_their_outputs(tmp_path: Path) -> None:
    table = houses(200)
    known = table.filter(table["city"].is_valid())
    one = train(classes(write(known, tmp_path / "a.csv")), output=tmp_path / "one")
    assert one.model().classes == ("Ghent", "Lyon", "Oslo", "Porto")
    some = known.filter(pc.is_in(known["city"], pa.array(["Porto", "Lyon"])))
    fields = {"init": str(tmp_path / "one"), "init_keeps": ["preparation"]}
    job = classes(write(some, tmp_path / "b.csv"), **fields)
    splits = open_splits(job, tmp_path)
    wanted = np.where(np.array(some["city"].to_pylist()) == "Porto", 3, 1)
    np.testing.assert_array_equal(splits.meaning.targets["train"], wanted)
    result = train(job, output=tmp_path / "two")
    assert result.model().classes == one.model().classes
    only = known.filter(pc.equal(known["city"], "Oslo"))  # one value, and there is more to know
    train(classes(write(only, tmp_path / "c.csv"), **fields), output=tmp_path / "three")
    with pytest.raises(DataError, match=r"Rome is a class that the model does not have; it has Ghent"):
        train(classes(write(strange(), tmp_path / "d.csv"), **fields), output=tmp_path / "four")


def test_classes_of_steps_keep_their_outputs(tmp_path: Path) -> None:
    layers = [{"type": "elman", "units": 3, "return_sequences": True}, {"type": "dense_steps", "units": 3}]
    job = TrainingJob(
        model={"layers": layers}, loss="softmax_cross_entropy", data={"truncated_bptt_steps": 3}, epochs=1,
        batch_size=2, workers=0,
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(4, 7, 2))
    y = np.array([3, 5, 9])[np.arange(28).reshape(4, 7) % 3]
    one = train(job, data=(x, y), output=tmp_path / "one")
    assert one.model().classes == (3, 5, 9)
    later = job.replace(init=str(tmp_path / "one"), init_keeps=["preparation"])
    two = train(later, data=(x, np.where(y == 3, 5, y)), output=tmp_path / "two")
    assert two.model().classes == (3, 5, 9)
    with pytest.raises(DataError, match="7 is a class that the model does not have; it has 3, 5, 9"):
        train(later, data=(x, np.where(y == 3, 7, y)), output=tmp_path / "three")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"target": "price"}, "data.target: must be that of the model in init: {column: price, scale: stand"),
        ({"target": {"column": "rooms", "scale": "standard"}}, "data.target: must be that of the model in"),
        (
            {"columns": COLUMNS},
            "data.columns: is the model's with init_keeps: [preparation]; leave it out, or set it to null",
        ),
        (
            {"missing": ["-"]},
            "data.missing: is the model's with init_keeps: [preparation]; leave it out, or set it to null",
        ),
    ],
    ids=["scale", "target", "columns", "missing"],
)
def test_what_is_not_as_in_the_model(
    tmp_path: Path, first: Result, data: dict[str, Any], message: str
) -> None:
    path = write(houses(60), tmp_path / "h.csv")
    with pytest.raises(JobError, match=re.escape(message)):
        train(further(first, path, **data), output=tmp_path / "run")


def test_a_column_that_the_model_needs_is_gone(tmp_path: Path, first: Result) -> None:
    path = write(houses(60).drop_columns(["city", "built"]), tmp_path / "h.csv")
    with pytest.raises(DataError, match=r"h.csv has no column 'city', 'built'; the model needs 'rooms', "):
        train(further(first, path), output=tmp_path / "run")


def test_arrays_keep_their_scales(tmp_path: Path, first: Result) -> None:
    x = np.random.default_rng(0).normal(3, 5, (80, 2))
    y = (x[:, 0] > 3).astype(np.int64)
    layers = {"layers": [{"type": "dense", "units": 2}]}
    job = TrainingJob(
        model=layers, loss="softmax_cross_entropy", data={"standardize": True}, epochs=2, workers=0
    )
    one = train(job, data=(x, np.where(y, "in", "out")), output=tmp_path / "one")
    fields = {"init": str(tmp_path / "one"), "init_keeps": ["preparation"], "data": {}}
    rest = x[y == 1][:20] * 9
    two = train(job.replace(**fields), data=(rest, np.repeat("in", 20)), output=tmp_path / "two")
    assert two.model().preprocessing.to_json() == one.model().preprocessing.to_json()
    assert two.model().classes == ("in", "out")
    with pytest.raises(JobError, match=r"data.standardize: is the model's with init_keeps: \[preparation\]"):
        job.replace(**{**fields, "data": {"standardize": True}})
    with pytest.raises(JobError, match="the model in init takes a table, and the data are arrays"):
        train(job.replace(**{**fields, "init": str(first.path)}), data=(x, y), output=tmp_path / "three")
    with pytest.raises(JobError, match="the model in init takes arrays, and the data is a table"):
        train(further(one, write(houses(60), tmp_path / "h.csv")), output=tmp_path / "four")


def test_the_commands(tmp_path: Path, first: Result) -> None:
    write(strange(), tmp_path / "new.csv")
    (tmp_path / "job.yaml").write_text(job("new.csv").to_yaml())
    sets = ["--set", f"init={first.path}", "--set", "init_keeps=[preparation, optimizer]"]
    for words in (["validate"], ["train", "--output", str(tmp_path / "run")], ["describe"]):
        found = CliRunner().invoke(group, [words[0], str(tmp_path / "job.yaml"), *words[1:], *sets])
        assert found.exit_code == 0, found.output
    scored = CliRunner().invoke(group, ["evaluate", str(tmp_path / "run")])
    assert scored.exit_code == 0, scored.output
