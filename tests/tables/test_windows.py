"""Windows of a time series as samples: which rows they are, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

import distbp
from distbp import TrainingJob
from distbp.cli.data import given_for
from distbp.core.arrays import Array
from distbp.core.errors import DataError, JobError, ModelError
from distbp.data.columns.plan import Plan
from distbp.data.columns.store import MemoryRoom
from distbp.data.windows import windows_of
from distbp.run.splits import open_splits

ROWS = 60
LAYERS = [{"type": "elman", "units": 4}, {"type": "dense", "units": 1}]


def series(rows: int = ROWS, start: int = 0) -> dict[str, Any]:
    days = np.datetime64("2020-01-01") + (start + np.arange(rows)).astype("timedelta64[D]")
    t = np.arange(start, start + rows)
    return {
        "day": pa.array(days),
        "heat": 20 + 5 * np.sin(t / 3),
        "sold": 100 + 30 * np.sin(t / 3 - 1) + t % 7,
    }


def write(path: Path, table: Any, order: Array | None = None) -> Path:
    table = pa.table(table)
    csv.write_csv(table if order is None else table.take(pa.array(order)), path)
    return path


def job(
    path: Path, layers: list[Any] = LAYERS, data: dict[str, Any] | None = None, **fields: Any
) -> TrainingJob:
    standard = {
        "train": {"format": "table", "path": str(path)},
        "target": {"column": "sold", "scale": "standard"},
        "time": "day",
        "windows": {"length": 5},
        "split": {"validation": 0.2, "test": 0.2},
    }
    rest = {"loss": "mse", "epochs": 3, "batch_size": 8, "shards": 3, "workers": 0, "metrics": ["rmse"]}
    return TrainingJob(
        **{**rest, "data": {**standard, **(data or {})}, "model": {"layers": layers}, **fields}
    )


def gathered(job: TrainingJob, split: str) -> tuple[Array, Array, Any]:
    """The samples of a split as the network has them, and their targets."""
    splits = open_splits(job, Path())
    rows = splits.prepare(job)[split]
    x = np.empty((len(rows), *rows.input_shape), np.float32)
    rows.gather(np.arange(len(rows)), x)
    return x, rows.targets, splits


def test_windows_by_hand() -> None:
    groups = np.array([0, 0, 0, 0, 0, 1, 1, 2, 2, 2])
    assert windows_of(None, 6, 3, 1, 1).starts.tolist() == [0, 1, 2]
    assert windows_of(None, 6, 3, 2, 1).starts.tolist() == [0, 2]
    assert windows_of(None, 6, 3, 1, 3).starts.tolist() == [0]
    assert windows_of(None, 6, 3, 1, 0).starts.tolist() == [0, 1, 2, 3]
    assert windows_of(groups, 10, 2, 1, 1).starts.tolist() == [0, 1, 2, 7]
    assert windows_of(groups, 10, 2, 2, 1).starts.tolist() == [0, 2, 7]
    assert windows_of(None, 3, 3, 1, 1).starts.tolist() == []
    assert windows_of(groups, 10, 2, 1, 1).take(np.arange(10), slice(-1, None)).tolist() == [[7, 8]]


@pytest.mark.parametrize("mixed", [False, True], ids=["in order", "mixed"])
def test_samples_are_the_rows_before_their_target(mixed: bool, tmp_path: Path) -> None:
    """None crosses from one set to the next; the order of rows in the file does not count."""
    table = series()
    order = np.random.default_rng(0).permutation(ROWS) if mixed else None
    made = job(
        write(tmp_path / "s.csv", table, order), data={"windows": {"length": 5, "stride": 2, "horizon": 3}}
    )
    for split, (first, stop) in {"train": (0, 36), "validation": (36, 48), "test": (48, 60)}.items():
        x, targets, splits = gathered(made, split)
        assert x.shape[1:] == (5, 2)
        starts = np.arange(first, stop - 5 - 3 + 1, 2)
        heat, sold = (np.asarray(table[name]) for name in ("heat", "sold"))
        codes = []
        for values in (heat, sold):  # by the statistics of the training rows
            codes.append((values - values[:36].mean()) / values[:36].std())
        expected = np.stack(codes, axis=1)[starts[:, None] + np.arange(5)]
        assert [column.name for column in splits.plan.columns] == ["heat", "sold"]
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(targets[:, 0], codes[1][starts + 4 + 3], rtol=1e-5, atol=1e-6)
        assert len(splits.tables[split].inputs) == stop - first  # each row is there once


def test_series_of_groups_do_not_meet(tmp_path: Path) -> None:
    parts = [series(20), series(9), series(5)]
    names = [("b", 20), ("a", 9), ("c", 5)]
    table: dict[str, Any] = {
        "shop": [name for name, count in names for _ in range(count)],
        **{key: np.concatenate([np.asarray(part[key]) for part in parts]) for key in ("day", "heat", "sold")},
    }
    path = write(tmp_path / "s.csv", table)
    groups = {"group": "shop", "split": {"validation": 0, "test": 0}, "columns": {"heat": "drop"}}
    x, _, splits = gathered(job(path, data=groups), "train")
    windows = splits.tables["train"].windows
    assert windows.starts.tolist() == [*range(4), *range(9, 24)]  # of a, b, and none of c
    whole = {**groups, "split": {"by": "group", "validation": 0.2, "test": 0}}
    assert sum(len(gathered(job(path, data=whole), split)[0]) for split in ("train", "validation")) == len(x)
    model = distbp.train(job(path, data=groups), output=tmp_path / "run").model()
    alone = [
        model.predict({"shop": [name] * count, "sold": part["sold"]})
        for (name, count), part in zip(names, parts, strict=True)
    ]
    del table["heat"]
    np.testing.assert_allclose(model.predict(table), np.concatenate(alone), rtol=1e-6)
    with pytest.raises(ModelError, match="the data has no column 'shop'"):
        model.predict({"sold": [1.0] * 9})
    with pytest.raises(DataError, match="rows 0 and 20 have one time; give each series a value of its own"):
        open_splits(job(path), Path())


@pytest.mark.parametrize("first", ["elman", "dense"])
def test_predictions(first: str, tmp_path: Path) -> None:
    """One for each row that has enough rows before it, in the unit of the target."""
    layers = LAYERS if first == "elman" else [{"type": "dense", "units": 4, "activation": "tanh"}, LAYERS[1]]
    path = write(tmp_path / "s.csv", series())
    made = job(path, layers, optimizer={"type": "adam", "learning_rate": 0.03}, epochs=40)
    result = distbp.train(made, output=tmp_path / "run")
    model, table = distbp.load_model(result.path / "model"), series()
    found = model.predict(table)
    assert found.shape == (ROWS - 4,)
    assert np.sqrt(np.mean((found[:-1] - table["sold"][5:]) ** 2)) < 10  # persistence: 9.7
    frame = pa.table({name: table[name] for name in ("sold", "day", "heat")})
    np.testing.assert_array_equal(model.predict(frame), found)
    part = {name: values[10:15] for name, values in table.items() if name != "day"}  # the day is not an input
    np.testing.assert_allclose(model.predict(part), found[10:11], rtol=1e-6)
    test = {name: values[48:59] for name, values in table.items()}
    measured = model.evaluate(test, table["sold"][53:])
    np.testing.assert_allclose(measured["loss"], result.metrics["test_loss"], rtol=1e-5)
    for words in ((), (str(write(tmp_path / "t.csv", {k: v[48:] for k, v in table.items()})),)):
        given = given_for(model, result.path, words, "test", with_targets=True)
        again = model.evaluate(given.inputs, given.targets)
        np.testing.assert_allclose(again["loss"], result.metrics["test_loss"], rtol=1e-5)
    few = {name: values[:4] for name, values in table.items()}
    with pytest.raises(
        ModelError, match="the data: 4 rows, but one prediction takes 5 in the order of time; give more"
    ):
        model.predict(few)


def test_differences(tmp_path: Path) -> None:
    """The network learns the change since the last row; predictions and targets of `evaluate` are values."""
    table = series()
    path = write(tmp_path / "s.csv", table)
    made = job(path, data={"windows": {"length": 3, "horizon": 2, "difference": True}})
    _, targets, splits = gathered(made, "validation")
    spread = table["sold"][:36].std()
    at = np.arange(36, 44) + 4
    np.testing.assert_allclose(
        targets[:, 0], (table["sold"][at] - table["sold"][at - 2]) / spread, rtol=1e-4, atol=1e-6
    )
    result = distbp.train(made, output=tmp_path / "run")
    model, rows = result.model(), {name: values[48:58] for name, values in table.items()}
    change = model.outputs(rows)[:, 0] * spread
    np.testing.assert_allclose(model.predict(rows), table["sold"][50:58] + change, rtol=1e-5)
    measured = model.evaluate(rows, table["sold"][52:])
    np.testing.assert_allclose(measured["loss"], result.metrics["test_loss"], rtol=1e-5)
    test = write(tmp_path / "t.csv", {name: values[48:] for name, values in table.items()})
    given = given_for(model, result.path, (str(test),), "test", with_targets=True)
    np.testing.assert_allclose(
        model.evaluate(given.inputs, given.targets)["loss"], measured["loss"], rtol=1e-5
    )
    assert splits.plan.series.difference


def test_a_resumed_run_and_mapped_rows_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "s.csv", series())
    one = distbp.train(job(path), output=tmp_path / "one")
    half = distbp.train(job(path, epochs=1), output=tmp_path / "half")
    assert distbp.resume(half.path, epochs=3).params_sha256 == one.params_sha256
    monkeypatch.setenv("DISTBP_PREPARE_BYTES", "100")
    monkeypatch.setattr("distbp.data.columns.opening.MemoryRoom", lambda: MemoryRoom(100))
    mapped = distbp.train(job(path), output=tmp_path / "mapped")
    assert mapped.params_sha256 == one.params_sha256
    frame = pa.table(series())
    fields = job(path).model_dump(mode="json")
    fields["data"]["train"] = None
    given = distbp.train(TrainingJob(**fields), data=frame, output=tmp_path / "frame")
    assert given.params_sha256 == one.params_sha256


def test_classes_have_no_past(tmp_path: Path) -> None:
    table = {**series(), "sold": ["more" if n % 3 else "less" for n in range(ROWS)]}
    fields = {"target": "sold", "windows": {"length": 3}}
    path = write(tmp_path / "s.csv", table)
    layers = [{"type": "gru", "units": 3}, {"type": "dense", "units": 2}]
    made = job(path, layers, data=fields, loss="softmax_cross_entropy", metrics=["accuracy"])
    model = distbp.train(made, output=tmp_path / "run").model()
    assert model.input_shape == (3, 1)
    assert set(model.predict({"heat": table["heat"]})) <= {"more", "less"}


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        ({"time": None}, "data.time", "is required by data.windows (the column that puts the rows in order)"),
        ({"split": {"by": "random"}}, "data.split.by", "must be time or group with data.windows, not random"),
        (
            {"bad_rows": "skip"},
            "data.bad_rows",
            "must be refuse with data.windows: a row left out would tear",
        ),
        (
            {"windows": {"length": 2, "difference": True}, "target": "sold"},
            "data.windows.difference",
            "needs data.target: {column: ..., scale: standard}",
        ),
        ({"windows": {"length": 0}}, "data.windows.length", "must be a whole number greater than 0, not 0"),
        (
            {"train": {"format": "npz", "path": "a.npz"}, "target": None, "time": None, "split": None},
            "data.windows",
            "is for tables",
        ),
    ],
)
def test_faults_of_a_job(data: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(JobError) as caught:
        job(Path("s.csv"), data=data)
    assert any(fault.path == path and message in fault.message for fault in caught.value.faults), caught.value


def test_a_set_without_a_window(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", series())
    said = r"s\.csv, test rows: 12 rows make no window of 12 rows and a target 1 after it; make data\.windows"
    with pytest.raises(DataError, match=said):
        open_splits(job(path, data={"windows": {"length": 12}}), Path())


def test_a_damaged_plan(tmp_path: Path) -> None:
    plan = open_splits(job(write(tmp_path / "s.csv", series())), Path()).plan
    assert plan is not None
    good = plan.to_json()
    assert Plan.from_json(good).to_json() == good
    for series_ in ({**good["series"], "length": 0}, {**good["series"], "horizon": True}, {"length": 5}, 7):
        with pytest.raises(DataError, match="the model's table is damaged"):
            Plan.from_json({**good, "series": series_})


def test_monthly_sunspots_as_windows_beat_persistence(test_data: Path, tmp_path: Path) -> None:
    """On the last fifth of the months; predictions are in sunspots."""
    path = test_data / "data" / "monthly-sunspots.csv"
    data = {"target": {"column": "Sunspots", "scale": "standard"}, "time": "Month", "split": {"test": 0.2}}
    made = job(
        path,
        [{"type": "dense", "units": 16, "activation": "tanh"}, {"type": "dense", "units": 1}],
        {**data, "windows": {"length": 36, "stride": 1, "horizon": 1, "difference": True}},
        optimizer={"type": "adam", "learning_rate": 0.003, "schedule": {"type": "cosine"}},
        epochs=10,
        batch_size=32,
        shards=1,
    )
    result = distbp.train(made, output=tmp_path / "run")
    spots = csv.read_csv(path)["Sunspots"].to_numpy()
    found = result.model().predict({"Sunspots": spots})[:-1]  # the last one is of the month to come
    assert found.shape == (len(spots) - 36,)
    last = slice(len(spots) - round(0.2 * len(spots)), None)

    def error(forecast: Array) -> float:
        return float(np.sqrt(np.mean((forecast[last] - spots[last]) ** 2)))

    ours, persistence = error(np.r_[np.zeros(36), found]), error(np.r_[0, spots[:-1]])
    assert persistence == pytest.approx(20.09, abs=0.005)
    assert ours < 0.95 * persistence


def test_rows_to_predict_are_in_the_order_of_time(tmp_path: Path) -> None:
    """Training puts rows in order; whoever predicts does it himself, and is told where he did not."""
    table, other = series(), series(30, start=7)
    both = {name: [*table[name], *other[name]] for name in table} | {"shop": ["a"] * ROWS + ["b"] * 30}
    both["day"] = pa.array([*table["day"].to_pylist(), *other["day"].to_pylist()])
    model = distbp.train(job(write(tmp_path / "s.csv", table)), output=tmp_path / "run").model()
    rows = pa.table(table)
    back = rows.take(pa.array(np.arange(ROWS)[::-1]))
    said = "row 1 is not later than the row before it, by 'day'; give rows in the order of time"
    for given in (back, back.to_pylist()):
        with pytest.raises(ModelError, match=said):
            model.predict(given)
    text = [str(day) for day in rows["day"].to_pylist()]
    assert len(model.predict({**table, "day": text})) == ROWS - 4
    with pytest.raises(DataError, match=rf"t\.csv: {said}"):
        words = (str(write(tmp_path / "t.csv", back)),)
        given_for(model, tmp_path / "run", words, "test", with_targets=True)
    with pytest.raises(
        DataError, match=r"60 targets for 56 windows of 5 rows; give one for each, that of the"
    ):
        model.evaluate(rows, table["sold"])
    path = write(tmp_path / "g.csv", both)
    grouped = distbp.train(job(path, data={"group": "shop"}), output=tmp_path / "grouped").model()
    rows = pa.table(both)
    assert len(grouped.predict(rows)) == ROWS - 4 + 26
    with pytest.raises(ModelError, match="rows of one 'shop' stand apart; give those of each one after the"):
        grouped.predict(rows.take(pa.array([*range(40), *range(60, 90), *range(40, 60)])))
