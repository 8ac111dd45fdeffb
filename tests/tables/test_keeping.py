"""A large table is prepared once: what is kept for the next start, when that is believed, and how much."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from houses import houses, job, write

from distbp.data import digest
from distbp.data.columns import keeping, opening
from distbp.run.splits import Splits, open_splits


@pytest.fixture(autouse=True)
def _every_table_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(opening, "_CELLS_BYTES", 0)
    monkeypatch.setattr(digest, "_SETTLED_NS", 0)
    write(houses(), tmp_path / "h.parquet")
    write(houses(50, seed=9), tmp_path / "test.csv")


def opened(folder: Path, **fields: Any) -> Splits:
    return open_splits(job("h.parquet", **fields), folder)


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "tables").iterdir())


def prepared_anew(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tables that are read from now on."""
    read: list[str] = []
    load = opening.load_columns
    monkeypatch.setattr(
        opening,
        "load_columns",
        lambda table, *rest, **options: read.append(table.name) or load(table, *rest, **options),
    )
    return read


def same(one: Splits, other: Splits) -> None:
    assert one.plan is not None and other.plan is not None
    assert (one.plan.to_json(), one.notes, one.skipped) == (other.plan.to_json(), other.notes, other.skipped)
    assert one.record() == other.record()
    for split, table in one.tables.items():
        again = other.tables[split]
        assert table.row_numbers is not None and again.row_numbers is not None
        assert table.row_numbers.tolist() == again.row_numbers.tolist()
        assert (table.name, table.targets_name) == (again.name, again.targets_name)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"weight": "rooms", "target": "city", "bad_rows": "skip"},
        {"test": {"format": "table", "path": "test.csv"}, "split": {"validation": 0.2, "test": 0}},
    ],
    ids=["plain", "weights and names of classes", "files of its own"],
)
def test_the_next_start_reads_nothing(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = job("h.parquet", **fields)
    if fields.get("target") == "city":
        wanted = job("h.parquet").replace(
            data={**wanted.data.model_dump(), "target": {"column": "city"}},
            loss="softmax_cross_entropy", metrics=None, model={"layers": [{"type": "dense", "units": 5}]},
        )  # fmt: skip
    first = open_splits(wanted, tmp_path)
    read = prepared_anew(monkeypatch)
    same(first, open_splits(wanted, tmp_path))
    assert read == []
    assert len(kept(tmp_path)) == 1


def test_other_columns_other_files_or_another_boot_are_prepared_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path)
    read = prepared_anew(monkeypatch)
    opened(tmp_path, columns={"rooms": "category"})
    assert len(read) == 1
    os.utime(tmp_path / "h.parquet", ns=(1, 1))
    opened(tmp_path)
    assert len(read) == 2
    monkeypatch.setattr(keeping, "_boot", lambda: "another")
    opened(tmp_path)
    opened(tmp_path)
    assert len(read) == 3
    monkeypatch.setattr(digest, "_SETTLED_NS", 10**18)  # of files that changed just now nothing is believed
    opened(tmp_path)
    assert len(read) == 4
    monkeypatch.setattr(digest, "_SETTLED_NS", 0)
    monkeypatch.setenv("DISTBP_CACHE", "none")
    opened(tmp_path)
    assert len(read) == 5


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: (place / "table.json").write_bytes(b"{}"),
        lambda place: (place / "test.cells").rename(place / "train.cells"),
        lambda place: (place / "train.targets.npy").unlink(),
    ],
)
def test_what_is_damaged_is_prepared_anew(damage: Any, tmp_path: Path) -> None:
    first = opened(tmp_path)
    damage(kept(tmp_path)[0])
    same(first, opened(tmp_path))
    assert keeping.load(kept(tmp_path)[0]) is not None
    assert len(kept(tmp_path)) == 1


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path)
    (first,) = kept(tmp_path)
    opened(tmp_path, columns={"rooms": "category"})
    (second,) = set(kept(tmp_path)) - {first}
    os.utime(second, (1, 1))
    abandoned = first.with_name(".new-gone")
    abandoned.mkdir()
    os.utime(abandoned, (1, 1))
    size = sum(file.stat().st_size for file in first.iterdir())
    monkeypatch.setenv("DISTBP_CACHE_BYTES", str(size * 2))
    table = opened(tmp_path, columns={"city": "drop"}).tables["train"]
    assert first in kept(tmp_path)
    assert second not in kept(tmp_path)
    assert not abandoned.exists()
    monkeypatch.setenv("DISTBP_CACHE_BYTES", "1000")  # too little for any
    opened(tmp_path, columns={"area": "drop"})
    assert len(kept(tmp_path)) == 2
    assert np.isfinite(table.inputs).all()


def test_nothing_is_left_where_preparing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_targets", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        opened(tmp_path)
    assert kept(tmp_path) == []
