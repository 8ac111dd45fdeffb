"""Columns in the names of folders, such as year=2024/region=eu/part-0.parquet; Hive and Spark write such
tables. Their cells are text, and their types are found as for text in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np

from distbp.core.errors import DataError
from distbp.data.columns.arrow import arrow
from distbp.data.columns.files import begins_at
from distbp.data.formats.tables import TableFiles
from distbp.data.safety import DataFile

MISSING = "__HIVE_DEFAULT_PARTITION__"  # Hive's text for a missing cell
_SHOWN = 5
Folders = Mapping[str, str | None]  # the cells of a file, by column; None: missing


def folders_of(source: TableFiles, files: Sequence[DataFile]) -> list[Folders]:
    """The cells of each file in the names of its folders, below the source's folder or the fixed part of its
    pattern. Raises DataError with every file whose folders have other keys than those of the first file."""
    begin = begins_at(source.path, [file.name for file in files])
    found: list[Folders] = []
    faults = []
    for file in files:
        parts = file.name.removeprefix(begin).strip("/").split("/")[:-1]
        pairs = [tuple(map(unquote, part.split("=", 1))) for part in parts if part.find("=") > 0]
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            faults.append(f"{file.name}: two of its folders say {twice[0]!r}")
        found.append({key: None if value == MISSING else value for key, value in pairs})
        if list(found[0]) != keys and not twice:
            faults.append(f"{file.name}: its folders say {_listed(keys)}, but those of {files[0].name} say"
                          f" {_listed(list(found[0]))}")  # fmt: skip
    _refuse(faults, "folders of a table that say key=value must have the same keys in the same order")
    return found


def check_folders(
    files: Sequence[DataFile], names: Sequence[Sequence[str]], folders: Sequence[Folders]
) -> None:
    """Raises DataError with every file that has a column which is also in the names of its folders. names:
    the columns of each file."""
    faults = [
        f"{file.name}: has a column {key!r}"
        for file, columns, said in zip(files, names, folders, strict=True)
        for key in said
        if key in columns
    ]
    _refuse(
        faults, "the folder of the file says that column, too; remove it from the file, or rename the folder"
    )


def folder_cells(value: str | None, count: int) -> Any:
    """An Arrow array of `count` equal cells. value: a folder's; None: missing."""
    pa = arrow().pa
    if value is None:
        return pa.nulls(count, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), pa.array([value], pa.string()))


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(map(repr, keys)) or "nothing"


def _refuse(faults: Sequence[str], advice: str) -> None:
    if faults:
        more = f"; and {len(faults) - _SHOWN:,} more files" if len(faults) > _SHOWN else ""
        raise DataError(f"{'; '.join(faults[:_SHOWN])}{more}: {advice}")
