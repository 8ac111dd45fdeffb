"""Tables whose folders hold columns in their names."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from houses import houses, job, write
from pyarrow import parquet

from distbp import train
from distbp.cli.main import group
from distbp.core.errors import DataError
from distbp.data.columns.cells import MISSING
from distbp.data.columns.files import begins_at, find_files
from distbp.data.columns.reading import open_raw
from distbp.data.columns.shipping import ship_files, unship
from distbp.data.columns.types import survey
from distbp.data.formats import TableFiles
from distbp.data.safety import find
from distbp.run.splits import open_splits

VALUES = (2019, 2020, None, 2024)


def parted(folder: Path, suffix: str = ".parquet") -> pa.Table:
    """Writes houses below folders of a number and of a code with zeros in front; returns the same rows."""
    table, parts = houses(), []
    for number, year in enumerate(VALUES):
        for code in ("007", "eu west"):
            part = table.slice(len(parts) * 37, 37)
            said = "__HIVE_DEFAULT_PARTITION__" if year is None else year
            place = folder / f"year={said}" / f"area_code={code.replace(' ', '%20')}"
            place.mkdir(parents=True)
            write(part, place / f"part-{number}{suffix}")
            codes = part.append_column("year", pa.array([year] * 37, pa.int64()))
            parts.append((str(said), code, codes.append_column("area_code", pa.array([code] * 37))))
    return pa.concat_tables([part for *_, part in sorted(parts, key=lambda one: one[:2])])


@pytest.mark.heavy
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".feather", ".jsonl"])
def test_the_same_bits_as_one_file_with_these_columns(suffix: str, tmp_path: Path) -> None:
    whole = parted(tmp_path / "p", suffix)
    columns = {"columns": {"year": "category", "others": "auto"}}
    for fields in ({}, columns):
        here = train(job(write(whole, tmp_path / "w.csv"), **fields), output=tmp_path / f"here{len(fields)}")
        there = train(job(tmp_path / "p", **fields), output=tmp_path / f"there{len(fields)}")
        assert there.params_sha256 == here.params_sha256
    for path in ("p/*/*/*", "p/year=*/area_code=*/*"):
        assert (
            open_splits(job(path), tmp_path).record()["train"]["inputs"]
            == (open_splits(job("p"), tmp_path).record()["train"]["inputs"])
        )


def test_types_come_from_all_folders(tmp_path: Path) -> None:
    for name, values in {
        "whole": "12",
        "number": "1 2.5",
        "date": "2024-01-31 2024-02-01",
        "text": "1 x",
    }.items():
        for value in values.split() * (1 if " " in values else 2):
            place = (
                tmp_path / name / f"key={value}" / f"zeros=00{len(value)}" / "none=__HIVE_DEFAULT_PARTITION__"
            )
            place.mkdir(parents=True, exist_ok=True)
            (place / "t.csv").write_text("a\n1\n2\n")
        table = open_raw(TableFiles(path=name), tmp_path)
        facts = survey(table, MISSING, deep=True)
        assert table.names == ("a", "key", "zeros", "none")
        assert {n: f.type for n, f in facts.items()} == {
            "a": "whole",
            "key": name,
            "zeros": "text",
            "none": "empty",
        }
        assert facts["key"].rows == facts["none"].missing
    assert (
        facts["key"].why.startswith(str(Path("text/key=x")))
        and "is 'x', after whole numbers" in facts["key"].why
    )


def test_what_is_read_of_a_file(tmp_path: Path) -> None:
    parted(tmp_path / "p")
    table = open_raw(TableFiles(path="p"), tmp_path)
    counts = [(row, list(cells), len(cells["year"])) for row, cells in table.pieces(["year"])]
    assert counts == [(37 * n, ["year"], 37) for n in range(8)]
    assert next(list(cells) for _, cells in table.pieces(["year", "price"])) == ["year", "price"]
    assert table.typed == {"rooms", "area", "built", "garden", "price"}
    below = open_raw(TableFiles(path="p/year=2019"), tmp_path)  # what the path itself says is not a column
    assert below.keys == ("area_code",)
    assert open_raw(TableFiles(path="p/year=2019/area_code=007/part-0.parquet"), tmp_path).keys == ()
    assert open_raw(TableFiles(path="."), tmp_path / "p").keys == ("year", "area_code")


def test_hidden_names_are_no_rows_of_a_folder(tmp_path: Path) -> None:
    for name in ("a", "_temporary/0/b", "_delta_log/c", ".old/d", "deep/_e", "_year=1/f", "in/g"):
        (tmp_path / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / f"{name}.csv").write_text("a,price\n1,2\n")
    found = [file.name for file in find_files(TableFiles(path="t"), tmp_path)]
    assert found == ["t/_year=1/f.csv", "t/a.csv", "t/in/g.csv"]
    assert len(find_files(TableFiles(path="t/**/*.csv"), tmp_path)) == 7  # a pattern takes all that fits it


@pytest.mark.parametrize(
    ("path", "begin"),
    [("d", "d"), ("./d/", "d"), ("d/a=*/x", "d"), ("*/x", ""), (".", ""), ("s3://our/d/", "s3://our/d"),
     ("s3://our/d/*", "s3://our/d")],
)  # fmt: skip
def test_where_names_begin(path: str, begin: str) -> None:
    root = "s3://our/" if path.startswith("s3") else ""
    assert begins_at(path, [f"{root}d/a=1/x", f"{root}d/a=2/x"]) == begin


def test_faults_are_named_all_at_once(tmp_path: Path) -> None:
    def put(name: str, text: str = "a,price\n1,2\n") -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    put("p/year=1/region=a/x.csv")
    put("p/year=2/x.csv")
    put("p/zone=b/year=2/x.csv")
    put("p/year=3/year=4/x.csv")
    put("p/z.csv")
    with pytest.raises(DataError) as caught:
        open_splits(job("p"), tmp_path)
    first = "but those of p/year=1/region=a/x.csv say 'year', 'region'"
    assert str(caught.value) == (
        f"p/year=2/x.csv: its folders say 'year', {first}; p/year=3/year=4/x.csv: two of its folders say"
        f" 'year'; p/z.csv: its folders say nothing, {first}; p/zone=b/year=2/x.csv: its folders say 'zone',"
        f" 'year', {first}: folders of a table that say key=value must have the same keys in the same order"
    )
    for number in range(7):
        put(f"q/year={number}/x.csv", "a,price,year\n1,2,3\n" if number else "a,price\n1,2\n")
    with pytest.raises(DataError) as caught:
        open_splits(job("q"), tmp_path)
    assert str(caught.value) == (
        f"{'; '.join(f'q/year={n}/x.csv: has a column ' + repr('year') for n in range(1, 6))}; and 1 more"
        " files: the folder of the file says that column, too; remove it from the file, or rename the folder"
    )


def test_describe_says_where_columns_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parted(tmp_path / "p")
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(group, ["data", "describe", "p"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith(
        "p: 296 rows, 9 columns in 8 files\nfrom the names of folders (key=value): year, area_code\n"
    )
    assert "2019 to 2024, 3 distinct" in shown.output


def test_on_its_way_to_a_service(tmp_path: Path) -> None:
    parted(tmp_path / "p")
    out = io.BytesIO()
    within = ship_files(TableFiles(path="p"), tmp_path, out)
    (tmp_path / "a.zip").write_bytes(out.getvalue())
    unship(find(tmp_path, "a.zip"), tmp_path / "there")
    here, there = (open_splits(job(path), tmp_path) for path in ("p", f"there/{within}"))
    assert here.record()["train"]["inputs"] == there.record()["train"]["inputs"]
    assert here.plan is not None and there.plan is not None
    assert here.plan.to_json() == there.plan.to_json()


def test_a_model_takes_such_a_folder_and_a_frame(tmp_path: Path) -> None:
    whole = parted(tmp_path / "p")
    model = train(job(tmp_path / "p"), output=tmp_path / "run").model()
    run = CliRunner()
    asked = ["predict", str(tmp_path / "run"), str(tmp_path / "p"), "--output", str(tmp_path / "p.csv")]
    assert run.invoke(group, asked).exit_code == 0
    given = [float(line.split(",")[1]) for line in (tmp_path / "p.csv").read_text().splitlines()[1:]]
    assert given == model.predict(whole).tolist()
    parquet.write_table(houses(), tmp_path / "plain.parquet")
    lost = run.invoke(group, ["predict", str(tmp_path / "run"), str(tmp_path / "plain.parquet")])
    assert lost.exit_code and "'year'" in lost.output
