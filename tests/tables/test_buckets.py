"""Tables in buckets: a filesystem of fsspec, as s3fs and gcsfs are, over a folder here."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
from houses import houses, job, write
from pyarrow import parquet

from distbp import train
from distbp.core.errors import DataError
from distbp.data.columns.files import find_files
from distbp.data.formats import TableFiles
from distbp.data.remote import fetching

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.dirfs import DirFileSystem  # noqa: E402
from fsspec.implementations.local import LocalFileSystem  # noqa: E402


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of s3://bucket, whose files have an ETag each."""
    (tmp_path / "s3" / "bucket" / "h").mkdir(parents=True)

    class Store(DirFileSystem):  # type: ignore[misc]
        protocol = "s3"

        def __init__(self, **options: Any) -> None:
            super().__init__(str(tmp_path / "s3"), LocalFileSystem())
            assert options == {"use_listings_cache": False}

        def info(self, path: str, **options: Any) -> dict[str, Any]:
            found = dict(super().info(path, **options))
            if found["type"] == "file":
                found["ETag"] = hashlib.md5((tmp_path / "s3" / path).read_bytes()).hexdigest()
            return found

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "s3", Store)  # type: ignore[attr-defined]
    monkeypatch.setenv("DISTBP_REMOTE", "s3://bucket")
    monkeypatch.setenv("DISTBP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "s3" / "bucket"


@pytest.mark.parametrize("path", ["h", "h/", "h/*.parquet", "h/**/*.parquet"])
def test_a_folder_and_a_pattern(path: str, bucket: Path, tmp_path: Path) -> None:
    table = houses()
    parquet.write_table(table.slice(0, 100), bucket / "h" / "a.parquet")
    parquet.write_table(table.slice(100), bucket / "h" / "b.parquet")
    (bucket / "h" / "_SUCCESS").write_text("")
    (bucket / "h" / "readme.md").write_text("no table")
    if path in ("h", "h/"):
        for hidden in ("_temporary/0", "_delta_log", ".old"):
            (bucket / "h" / hidden).mkdir(parents=True)
            parquet.write_table(table, bucket / "h" / hidden / "c.parquet")
    found = find_files(TableFiles(path=f"s3://bucket/{path}"), Path())
    assert [file.name for file in found] == [f"s3://bucket/h/{name}.parquet" for name in "ab"]
    here = train(job(bucket / path), output=tmp_path / "here")
    there = train(job(f"s3://bucket/{path}"), output=tmp_path / "there")
    assert there.params_sha256 == here.params_sha256
    if path == "h":
        with pytest.raises(DataError, match=r"s3://bucket/h: 2 files; at most 1 make a table"):
            fetching.fetch("s3://bucket/h", lambda name: name in ("a.parquet", "b.parquet"), 1)


def test_room_is_made_once_for_all_files(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [write(houses(seed=n), bucket / "h" / f"{n}.csv").stat().st_size for n in range(3)]
    made = []
    make_room = fetching.make_room
    monkeypatch.setattr(fetching, "make_room", lambda *of: made.append(of[1]) or make_room(*of))
    monkeypatch.setenv("DISTBP_REMOTE_BYTES", str(sum(sizes)))
    source = TableFiles(path="s3://bucket/h")
    for _ in range(2):
        assert len(find_files(source, Path())) == 3
    assert made == [0]  # and none for what is there
    monkeypatch.setenv("DISTBP_REMOTE_BYTES", str(sum(sizes) - 1))
    write(houses(seed=9), bucket / "h" / "1.csv")
    with pytest.raises(DataError, match=r"s3://bucket/h: there is no room for its [0-9,]+ bytes: fetched"):
        find_files(source, Path())


def test_a_file_is_fetched_once_until_it_changes(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(houses(), bucket / "h.csv.gz")
    written = []
    durable = fetching.write_durable
    monkeypatch.setattr(fetching, "write_durable", lambda *of: written.append(of) or durable(*of))
    source = TableFiles(path="s3://bucket/h.csv.gz")
    marks = [find_files(source, Path())[0].mark for _ in range(2)]
    assert marks[0] == marks[1] and len(written) == 1
    write(houses(seed=2), bucket / "h.csv.gz")
    assert find_files(source, Path())[0].path.read_bytes() == (bucket / "h.csv.gz").read_bytes()
    assert len(written) == 2


def test_what_cannot_be_had(bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, said in {
        "none.csv": "s3://bucket/none.csv: there is no such file; check the address",
        "h": "s3://bucket/h: no table lies there",
        "*.csv": "s3://bucket/*.csv: nothing fits this there",
    }.items():
        with pytest.raises(DataError) as caught:
            find_files(TableFiles(path=f"s3://bucket/{path}"), Path())
        assert str(caught.value) == said
    write(houses(), bucket / "h.csv")
    source = TableFiles(path="s3://bucket/h.csv")

    class Changing:
        """A file that another writes while it is read."""

        def __init__(self, piece: bytes, then: Any) -> None:
            self.pieces, self.then = [piece], then

        def __enter__(self) -> Changing:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def read(self, count: int) -> bytes:
            if self.pieces:
                return self.pieces.pop()
            self.then()
            return b""

    whole = (bucket / "h.csv").read_bytes()
    store = fsspec.registry["s3"]
    cases: dict[str, tuple[bytes, Any]] = {
        "h.csv: cut off after 100 bytes; nothing is kept of it": (whole[:100], lambda: None),
        "h.csv: changed while it was read; try again": (
            whole,
            lambda: write(houses(seed=3), bucket / "h.csv"),
        ),
        "h.csv: cannot be read (ValueError: no credentials); check how s3fs is set up here, or": (
            whole,
            lambda: int(""),
        ),
        "h.csv: may not be read; check the address, and what this machine": (whole, lambda: None),
    }
    for said, (piece, then) in cases.items():
        write(houses(), bucket / "h.csv")

        def opened(*_: Any, piece: bytes = piece, then: Any = then, said: str = said, **__: Any) -> Any:
            if "may not" in said:
                raise PermissionError("Forbidden")
            if "credentials" in said:
                raise ValueError("no credentials")
            return Changing(piece, then)

        monkeypatch.setattr(store, "open", opened)
        with pytest.raises(DataError) as caught:
            find_files(source, Path())
        assert said in str(caught.value)
    assert list((tmp_path / "cache" / "remote").iterdir()) == []


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_REMOTE", "s3,gs")
    for url, package in {"s3://bucket/a.csv": "s3fs", "gs://bucket/a.csv": "gcsfs"}.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(DataError) as caught:
            find_files(TableFiles(path=url), Path())
        scheme = url.partition(":")[0]
        assert str(caught.value) == (
            f"{url}: {scheme}:// needs {package}, which is not installed; run: pip install '{package}'"
        )
