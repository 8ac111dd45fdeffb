"""Kinds of columns: worked by hand; fitted to training rows alone; through JSON and back, to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from houses import houses, job, write

from distbp import DistbpError
from distbp.core.errors import DataError
from distbp.data.columns.encoders import CategoryCode, DateCode, NumberCode
from distbp.data.columns.fitting import fit_column
from distbp.data.columns.kinds import Boolean, Category, Date, Number
from distbp.data.columns.plan import Plan
from distbp.data.columns.store import Column
from distbp.job.tables import TABLES
from distbp.nn.kernels import NUMPY
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
    network = Network((), cells.shape[1:], entry=Columns(cells=code.cells))
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


def test_a_heavy_value_is_an_edge_of_its_own() -> None:
    x = Column(np.array([0.0] * 50 + list(np.arange(1.0, 51))))
    code, _ = encoded(Number(bins=8), x, None)
    np.testing.assert_allclose(np.array(code.edges[:2]) * code.spread + code.center, [0, 1], atol=1e-5)
    assert len(code.edges) == 9


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
        lambda d: d["columns"][0].update(type="code"),
        lambda d: d["columns"][0].update(levels=[1]),
        lambda d: d["columns"][0].update(buckets=10**12),
        lambda d: d["columns"][0].pop("name"),
        lambda d: d["target"].update(spread=-1.0),
        lambda d: d.update(missing=[1]),
        lambda d: d.update(header="yes"),
    ],
)
def test_damaged_plans(damage: Any, tmp_path: Path) -> None:
    data = plan(tmp_path).to_json()
    damage(data)
    with pytest.raises(DataError, match="the model's table is damaged"):
        Plan.from_json(data)


def test_every_kind_is_in_the_table_of_kinds() -> None:
    assert set(TABLES["columns"]) == {"auto", "boolean", "category", "date", "drop", "number", "text"}
    assert {NumberCode.type, CategoryCode.type, DateCode.type} <= set(TABLES["columns"])


def test_options_that_do_not_go_together() -> None:
    for kind in (lambda: Number(value=3), lambda: Date(parts=("month", "month"))):
        with pytest.raises((ValueError, DistbpError), match=r"give both or neither|each once"):
            kind()
