"""Products of large float32 matrices on the processor's matrix unit (Numba, optional; see `tiles`).

The operands are packed, part by part, into pieces that lie in the order in which the unit loads them, and in
the second cache until they are used; blocks of 32 by 32 sums are made of them. The sums of up to TERMS terms
are added up in the unit, those in order: how an element is added up depends on the number of terms alone, not
on where it stands, how many others there are, or where the operands lie.

Its error is smaller than that of the libraries' float32 products, because the unit adds up more exactly.
Values of more than 3.39e38 become infinite, and where there are infinite values the results may be NaN. Parts
and their products of less than 1.2e-38 are taken as zero.
"""

from __future__ import annotations

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from distbp.nn.arrays import Array
from distbp.nn.gemm import TRANSPOSED, compiled_as_sgemm
from distbp.nn.jit import jit
from distbp.nn.pointers import pointer, prefetch, prefetch_to_write
from distbp.nn.tiles import (
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

LEAST = 128  # rows, columns and terms; for fewer of them packing costs more than it saves
TERMS = 128  # of a sum before it is rounded to float32; part of the numerics
PIECES = TERMS // SIDE
LINE_BYTES = 4 * SIDE
AHEAD = 4  # rows
# So that sums, and TERMS terms of what is kept, stay in the second cache, of 1 MB or more.
PANELS = 8  # for which sums are kept
KEPT = 16  # blocks of lines of the operand that is kept packed,
KEPT_BYTES = 4 << 20  # and no more than that, but for the first


@jit
def matrix_at(address: int, rows: int, columns: int) -> Array:
    """float32, C-contiguous."""
    return carray(pointer(address), (rows, columns), np.float32)


@jit
def _pack(source: int, step: int, to: int, lines_are_rows: bool, transposed: bool, pieces: int) -> None:
    """SIDE lines over `pieces` times SIDE terms. Lines stand in rows, or terms do; rows are `step` bytes
    apart. Tiles hold a line in a row, or for the right operand of the unit a pair of terms."""
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
    """Up to SIDE lines, and any number of terms: what is missing is zero. edge: room for SIDE x SIDE."""
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
    """The first rows and columns of a block of sums, into rows that are `step` bytes apart."""
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
    """The address of an element of the result."""
    row, column = (kept_line, panel_line) if panels_in_columns else (panel_line, kept_line)
    return to + row * step + 4 * column


@jit
def _prefetch_block(to: int, step: int) -> None:
    """Before a block is multiplied that will be written: the caches take it in meanwhile."""
    for row in range(SIDE):
        prefetch_to_write(to + row * step)
        prefetch_to_write(to + row * step + 64)


@jit
def _multiply(
    k: int, kept: int, kept_lines: int, kept_step: int, kept_in_rows: bool, panels: int, panel_lines: int,
    panel_step: int, panels_in_rows: bool, panels_left: bool, to: int, step: int, transposed: bool,
) -> None:  # fmt: skip
    """The inner products of lines of two operands over k terms, at two addresses; steps are in bytes.

    One is packed once, and for as many of its lines as are `kept` the other is packed by panels. Where
    `panels_left`, the unit's left operand is that one. Its lines are the rows of the result, or, where that
    is written `transposed`, the columns."""
    pieces = -(-k // SIDE)
    most = max(1, min(KEPT, KEPT_BYTES // (pieces * PIECE)))  # blocks of lines
    # In lines of 64 bytes: a panel, sums, an edge; the sums of all blocks; what is kept.
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
    room[0] = 0  # it is used by its address: until here


def _sgemm(
    layout: int, left: int, right: int, m: int, n: int, k: int, alpha: float,
    a: int, lda: int, b: int, ldb: int, beta: float, c: int, ldc: int,
) -> None:  # fmt: skip
    # Of a dense layer, the larger operand is the right one, the weights or the inputs: that makes the panels.
    a_in_rows, b_in_rows = left != TRANSPOSED, right == TRANSPOSED
    # Lines in rows need no transposing as the unit's left operand: so as (b a^T)^T, where both are.
    turned = a_in_rows and b_in_rows
    _multiply(k, a, m, 4 * lda, a_in_rows, b, n, 4 * ldb, b_in_rows, turned, c, 4 * ldc, turned)


def tile_sgemm() -> int:
    """The address of a function with the arguments of cblas_sgemm, all whole numbers of 64 bits, for
    row-major matrices, alpha 1 and beta 0. Waits. The process must have been allowed to use the unit."""
    return int(compiled_as_sgemm(_sgemm).address)
