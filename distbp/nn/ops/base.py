"""The contract of an op, before any op.

An op is one simple operation over matrices: a row of the table `distbp.nn.ops.OPS`. It has two functions
with one signature, the definition in NumPy and the same as a loop for Numba:

    function(*operands, whole, real)

    operands   matrices (rows, columns), C-contiguous, in the order of `operands`; an absent one has no rows
    whole      its whole numbers, int64: sizes and flags
    real       its real numbers, float64: factors, bounds

Rules that every op keeps:
- An op reads and writes its operands only. It writes every element of an operand that it writes, unless it
  says that it adds. Its loop allocates nothing that grows with the rows of its operands.
- An op knows no layer, no loss and no network. What it computes depends on its operands alone.
- Where an op adds numbers, `order` says in which order. That order decides the last bits.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

WHOLE, REAL = 16, 4  # how many whole and real numbers an op may have


@dataclass(frozen=True)
class Op:
    """One row of the table.

    `operands`: a letter each (f, the dtype of the network; i, int64; d, float64), in upper case where the op
    writes it. `flops`: of a call, from the operands' shapes. `order`: the order of its sums, in words; empty
    where it has none. `loop`: "module:function" of its compiled form. `form`: of a product, "n" or "t" for
    each operand, plain or transposed. `calls`: "module:function" of the compiled op that the compiled form
    calls with its own operands, by address: what many ops begin or end with is compiled once.
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
        """The loop, ready for Numba. Imports Numba."""
        return _named(self.loop)

    def called(self) -> Callable[..., None] | None:
        """What the loop calls. Imports Numba."""
        return _named(self.calls) if self.calls else None


def _named(what: str) -> Callable[..., None]:
    module, _, name = what.partition(":")
    found: Callable[..., None] = getattr(importlib.import_module(module), name)
    return found


def table(*families: Sequence[Op]) -> Mapping[str, Op]:
    """A read-only table by name. Raises ValueError where a name stands twice."""
    rows: dict[str, Op] = {}
    for op in (one for family in families for one in family):
        if op.name in rows:
            raise ValueError(f"two ops are called {op.name!r}")
        rows[op.name] = op
    return MappingProxyType(rows)


def element_ops(count: int) -> Callable[[Sequence[tuple[int, int]]], int]:
    """flops of an op that does `count` operations for each element of its largest operand."""
    return lambda shapes: count * max(m * n for m, n in shapes)


Whole = Any
Real = Any
