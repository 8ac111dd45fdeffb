"""The compiled executor of a tape (Numba, optional): a loop over the rows that calls each op by its address.

No code is generated for a network as a whole. Each op is compiled separately and kept on disk, and a job
compiles only the ops that it uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.machine.blas import FEW_ROWS, SMALL, TINY, Gemm
from distbp.machine.gemm import is_direct, strips_of
from distbp.machine.structures import Wholes, address, address_of, placed, reader
from distbp.nn.kernels import Kernels
from distbp.nn.ops.rows import CALLED, PRODUCTS, call_op, compiled, runs
from distbp.nn.run_tape import Spaces, encode
from distbp.nn.tape import Row, Space


def addresses(ops: Sequence[Row]) -> Array:
    """The address of the compiled op of each row, int64. Compiles ops that no process has compiled yet."""
    return np.array([compiled(row.op.compiled()).address for row in ops], np.int64)


class Ops(NamedTuple):
    """A list of ops. words, starts: see `run_tape.encode`. ops: addresses of compiled ops; 0: left out."""

    words: Wholes
    starts: Wholes
    ops: Wholes


ops_at = reader(Ops)


def ops_of(rows: Sequence[Row], weighted: bool) -> Ops:
    """The rows for compiled code. weighted: whether the data have weights."""
    words, starts = encode(rows, weighted)
    for row, start in zip(rows, starts, strict=True):
        if other := row.op.called():
            words[start + CALLED] = compiled(other).address
    return Ops(words, starts, addresses(rows))


def run_rows(program: int, spaces: int, rows: int) -> None:
    """Runs a tape on a slice of `rows` rows. program: address of an `Ops`. spaces: of the table of spaces."""
    it = ops_at(program)
    words, starts, ops = address_of(it.words), it.starts, it.ops
    for i in range(ops.size):
        row = words + 8 * starts[i]
        if ops[i] and runs(row, spaces):
            call_op(ops[i], row, spaces, rows)


def products_of(ops: Sequence[Row], most_rows: int, kernels: Kernels, dtype: np.dtype[Any]) -> Gemm:
    """The functions that compute the products of ops on slices of at most `most_rows` rows (see
    `loops_products`). Our own functions are compiled only if a product is for them."""
    assert kernels.gemm is not None
    fast = kernels.gemm(dtype, False).strips
    return kernels.gemm(dtype, any(_may_be_ours(row, most_rows, kernels, fast) for row in ops))


def _may_be_ours(row: Row, most_rows: int, kernels: Kernels, fast: int) -> bool:
    """Whether our own code may compute a product of an op on slices of at most `most_rows` rows."""
    shapes = [ref.shape(most_rows) for ref in row.refs]
    if not row.op.form:
        return row.op.flops(shapes) > 2 * (TINY if kernels.direct else SMALL)
    terms, by_columns = row.op.form == "tn", row.op.form == "nt"
    (m, n), k = shapes[2], shapes[0][0 if terms else 1]
    m = min(m, row.whole[1]) if terms else m  # a part of the gradient
    strips = 1 if by_columns else strips_of.py_func(fast, terms, m, n, k)
    if kernels.direct and _may_be_direct(by_columns, m, n, k, k if terms else m, strips):
        return True
    whole = m * n * k > SMALL and strips == 1
    return min(m, n, k) >= kernels.least > 0 and (by_columns or whole)


def _may_be_direct(by_columns: bool, m: int, n: int, k: int, rows: int, strips: int) -> bool:
    """Whether `is_direct` holds on some slice for a product with the shape (m, n) and k terms on the largest
    slice. So which function computes a slice depends on its shape, not on the tape's largest slice."""
    if by_columns:
        return bool(is_direct.py_func(True, min(m, FEW_ROWS), n, k, 1))
    return m * n * k >= TINY and (m * n * k <= SMALL * rows or strips > 1)


def space_table(spaces: Spaces, gemm: Gemm) -> Array:
    """The table of spaces (see `distbp.nn.ops.rows`), int64. Keep the arrays alive while it is used."""
    table = np.zeros(PRODUCTS + len(gemm), np.int64)
    for space, array in spaces.items():
        table[space] = address(array)
    table[PRODUCTS:] = gemm
    return table


class CompiledExecutor:
    """Runs compiled ops. spaces: as in `run_tape.NumpyExecutor`. gemm: see `products_of`."""

    def __init__(self, ops: Sequence[Row], spaces: Spaces, gemm: Gemm) -> None:
        self._spaces = dict(spaces)
        self._table = space_table(spaces, gemm)
        self._at = address(self._table)
        self._programs = [placed(ops_of(ops, weighted)) for weighted in (False, True)]
        self._run_rows = compiled(run_rows).ctypes

    def run(
        self, rows: int, inputs: Array, targets: Array | None = None, weights: Array | None = None
    ) -> None:
        table = self._table
        table[Space.INPUTS] = address(inputs)
        if targets is not None:
            table[Space.TARGETS] = address(targets)
        if weights is not None:
            table[Space.WEIGHTS] = address(weights)
        self._run_rows(self._programs[weights is not None].at, self._at, rows)
