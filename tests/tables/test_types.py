"""Types come from every cell of the file; kinds follow from types and levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from distbp.core.errors import DataError
from distbp.data.columns import types
from distbp.data.columns.cells import MISSING, NUMBER, as_dates, as_numbers, matches, numbers_of
from distbp.data.columns.csv_text import find_dialect
from distbp.data.columns.kinds import automatic
from distbp.data.columns.reading import open_raw
from distbp.data.columns.types import ColumnFacts, survey
from distbp.data.formats.tables import TableFiles


def facts(tmp_path: Path, text: str, **options: object) -> dict[str, ColumnFacts]:
    (tmp_path / "t.csv").write_text(text)
    return survey(open_raw(TableFiles(path="t.csv", **options), tmp_path), MISSING, deep=True)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2", "+3", "0"], "whole"),
        (["1", "2.5", ".5", "1e-3", "-7."], "number"),
        (["1", "inf", "-Infinity"], "number"),
        (["00123", "12345"], "text"),
        (["0", "007"], "text"),
        (["1", "0x1F"], "text"),
        (["1", "2,5"], "text"),
        (["2024-02-29", "1999-12-31 23:59", "2000/01/02", "2001-05"], "date"),
        (["2024-02-29T12:00:00Z", "2024-02-29 12:00+02:00", "2024-02-29 12:00:00.123456789 +0530"], "date"),
        (["2024-02-29 23:59:59 UTC", "2024-02-29T12:00:00-05", "2024-02"], "date"),
        (["2023-02-29", "2023-02-28"], "text"),
        (["2023-02-29T12:00:00+02:00"], "text"),
        (["2024-02-29 24:00", "12:30"], "text"),
        (["yes", "No", "YES"], "boolean"),
        (["true", "false", "maybe"], "text"),
        (["?", "NA", "", "5"], "whole"),
        (["?", "", "NaN"], "empty"),
        (["1", "2000-01-01"], "text"),
    ],
)
def test_a_type_for_all_cells(cells: list[str], kind: str, tmp_path: Path) -> None:
    found = facts(tmp_path, "a,b\n" + "".join(f'"{cell}",x\n' for cell in cells))["a"]
    assert found.type == kind
    assert found.rows == len(cells)
    assert found.missing == sum(cell in MISSING for cell in cells)


def test_an_instant_is_taken_in_utc() -> None:
    spellings = ["2024-03-01", "2024-03-01 02:00+02:00", "2024-02-29T19:00:00.0000005 -0500", "2024-03", None]
    found, bad = as_dates(pa.array([*spellings, "2024-02-30T00:00+01:00"]))
    assert found.tolist()[:4] == [1709251200.0] * 4 and np.isnan(found[4:]).all()
    assert bad is not None and bad.tolist() == [False] * 5 + [True]
    assert as_dates(pa.array(spellings))[1] is None


def test_the_last_row_counts_and_is_named(tmp_path: Path) -> None:
    found = facts(tmp_path, "a,b\n" + "1,2\n" * 200_000 + "3,n.a.\n")
    assert found["a"].type == "whole"
    assert found["b"].type == "text"
    assert found["b"].why == (
        "t.csv: row 200,000 is 'n.a.', after whole numbers; name it in data.missing if it means a missing"
        " cell"
    )
    assert found["b"].levels == {"2": 200_000, "n.a.": 1}


def test_why_a_postcode_is_text(tmp_path: Path) -> None:
    assert facts(tmp_path, "a,b\n01234,1\n")["a"].why == "'01234' has zeros in front"


def test_ranges_levels_and_blanks(tmp_path: Path) -> None:
    found = facts(tmp_path, "day; size ;kind\n2024-01-31; 3; a b\n2020-01-01;?;a b \n;-1.5;c\n")
    assert list(found) == ["day", "size", "kind"]
    assert (found["size"].low, found["size"].high, found["size"].missing) == (-1.5, 3, 1)
    assert found["kind"].levels == {"a b": 2, "c": 1}
    assert found["day"].low == 1577836800


def test_levels_are_counted_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "COUNTED_LEVELS", 3)
    found = facts(tmp_path, "a,b\n" + "".join(f"x{i},{i % 3}\n" for i in range(9)))
    assert found["a"].levels is None
    assert found["b"].levels == {"0": 3, "1": 3, "2": 3}


def test_kinds_follow(tmp_path: Path) -> None:
    rows = "".join(
        f"{i},name{i},c{i % 4},2020-01-0{i % 9 + 1},{'yes' if i % 2 else 'no'}\n" for i in range(50)
    )
    found = facts(tmp_path, "n,id,c,d,b\n" + rows)
    assert {name: automatic(one).type for name, one in found.items()} == {
        "n": "number",
        "id": "text",
        "c": "category",
        "d": "date",
        "b": "boolean",
    }


@pytest.mark.parametrize(
    ("text", "delimiter", "names"),
    [
        ("a,b\n1,2\n", ",", ("a", "b")),
        ("a\tb\n1\t2,5\n", "\t", ("a", "b")),
        ("a;b\n1,5;2,5\n3,5;4,1\n", ";", ("a", "b")),
        ("1,2\n3,4\n", ",", ("0", "1")),
        ("a,?\nb,c\n", ",", ("0", "1")),
        ('"a, b",c\n1,2\n', ",", ("a, b", "c")),
        ("\ufeffa,b\n1,2\n", ",", ("a", "b")),
        ("a\n1\n2\n", ",", ("a",)),
        (",a\n0,x\n", ",", ("unnamed_0", "a")),
        ("a,b,\n1,2,\n", ",", ("a", "b", "unnamed_2")),
        ("a,,b\nc,d,e\n", ",", ("0", "1", "2")),
        ("a b\n1 2\n", " ", ("a", "b")),
        ("A11 6 A34\nA12 48 A32\n", " ", ("0", "1", "2")),
        ("  a\t  b \r\n 1   x\r\n22   y  \r\n", " ", ("a", "b")),
        ("full name\nAda Lovelace\nAlan Turing\n", ",", ("full name",)),
        ("city,size\nNew York,1\nSan Jose,2\n", ",", ("city", "size")),
        ("p,x,x\ne,x,y\np,y,x\ne,y,x\n", ",", ("0", "1", "2")),  # words alone, and no names
        ("p,q,q\ne,x,y\n", ",", ("p", "q", "q.1")),
        ("a,a,a.1\n1,2,3\n", ",", ("a", "a.2", "a.1")),
        ("sep=;\r\na;b\r\n1,5;2\r\n", ";", ("a", "b")),  # told to Excel
        ('\ufeff"sep=|"\n\na|b,c\n1|2\n', "|", ("a", "b,c")),
    ],
)
def test_delimiter_and_header_are_found(
    text: str, delimiter: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(text)
    table = open_raw(TableFiles(path="t.csv"), tmp_path)
    assert table.dialect is not None
    assert (table.dialect.delimiter, table.names) == (delimiter, names)
    assert find_dialect(TableFiles(path="t.csv", header=True), table.files[0]).header


def test_blanks_between_cells_are_one_but_within_quotes(tmp_path: Path) -> None:
    text = "n   w\n" + "".join(f"  {i:>6}\t 'x  {i % 3}' \n" for i in range(90_000)) + "7  y"
    found = facts(tmp_path, text, quote="'")
    assert (found["n"].type, found["n"].rows, found["n"].high) == ("whole", 90_001, 89_999)
    assert found["w"].levels == {"x  0": 30_000, "x  1": 30_000, "x  2": 30_000, "y": 1}


@pytest.mark.parametrize("delimiter", ["\t", " "])
def test_cells_may_have_no_quotes(delimiter: str, tmp_path: Path) -> None:
    """A sign for inches, at the beginning of a cell, is a part of it."""
    (tmp_path / "t.tsv").write_text(
        "size\ty\n".replace("\t", delimiter) + f'"5{delimiter}1\n6"{delimiter}2\n' * 20
    )
    table = open_raw(TableFiles(path="t.tsv", quote=""), tmp_path)
    facts = survey(table, MISSING)
    assert table.names == ("size", "y") and facts["size"].rows == 40
    assert facts["size"].levels == {'"5': 20, '6"': 20}
    (tmp_path / "t.tsv").write_text("a title\n" + f'x{delimiter}"1{delimiter}2\n' * 20)
    with pytest.raises(DataError, match="the lines below have 3"):
        open_raw(TableFiles(path="t.tsv", quote=""), tmp_path)


def test_a_header_again_is_no_row_of_words(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\nx,y\na,b\nx,y\n")
    assert open_raw(TableFiles(path="t.csv"), tmp_path).names == ("a", "b")


def test_text_may_be_read_as_another(tmp_path: Path) -> None:
    replace = {"no.": "no", "yes.": "yes", "2": "3"}
    found = facts(tmp_path, "a,b\n1,yes.\n2, no.\n3,yes\n4,no. one\n", replace=replace)
    assert found["a"].levels == {"1": 1, "3": 2, "4": 1}
    assert found["b"].levels == {"yes": 2, "no": 1, "no. one": 1}
    table = pa.table({"b": pa.array(["yes.", None, "no"]).dictionary_encode(), "n": [1, 2, 3]})
    pa.feather.write_feather(table, tmp_path / "t.feather")
    found = survey(open_raw(TableFiles(path="t.feather", replace=replace), tmp_path), MISSING, deep=True)
    assert (found["b"].levels, found["b"].missing) == ({"yes": 1, "no": 1}, 1)
    assert found["n"].high == 3


def test_lines_may_be_skipped_and_encodings_given(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a comment\nname,größe\nMüller,3\n".encode("latin-1"))
    found = survey(open_raw(TableFiles(path="t.csv", skip_lines=1, encoding="latin-1"), tmp_path), MISSING)
    assert list(found) == ["name", "größe"]
    assert found["name"].levels == {"Müller": 1}


@pytest.mark.parametrize(("cell", "number"), [("1,5", 1.5), ("-1.234,5", -1234.5), ("2.000", 2000), ("7", 7)])
def test_a_decimal_comma(cell: str, number: float, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"a;b\n{cell};1,5 kg\n")
    found = survey(open_raw(TableFiles(path="t.csv", decimal=","), tmp_path), MISSING, deep=True)
    assert (found["a"].low, found["b"].levels) == (number, {"1,5 kg": 1})


def test_a_decimal_comma_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("1,5;a\n2,5;b\n")
    assert open_raw(TableFiles(path="t.csv", decimal=","), tmp_path).names == ("0", "1")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a;b\n1,500;x\n", "'1,500' is not a number; write it without signs between thousands"),
        ("a;b\n1,5;x\n", "'1,5' is not a number; for a decimal comma in CSV say decimal: ','"),
        (
            "a;b\n1;x\n1,5;x\n",
            "t.csv: row 1 is '1,5', after whole numbers; for a decimal comma in CSV say decimal: ','",
        ),
    ],
)
def test_why_a_decimal_comma_is_text(text: str, why: str, tmp_path: Path) -> None:
    assert facts(tmp_path, text)["a"].why == why


def test_cells_may_hold_line_ends(tmp_path: Path) -> None:
    assert facts(tmp_path, 'a,b\n"x\ny",1\nz,2\n')["a"].levels == {"x\ny": 1, "z": 1}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("above", [0, 2])
def test_a_header_may_hold_line_ends_and_stand_below_empty_lines(
    end: str, above: int, tmp_path: Path
) -> None:
    text = f"#{end}" + end * above + f'"area{end}(m2)",b{end}1,2{end}{end}3,4{end}'
    (tmp_path / "t.csv").write_bytes(text.encode())
    found = survey(open_raw(TableFiles(path="t.csv", skip_lines=1), tmp_path), MISSING)
    assert [(one.name, one.type, one.levels) for one in found.values()] == [
        (f"area{end}(m2)", "whole", {"1": 1, "3": 1}),
        ("b", "whole", {"2": 1, "4": 1}),
    ]


NUMBERS = "1 -1.5 +2 1e5 1E-5 .5 5. 0.0 -0 inf -Infinity 1e400"
OTHERS = "00 01.5 nan 0x1F 1_000 1,5 e5 . + --1 1e infi true"


@pytest.mark.parametrize("text", [*NUMBERS.split(), *OTHERS.split(), "", "1 2"])
def test_the_fast_way_to_numbers_is_the_pattern(text: str) -> None:
    cell = pa.array([text, None])
    values, bad = as_numbers(cell)
    number = text in NUMBERS.split()
    assert matches(cell, NUMBER) == number == (bad is None)
    assert np.isnan(values[1])
    if number:
        assert values[0] == float(text)
    else:
        assert numbers_of(cell) is None


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ('"1,500"', "'1,500' is not a number; write it without signs between thousands"),
        ("1 234.50", "'1 234.50' is not a number; write it without signs between thousands"),
        ("31.12.1999", "'31.12.1999' is not a date in a known format; write dates as 2024-02-29"),
        ("2024-02-30", "'2024-02-30' is not a date in a known format; write dates as 2024-02-29"),
        ("7 kg", "all cells are text"),
    ],
)
def test_why_text_is_neither_numbers_nor_dates(cell: str, why: str, tmp_path: Path) -> None:
    assert facts(tmp_path, f"a;b\n{cell};1\n".replace(";", "\t"))["a"].why == why


def test_a_marker_of_missing_cells_is_asked_for(tmp_path: Path) -> None:
    why = facts(tmp_path, "a,b\n1.5,1\n-,2\n")["a"].why
    assert why == "t.csv: row 1 is '-', after numbers; name it in data.missing if it means a missing cell"


def test_a_header_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"t\.csv: the header is not utf-8 text; say the encoding of the file"
    ):
        open_raw(TableFiles(path="t.csv"), tmp_path)
