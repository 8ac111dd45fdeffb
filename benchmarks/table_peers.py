"""The preparation of `benchmarks.tables` by other libraries, each written as its users would for speed.

Each reads the Parquet files of a folder and leaves one file of float32: numbers with mean 0 and deviation 1,
0 and a flag where one is missing; codes of the levels of text, 0 where it is missing; the day as a number;
the target. They do less than `distbp`: types are taken from the files, all rows are training rows, in the
order of the files, no number gets bins, and no plan is kept that could prepare another row.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

BATCH_ROWS = 65_536


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def arrow_numpy(folder: Path, made: Path) -> int:
    """pyarrow reads batches, NumPy computes; two passes, the files shared by two threads."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    schema = parquet.read_schema(_parts(folder)[0])
    numbers = [field.name for field in schema if pa.types.is_float64(field.type)]
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    wide = 2 * len(numbers) + len(texts) + 2

    def look(part: Path) -> tuple[int, Any, dict[str, Counter[str]]]:
        rows, sums = 0, np.zeros((3, len(numbers)))
        levels: dict[str, Counter[str]] = {name: Counter() for name in texts}
        for batch in parquet.ParquetFile(part).iter_batches(BATCH_ROWS):
            rows += batch.num_rows
            for j, name in enumerate(numbers):
                x = batch[name].drop_null().to_numpy()
                sums[:, j] += len(x), x.sum(), x @ x
            for name in texts:
                for found in pc.value_counts(batch[name]).to_pylist():
                    levels[name][found["values"]] += found["counts"]
        return rows, sums, levels

    with ThreadPoolExecutor(2) as pool:
        looks = list(pool.map(look, _parts(folder)))
        count, total, squares = sum(sums for _, sums, _ in looks)
        mean = total / count
        deviation = np.sqrt(squares / count - mean**2)
        codes = {
            name: pa.array(sorted({*joined} - {None}))
            for name in texts
            for joined in [sum((levels[name] for _, _, levels in looks), Counter())]
        }
        starts = np.cumsum([0, *(rows for rows, _, _ in looks)])
        table = np.lib.format.open_memmap(made, "w+", np.float32, (int(starts[-1]), wide))

        def write(number: int) -> None:
            start, missing = int(starts[number]), np.empty(BATCH_ROWS, bool)
            for batch in parquet.ParquetFile(_parts(folder)[number]).iter_batches(BATCH_ROWS):
                out = np.empty((wide, batch.num_rows), np.float32)
                for j, name in enumerate(numbers):
                    x = batch[name].to_numpy(zero_copy_only=False)
                    np.isnan(x, out=missing[: len(x)])
                    np.subtract(x, mean[j], out=out[2 * j], casting="same_kind")
                    out[2 * j] /= deviation[j]
                    out[2 * j][missing[: len(x)]] = 0
                    out[2 * j + 1] = missing[: len(x)]
                for j, name in enumerate(texts):
                    found = pc.index_in(batch[name], codes[name]).fill_null(-1)
                    np.add(found.to_numpy(), 1, out=out[2 * len(numbers) + j], casting="unsafe")
                out[-2] = batch["day"].cast(pa.int32()).to_numpy()
                out[-1] = batch["target"].to_numpy()
                table[start : start + batch.num_rows] = out.T
                start += batch.num_rows

        list(pool.map(write, range(len(looks))))
    return int(starts[-1])


def polars_streaming(folder: Path, made: Path) -> int:
    """Lazy queries of the streaming engine: one for the statistics, one that writes."""
    import polars as pl

    table = pl.scan_parquet(_parts(folder))
    schema = table.collect_schema()
    numbers = [name for name, kind in schema.items() if kind == pl.Float64]
    texts = [name for name, kind in schema.items() if kind == pl.String]
    found = table.select(
        pl.len().alias("rows"),
        *(pl.col(name).mean().alias(f"{name} mean") for name in numbers),
        *(pl.col(name).std(ddof=0).alias(f"{name} std") for name in numbers),
        *(pl.col(name).drop_nulls().unique().implode().alias(name) for name in texts),
    ).collect(engine="streaming")
    scaled = [
        ((pl.col(name) - found[f"{name} mean"][0]) / found[f"{name} std"][0]).fill_null(0).cast(pl.Float32)
        for name in numbers
    ]
    flags = [pl.col(name).is_null().cast(pl.Float32).alias(f"{name} missing") for name in numbers]
    codes = [
        (pl.col(name).cast(pl.Enum(found[name][0].sort())).to_physical() + 1).fill_null(0).cast(pl.Float32)
        for name in texts
    ]
    rest = [pl.col("day").to_physical().cast(pl.Float32), pl.col("target").cast(pl.Float32)]
    table.select(*scaled, *flags, *codes, *rest).sink_ipc(made, engine="streaming")
    return int(found["rows"][0])


def pandas_sklearn(folder: Path, made: Path) -> int:
    """A frame in memory, and scikit-learn's transformers."""
    import pandas as pd
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder, StandardScaler

    frame = pd.concat([pd.read_parquet(part) for part in _parts(folder)], ignore_index=True)
    texts = [name for name in frame if name.startswith("c")]
    prepared = make_column_transformer(
        (
            make_pipeline(StandardScaler(), SimpleImputer(strategy="mean", add_indicator=True)),
            make_column_selector(dtype_include="float64"),
        ),
        (OrdinalEncoder(encoded_missing_value=-1), texts),
    ).fit_transform(frame)
    day = pd.to_datetime(frame["day"]).astype("int64").to_numpy()
    rest = np.column_stack([day, frame["target"].to_numpy()])
    np.save(made, np.hstack([prepared, rest], dtype=np.float32, casting="unsafe"))
    return len(frame)


PEERS: Mapping[str, Callable[[Path, Path], int]] = {
    "pyarrow and NumPy": arrow_numpy,
    "polars, streaming": polars_streaming,
    "pandas and scikit-learn": pandas_sklearn,
}


def prepared_by(name: str, folder: Path) -> int:
    """Prepares the table, and returns its rows. The file is deleted."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as where:
        return PEERS[name](folder, Path(where) / "made.npy")
