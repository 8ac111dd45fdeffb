"""A table with a column of every kind, as people have them, written in any format."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, feather, parquet

from distbp import TrainingJob


def houses(rows: int = 300, seed: int = 1) -> pa.Table:
    r = np.random.default_rng(seed)
    rooms = r.integers(1, 9, rows)
    area = np.round(rooms * 20 + r.normal(0, 5, rows), 2)
    cities = np.array(["Ghent", "Lyon", "Oslo", "Porto"])[r.integers(0, 4, rows)]
    code = [f"{n:05d}" for n in r.integers(0, 30, rows)]
    built = np.datetime64("1990-01-01") + r.integers(0, 10_000, rows).astype("timedelta64[D]")
    garden = r.random(rows) < 0.4
    price = np.round(area * 3 + (cities == "Oslo") * 40 + garden * 25 + r.normal(0, 4, rows), 1)
    holes = r.random(rows) < 0.1
    return pa.table(
        {
            "rooms": pa.array(rooms),
            "area": pa.array(area, mask=holes),
            "city": pa.array(cities, mask=r.random(rows) < 0.05),
            "code": pa.array(code),
            "built": pa.array(built),
            "garden": pa.array(garden),
            "price": pa.array(price),
        }
    )


def write(table: pa.Table, path: Path) -> Path:
    """By the suffix: .csv, .tsv, .parquet, .feather, .arrow, .jsonl; and .gz and .zst after them."""
    if path.suffix in (".zst", ".gz") and not path.name.endswith(".csv.gz"):
        plain = write(table, path.with_suffix(""))
        with pa.output_stream(str(path)) as out:
            out.write(plain.read_bytes())
        plain.unlink()
        return path
    if path.name.endswith((".csv", ".tsv", ".csv.gz")):
        options = csv.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ",", quoting_style="needed")
        if path.suffix == ".gz":
            with gzip.open(path, "wb") as file:
                csv.write_csv(table, file, options)
        else:
            csv.write_csv(table, path, options)
    elif path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=77)
    elif path.suffix == ".feather":
        feather.write_feather(table, path)
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=41)
    else:
        table.to_pandas().to_json(path, orient="records", lines=True, date_format="iso", date_unit="s")
    return path


def job(path: Any, **data: Any) -> TrainingJob:
    """A small job that predicts the price."""
    fields = {
        "train": {"format": "table", "path": str(path)},
        "target": {"column": "price", "scale": "standard"},
        "split": {"validation": 0.2, "test": 0.2},
    }
    return TrainingJob.from_mapping(
        {
            "data": {**fields, **data},
            "model": {
                "layers": [{"type": "dense", "units": 8, "activation": "relu"}, {"type": "dense", "units": 1}]
            },
            "loss": "mse",
            "metrics": ["r2"],
            "optimizer": {"type": "adam", "learning_rate": 0.01},
            "epochs": 8,
            "batch_size": 16,
            "workers": 0,
        }
    )
