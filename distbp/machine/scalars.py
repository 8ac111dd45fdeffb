"""The smaller and the larger of two numbers, and floats by their bits, for compiled code (Numba, optional).

Numba compiles its own `min`, `max` and `view` anew in each function that calls them, which takes 20 to 40 ms
each. The functions here are one or two instructions.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from distbp.machine.pointers import emits, intrinsic

plain: Any = types.unliteral


def _chooser(sign: str) -> Any:
    def choose(context: Any, a: Any, b: Any) -> Any:
        kind = context.unify_types(plain(a), plain(b))

        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            compare = builder.fcmp_ordered if isinstance(kind, types.Float) else builder.icmp_signed
            return builder.select(compare(sign, values[1], values[0]), values[1], values[0])

        return kind(kind, kind), code

    return intrinsic(choose)


# (a, b), signed numbers: Python's min and max, also for NaN. They return `a` unless `b` is smaller (larger).
smaller, larger = _chooser("<"), _chooser(">")


@emits(types.uintp, types.int64)
def index(builder: Any, number: Any) -> Any:
    """A number that is not negative, as the index of an array. Python counts negative indices from the end. A
    loop over `i + j` with that choice in its code loads numbers one by one; `live_rows` took six times as
    long. Do not calculate with the result: Numba adds an unsigned and a signed whole number as floats."""
    return number


@emits(types.float32, types.int32)
def as_float(builder: Any, bits: Any) -> Any:
    """The float32 with the bits of an int32."""
    return builder.bitcast(bits, ir.FloatType())


@emits(types.float32, types.float32)
def normal(builder: Any, number: Any) -> Any:
    """The number, or 0 where it is closer to 0 than the least normal float32, 2^-126. NaN stays NaN."""
    zero, least = ir.Constant(number.type, 0.0), ir.Constant(number.type, 2.0**-126)
    size = builder.select(builder.fcmp_ordered("<", number, zero), builder.fneg(number), number)
    return builder.select(builder.fcmp_ordered("<", size, least), zero, number)


@emits(types.float32, types.float32)
def in_register(builder: Any, number: Any) -> Any:
    """The number itself, after an LLVM `freeze`, which hides from LLVM that it comes from memory. Otherwise a
    loop that chooses between a number in memory and another one, and writes it back, stores only the others,
    by masked stores. With AVX2 these take some processors twenty times as long."""
    instruction = ir.instructions.Instruction(builder.block, number.type, "freeze", [number])
    builder._insert(instruction)
    return instruction
