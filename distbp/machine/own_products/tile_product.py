"""Products of large float32 matrices on the processor's matrix unit (Numba, optional; see `tiles`).

The operands are packed into pieces, in the order in which the unit loads them. The pieces stay in the second
cache until they are multiplied into blocks of 32 by 32 sums. The unit adds up to TERMS terms; these sums are
then added in order. The order depends on the number of terms alone: not on the place of an element, on the
size of the matrices, or on where the operands lie in memory.

The error is smaller than that of the libraries' float32 products, because the unit adds more exactly. Values
above 3.39e38 become infinite, and infinite values may give NaN. Parts below 1.2e-38, and products of parts
below that, count as zero.
"""

from __future__ import annotations

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from distbp.core.arrays import Array
from distbp.machine.gemm import TRANSPOSED, compiled_as_sgemm
from distbp.machine.jit import jit
from distbp.machine.own_products.tiles import (
    BLOCK,
    PIECE,
    SIDE,
    TILE,
    add_block,
    begin_tiles,
    copy_line,
    end_tiles,
    multiply_pieces,
    split_pairs,
    transpose,
)
from distbp.machine.pointers import pointer, prefetch, prefetch_to_write

LEAST = 128  # rows, columns and terms; with fewer, packing costs more than it saves
TERMS = 128  # of a sum before it is rounded to float32; part of the numerics
PIECES = TERMS // SIDE
LINE_BYTES = 4 * SIDE
AHEAD = 4  # rows
# Chosen so that the sums and TERMS terms of the kept operand stay in a second cache of 1 MB or more.
PANELS = 8  # panels whose sums are kept at a time
KEPT = 16  # blocks of lines of the operand that is kept packed, at most
KEPT_BYTES = 4 << 20  # of that operand, at most; one block is kept whatever its size


@jit
def matrix_at(address: int, rows: int, columns: int) -> Array:
    """A C-contiguous float32 view, (rows, columns), of the memory at an address."""
    return carray(pointer(address), (rows, columns), np.float32)


