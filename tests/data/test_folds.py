"""Folds: which rows measure, and which train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbp.core.errors import DataError
from distbp.data.folds import fold_rows, fold_splits
from distbp.data.table import Table, build

sizes = st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))


@given(sizes, st.integers(0, 4))
def test_every_row_trains_or_measures(size: tuple[int, int, int], labels: int) -> None:
    train, validation, number = size
    kinds = np.random.default_rng(number).integers(labels, size=train) if labels else None
    trains, measures = fold_rows(train, validation, number, kinds)
    assert (len(trains), len(measures)) == (train, validation)
    np.testing.assert_array_equal(np.sort(np.concatenate((trains, measures))), np.arange(train + validation))


@given(sizes)
def test_each_row_measures_once_before_any_measures_again(size: tuple[int, int, int]) -> None:
    train, validation, _ = size
    whole = (train + validation) // validation
    measured = np.concatenate([fold_rows(train, validation, number)[1] for number in range(whole)])
    assert len(np.unique(measured)) == len(measured)


def test_fold_0_is_the_validation_set() -> None:
    trains, measures = fold_rows(7, 3, 0)
    assert (trains.tolist(), measures.tolist()) == (list(range(7)), [7, 8, 9])


def test_the_draw_does_not_drift() -> None:
    assert fold_rows(12, 4, 1)[1].tolist() == [1, 5, 6, 9]
    assert fold_rows(12, 4, 2, np.repeat([0, 1], 6))[1].tolist() == [0, 3, 8, 11]


@given(st.lists(st.integers(5, 40), min_size=2, max_size=4), st.integers(1, 4))
def test_every_fold_has_its_share_of_each_label(counts: list[int], number: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    validation = len(labels) // 5
    measures = fold_rows(len(labels), validation, number, labels)[1]
    there = np.bincount(labels[measures[measures < len(labels)]], minlength=len(counts))
    share = there.sum() / len(labels)
    assert np.abs(there - share * np.array(counts)).max() <= 1 + 1e-9


def table(rows: int, first: int, name: str) -> Table:
    numbers = np.arange(first, first + rows)
    return build(np.repeat(numbers[:, None] * 1.0, 2, axis=1), numbers * 1.0, name=name, row_numbers=numbers)


def test_inputs_targets_and_weights_move_together() -> None:
    tables = {"train": table(8, 0, "t"), "validation": table(3, 8, "t"), "test": table(2, 11, "t")}
    tables["train"] = replace(tables["train"], weights=np.arange(8) + 10.0, skipped={"NaN": 2})
    targets = {name: one.inputs[:, :1] * 2 for name, one in tables.items()}
    found, meant = fold_splits(tables, targets, 1, 1 << 20)
    assert found["test"] is tables["test"] and found["train"].skipped == {"NaN": 2}
    for name, rows in (("train", 8), ("validation", 3)):
        one = found[name]
        assert len(one) == rows and one.targets is not None and one.weights is not None
        numbers = [one.row_number(row) for row in range(rows)]
        np.testing.assert_array_equal(one.inputs[:, 0], numbers)
        np.testing.assert_array_equal(one.targets, meant[name])
        np.testing.assert_array_equal(meant[name][:, 0], np.array(numbers) * 2)
        expected = [number + 10.0 if number < 8 else 1.0 for number in numbers]
        np.testing.assert_array_equal(one.weights, expected)


def test_rows_of_two_files_are_counted_through_both() -> None:
    tables = {"train": table(4, 100, "a.csv"), "validation": table(2, 100, "b.csv")}
    targets = {name: one.inputs[:, :1] for name, one in tables.items()}
    found, _ = fold_splits(tables, targets, 1, 1 << 20)
    assert found["train"].name == "a.csv, then b.csv"
    assert {found["train"].row_number(row) for row in range(4)} >= {4, 5}


def test_what_is_refused() -> None:
    tables = {"train": table(4, 0, "t"), "validation": table(2, 4, "t")}
    targets = {name: one.inputs[:, :1] for name, one in tables.items()}
    with pytest.raises(DataError, match="copies the rows for every network, 0 MB, and DISTBP_PREPARE_BYTES"):
        fold_splits(tables, targets, 1, 8)
