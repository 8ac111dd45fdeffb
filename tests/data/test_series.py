"""Series are cut into windows; whole series are dealt and shuffled; slices go on where others ended."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.data.cutting import cut, in_a_row, understand_steps
from distbp.data.formats.arrays import from_arrays
from distbp.data.series import begins_of, side_by_side, windows_of
from distbp.data.sharding import Sharding, evaluated_rows
from distbp.nn.losses import LOSSES

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)


def begins_in(lengths: list[int], steps: int) -> Array:
    return np.asarray(windows_of(np.array(lengths), steps)[1] == 0)


@settings(max_examples=150, deadline=None)
@given(
    lengths=LENGTHS,
    steps=st.integers(1, 4),
    batch=st.integers(1, 20),
    shards=st.integers(1, 5),
    shuffle=st.booleans(),
    epoch=st.integers(0, 2),
)
def test_windows_stay_in_their_order(
    lengths: list[int], steps: int, batch: int, shards: int, shuffle: bool, epoch: int
) -> None:
    begins = begins_in(lengths, steps)
    rows = len(begins)
    sharding = Sharding(rows, batch, shards, seed=4, shuffle=shuffle, series=True)
    plain = Sharding(rows, batch, shards, seed=4, shuffle=shuffle)
    used, cuts = [], 0
    for shard in range(shards):
        dealt = sharding.dealt(shard, begins)
        assert len(dealt) == len(plain.dealt(shard))
        cuts += bool(len(dealt)) and not begins[dealt[0]]
        for before, row in pairwise(dealt):
            assert begins[row] or row == before + 1
        order = sharding.order(shard, dealt, epoch, begins=begins[dealt])
        assert sorted(order) == sorted(dealt)
        used.append(order)
        lanes, last, start = sharding.slice_rows(0, shard), [-2] * max(1, len(order)), 0
        for index in range(plain.steps_per_epoch):
            size = sharding.slice_rows(index, shard)
            assert size <= lanes
            for lane, row in enumerate(order[start : start + size]):
                assert index == 0 or begins[row] or row == last[lane] + 1  # else a state would go astray
                last[lane] = row
            start += size
        assert start == len(order)
    assert sorted(np.concatenate(used)) == list(range(rows))
    assert cuts <= shards - 1


def test_epochs_have_other_orders_of_series() -> None:
    begins = begins_in([3] * 20, 1)
    sharding = Sharding(60, 6, 2, seed=1, series=True)
    dealt = sharding.dealt(1, begins)
    first, second = (sharding.order(1, dealt, epoch, begins=begins[dealt]) for epoch in range(2))
    assert first.tolist() != second.tolist()
    assert sharding.order(1, dealt, 0, begins=begins[dealt]).tolist() == first.tolist()


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS, steps=st.integers(1, 4), shards=st.integers(1, 5), most=st.integers(1, 4))
def test_whole_series_are_evaluated_side_by_side(
    lengths: list[int], steps: int, shards: int, most: int
) -> None:
    begins, seen, at = begins_in(lengths, steps), [], 0
    for shard in range(shards):
        start, stop = evaluated_rows(len(begins), shards, shard, begins)
        assert start == at and (start == len(begins) or begins[start])
        at = stop
        before: list[int] = []
        for rows in side_by_side(begins[start:stop], most):
            assert len(rows) <= most
            own = begins[start + rows]
            assert own.all() or not own.any()
            if not own.any():
                assert [row - 1 for row in rows] == before[: len(rows)]
            before = rows.tolist()
            seen += (start + rows).tolist()
    assert at == len(begins) and sorted(seen) == list(range(len(begins)))


def test_a_table_of_series_by_hand() -> None:
    x = np.arange(10.0).reshape(2, 5, 1)
    table = from_arrays({"inputs": x, "lengths": [5, 2]}, x[:, :, 0] % 3, [1.0, 0.5])
    found = cut(table, 2)
    assert found.inputs[:, :, 0].tolist() == [[0, 1], [2, 3], [4, 0], [5, 6]]
    assert found.targets is not None and found.targets.tolist() == [[0, 1], [2, 0], [1, 0], [2, 0]]
    assert found.weights is not None and found.weights.tolist() == [[1, 1], [1, 1], [1, 0], [0.5, 0.5]]
    assert found.lengths is not None and found.lengths.tolist() == [2, 2, 1, 2]
    assert found.begins is not None and found.begins.tolist() == [True, False, False, True]
    assert [found.row_number(row) for row in range(4)] == [0, 0, 0, 1]
    assert cut(from_arrays(x[:, :4], x[:, :4, 0]), 2).weights is None  # there is no padding
    rows = np.array([[7.0, 2, 1], [8, 2, 0]])
    assert begins_of(rows).tolist() == [True, False]


def test_padding_is_no_class() -> None:
    x = np.zeros((2, 3, 1))
    table = cut(from_arrays({"inputs": x, "lengths": [3, 2]}, [[5, 7, 5], [7, 5, 0]]), 2)
    meaning = understand_steps({"train": table}, LOSSES["softmax_cross_entropy"](), 2, np.dtype(np.float32))
    assert meaning.classes == (5, 7)
    assert meaning.targets["train"].tolist() == [[0, 1], [0, 0], [1, 0]]


def test_targets_of_several_outputs() -> None:
    x = [np.zeros((3, 1)), np.zeros((1, 1))]
    y = [np.arange(6.0).reshape(3, 2), np.array([[6.0, 7]])]
    inputs, targets = in_a_row((x, y), "the arrays")
    assert targets.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 0, 0, 0, 0]]
    table = cut(from_arrays(inputs, targets), 2)
    meaning = understand_steps({"train": table}, LOSSES["mse"](), 2, np.dtype(np.float32))
    assert meaning.targets["train"].tolist() == [[0, 1, 2, 3], [4, 5, 0, 0], [6, 7, 0, 0]]
    whole = np.zeros((2, 3, 2))
    assert in_a_row((x, whole), "the arrays")[1].shape == (2, 6)


X = np.zeros((2, 4, 1))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            X,
            [0, 1],
            r"the targets of the arrays: windows of series need a target for each step, an array \(rows,"
            r" steps\) or \(rows, steps, outputs\) with 4 steps, but the targets are one for each row",
        ),
        (X, np.zeros((2, 5)), r"with 4 steps, but the targets are of shape \(2, 5\)"),
        (
            {"inputs": X, "lengths": [0, 0]},
            np.zeros((2, 4)),
            "the arrays: all series have length 0; give one that has a step",
        ),
        (
            [np.zeros((3, 1)), np.zeros((2, 1))],
            [[0, 1, 0], [1]],
            "the arrays: the targets of a series must have as many steps as its inputs",
        ),
        (
            X,
            [[0, 1, 0, 1], [1]],
            "the arrays: the targets of a series must have as many steps as its inputs",
        ),
    ],
)
def test_series_that_do_not_fit(x: Any, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        cut(from_arrays(*in_a_row((x, y), "the arrays")), 2)


@pytest.mark.parametrize("spell", [list, np.array, lambda y: [one.tolist() for one in y]])
def test_every_spelling_of_targets_is_taken(spell: Any) -> None:
    y = np.arange(16.0).reshape(2, 4, 2)
    assert in_a_row((X, spell(y)), "the arrays")[1].tolist() == y.reshape(2, 8).tolist()


@pytest.mark.parametrize("y", [[["a", "b"], ["b"]], [["a", "b"]] * 2, np.array([["a", "b"]] * 2)])
def test_labels_of_steps_are_numbers(y: Any) -> None:
    message = "the targets of the arrays are text; give each step the number of its class, from 0 on"
    with pytest.raises(DataError, match=message):
        in_a_row((X, y), "the arrays")


def test_a_target_that_does_not_fit_is_told_with_its_series() -> None:
    table = cut(from_arrays(X, [[0, 1, 0, 1], [1, 0, 9, 0]]), 2)
    with pytest.raises(DataError, match="row 1: label 9, but the 2 outputs of the last layer allow 0 to 1"):
        understand_steps(
            {"train": cut(from_arrays(X, np.tile([0, 1], (2, 2))), 2), "test": table},
            LOSSES["softmax_cross_entropy"](), 2, np.dtype(np.float32),
        )  # fmt: skip
