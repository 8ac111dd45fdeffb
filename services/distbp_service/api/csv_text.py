"""Reads the rows of a CSV body with the code that reads tables for training."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distbp.data.columns.plan import Plan
from distbp.data.columns.reading import open_raw
from distbp.data.formats import TableFiles
from distbp_service.errors import BadValueError

MOST_CELLS = 2_000_000  # a cell may take one byte in the body, but takes a hundred in memory
_NAME = "the rows"


@dataclass(frozen=True)
class CsvBody:
    """A CSV body that is not parsed yet, because the model decides how."""

    body: bytes


def csv_rows(given: CsvBody, most: int, plan: Plan | None) -> list[dict[str, Any]]:
    """The rows of a CSV body, each a mapping from column to text, read as the training table was. plan: the
    model's; None: it was not trained on a table. Raises DataError, and BadValueError for more than `most`
    rows or MOST_CELLS cells."""
    source = TableFiles(path=_NAME, kind="csv", **({} if plan is None else plan.reading))
    header = None if plan is None else plan.header
    with tempfile.TemporaryDirectory(prefix="distbp-rows-") as folder:
        (Path(folder) / _NAME).write_bytes(given.body)
        table = open_raw(source, Path(folder), confined=True, header=header)
        rows: list[dict[str, Any]] = []
        for row, cells in table.pieces():
            count = row + len(next(iter(cells.values())))
            if count > most or count * len(cells) > MOST_CELLS:
                raise BadValueError(f"give 1 to {most:,} rows, of {MOST_CELLS:,} cells at most", "body")
            columns = [column.to_pylist() for column in cells.values()]
            rows += [dict(zip(cells, values, strict=True)) for values in zip(*columns, strict=True)]
    return rows
