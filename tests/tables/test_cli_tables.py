"""`distbp data describe`, and `distbp train TABLE --target NAME`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from houses import houses, write

from distbp import TrainingJob
from distbp.cli.main import group
from distbp.job import recipes


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "EPOCHS", 12)
    monkeypatch.setattr(recipes, "HIDDEN", (32, 32, 32))


def cli(*words: str) -> Result:
    return CliRunner().invoke(group, words)


def test_describe(tmp_path: Path) -> None:
    write(houses(), tmp_path / "h.csv")
    done = cli("data", "describe", "h.csv", "--target", "price")
    assert done.exit_code == 0, done.output
    text = done.stdout
    assert text.startswith(
        "h.csv: 300 rows, 7 columns\nCSV, cells divided by ','; a header: the cells of the"
    )
    assert re.search(r"area +numbers +number +29  7\.71 to 166\.88", text)
    assert re.search(r"city +text +category +\d+  4 levels: ", text)
    assert re.search(r"code +text +category +-  30 levels: .*\n +because '00000' has zeros in front", text)
    assert re.search(r"garden +yes or no +boolean +-  2 levels: false \(\d+\), true \(\d+\)", text)
    assert re.search(r"built +dates +date +-  1990-02-25 to 2017-05-07", text)
    assert "'price' holds numbers, which are predicted as values" in text


def test_describe_shows_the_balance_of_classes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n" + "1,no\n2,no\n3,no\n4,yes\n" * 10)
    text = cli("data", "describe", "t.csv", "--target", "y").stdout
    assert "classes of 'y':\n  no                                30    75.0%\n" in text
    assert "'y' has 2 levels, which are predicted as classes" in text


def test_describe_shows_the_balance_of_many_classes(tmp_path: Path) -> None:
    letters = "AAA" + "".join(chr(ord("A") + i % 26) * 2 for i in range(26)) + "Z"
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(f"{i},{one}\n" for i, one in enumerate(letters)))
    lines = cli("data", "describe", "t.csv", "--target", "y").stdout.splitlines()
    start = lines.index("classes of 'y':")
    assert lines[start + 1].split() == ["A", "5", "8.9%"] and lines[start + 2].split() == ["Z", "3", "5.4%"]
    assert lines[start + 11].split() == ["16", "more", "32", "57.1%"]
    assert lines[start + 12] == "  the rarest is Y (2)"


def test_describe_shows_no_balance_of_values(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n1,1.5\n2,2.5\n3,3.5\n")
    assert "classes" not in cli("data", "describe", "t.csv", "--target", "y").stdout


def test_describe_shows_line_ends_of_cells_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,y\n"x\ny",1\n"\x1b[31mz",2\n')
    text = cli("data", "describe", "t.csv").stdout
    assert r"2 levels: \x1b[31mz (1), x\ny (1)" in text


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".feather"])
def test_describe_for_programs(suffix: str, tmp_path: Path) -> None:
    write(houses(), tmp_path / f"h{suffix}")
    found = json.loads(cli("data", "describe", f"h{suffix}", "--json").stdout)
    assert found["rows"] == 300
    why = "a header: the cells of the first line are names"
    csv = {"delimiter": ",", "header": True, "why": why} if suffix == ".csv" else None
    assert found["csv"] == csv
    assert {c["name"]: c["type"] for c in found["columns"]} == {
        "rooms": "whole",
        "area": "number",
        "city": "text",
        "code": "text",
        "built": "date",
        "garden": "boolean",
        "price": "number",
    }


def test_the_first_job_trains_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(houses(), tmp_path / "data" / "h.csv")
    (tmp_path / "jobs").mkdir()
    done = cli("data", "describe", "data/h.csv", "--target", "price", "--write-job", "jobs/first.yaml")
    assert done.stdout.endswith("a first job is in jobs/first.yaml; train it: distbp train jobs/first.yaml\n")
    job = TrainingJob.from_file("jobs/first.yaml")
    assert job.data.train is not None and job.data.train.path == "../data/h.csv"
    assert cli("validate", "jobs/first.yaml").exit_code == 0
    trained = cli("train", "jobs/first.yaml", "--workers", "0", "--output", "run")
    assert trained.exit_code == 0, trained.output
    assert "losses and metrics of values are in deviations of 'price'" in " ".join(trained.output.split())


@pytest.mark.parametrize(
    ("rows", "columns", "end", "bins"),
    [(499, 1, ".5", 0), (500, 1, ".5", 32), (500, 15, ".5", 32), (500, 16, ".5", 0), (500, 60, "", 32)],
)
def test_a_first_job_has_bins_where_rows_are_enough(
    rows: int, columns: int, end: str, bins: int, tmp_path: Path
) -> None:
    """No more bins than rows, and whole numbers of 7 values have no more than 7."""
    head = ",".join(f"a{j}" for j in range(columns))
    cells = [
        ",".join(f"{i * (j + 2) % (70 if end else 7)}{end}" for j in range(columns)) for i in range(rows)
    ]
    (tmp_path / "t.csv").write_text(
        f"{head},y\n" + "".join(f"{row},{i % 3}\n" for i, row in enumerate(cells))
    )
    assert cli("data", "describe", "t.csv", "--target", "y", "--write-job", "j.yaml").exit_code == 0
    found = TrainingJob.from_file("j.yaml").data.columns
    assert [getattr(kind, "bins", None) for kind in found.values()] == [bins] * columns


def test_a_column_that_numbers_the_rows_is_better_than_none(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\nx;y\n" + "".join(f"{n};{3 * n}\n" for n in range(40)))
    done = cli("train", "t.csv", "--target", "y", "--output", "run")
    assert done.exit_code == 0, done.output
    assert "x: number" in done.stdout
    assert "only number the rows" not in cli("data", "describe", "t.csv", "--target", "y").stdout
    assert cli("predict", "run", "t.csv").stdout.count("\n") == 41


def test_a_table_trains_without_a_job(tmp_path: Path) -> None:
    write(houses(), tmp_path / "h.parquet")
    done = cli("train", "h.parquet", "--target", "price", "--workers", "0", "--output", "run")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("# 'price' holds numbers, which are predicted as values\nname: h\ndata:\n")
    assert done.stdout.endswith("run ROWS.csv\n")
    page = done.stdout[: done.stdout.index("seed:")] if "seed:" in done.stdout else done.stdout
    assert "split: {validation: 0.15, test: 0.15}" in page
    again = cli("predict", "run", "h.parquet")
    assert len(again.stdout.splitlines()) == 301


@pytest.mark.heavy
def test_abalone(test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the target is given. With 100 epochs of 3 x 256 it is 0.59."""
    monkeypatch.setattr(recipes, "EPOCHS", 40)
    monkeypatch.setattr(recipes, "HIDDEN", (64, 64, 64))
    shutil.copy(test_data / "data" / "abalone.csv", tmp_path / "abalone.csv")
    cli("data", "describe", "abalone.csv", "--target", "8", "--write-job", "job.yaml")
    done = cli("train", "job.yaml", "--workers", "0", "--output", "run")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["test_r2"] >= 0.53


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data", "describe", "no.csv"), "no.csv: there is no such file"),
        (
            ("data", "describe", "h.csv", "--target", "prise"),
            "'prise' is not a column of the table; did you mean 'price'?",
        ),
        (("data", "describe", "h.csv", "--write-job", "j.yaml"), "--write-job needs --target"),
        (("data", "describe", "{format: digits}"), "is of the format digits; a table is described"),
        (
            ("data", "describe", "h.csv", "--target", "built"),
            "the target 'built' is dates; it must be numbers or",
        ),
        (("train", "h.csv", "--target", "prise"), "'prise' is not a column of the table"),
        (
            ("validate", "h.csv"),
            "is a table, no job; write one: distbp data describe h.csv --target NAME --write-job job.yaml",
        ),
        (("train", "h.csv"), "to train on a table, name its target: distbp train TABLE --target NAME"),
        (
            ("data", "describe", "one.csv", "--target", "y"),
            "the target 'y' has one value in all rows, so there",
        ),
        (("data", "describe", "one.csv", "--target", "x"), "no column beside the target 'x' can be an input"),
        (
            ("data", "describe", "sums.csv", "--target", "y"),
            "the target 'y' is text of 60 levels in 60 rows, too many for classes; write numbers as plain"
            " numbers, such as 1234.5, or choose another",
        ),
        (
            ("data", "describe", "{format: table, path: h.csv, header: false}", "--target", "price"),
            "6; no header was found: say header: true if the first line holds the names",
        ),
    ],
)
def test_what_is_said(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    write(houses(30), tmp_path / "h.csv")
    names = [f"name {i}" for i in np.arange(60)]
    (tmp_path / "one.csv").write_text("x,y\n" + "".join(f"{i % 3},yes\n" for i, _ in enumerate(names)))
    if words[-1] == "x":
        (tmp_path / "one.csv").write_text("x,y\n" + "".join(f"{i % 3},{n}\n" for i, n in enumerate(names)))
    (tmp_path / "sums.csv").write_text("x,y\n" + "".join(f"{i % 3},${i}\n" for i, _ in enumerate(names)))
    done = cli(*words)
    assert done.exit_code in (2, 3)
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("rows", "words", "why", "split"),
    [
        (
            "".join(f"{i / 2},{'ab'[i % 2] if i % 9 else ''}\n" for i in range(90)),
            "y,train",
            "10 rows without",
            1,
        ),
        ("".join(f"{i},{i * 50}\n" for i in range(8)), "y,train", "'y' holds whole numbers", 1),
        ("1,100\n2,200\n3,310\n", "y,train", "3 rows are too few to set some apart", 0),
        ("1,a\n2,b\n3,a\n4,c\n5,b\n", "y,train", "5 rows are too few to set some apart", 0),
    ],
    ids=["holes in the target", "few whole numbers", "few rows", "few rows of each class"],
)
def test_a_first_job_of_what_is_left(rows: str, words: str, why: str, split: int, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n" + rows)
    done = cli("train", "t.csv", "--target", "y", "--set", "epochs=2", "--workers", "0", "--output", "run")
    assert done.exit_code == 0, done.output
    assert why in done.stdout.splitlines()[0]
    assert ("split:" in done.stdout) == ("early_stopping:" in done.stdout) == bool(split)
    if "without" in why:
        assert "bad_rows: skip left out 10 of 66 train rows (10: missing target)" in " ".join(
            done.stdout.split()
        )


def test_what_is_set_counts_when_the_table_is_looked_at(tmp_path: Path) -> None:
    rows = "".join(f"{i % 7}.5,{i * 3}.25\n" for i in range(40))
    (tmp_path / "t.csv").write_text(f"x,y\n{rows}-,4\n9\n")
    words = ["train", "t.csv", "--target", "y", "--set", "epochs=1", "--workers", "0", "--output", "run"]
    refused = cli(*words)
    assert "t.csv: line 43: 1 cell where the table has 2 columns: '9'" in refused.stderr
    done = cli(*words, "--set", "data.bad_rows=skip", "--set", "data.missing=['-']")
    assert done.exit_code == 0, done.output
    assert "columns: {x: number}" in done.stdout


def test_columns_with_dots_in_their_names_are_set(tmp_path: Path) -> None:
    """As R names them."""
    rows = "".join(f"{i % 7}.5,{i % 9},{i * 3}.25\n" for i in range(40))
    (tmp_path / "t.csv").write_text(f"Sepal.Length,Sepal,y\n{rows}")
    words = ["train", "t.csv", "--target", "y", "--set", "epochs=1", "--workers", "0", "--output", "a run"]
    asked = ["data.columns.Sepal.Length.scale=robust", "data.columns.Sepal.bins=4"]
    done = cli(*words, *(word for one in asked for word in ("--set", one)))
    assert done.exit_code == 0, done.output
    columns = TrainingJob.from_file("a run/job.yaml").data.columns
    assert columns is not None
    assert (columns["Sepal.Length"].scale, columns["Sepal"].bins) == ("robust", 4)
    last = done.stdout.splitlines()[-1]
    assert last == f"predict rows: distbp predict '{tmp_path}/a run' ROWS.csv"  # for a shell


def test_members_of_a_first_job_measure_on_folds_of_their_own(tmp_path: Path) -> None:
    rows = "".join(f"{i % 7}.5,{i * 3}.25\n" for i in range(40))
    (tmp_path / "t.csv").write_text(f"x,y\n{rows}")
    words = ["train", "t.csv", "--target", "y", "--set", "epochs=1", "--workers", "0", "--output", "run"]
    done = cli(*words, "--set", "members=2")
    assert done.exit_code == 0, done.output
    assert "fold: each" in done.stdout
    note = "each network measures on a fold of its own; validation metrics are means over networks"
    assert note in done.output
    fold = TrainingJob.from_file("run/members/1/job.yaml").early_stopping
    assert fold is not None and fold.fold == 1


def test_describe_says_why_whatever_the_file_is_called(tmp_path: Path) -> None:
    (tmp_path / "stored as text.csv").write_text("a,y\n1,1.5\nx,2.5\n")
    text = cli("data", "describe", "stored as text.csv").stdout
    assert "because stored as text.csv: row 1 is 'x', after whole numbers" in text
