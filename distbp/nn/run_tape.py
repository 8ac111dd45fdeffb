"""The contract of an executor, which runs a tape, and the executor that calls the definition of each op in
NumPy. The compiled executor is in `run_compiled` (Numba, optional)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import REAL, WHOLE
from distbp.nn.tape import ANY_LENGTH, LONGEST, Ref, Row, Space

Spaces = Mapping[Space, Array]  # flat arrays
_CHANGING = (Space.INPUTS, Space.TARGETS, Space.WEIGHTS)


class Executor(Protocol):
    """Runs a list of ops over spaces."""

    def run(
        self, rows: int, inputs: Array, targets: Array | None = None, weights: Array | None = None
    ) -> None:
        """Runs the ops on a slice of `rows` rows; returns when they are done. inputs, targets, weights:
        C-contiguous, in the dtypes of their spaces; targets are None without a loss, weights if all are 1."""
        ...


class _Bound(NamedTuple):
    """An op with its operands for slices with a certain number of rows. `changing`: number and place of each
    operand that changes from run to run. `finds_longest`: whether the op writes LONGEST."""

    row: Row
    operands: list[Any]
    changing: tuple[tuple[int, Ref], ...]
    finds_longest: bool


class NumpyExecutor:
    """Calls the definition of each op in NumPy. `spaces`: all spaces except inputs, targets and weights."""

    def __init__(self, ops: Sequence[Row], spaces: Spaces) -> None:
        self._ops = ops
        self._spaces = dict(spaces)
        self._bound: dict[int, list[_Bound]] = {}

    def run(
        self, rows: int, inputs: Array, targets: Array | None = None, weights: Array | None = None
    ) -> None:
        nothing = inputs[:0]
        slices = {
            Space.INPUTS: inputs.reshape(-1),
            Space.TARGETS: nothing.reshape(-1) if targets is None else targets.reshape(-1),
            Space.WEIGHTS: nothing.reshape(-1) if weights is None else weights.reshape(-1),
        }
        spaces, longest = self._spaces | slices, ANY_LENGTH
        for one in self._bound.get(rows) or self._bind(rows):
            if one.row.runs(longest):
                for number, ref in one.changing:
                    one.operands[number] = matrix(spaces[Space(ref.space)], ref, rows, longest)
                one.row.op.define(*one.operands)
                if one.finds_longest:
                    longest = int(spaces[Space.POSITION][LONGEST.start])

    def _bind(self, rows: int) -> list[_Bound]:
        bound = []
        for row in self._ops:
            operands: list[Any] = []
            changing = []
            for number, ref in enumerate(row.refs):
                if ref.space in _CHANGING or ref.most:
                    changing.append((number, ref))
                    operands.append(None)
                else:
                    operands.append(matrix(self._spaces[Space(ref.space)], ref, rows))
            operands += [row.whole, row.real]
            bound.append(_Bound(row, operands, tuple(changing), LONGEST in row.refs))
        self._bound[rows] = bound
        return bound


def matrix(space: Array, ref: Ref, rows: int, longest: int = ANY_LENGTH) -> Array:
    """The matrix at a place in a flat space, a view. longest: the steps of the slice's longest row. The
    matrix has no rows if inputs, targets or weights are left out."""
    m, n = ref.shape(rows, longest)
    if ref.space in _CHANGING and not len(space):
        return space.reshape(0, n)
    start = ref.start + rows * ref.per_row
    return space[start : start + m * n].reshape(m, n)


def encode(ops: Sequence[Row], weighted: bool = True) -> tuple[Array, Array]:
    """The words of all rows, int64, and the number of the word at which each row begins (see
    `distbp.nn.ops.rows`). weighted: whether the slices have weights."""
    words: list[int] = []
    starts = []
    for row in ops:
        starts.append(len(words))
        real = np.array([*row.real, *[0.0] * (REAL - len(row.real))]).view(np.int64).tolist()
        words += [*row.whole, *[0] * (WHOLE - len(row.whole)), *real, row.when, 0]
        for ref in row.refs:
            absent = ref.space == Space.WEIGHTS and not weighted
            words += [
                ref.space,
                ref.start,
                ref.columns,
                *((0, 0) if absent else (ref.times, ref.plus)),
                ref.per_row,
                ref.most,
            ]
    return np.array(words, np.int64), np.array(starts, np.int64)
