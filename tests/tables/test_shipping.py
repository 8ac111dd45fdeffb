"""The files of a table in one archive, there and back."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from houses import houses, job, write

from distbp import train
from distbp.core.errors import DataError, HostileFileError
from distbp.data.columns.files import are_here
from distbp.data.columns.shipping import EVERY, ship_files, ship_frame, shipped, unship
from distbp.data.formats import TableFiles
from distbp.data.safety import find


def parts(folder: Path) -> None:
    """Files that are read in another order than that in which a folder may list them, and one of no table."""
    (folder / "b").mkdir()
    table = houses()
    write(table.slice(0, 100), folder / "b" / "2.csv")
    write(table.slice(100, 120), folder / "b.csv.gz")
    write(table.slice(220), folder / "a.parquet")
    (folder / "readme.md").write_text("no table")


@pytest.mark.parametrize(
    ("path", "names", "within"),
    [
        ("", ["a.parquet", "b.csv.gz", "b/2.csv"], EVERY),
        ("b*/*.csv", ["2.csv"], EVERY),
        ("**/*.csv*", ["b.csv.gz", "b/2.csv"], EVERY),
        ("b.csv.gz", ["b.csv.gz"], "b.csv.gz"),
        ("b/2.csv", ["2.csv"], "2.csv"),
    ],
)
def test_there_and_back_it_is_the_same_table(
    path: str, names: list[str], within: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    parts(tmp_path / "data")
    source = TableFiles(path=f"data/{path}" if path else "data")
    packed = [io.BytesIO() for _ in range(2)]
    assert [ship_files(source, tmp_path, out) for out in packed] == [within] * 2
    assert packed[0].getvalue() == packed[1].getvalue()
    (tmp_path / "a.zip").write_bytes(packed[0].getvalue())
    archive = find(tmp_path, "a.zip")
    assert [name.removeprefix("b/") for name in shipped(archive)] == [n.removeprefix("b/") for n in names]
    unship(archive, tmp_path / "there")
    here = train(job(source.path), folder=tmp_path, output=tmp_path / "run")
    there = train(job(f"there/{within}"), folder=tmp_path, output=tmp_path / "again", confined=True)
    assert there.params_sha256 == here.params_sha256


def test_a_frame_is_the_file_that_holds_it(tmp_path: Path) -> None:
    out = io.BytesIO()
    within = ship_frame(houses(), out)
    (tmp_path / "a.zip").write_bytes(out.getvalue())
    unship(find(tmp_path, "a.zip"), tmp_path / "there")
    given = job("x").replace(data=job("x").data.model_copy(update={"train": None}))
    here = train(given, data=houses(), output=tmp_path / "run")
    there = train(job(f"there/{within}"), folder=tmp_path, output=tmp_path / "again")
    assert there.params_sha256 == here.params_sha256


@pytest.mark.parametrize(
    ("path", "there"), [("d", True), ("d/*.csv", True), ("d/*.tsv", False), ("e", False)]
)
def test_what_is_here(path: str, there: bool, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.csv").write_text("a\n1\n")
    assert are_here(TableFiles(path=path), tmp_path) is there


def zipped(*names: str, method: int = zipfile.ZIP_STORED, mode: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, method
            archive.writestr(info, "x,y\n1,2\n" * 100)
    return out.getvalue()


def larger(content: bytes) -> bytes:
    """With a table of contents that claims more bytes than the archive has."""
    at = content.rindex(b"PK\x01\x02")
    size = (2**31).to_bytes(4, "little")
    return content[: at + 20] + size + size + content[at + 28 :]


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "no zip": (lambda: b"x,y\n1,2\n", "this is not a sound archive of table files"),
    "cut off": (lambda: zipped("a.csv")[:-40], "this is not a sound archive of table files"),
    "another byte": (
        lambda: zipped("a.csv").replace(b"x,y\n1,2\nx,y", b"x,y\n1,3\nx,y", 1),
        r"not a sound archive of table files \(Bad CRC-32",
    ),
    "no file": (lambda: zipped(), "there is no file in the archive"),
    "folders only": (lambda: zipped("a/"), "there is no file in the archive"),
    "packed": (lambda: zipped("a.csv", method=zipfile.ZIP_DEFLATED), "is packed or encrypted"),
    "out": (lambda: zipped("../a.csv"), "points outside of it"),
    "absolute": (lambda: zipped("/etc/a.csv"), "points outside of it"),
    "a stream": (lambda: zipped("c:a.csv"), "points outside of it"),
    "a link": (lambda: zipped("a.csv", mode=0o120777), "is a link"),
    "itself": (lambda: zipped("./a.csv"), "is not a name for a file"),
    "nothing between": (lambda: zipped("a//b.csv"), "is not a name for a file"),
    "a line end": (lambda: zipped("a\n.csv"), "is not a name for a file"),
    "too long": (lambda: zipped("a" * 300 + ".csv"), "is not a name for a file"),
    "a file and a folder": (lambda: zipped("a", "a/b.csv"), "'a' is a file and a folder"),
    "2 GiB claimed": (lambda: larger(zipped("a.csv")), "claim more bytes than the archive has|not a sound"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_archives_that_are_refused(what: str, tmp_path: Path) -> None:
    made, said = HOSTILE[what]
    (tmp_path / "a.zip").write_bytes(made())
    archive = find(tmp_path, "a.zip")
    with pytest.raises(DataError, match=f"a.zip: .*({said})"):
        shipped(archive)
    with pytest.raises(DataError, match=said):
        unship(archive, tmp_path / "there")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path).parts[0] for path in left} <= {"a.zip", "there"}


def test_two_of_one_name(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        (tmp_path / "a.zip").write_bytes(zipped("a.csv", "a.csv"))
    with pytest.raises(HostileFileError, match=r"two entries 'a\.csv'"):
        shipped(find(tmp_path, "a.zip"))


def test_names_that_a_service_would_refuse_are_refused_here(tmp_path: Path) -> None:
    write(houses(4), tmp_path / "a:b.csv")
    with pytest.raises(HostileFileError, match=r"'a:b\.csv' is not a name for a file of a table here"):
        ship_files(TableFiles(path="a:b.csv"), tmp_path, io.BytesIO())
    assert [path.name for path in tmp_path.iterdir()] == ["a:b.csv"]
