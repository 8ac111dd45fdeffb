"""Frames of every library give the bits that the same rows give from files, through the stream of Arrow, and
without a dependence on any of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from houses import houses, job, write

import distbp
from distbp import TrainingJob, train
from distbp.core.errors import ArgumentError, JobError, ModelError, RemoteError
from distbp.data.columns.rows import as_arrow
from distbp.data.formats.arrays import from_arrays
from distbp.data.frames import is_frame

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")


class Stream:
    """A table of a library that nobody here knows."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def texts(table: pa.Table, kind: pa.DataType) -> pa.Table:
    fields = [f.with_type(kind) if pa.types.is_string(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields))


def polars() -> Any:
    return pl.from_arrow(houses())


FRAMES: dict[str, Callable[[], Any]] = {
    "polars": polars,
    "polars, in pieces": lambda: pl.concat([polars()[:100], polars()[100:]], rechunk=False),
    "polars, categories": lambda: polars().with_columns(
        pl.col("city").cast(pl.Categorical), pl.col("code").cast(pl.Enum([f"{n:05d}" for n in range(40)]))
    ),
    "polars, small numbers and times": lambda: polars().with_columns(
        pl.col("rooms").cast(pl.UInt8), pl.col("built").cast(pl.Datetime("ns"))
    ),
    "polars, decimals": lambda: polars().with_columns(pl.col("price", "area").cast(pl.Decimal(12, 2))),
    "pandas": lambda: houses().to_pandas(),
    "pandas, nullable": lambda: houses().to_pandas().convert_dtypes(),
    "pandas, of Arrow": lambda: houses().to_pandas(types_mapper=pd.ArrowDtype),
    "pandas, categories": lambda: houses().to_pandas().astype({"city": "category", "code": "category"}),
    "pandas, with an index": lambda: houses().to_pandas().set_index(pd.Index(range(7, 307), name="i")),
    "arrow": houses,
    "arrow, a batch": lambda: houses().combine_chunks().to_batches()[0],
    "arrow, a stream": lambda: houses().to_reader(33),
    "arrow, large text": lambda: texts(houses(), pa.large_string()),
    "arrow, views of text": lambda: texts(houses(), pa.string_view()),
    "unknown": lambda: Stream(houses()),
}


def of_frames() -> TrainingJob:
    target = {"column": "price", "scale": "standard"}
    return job("x").replace(data={"target": target, "split": {"validation": 0.2, "test": 0.2}})


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> distbp.Result:
    """Of the file."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTBP_KERNELS", "numpy")
        return train(job(write(houses(), folder / "h.parquet")), output=folder / "run")


@pytest.mark.parametrize("kind", FRAMES)
def test_train_predict_and_evaluate(kind: str, known: distbp.Result, tmp_path: Path) -> None:
    make = FRAMES[kind]
    assert is_frame(make())
    assert train(of_frames(), data=make(), output=tmp_path / "run").params_sha256 == known.params_sha256
    model, table = known.model(), houses()
    wanted = model.predict(table)
    assert model.predict(make()).tolist() == wanted.tolist()
    price = table["price"].to_numpy()
    assert model.evaluate(make(), price) == model.evaluate(table, price)


NUMBERS = np.random.default_rng(5).normal(size=(60, 3))
INPUTS: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(NUMBERS, columns=list("abc")),
    "pandas, of Arrow": lambda: pd.DataFrame(NUMBERS, columns=list("abc")).convert_dtypes(
        dtype_backend="pyarrow"
    ),
    "polars": lambda: pl.DataFrame(NUMBERS, schema=list("abc")),
    "arrow": lambda: pa.table({name: NUMBERS[:, i] for i, name in enumerate("abc")}),
    "arrow, a batch": lambda: pa.record_batch({name: NUMBERS[:, i] for i, name in enumerate("abc")}),
    "arrow, a stream": lambda: INPUTS["arrow"]().to_reader(),
    "unknown": lambda: Stream(INPUTS["arrow"]()),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_estimators(kind: str) -> None:
    values = NUMBERS @ [1.0, 2.0, 3.0]
    settings: dict[str, Any] = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0}
    plain = distbp.DistbpRegressor(**settings).fit(NUMBERS, values)
    found = distbp.DistbpRegressor(**settings).fit(INPUTS[kind](), values)
    assert found.result_.params_sha256 == plain.result_.params_sha256
    assert list(found.feature_names_in_) == ["a", "b", "c"]
    assert found.predict(INPUTS[kind]()).tolist() == plain.predict(NUMBERS).tolist()
    classes = np.where(values > 0, "yes", "no")
    one, other = (distbp.DistbpClassifier(**settings).fit(x, classes) for x in (NUMBERS, INPUTS[kind]()))
    assert one.result_.params_sha256 == other.result_.params_sha256


def test_a_lazy_frame_has_no_rows_yet(known: distbp.Result, tmp_path: Path) -> None:
    lazy = polars().lazy()
    assert not is_frame(lazy)
    with pytest.raises(
        ArgumentError, match=r"not a value of type LazyFrame, which has no rows yet: give what"
    ):
        train(of_frames(), data=lazy, output=tmp_path / "run")
    with pytest.raises(ModelError, match=r"a LazyFrame has no rows yet; give what its \.collect\(\) returns"):
        known.model().predict(lazy)
    with pytest.raises(ArgumentError, match=r"a LazyFrame has no rows yet; give what its \.collect\(\)"):
        distbp.DistbpRegressor().fit(lazy, [1.0])
    with pytest.raises(RemoteError, match=r"or a frame, not 'LazyFrame \(call its \.collect\(\) first\)'"):
        distbp.submit(of_frames(), data=lazy, url="http://127.0.0.1:9")


def test_text_of_polars_is_not_made_python_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Column by column, each cell would be one."""
    monkeypatch.setattr("distbp.data.columns.rows._columns", lambda *_: pytest.fail("column by column"))
    frame = polars().with_columns(pl.col("city").cast(pl.Categorical))
    table = as_arrow(frame)
    assert pa.types.is_dictionary(table.schema.field("city").type)
    assert pa.types.is_string_view(table.schema.field("code").type)


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "arrow, a batch"])
def test_arrays_of_frames_have_the_names_of_their_columns(kind: str) -> None:
    table = from_arrays(INPUTS[kind](), NUMBERS[:, 0])
    assert table.columns == ("a", "b", "c")
    assert table.inputs.tolist() == NUMBERS.tolist()


