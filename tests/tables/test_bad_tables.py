"""Tables that are damaged, wrong, or made to harm: what is said, and where; or what is skipped and
counted."""

from __future__ import annotations

import gc
import gzip
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from houses import houses, job, write
from pyarrow import feather, parquet

from distbp import JobError, train
from distbp.core.errors import DataError, HostileFileError
from distbp.data.columns.arrow import arrow
from distbp.data.columns.reading import open_raw
from distbp.data.columns.store import KEPT_BYTES, MemoryRoom
from distbp.data.formats import TableFiles
from distbp.run.splits import Splits, open_splits

HEAD = "a,b,price\n"
GOOD = "".join(f"{i},{i % 7},{i * 2}\n" for i in range(40))


def opened(folder: Path, name: str = "t.csv", **fields: Any) -> Splits:
    return open_splits(job(name, **fields), folder)


def given(text: str | bytes, name: str = "t.csv") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return folder / name

    return make


def cut(name: str, part: float) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = write(houses(3000), folder / name)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * part)])
        return path

    return make


def typed(cells: Any) -> Callable[[Path], Path]:
    """A file whose bytes are called text, and of which nobody has looked."""

    def make(folder: Path) -> Path:
        column = cells
        if pa.types.is_binary(cells.type):
            column = pa.Array.from_buffers(pa.string(), len(cells), cells.buffers())
        elif pa.types.is_dictionary(cells.type):
            entries = pa.Array.from_buffers(pa.string(), len(cells.dictionary), cells.dictionary.buffers())
            column = pa.DictionaryArray.from_arrays(cells.indices, entries)
        price = pa.array(range(len(cells)), pa.int64())
        return write(pa.table({"a": column, "price": price}), folder / "t.feather")

    return make


