"""Kinds of columns: worked by hand; fitted to training rows alone; through JSON and back, to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from houses import houses, job, write

from distbp import DistbpError, TrainingJob, train
from distbp.core.errors import DataError, JobError
from distbp.data.columns.encoders import CategoryCode, DateCode, NumberCode
from distbp.data.columns.fitting import fit_column
from distbp.data.columns.kinds import Boolean, Category, Date, Number
from distbp.data.columns.plan import Plan
from distbp.data.columns.store import CHUNK_ROWS, Column, Growing, MemoryRoom
from distbp.job.tables import TABLES
from distbp.nn.kernels import NUMPY
from distbp.nn.layers import Dense
from distbp.nn.layers.columns import Columns
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.run.splits import open_splits

NAN = float("nan")
X = Column(np.array([1.0, 2, 3, 4, NAN, 100]))
ROWS = np.array([True] * 5 + [False])  # the last row does not train


def encoded(kind: Any, column: Column, rows: np.ndarray | None = ROWS) -> tuple[Any, np.ndarray]:
    """The fitted code, and what the network makes of its cells."""
    code = fit_column("x", kind, column, rows)
    cells = np.full((len(column), len(code.cells)), 9, np.float32)
    code.encode(code.ready(column.values, column.levels), cells)
    network = Network((), cells.shape[1:], entry=Columns(cells=code.cells, names=("x",) * len(code.cells)))
    program = Program(network, len(cells), network.initialize(0), kernels=NUMPY)
    program.run(cells)
    out = program.outputs(len(cells)).copy()
    assert out.shape == (len(column), len(code.names))
    return code, out


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (Number(indicator=False), (np.array([1, 2, 3, 4, 2.5, 100]) - 2.5) / np.sqrt(1.25)),
        (Number(scale="min_max", indicator=False), (np.array([1, 2, 3, 4, 2.5, 100]) - 1) / 3),
        (Number(scale="robust", indicator=False), (np.array([1, 2, 3, 4, 2.5, 100]) - 2.5) / 1.5),
        (
            Number(scale="robust", clip="smooth", indicator=False),
            (lambda x: x / np.sqrt(1 + (x / 3) ** 2))((np.array([1, 2, 3, 4, 2.5, 100]) - 2.5) / 1.5),
        ),
        (Number(scale="none", fill="value", value=-7, indicator=False), [1, 2, 3, 4, -7, 100]),
        (Number(scale="none", fill="median", indicator=False), [1, 2, 3, 4, 2.5, 100]),
        (
            Number(scale="quantile", fill="value", value=1, indicator=False),
            (np.array([0, 1, 2, 3, 0, 3]) / 3 - 0.5) / np.sqrt(5 / 36),
        ),
    ],
)
def test_scales(kind: Number, wanted: Any) -> None:
    _, out = encoded(kind, X)
    np.testing.assert_allclose(out[:, 0], wanted, rtol=1e-6)


def test_log_is_signed() -> None:
    x = Column(np.array([-9.0, 0, 9]))
    _, out = encoded(Number(scale="log", indicator=False), x, None)
    np.testing.assert_allclose(out[:, 0], np.array([-1, 0, 1]) * np.sqrt(1.5), rtol=1e-6)


def test_a_piecewise_linear_code() -> None:
    x = Column(np.array([0.0, 1, 2, 3, 4, 2.5]))
    code, out = encoded(Number(bins=2, indicator=False), x, ROWS)
    np.testing.assert_allclose(code.edges, np.array([-2, 0, 2]) / np.sqrt(2), atol=1e-7)  # scaled 0, 2, 4
    wanted = [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1], [1, 0.25]]
    np.testing.assert_allclose(out[:, 1:], wanted, atol=1e-6)


def test_a_code_around_zero() -> None:
    x = Column(np.array([0.0, 1, 2, 3, 4, 2.5]))
    (_, usual), (_, out) = (encoded(Number(bins=2, bin_height=h), x, ROWS) for h in (None, 0.125))
    np.testing.assert_allclose(out[:, 1:], (usual[:, 1:] - 0.5) / 4, atol=1e-7)


def test_a_heavy_value_is_an_edge_of_its_own() -> None:
    x = Column(np.array([0.0] * 50 + list(np.arange(1.0, 51))))
    code, _ = encoded(Number(bins=8), x, None)
    np.testing.assert_allclose(np.array(code.edges[:2]) * code.spread + code.center, [0, 1], atol=1e-5)
    assert len(code.edges) == 9


def test_quartiles_that_are_one_give_half_the_range() -> None:
    column = Column(np.array([0.0] * 8 + [6.0]))
    code, out = encoded(Number(scale="robust", clip="smooth"), column, None)
    assert (code.center, code.spread) == (0.0, 3.0)
    np.testing.assert_allclose(out[:, 0], [0.0] * 8 + [2 / np.sqrt(1 + 4 / 9)], rtol=1e-6)
    assert encoded(Number(scale="robust", clip="smooth"), Column(np.array([1e30, 1e38, -1e38])), None)[0]


def test_numbers_with_a_periodic_embedding() -> None:
    code, out = encoded(Number(frequencies=5, indicator=True), X)
    assert code.names == ["x", "x missing", "x embedding 0", "x embedding 1", "x embedding 2"]
    assert (code.frequencies, code.dimension, code.std) == (5, 4, 0.1)
    assert (np.abs(out[:, 2:]) <= 6 / np.sqrt(5)).all() and np.ptp(out[:, 2]) > 0


def test_two_levels_as_one_signed_column() -> None:
    two = Column(np.array([0, 1, 1, -1, 0, 1], np.int32), ("a", "b"))
    code, out = encoded(Category(signed=True), two, None)
    assert (code.names, code.levels) == (["x"], ("b", "a"))
    assert out.tolist() == [[-1], [1], [1], [0], [-1], [1]]
    assert encoded(Category(signed=True), CITIES)[0].names == ["x=b", "x=a", "x=c", "x other"]
    code, out = encoded(Category(signed=True, indicator=True), two, None)
    assert code.names == ["x", "x other"]
    assert out.tolist() == [[-1, 0], [1, 0], [1, 0], [0, 1], [-1, 0], [1, 0]]


def test_where_one_hot_ends() -> None:
    of = {n: Column(np.arange(n, dtype=np.int32), tuple("abcdefghijklm"[:n])) for n in (8, 9)}
    kind = Category(one_hot=8, dimension=8, std=1.0)
    assert [encoded(kind, of[n], None)[0].dimension for n in of] == [0, 8]
    assert encoded(kind, of[9], None)[1].std() > 0.6  # 72 numbers of N(0, 1), a row of zeros not among them
    assert encoded(Category(), of[9], None)[0].dimension == 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"kind": "auto", "number": "boolean"}, "others.number: must be of the kind number"),
        (
            {"kind": "auto", "category": {"kind": "category", "std": 0}},
            "others.category.std: must be a number",
        ),
        (
            {"kind": "number", "dimension": 3},
            "others.dimension: is of a periodic embedding; give frequencies",
        ),
        ({"kind": "category", "encode": "hash", "one_hot": 3}, "others.one_hot: chooses the encoding, but"),
    ],
)
def test_faults_of_what_columns_become(kind: Any, message: str) -> None:
    with pytest.raises(JobError, match=message):
        job("h.csv", columns={"others": kind})


def test_what_auto_makes_of_numbers_and_categories(tmp_path: Path) -> None:
    write(houses(), tmp_path / "h.csv")
    others = {
        "kind": "auto",
        "number": {"kind": "number", "scale": "robust", "frequencies": 4},
        "category": {"kind": "category", "dimension": 3},
    }
    asked = job("h.csv", columns={"area": "number", "others": others})
    found = open_splits(asked, tmp_path).plan
    assert found is not None
    made = {column.name: column for column in found.columns}
    assert (made["rooms"].frequencies, made["area"].frequencies, made["city"].dimension) == (4, 0, 3)
    assert TrainingJob.from_yaml(asked.to_yaml()).digest == asked.digest
    again = Plan.from_json(json.loads(json.dumps(found.to_json())))
    assert again.columns == found.columns
    old = found.to_json()
    for column in old["columns"]:
        for name in ("clip", "frequencies", "std", "signed", "bin_height"):
            column.pop(name, None)
    for name in ("frequencies", "dimension"):
        old["columns"][1].pop(name, None)
    del old["target"]["limits"]  # as models were before
    assert Plan.from_json(old).target == found.target


def test_predictions_within_the_range_of_the_training_rows(tmp_path: Path) -> None:
    path = write(houses(), tmp_path / "h.csv")
    target = {"column": "price", "scale": "standard", "clip": True}
    result = train(job(path, target=target), output=tmp_path / "run")
    model = result.model()
    assert model.plan is not None
    low, high = model.plan.target.limits
    rows = {name: [value] * 2 for name, value in houses().slice(0, 1).to_pylist()[0].items()}
    rows["area"], rows["rooms"] = [1e4, -1e4], [900, -900]
    assert sorted(model.predict(rows).tolist()) == [low, high]
    free = train(job(path), output=tmp_path / "free").model().predict(rows)
    assert free.max() > high or free.min() < low
    with pytest.raises(JobError, match=r"data.target.clip: is for numbers, but 'city' is"):
        open_splits(job(path, target={"column": "city", "clip": True}), tmp_path)
    wide = job(path, target={"column": "rooms", "clip": True}).replace(model={"layers": [Dense(units=3)]})
    with pytest.raises(JobError, match="the last layer has 3 outputs, but the targets have 1 column;"):
        train(wide, output=tmp_path / "wide")


@pytest.mark.parametrize("kind", [Number(), Boolean(), Date()])
def test_an_indicator_is_there_where_training_rows_have_holes_or_it_is_asked_for(kind: Any) -> None:
    holes, whole = Column(np.array([0.0, 1, NAN])), Column(np.array([0.0, 1, 1]))
    assert encoded(kind, holes, None)[0].names[-1] == "x missing"
    assert encoded(kind, holes, None)[1][:, -1].tolist() == [0, 0, 1]
    assert "x missing" not in encoded(kind, whole, None)[0].names
    asked = type(kind)(indicator=True)
    assert encoded(asked, whole, None)[1][:, -1].tolist() == [0, 0, 0]
    assert "x missing" not in encoded(type(kind)(indicator=False), holes, None)[0].names


def test_a_constant_and_an_empty_column() -> None:
    assert encoded(Number(), Column(np.full(6, 1e9)))[1].tolist() == [[0.0]] * 6
    assert encoded(Number(), Column(np.full(6, NAN)))[1].tolist() == [[0.0, 1.0]] * 6


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_freed_rows_leave_the_others(dtype: Any) -> None:
    values = np.arange(1, 2 * CHUNK_ROWS + 4).astype(dtype)
    in_file, in_memory = Growing(dtype, MemoryRoom(0)), Growing(dtype, MemoryRoom(values.nbytes))
    columns = []
    for grown in (in_file, in_memory):
        grown.append(values)
        columns.append(grown.column())
        for start in (CHUNK_ROWS, 2 * CHUNK_ROWS):
            columns[-1].free_rows(slice(start, start + CHUNK_ROWS))
    assert (columns[0].values[:CHUNK_ROWS] == values[:CHUNK_ROWS]).all()
    assert not columns[0].values[CHUNK_ROWS:].any()  # holes of a file
    assert (columns[1].values == values).all()
    with pytest.raises(ValueError, match="read-only"):
        columns[0].values[0] = 0


CITIES = Column(np.array([0, 1, 1, 2, -1, 3], np.int32), ("a", "b", "c", "d"))


def test_levels_by_count_then_text() -> None:
    code, out = encoded(Category(), CITIES)
    assert code.names == ["x=b", "x=a", "x=c", "x other"]
    assert out.argmax(axis=1).tolist() == [1, 0, 0, 2, 3, 3]
    assert code.unseen(CITIES.values, CITIES.levels) == 1
    assert (out.sum(axis=1) == 1).all()


def test_rare_levels_share_a_column() -> None:
    assert encoded(Category(most=1), CITIES)[0].names == ["x=b", "x other"]
    assert encoded(Category(at_least=2), CITIES)[0].names == ["x=b", "x other"]
    code, out = encoded(Category(), CITIES, np.arange(6) < 4)  # neither holes nor rare levels
    assert code.names == ["x=b", "x=a", "x=c"]
    assert out[4:].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert encoded(Category(indicator=True), CITIES, np.arange(6) < 4)[0].names[-1] == "x other"


def test_hashed_levels_need_no_training() -> None:
    code, out = encoded(Category(encode="hash", buckets=5), CITIES)
    assert len(code.names) == 6
    assert (out.sum(axis=1) == 1).all()
    assert code.unseen(CITIES.values, CITIES.levels) == 0


def test_parts_of_dates() -> None:
    days = np.array(["1970-01-01", "1970-04-02", "2024-07-08"], "datetime64[s]").astype(np.float64)
    _, out = encoded(Date(parts=("month", "weekday")), Column(days), None)
    np.testing.assert_allclose(out[:, 0], [0, 1, 0], atol=1e-6)  # January, April, July
    np.testing.assert_allclose(out[:, 1], [1, 0, -1], atol=1e-6)
    thursday = 2 * np.pi * 3 / 7
    np.testing.assert_allclose(out[:, 2], [np.sin(thursday), np.sin(thursday), 0], atol=1e-6)
    assert encoded(Date(), Column(days), None)[0].parts == ("time", "month", "weekday")
    assert encoded(Date(), Column(days + 3600), None)[0].parts[-1] == "hour"


def test_statistics_are_those_of_the_training_rows(tmp_path: Path) -> None:
    """Rows that only measure may hold anything: the plan stays the same, to the bit."""
    table = houses()
    write(table, tmp_path / "a.parquet")
    splits = open_splits(job("a.parquet"), tmp_path)
    measured = np.concatenate([splits.tables[s].row_numbers for s in ("validation", "test")])
    frame = table.to_pandas()
    frame.loc[measured, ["area", "price"]] = 1e6
    frame.loc[measured, "city"] = "Atlantis"
    frame.to_parquet(tmp_path / "b.parquet")
    other = open_splits(job("b.parquet"), tmp_path)
    assert splits.plan is not None and other.plan is not None
    assert json.dumps(splits.plan.to_json()) == json.dumps(other.plan.to_json())
    assert (splits.tables["train"].inputs == other.tables["train"].inputs).all()
    assert (splits.tables["test"].inputs != other.tables["test"].inputs).any()


def plan(tmp_path: Path) -> Plan:
    write(houses(), tmp_path / "h.csv")
    columns = {
        "area": {"kind": "number", "bins": 4},
        "rooms": "category",
        "code": {"kind": "category", "encode": "hash"},
    }
    found = open_splits(job("h.csv", columns=columns), tmp_path).plan
    assert found is not None
    return found


def test_through_json(tmp_path: Path) -> None:
    first = plan(tmp_path)
    again = Plan.from_json(json.loads(json.dumps(first.to_json())))
    assert again.columns == first.columns
    assert (again.target, again.missing, again.header) == (first.target, first.missing, first.header)
    assert {column.type for column in first.columns} == {"number", "category", "date", "boolean"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(version=2),
        lambda d: d.update(columns=[]),
        lambda d: d["columns"].append(d["columns"][0]),
        lambda d: d["columns"][1].update(spread=0.0),
        lambda d: d["columns"][1].update(center=None),
        lambda d: d["columns"][1].update(center=NAN),
        lambda d: d["columns"][1].update(edges=[2, 1]),
        lambda d: d["columns"][1].update(bin_height=-1.0),
        lambda d: d["columns"][0].update(type="code"),
        lambda d: d["columns"][0].update(levels=[1]),
        lambda d: d["columns"][0].update(buckets=10**12),
        lambda d: d["columns"][0].pop("name"),
        lambda d: d["target"].update(spread=-1.0),
        lambda d: d.update(missing=[1]),
        lambda d: d.update(header="yes"),
        lambda d: d["columns"][1].update(frequencies=3),
        lambda d: d["columns"][1].update(frequencies=10**12, dimension=4, std=0.1),
        lambda d: d["columns"][0].update(signed=True),
        lambda d: d["columns"][0].update(clip=False),
        lambda d: d["columns"][0].pop("dimension"),
        lambda d: d["columns"][1].update(signed=False),
        lambda d: d["target"].update(limits=[2.0, 1.0]),
    ],
)
def test_damaged_plans(damage: Any, tmp_path: Path) -> None:
    data = plan(tmp_path).to_json()
    damage(data)
    with pytest.raises(DataError, match="the model's table is damaged"):
        Plan.from_json(data)


def test_plans_of_older_models(tmp_path: Path) -> None:
    found = plan(tmp_path)
    data = found.to_json()
    later = ("signed", "std"), ("clip", "frequencies", "dimension", "std", "bin_height")
    for column, names in zip(data["columns"], later, strict=False):
        for name in names:
            column.pop(name)
    data["target"].pop("limits")
    assert Plan.from_json(data).to_json() == found.to_json()


def test_every_kind_is_in_the_table_of_kinds() -> None:
    assert set(TABLES["columns"]) == {"auto", "boolean", "category", "date", "drop", "number", "text"}
    assert {NumberCode.type, CategoryCode.type, DateCode.type} <= set(TABLES["columns"])


def test_options_that_do_not_go_together() -> None:
    for kind in (lambda: Number(value=3), lambda: Date(parts=("month", "month"))):
        with pytest.raises((ValueError, DistbpError), match=r"give both or neither|each once"):
            kind()


@pytest.mark.parametrize("power", [1000, 900, -700, -1000])
def test_columns_of_any_size_are_standardized_alike(power: int) -> None:
    """Squares of such numbers leave float64."""
    values = np.random.default_rng(0).normal(3, 2, 100)
    values[7] = NAN
    usual = fit_column("x", Number(bins=4), Column(values), None)
    code = fit_column("x", Number(bins=4), Column(np.ldexp(values, power)), None)
    assert (code.center, code.spread) == (np.ldexp(usual.center, power), np.ldexp(usual.spread, power))
    assert code.edges == usual.edges
    far = fit_column("x", Number(), Column(np.array([-1.5e308, 1.5e308, 0, 1])), None)
    ranged = fit_column("x", Number(scale="min_max"), Column(np.array([-1.5e308, 1.5e308, 0, 1])), None)
    assert np.isfinite([far.center, far.spread, ranged.center, ranged.spread]).all()