@pytest.mark.parametrize("series", [pl.Series("a", [1.0, 2.0]), pd.Series([1.0, 2.0]), pa.array([1.0])])
def test_a_series_is_no_frame(series: Any, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"data for 'train' must be \(x, y\) or \(x, y, weights\)"):
        train(of_frames(), data=series, output=tmp_path / "run")


def test_two_columns_of_one_name(known: distbp.Result) -> None:
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(ModelError, match="two columns of the frame are named 'a'"):
        known.model().predict(frame)
    with pytest.raises(ModelError, match="two columns of the frame are named 'a'"):
        known.model().predict(pa.table([[1], [2]], names=["a", "a"]))


@pytest.mark.parametrize(
    ("data", "splits", "said"),
    [
        ({"windows": {"length": 3}}, ("train",), r"data\.time: is required by data\.windows"),
        (
            {"windows": {"length": 3}, "time": "built", "bad_rows": "skip"},
            ("train",),
            r"data\.bad_rows: must be refuse with data\.windows",
        ),
        ({"split": {"by": "group"}}, ("train",), r"data\.group: is required by data\.split\.by: group"),
        (
            {"split": {"test": 0.2}},
            ("train", "test"),
            r"data\.split\.test: must be 0, as a test frame is given",
        ),
        ({"standardize": True}, ("train",), r"data\.standardize: is for arrays"),
        ({"weight": "price"}, ("train",), r"names the column 'price', which is data\.target already"),
        ({"columns": {"price": "number"}}, ("train",), r"data\.columns\.price: is the target"),
    ],
)
def test_a_job_of_frames_is_checked_as_one_of_files(
    data: dict[str, Any], splits: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    made = of_frames().replace(data={"target": {"column": "price", "scale": "standard"}, **data})
    with pytest.raises(JobError, match=said):
        train(made, data=dict.fromkeys(splits, houses()), output=tmp_path / "run")


@pytest.mark.parametrize(
    "data", [{"split": {"validation": 0.2}}, {"weight": "a"}, {"target": "a"}, {"columns": {"a": "number"}}]
)
def test_what_is_for_tables_is_no_part_of_a_job_of_arrays(data: dict[str, Any], tmp_path: Path) -> None:
    made, (name,) = of_frames().replace(data=data), data
    with pytest.raises(
        JobError, match=rf"data\.{name}: is for tables; give a frame: train\(job, data=frame\)"
    ):
        train(made, data=(NUMBERS, NUMBERS[:, 0]), output=tmp_path / "run")