def claiming(size: int) -> Callable[[Path], Path]:
    """A packed column that claims to unpack to so many bytes."""

    def make(folder: Path) -> Path:
        table = pa.table({"a": list(range(5000)), "price": list(range(5000))})
        feather.write_feather(table, folder / "t.feather", compression="zstd")
        content = (folder / "t.feather").read_bytes()
        begin = struct.pack("<q", 5000 * 8) + b"\x28\xb5\x2f\xfd"
        assert begin in content
        (folder / "t.feather").write_bytes(content.replace(begin, struct.pack("<q", size) + begin[8:]))
        return folder / "t.feather"

    return make


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (given(""), "t.csv: the file is empty; check that it was copied completely"),
        (given("\n\n"), "t.csv: there is no text in the file; check that it was copied completely"),
        (given(HEAD), "t.csv: the table has columns, but no rows"),
        (
            given(HEAD + GOOD + "1,2\n1,2,3,4\n"),
            "t.csv: line 42: 2 cells where the table has 3 columns: '1,2'. 2 or more rows are so; mend"
            " them (a"
            " delimiter in a cell needs quotes around the cell), or set bad_rows: skip",
        ),
        (
            given("|1x3 Cross validator\n" + GOOD),
            "t.csv: the first line has 1 cell ('|1x3 Cross validator'), and the lines below have 3; if it is"
            " not part of the table, set skip_lines: 1",
        ),
        (
            given("# prices, by a\n# made today\n\n" + HEAD + GOOD),
            "t.csv: the first line has 2 cells ('# prices, by a'), and the lines below have 3; if the first 3"
            " are not part of the table, set skip_lines: 3",
        ),
        (
            given("b,price\n" + GOOD),
            "t.csv: the first line has 2 cells ('b,price'), and the lines below have 3, as where R writes the"
            " names of rows without a name; write a name and a delimiter in front of it (in R: col.names"
            " = NA)",
        ),
        (
            given('"b" "price"\n' + GOOD.replace(",", " ")),
            "and the lines below have 3, as where R writes the names of rows without a name",
        ),
        (given(HEAD + GOOD + "1\n"), "t.csv: line 42: 1 cell where the table has 3 columns: '1'."),
        (
            given(HEAD + GOOD + HEAD + GOOD),
            "t.csv: row 40 repeats the header; remove that line, or set bad_rows: skip",
        ),
        (
            given(HEAD + GOOD + "1,inf,3\n"),
            "t.csv: row 40, column 'b': 'inf' is not a finite number. Mend it, name the text in"
            " data.missing if it"
            " means a missing cell, or set bad_rows: skip",
        ),
        (
            given(HEAD + GOOD + "1,2,\n"),
            "t.csv: row 40, column 'price': the target is missing. Mend it, or set",
        ),
        (
            given("a,price\n" + "1,5\n2,5\n" * 9),
            "t.csv: the target 'price' is 5 in all training rows, so there",
        ),
        (
            given((HEAD + GOOD).encode() + "Köln,1,2\n".encode("latin-1")),
            "t.csv: row 40, column 'a' is not utf-8 text; say the encoding of the file (encoding:"
            " latin-1), or save"
            " it as UTF-8",
        ),
        (
            cut("t.csv.gz", 0.7),
            "t.csv.gz: cannot be read as CSV (Truncated compressed stream); copy it again, or",
        ),
        (
            cut("t.parquet", 0.5),
            "t.parquet: cannot be read as Parquet (Parquet magic bytes not found in footer",
        ),
        (cut("t.feather", 0.5), "t.feather: cannot be read as an Arrow or Feather file ("),
        (cut("t.jsonl", 0.9), "t.jsonl: cannot be read as JSON lines ("),
        (
            given('{"a": 1, "price": 2}\n{"a": "x", "price": 3}\n', "t.jsonl"),
            "changed from number to string in row 1",
        ),
        (given(b"PAR1" + b"\0" * 40, "t.parquet"), "t.parquet: cannot be read as Parquet ("),
        (
            cut("t.csv.zst", 0.7),
            "t.csv.zst: cannot be read as CSV (Truncated compressed stream); copy it again, or",
        ),
        (
            cut("t.jsonl.gz", 0.7),
            "t.jsonl.gz: cannot be read as JSON lines (Truncated compressed stream); copy it again, or",
        ),
        (
            given('[{"a": 1, "price": 2}]', "t.json"),
            "t.json: is JSON, but not one object a line; write it so, as .jsonl; or say its kind",
        ),
        (given(b"PK\x03\x04", "t.xlsx"), "t.xlsx: is a spreadsheet; save its sheet as CSV; or say its kind"),
        (given(b"\n\n", "t.jsonl"), "t.jsonl: the table has no columns"),
        (
            given(b'{"a": "x", "price": 1}\n' * 9 + b'{"a": "K\xf6ln", "price": 2}\n', "t.jsonl"),
            "t.jsonl: row 9, column 'a' is not UTF-8 text; write the file again",
        ),
        (typed(pa.array([b"x", b"K\xf6ln"] * 9)), "row 1, column 'a' is not UTF-8 text; write the file"),
        (
            typed(pa.array([b"x", b"K\xf6ln"] * 9).dictionary_encode()),
            "t.feather: row 1, column 'a' is not UTF-8 text; write the file again",
        ),
        (typed(pa.array([], pa.float64())), "t.feather: the table has columns, but no rows"),
        (claiming(2**50), "t.feather: it claims to unpack to 2,251,799,813,685,248 bytes"),
        (claiming(10**10), "t.feather: it claims to unpack to 20,000,000,000 bytes"),
        (given(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "t.csv"), "t.csv: "),
    ],
)
def test_what_is_said(make: Callable[[Path], Path], said: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(DataError) as caught:
        opened(tmp_path, path.name, columns={"a": "auto"} if path.suffix == ".csv" else {})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("1,2\n1,2,3,4\n", {"a wrong number of cells": 2}),
        (HEAD, {"the header again": 1}),
        ("1,inf,3\n1,-inf,4\n", {"Inf in 'b'": 2}),
        ("1,2,\n", {"missing target": 1}),
        ("1,2,x\n", {"no number in 'price'": 1}),
    ],
)
def test_bad_rows_are_skipped_and_counted(rows: str, reason: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEAD + GOOD + rows)
    if "x" in rows:  # the type of the target is then text
        text = r"data.target.scale: is for numbers, but 'price' is text; for classes use a loss such as 'soft"
        with pytest.raises(JobError, match=text):
            opened(tmp_path, bad_rows="skip")
        return
    splits = opened(tmp_path, bad_rows="skip")
    assert splits.skipped == {"train": reason}
    assert sum(splits.rows.values()) == 40


