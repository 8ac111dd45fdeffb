"""Rows in a body of CSV, read by the code that reads tables for training."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from distbp.data.columns.reading import open_raw
from distbp.data.formats import TableFiles

_NAME = "rows.csv"


def csv_inputs(body: bytes) -> dict[str, Any]:
    """What JSON would say: {"inputs": [a mapping from column to text for each row]}. Raises DataError."""
    with tempfile.TemporaryDirectory(prefix="distbp-rows-") as folder:
        (Path(folder) / _NAME).write_bytes(body)
        table = open_raw(TableFiles(path=_NAME, kind="csv"), Path(folder), confined=True)
        rows: list[dict[str, Any]] = []
        for _, cells in table.pieces():
            columns = [column.to_pylist() for column in cells.values()]
            rows += [dict(zip(cells, row, strict=True)) for row in zip(*columns, strict=True)]
    return {"inputs": rows}
