"""Compiled code reads structures of arrays at addresses, and chooses between numbers as Python does."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("numba")

from distbp.machine.jit import jit
from distbp.machine.scalars import as_float, larger, smaller
from distbp.machine.structures import DoubleTable, Wholes, doubles, placed, reader, stack


class Both(NamedTuple):
    counts: Wholes
    factor: float
    table: DoubleTable
    last: int


both_at = reader(Both)
EIGHT = 8 * 8


@jit
def _read(at):
    it = both_at(at)
    it.table[1, 2] = it.factor * it.counts[it.counts.size - 1]
    return it.last + it.table.shape[0] * it.table.shape[1]


def test_fields_are_read_and_written_where_they_lie() -> None:
    table = np.zeros((2, 3))
    given = placed(Both(np.array([1, 2, 5]), 0.5, table, -7))
    assert _read(given.at) == -7 + 6
    assert table[1, 2] == 2.5


@pytest.mark.parametrize(
    "counts", [np.zeros(3, np.int32), np.zeros((3, 1), np.int64), np.zeros(6, np.int64)[::2]]
)
def test_an_array_of_another_kind_is_refused(counts) -> None:
    with pytest.raises(TypeError, match=r"counts is .*; compiled code takes .*int64, 1d, C"):
        placed(Both(counts, 0.5, np.zeros((2, 3)), 0))


@jit
def _sum(count):
    room = doubles(stack(EIGHT), 8)
    total = 0.0
    for i in range(count):
        room[i] = i
    for i in range(count):
        total += room[i]
    return total


def test_a_function_has_room_of_its_own() -> None:
    assert _sum(8) == 28


@jit
def _chosen(a, b):
    return smaller(a, b), larger(a, b)


@pytest.mark.parametrize("kind", [int, float, np.float32, np.int32])
@pytest.mark.parametrize(("a", "b"), [(1, 2), (2, 1), (-3, 0), (5, 5)])
def test_smaller_and_larger_are_min_and_max(kind, a: int, b: int) -> None:
    assert _chosen(kind(a), kind(b)) == (min(a, b), max(a, b))


@pytest.mark.parametrize(("a", "b"), [(math.nan, 1.0), (1.0, math.nan), (0.0, -0.0), (-0.0, 0.0)])
def test_the_first_one_is_taken_where_none_is_known_to_be_better(a: float, b: float) -> None:
    assert [repr(one) for one in _chosen(a, b)] == [repr(min(a, b)), repr(max(a, b))]


def test_a_float_by_its_bits() -> None:
    found = jit(lambda bits: as_float(bits))(np.float32(-1.5).view(np.int32))
    assert found == -1.5
