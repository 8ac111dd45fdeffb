"""The contract of an op, before any op.

An op is one simple operation over matrices: a row of the table `distbp.nn.ops.OPS`. Its definition is a
function of NumPy arrays:

    define(*operands, whole, real)

    operands   matrices (rows, columns), C-contiguous, in the order of `operands`; an absent operand has no
               rows
    whole      whole numbers, int64: sizes and flags
    real       real numbers, float64: factors, bounds

`loop` names the same operation as a loop for Numba, which reads its operands from a row of the tape
(`distbp.nn.ops.rows`).

Every op keeps these rules:
- An op reads and writes only its operands. If it writes an operand, it writes every element, unless its
  docstring says that it adds, or which part it writes. Its loop allocates nothing that grows with the rows.
- An op knows no layer, no loss and no network. The result depends only on operands, `whole` and `real`.
- If an op adds up numbers, `order` says in which order. The order decides the last bits.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

WHOLE, REAL = 16, 4  # the most whole and real numbers of an op


@dataclass(frozen=True)
class Op:
    """One row of the table.

    `operands`: a letter for the dtype of each operand (f: the network's dtype, i: int64, d: float64), in
    upper case if the op writes it. `flops`: the operations of a call, from the operands' shapes. `order`: the
    order of its sums, in words; "" if it has none. `loop`: "module:function" of the loop for Numba. `form`:
    for a product, "n" (plain) or "t" (transposed) for each factor. `calls`: "module:function" of another op,
    which the loop calls with its own operands, by address. So code that many ops share is compiled once.
    """

    name: str
    operands: str
    define: Callable[..., None]
    loop: str
    order: str = ""
    flops: Callable[[Sequence[tuple[int, int]]], int] = lambda shapes: max(m * n for m, n in shapes)
    form: str = ""
    calls: str = ""

    def compiled(self) -> Callable[..., None]:
        """The function to compile. Imports Numba."""
        return _named(self.loop)

    def called(self) -> Callable[..., None] | None:
        """The function that the loop calls, to compile; None: it calls none. Imports Numba."""
        return _named(self.calls) if self.calls else None


def _named(what: str) -> Callable[..., None]:
    module, _, name = what.partition(":")
    found: Callable[..., None] = getattr(importlib.import_module(module), name)
    return found


def table(*families: Sequence[Op]) -> Mapping[str, Op]:
    """A read-only table of ops by name. Raises ValueError if two ops have one name."""
    rows: dict[str, Op] = {}
    for op in (one for family in families for one in family):
        if op.name in rows:
            raise ValueError(f"two ops are called {op.name!r}")
        rows[op.name] = op
    return MappingProxyType(rows)


def element_ops(count: int) -> Callable[[Sequence[tuple[int, int]]], int]:
    """`Op.flops` of an op with `count` operations for each element of its largest operand."""
    return lambda shapes: count * max(m * n for m, n in shapes)


Whole = Any
Real = Any
