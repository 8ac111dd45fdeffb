"""Tables in files that pyarrow reads: CSV and TSV, Parquet, Arrow and Feather, JSON lines."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from distbp.core.errors import DataError
from distbp.core.options import OptionError, option
from distbp.data.table import Table

# The options for reading text. They also apply to other files that a model reads later.
READING: Mapping[str, type] = MappingProxyType(
    {"delimiter": str, "quote": str, "decimal": str, "encoding": str, "skip_lines": int, "replace": dict}
)


@dataclass(frozen=True, kw_only=True)
class TableFiles:
    """A table with named columns: one file, a folder of files, or a pattern. `data.columns` says what the
    columns are, and `data.target` which column is the target. Needs pyarrow: `pip install
    'distbp[tables]'`."""

    type: Literal["table"] = "table"
    path: str = option(
        help="a file, a folder, or a pattern such as parts/*.parquet; text may be compressed (.gz, .zst,"
        " .bz2); or, if DISTBP_REMOTE allows it, an address: https://, s3://, gs://",
        path=True,
        min_length=1,
    )
    kind: Literal["auto", "csv", "parquet", "arrow", "jsonl"] = option(
        "auto", help="the format of the files; auto: detected by their names, else by their first bytes"
    )
    delimiter: str | None = option(
        None, help="the character between the cells of CSV; left out: detected", min_length=1
    )
    quote: str = option('"', help="the character around cells of CSV that hold delimiters; '': none")
    decimal: Literal[","] | None = option(
        None, help="',' if numbers of CSV are written as 1,5 or 1.234,5; left out: as 1.5"
    )
    encoding: str = option("utf-8", help="the encoding of text, such as latin-1 or cp1252")
    header: bool | None = option(
        None,
        help="whether the first line of CSV names the columns; left out: detected. Without names, columns are"
        " numbered from 0",
    )
    skip_lines: int = option(0, help="how many lines at the beginning of CSV to leave out", ge=0)
    replace: Mapping[str, str] | None = option(
        None,
        help="texts that are read as others: {'<=50K.': '<=50K'}; they are whole cells, without surrounding"
        " blanks",
    )

    def __post_init__(self) -> None:
        for name in ("delimiter", "quote"):
            value = getattr(self, name)
            if name == "quote" and not value:
                continue
            if value is not None and (len(value) != 1 or not value.isascii() or value in "\r\n"):
                raise OptionError(name, f"must be one ASCII character, not {value!r}")
        if self.delimiter is not None and self.delimiter == self.decimal:
            raise OptionError("decimal", f"must not be the delimiter {self.delimiter!r}; leave one out")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise OptionError(
                "encoding", f"{self.encoding!r} is not known; known are utf-8, latin-1, cp1252"
            ) from None

    @property
    def reading(self) -> dict[str, Any]:
        """The options of `READING` that differ from their defaults."""
        said = {name: getattr(self, name) for name in READING if getattr(self, name) != getattr(USUAL, name)}
        return {name: dict(value) if name == "replace" else value for name, value in said.items()}

    def open(self, folder: Path, confined: bool = False) -> Table:
        raise DataError(
            f"{self.path}: a table needs the columns of a job (data.target); train on it, or predict with a"
            " model that was trained on one"
        )


USUAL = TableFiles(path="a table")