@pytest.mark.parametrize("room", [KEPT_BYTES, 0])
def test_a_type_that_changes_in_the_last_row(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where columns are in files, which are closed where reading ends with an error."""
    monkeypatch.setattr("distbp.data.columns.opening.MemoryRoom", lambda: MemoryRoom(room))
    (tmp_path / "t.csv").write_text(HEAD + GOOD + "1,unknown,3\n")
    splits = opened(tmp_path)  # the column is text of few levels
    assert splits.plan is not None
    assert [column.type for column in splits.plan.columns] == ["number", "category"]
    with pytest.raises(
        DataError, match=r"t.csv: row 40, column 'b': 'unknown' is not a number. Mend it, name the"
    ):
        opened(tmp_path, columns={"b": "number"})
    gc.collect()  # an open file would be a warning
    skipped = opened(tmp_path, columns={"b": "number"}, bad_rows="skip")
    assert skipped.skipped == {"train": {"no number in 'b'": 1}}
    assert opened(tmp_path, columns={"b": "number"}, missing=["", "unknown"]).skipped == {}


def test_columns_that_are_not_there_are_named_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEAD + GOOD)
    with pytest.raises(JobError) as caught:
        opened(tmp_path, target="prise", columns={"A": "number", "x_*": "drop"}, weight="w")
    assert [str(fault) for fault in caught.value.faults] == [
        "data.target: 'prise' is not a column of the table; did you mean 'price'? columns: a, b, price",
        "data.weight: 'w' is not a column of the table; columns: a, b, price",
        "data.columns.A: 'A' is not a column of the table; did you mean 'a'? columns: a, b, price",
        "data.columns.x_*: 'x_*' is not a column of the table; columns: a, b, price",
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"columns": {"others": "drop"}},
            "data.columns: leave no column for the inputs; give one of them another",
        ),
        (
            {"columns": {"a": "drop", "c": "text"}},
            "data.columns: leave no column for the inputs, for these are left out: 'c' (text, 3 levels)",
        ),
        ({"columns": {"*": "number"}}, "data.columns.price: is the target, which cannot be an input too"),
        ({"time": "c"}, "data.time: must be a column of dates or numbers, but 'c' is text"),
        ({"weight": "c"}, "data.weight: must be a column of numbers, but 'c' is text"),
        (
            {"group": "a", "columns": {"a": "number"}},
            "data.group: reads 'a' as level, but data.columns as number",
        ),
    ],
)
def test_roles_that_do_not_fit(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,c,price\n" + "".join(f"{i},x{i % 3},{i}\n" for i in range(30)))
    with pytest.raises(JobError, match=re.escape(said)):
        opened(tmp_path, **fields)


def test_parts_need_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "1.csv").write_text(HEAD + GOOD)
    (tmp_path / "p" / "2.csv").write_text("a,price\n1,2\n")
    with pytest.raises(
        DataError, match=r"2.csv: has no column 'b', which p/1.csv has; a table's files need the same"
    ):
        opened(tmp_path, "p")


@pytest.mark.parametrize("path", ["../t.csv", "/etc/passwd", "p/../../x*.csv", "/etc/*.csv"])
def test_paths_that_climb_out(path: str, tmp_path: Path) -> None:
    with pytest.raises(
        HostileFileError, match=r"is not allowed in a data path|absolute paths are not allowed"
    ):
        open_splits(job(path), tmp_path, confined=True)


def test_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    write(houses(), tmp_path / "t.csv")
    (tmp_path / "own" / "t.csv").symlink_to(tmp_path / "t.csv")
    for path in ("t.csv", "*.csv", "."):
        with pytest.raises(HostileFileError, match="a link leads out of the data folder"):
            open_splits(job(path), tmp_path / "own", confined=True)


def test_nothing_fits(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    with pytest.raises(DataError, match=r"p: the folder has no file that ends in .csv, .tsv"):
        opened(tmp_path, "p")
    with pytest.raises(DataError, match=r"p/\*.csv: no file fits this pattern in"):
        opened(tmp_path, "p/*.csv")
    with pytest.raises(DataError, match=r"q.csv: there is no such file"):
        opened(tmp_path, "q.csv")


def test_packed_text_may_not_unpack_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_EXPANSION_FREE_BYTES", str(2**20))
    with gzip.open(tmp_path / "t.csv.gz", "wb") as file:
        file.write(HEAD.encode() + b"1,1,1\n" * 2_000_000)
    with pytest.raises(HostileFileError, match=r"t.csv.gz: .* packed bytes claim to unpack to"):
        opened(tmp_path, "t.csv.gz")


def test_packed_lines_are_counted_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read into memory as a whole, so nothing may be left to the end."""
    monkeypatch.setenv("DISTBP_EXPANSION_FREE_BYTES", str(2**20))
    with gzip.open(tmp_path / "t.jsonl.gz", "wb") as file:
        file.write(b'{"a": 1, "price": 2}\n' * 2_000_000)
    with pytest.raises(HostileFileError, match=r"t.jsonl.gz: .* packed bytes claim to unpack to"):
        open_raw(TableFiles(path="t.jsonl.gz"), tmp_path)  # before the first row is looked at


def test_a_header_that_claims_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_MAX_UNPACKED_BYTES", "10000")
    parquet.write_table(
        pa.table({"a": list(range(5000)), "price": list(range(5000))}), tmp_path / "t.parquet"
    )
    with pytest.raises(HostileFileError, match=r"t.parquet: it claims to unpack to"):
        opened(tmp_path, "t.parquet")


@pytest.mark.parametrize("packing", ["zstd", "lz4"])
@pytest.mark.parametrize("suffix", ["feather", "arrow"])
def test_packed_batches_may_not_unpack_to_more_than_there_may_be(
    suffix: str, packing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch is unpacked as a whole. Files and streams, text with dictionaries too."""
    monkeypatch.setenv("DISTBP_EXPANSION_FREE_BYTES", str(2**20))
    zeros = pa.table({"a": pa.array([0.0] * 300_000), "price": pa.array(["x"] * 300_000).dictionary_encode()})
    for chunk, refused in ((300_000, True), (3000, False)):
        options = pa.ipc.IpcWriteOptions(compression=packing)
        make = pa.ipc.new_file if suffix == "feather" else pa.ipc.new_stream
        with (
            pa.OSFile(str(tmp_path / f"t.{suffix}"), "wb") as out,
            make(out, zeros.schema, options=options) as to,
        ):
            to.write_table(zeros, max_chunksize=chunk)
        if refused:
            with pytest.raises(HostileFileError, match=rf"t.{suffix}: .* claim to unpack to 3,6"):
                open_raw(TableFiles(path=f"t.{suffix}"), tmp_path)
        else:
            assert open_raw(TableFiles(path=f"t.{suffix}"), tmp_path).names == ("a", "price")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow.cache_clear()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert str(caught.value) == (
        "a table needs pyarrow, which is not installed; run: pip install 'distbp[tables]'"
    )
    arrow.cache_clear()


def test_one_class(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,price\n" + "".join(f"{i},yes\n" for i in range(30)))
    two = job("t.csv", target="price").replace(
        loss="softmax_cross_entropy", metrics=None, model={"layers": [{"type": "dense", "units": 2}]}
    )
    with pytest.raises(DataError, match="the target 'price' is yes in all training rows"):
        train(two, folder=tmp_path, output=tmp_path / "run")


def test_a_row_larger_than_a_block(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEAD + GOOD + "x" * 9_000_000 + ",1,2\n")
    with pytest.raises(
        DataError, match=r"t.csv: cannot be read as CSV \(straddling object straddles two block"
    ):
        opened(tmp_path)
