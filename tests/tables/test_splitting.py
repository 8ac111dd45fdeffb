"""Which rows train and which measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from houses import houses, job, write

from distbp.core.errors import DataError
from distbp.core.streams import Purpose, generator
from distbp.data.columns import splitting
from distbp.data.columns.splitting import NOBODY, OWNERS
from distbp.run.splits import open_splits

SHARES = {"validation": 0.2, "test": 0.1}


def split_rows(*args: Any, **options: Any) -> dict[str, np.ndarray]:
    """The rows of each split, by name."""
    owner = splitting.split_rows(*args, **options)
    return {split: np.flatnonzero(owner == number) for number, split in enumerate(OWNERS)}


def sizes(found: dict[str, np.ndarray]) -> dict[str, int]:
    return {name: len(rows) for name, rows in found.items()}


def whole(found: dict[str, np.ndarray], rows: int) -> None:
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(rows))
    for numbers in found.values():
        assert (np.diff(numbers) > 0).all()


def test_at_random_by_the_seed() -> None:
    first, again, other = (split_rows(1000, SHARES, "random", seed) for seed in (1, 1, 2))
    assert sizes(first) == {"train": 700, "test": 100, "validation": 200}
    whole(first, 1000)
    assert (first["test"] == again["test"]).all()
    assert (first["test"] != other["test"]).any()


def test_stratified() -> None:
    classes = np.repeat([0, 1, 2], [800, 150, 50])
    found = split_rows(1000, SHARES, "stratified", 0, classes=classes)
    whole(found, 1000)
    assert np.bincount(classes[found["test"]]).tolist() == [80, 15, 5]
    assert np.bincount(classes[found["validation"]]).tolist() == [160, 30, 10]


@pytest.mark.parametrize(
    "classes", [None, np.arange(3000) % 7, np.arange(3000) // 20], ids=["one", "few", "many"]
)
def test_rows_are_those_with_the_smallest_keys(
    classes: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However keys are counted: in one piece or several, in many bins or one."""
    kept = np.arange(3000) % 11 > 0
    keys = generator(5, Purpose.SPLIT).random(3000)
    wanted = np.full(3000, NOBODY)
    labels = np.zeros(3000, int) if classes is None else classes
    for label in np.unique(labels):
        mine = np.flatnonzero((labels == label) & kept)
        mine = mine[np.argsort(keys[mine])]
        test, validation = round(0.1 * len(mine)), round(0.2 * len(mine))
        wanted[mine] = [*[1] * test, *[2] * validation, *[0] * (len(mine) - test - validation)]
    way = "random" if classes is None else "stratified"
    for piece, cells in ((1 << 18, 1 << 20), (100, 1)):
        monkeypatch.setattr(splitting, "_PIECE", piece)
        monkeypatch.setattr(splitting, "_CELLS", cells)
        found = splitting.split_rows(3000, SHARES, way, 5, kept=kept, classes=classes)
        assert found.tolist() == wanted.tolist()


def test_groups_stay_together() -> None:
    groups = np.random.default_rng(0).integers(0, 40, 1000)
    found = split_rows(1000, SHARES, "group", 3, groups=groups)
    whole(found, 1000)
    sets = [set(groups[rows].tolist()) for rows in found.values()]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert 90 <= len(found["test"]) <= 140


def test_later_rows_measure() -> None:
    times = np.random.default_rng(0).integers(0, 100, 1000).astype(float)
    found = split_rows(1000, SHARES, "time", 0, times=times)
    whole(found, 1000)
    assert times[found["train"]].max() < times[found["validation"]].min()
    assert times[found["validation"]].max() < times[found["test"]].min()


@pytest.mark.parametrize("way", ["random", "stratified", "group", "time"])
def test_a_set_without_rows(way: str) -> None:
    kinds = {"classes": np.zeros(3, int), "groups": np.zeros(3, int), "times": np.zeros(3)}
    with pytest.raises(DataError, match=r"t: the \w+ set would have no row \(3 rows, split by"):
        split_rows(3, {"validation": 0.1, "test": 0.1}, way, 0, **kinds, name="t")


def test_a_set_without_rows_of_many_classes() -> None:
    text = r"t: the test set would have no row \(5 rows, split by stratified, each of 5 classes by itself\)"
    with pytest.raises(DataError, match=text):
        split_rows(5, {"test": 0.2}, "stratified", 0, classes=np.arange(5), name="t")


def test_roles_choose_the_way(tmp_path: Path) -> None:
    table = houses().to_pandas()
    write(houses(), tmp_path / "h.csv")
    by_code = open_splits(job("h.csv", group="code"), tmp_path).tables
    codes = {split: set(table["code"][t.row_numbers]) for split, t in by_code.items()}
    assert not codes["train"] & codes["test"]
    by_time = open_splits(job("h.csv", time="built"), tmp_path)
    built = {split: table["built"][t.row_numbers] for split, t in by_time.tables.items()}
    assert built["train"].max() < built["validation"].min() <= built["validation"].max() < built["test"].min()
    assert by_time.plan is not None
    assert "built" not in by_time.plan.needs
    asked = open_splits(job("h.csv", time="built", columns={"built": "date"}), tmp_path)
    assert asked.plan is not None
    assert "built" in asked.plan.needs


def test_weights_and_given_files(tmp_path: Path) -> None:
    write(houses(), tmp_path / "train.parquet")
    write(houses(50, seed=9), tmp_path / "test.csv")
    source = {"format": "table", "path": "test.csv"}
    fields = {"test": source, "split": {"validation": 0.2, "test": 0}, "weight": "rooms"}
    splits = open_splits(job("train.parquet", **fields), tmp_path)
    assert splits.rows == {"train": 240, "validation": 60, "test": 50}
    weights = splits.tables["test"].weights
    assert weights is not None
    assert weights.tolist() == houses(50, seed=9)["rooms"].to_pylist()