@jit
def _pack(source: int, step: int, to: int, lines_are_rows: bool, transposed: bool, pieces: int) -> None:
    """Packs SIDE lines over `pieces` times SIDE terms into pieces at `to`. source: address of the first
    value. step: bytes from one row to the next. lines_are_rows: whether a row of the source holds a line or a
    term. transposed: whether the rows of the tiles are transposed at the end; a row of a tile holds a line
    for the unit's left operand, and a pair of terms for its right one."""
    if lines_are_rows:
        for line in range(SIDE):
            for piece in range(pieces):
                at = source + line * step + LINE_BYTES * piece
                prefetch(at + AHEAD * step)
                prefetch(at + AHEAD * step + 64)
                split_pairs(at, at + 64, to + PIECE * piece + 64 * line)
    else:
        for piece in range(pieces):
            place = to + PIECE * piece
            for pair in range(SIDE // 2):
                at = source + (SIDE * piece + pair) * step
                other = at + SIDE // 2 * step
                prefetch(at + SIDE * step)
                prefetch(at + SIDE * step + 64)
                prefetch(other + SIDE * step)
                prefetch(other + SIDE * step + 64)
                split_pairs(at, other, place + 64 * pair)
                split_pairs(at + 64, other + 64, place + TILE + 64 * pair)
    if transposed:
        for tile in range(pieces * PIECE // TILE):
            transpose(to + TILE * tile, 64, to + TILE * tile, 64)


@jit
def _pack_lines(
    source: int, step: int, lines: int, terms: int, to: int, lines_are_rows: bool, transposed: bool, edge: int
) -> None:
    """Packs up to SIDE lines over any number of terms; missing values count as zero. Arguments as of `_pack`.
    edge: address of working memory for (SIDE, SIDE) float32."""
    whole = terms // SIDE if lines == SIDE else 0
    _pack(source, step, to, lines_are_rows, transposed, whole)
    room = matrix_at(edge, SIDE, SIDE)
    for piece in range(whole, -(-terms // SIDE)):
        some = min(SIDE, terms - SIDE * piece)
        start = source + (LINE_BYTES * piece if lines_are_rows else SIDE * piece * step)
        rows, columns = (lines, some) if lines_are_rows else (some, lines)
        room[:] = 0
        for row in range(rows):
            room[row, :columns] = matrix_at(start + row * step, 1, columns)[0]
        _pack(edge, LINE_BYTES, to + PIECE * piece, lines_are_rows, transposed, 1)


@jit
def _write(block: int, to: int, step: int, rows: int, columns: int, transposed: bool) -> None:
    """Writes the first rows and columns of a block of sums to `to`, in rows that are `step` bytes apart."""
    if rows == SIDE and columns == SIDE:
        if transposed:
            for i in range(2):
                for j in range(2):
                    transpose(block + 2 * TILE * i + 64 * j, LINE_BYTES, to + 16 * j * step + 64 * i, step)
        else:
            for row in range(SIDE):
                copy_line(block + LINE_BYTES * row, to + row * step)
        return
    sums = matrix_at(block, SIDE, SIDE)
    if transposed:
        for column in range(columns):
            matrix_at(to + column * step, 1, rows)[0, :] = sums[:rows, column]
    else:
        for row in range(rows):
            matrix_at(to + row * step, 1, columns)[0, :] = sums[row, :columns]


@jit
def _corner(to: int, step: int, panel_line: int, kept_line: int, panels_in_columns: bool) -> int:
    """The address of the element of the result where a block begins."""
    row, column = (kept_line, panel_line) if panels_in_columns else (panel_line, kept_line)
    return to + row * step + 4 * column


@jit
def _prefetch_block(to: int, step: int) -> None:
    """Prefetches a block of the result, so that its lines arrive while the sums are computed."""
    for row in range(SIDE):
        prefetch_to_write(to + row * step)
        prefetch_to_write(to + row * step + 64)


@jit
def _multiply(
    k: int, kept: int, kept_lines: int, kept_step: int, kept_in_rows: bool, panels: int, panel_lines: int,
    panel_step: int, panels_in_rows: bool, panels_left: bool, to: int, step: int, transposed: bool,
) -> None:  # fmt: skip
    """Writes the inner products of all lines of two operands over k terms. Addresses; steps are in bytes. One
    operand is kept: it is packed once, some blocks of lines at a time. The other operand is packed panel by
    panel for each of these. panels_left: whether the panels are the unit's left operand. Lines of the unit's
    left operand are the rows of the result, or its columns if it is written `transposed`."""
    pieces = -(-k // SIDE)
    most = max(1, min(KEPT, KEPT_BYTES // (pieces * PIECE)))  # blocks of lines
    # At multiples of 64 bytes: a panel, one block of sums, an edge; the sums of all blocks; the kept pieces.
    room = np.empty(PIECES * PIECE + 2 * BLOCK + PANELS * most * BLOCK + most * pieces * PIECE + 64, np.uint8)
    panel = (room.ctypes.data + 63) // 64 * 64
    some, edge = panel + PIECES * PIECE, panel + PIECES * PIECE + BLOCK
    blocks = edge + BLOCK
    packed = blocks + PANELS * most * BLOCK
    begin_tiles()
    for first in range(0, kept_lines, SIDE * most):
        wide = -(-min(SIDE * most, kept_lines - first) // SIDE)
        for j in range(wide):
            for term in range(0, k, TERMS):
                terms, line = min(TERMS, k - term), first + SIDE * j
                start = kept + (line * kept_step + 4 * term if kept_in_rows else term * kept_step + 4 * line)
                place = packed + (term // SIDE * wide + j * -(-terms // SIDE)) * PIECE
                lines = min(SIDE, kept_lines - line)
                _pack_lines(
                    start, kept_step, lines, terms, place, kept_in_rows, kept_in_rows == panels_left, edge
                )
        for top in range(0, panel_lines, PANELS * SIDE):
            high = -(-min(PANELS * SIDE, panel_lines - top) // SIDE)
            for term in range(0, k, TERMS):
                terms = min(TERMS, k - term)
                count = -(-terms // SIDE)
                for i in range(high):
                    line = top + SIDE * i
                    offset = line * panel_step + 4 * term if panels_in_rows else term * panel_step + 4 * line
                    lines = min(SIDE, panel_lines - line)
                    _pack_lines(
                        panels + offset, panel_step, lines, terms, panel,
                        panels_in_rows, panels_in_rows != panels_left, edge,
                    )  # fmt: skip
                    for j in range(wide):
                        column = first + SIDE * j
                        place = _corner(to, step, line, column, transposed == panels_left)
                        last = term + terms == k
                        if last:
                            _prefetch_block(place, step)
                        other = packed + (term // SIDE * wide + j * count) * PIECE
                        left, right = (panel, other) if panels_left else (other, panel)
                        block = blocks + (i * most + j) * BLOCK
                        if term == 0:
                            multiply_pieces(left, right, count, block, other + PIECE)
                        else:
                            multiply_pieces(left, right, count, some, other + PIECE)
                            add_block(some, block)
                        if last:
                            others = min(SIDE, kept_lines - column)
                            rows, columns = (lines, others) if panels_left else (others, lines)
                            _write(block, place, step, rows, columns, transposed)
    end_tiles()
    room[0] = 0  # keeps the array alive until here: the code above uses its address


def _sgemm(
    layout: int, left: int, right: int, m: int, n: int, k: int, alpha: float,
    a: int, lda: int, b: int, ldb: int, beta: float, c: int, ldc: int,
) -> None:  # fmt: skip
    # In a dense layer the right operand (weights or inputs) is the larger one, so it makes the panels.
    a_in_rows, b_in_rows = left != TRANSPOSED, right == TRANSPOSED
    # The unit's left operand needs no transposing if its lines are rows. If both operands have their lines in
    # rows, compute (b a^T)^T.
    turned = a_in_rows and b_in_rows
    _multiply(k, a, m, 4 * lda, a_in_rows, b, n, 4 * ldb, b_in_rows, turned, c, 4 * ldc, turned)


def tile_sgemm() -> int:
    """The address of a function with the arguments of cblas_sgemm, all whole numbers with 64 bits.

    It takes row-major matrices, alpha 1 and beta 0, and waits. Compiles it first, where no process has kept
    it. The process must have permission to use the unit (`distbp.machine.blas.allow_tiles`)."""
    return int(compiled_as_sgemm(_sgemm).address)
