"""Vectors of AVX-512 in LLVM's own terms, for compiled code (Numba, optional). On narrower registers LLVM
takes several for one. Addresses and steps are int64 numbers of bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llvmlite import ir

from distbp.machine.pointers import insert

LANES = 16  # float32 values in a vector

BIT, BYTE, WHOLE, LONG, FLOAT = *(ir.IntType(bits) for bits in (1, 8, 32, 64)), ir.FloatType()
FLOATS, INDICES, MASK = (ir.VectorType(kind, LANES) for kind in (FLOAT, WHOLE, BIT))
ZEROS = ir.Constant(FLOATS, [0.0] * LANES)
NAME = f"v{LANES}f32"  # of the vector type, as LLVM writes it in names of functions


def plus(builder: Any, address: Any, step: Any, times: int) -> Any:
    return builder.add(address, builder.mul(step, LONG(times)))


def pointer(builder: Any, address: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def everywhere(builder: Any, value: Any, kind: ir.Type) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, WHOLE(0))
    return builder.shuffle_vector(one, one, ir.Constant(INDICES, [0] * LANES))


def mask(builder: Any, count: Any, skipped: int = 0) -> Any:
    """A mask that is set for the first `count - skipped` lanes."""
    lanes = ir.Constant(INDICES, [skipped + lane for lane in range(LANES)])
    return builder.icmp_signed("<", lanes, everywhere(builder, builder.trunc(count, WHOLE), INDICES))


def load(builder: Any, address: Any, which: Any) -> Any:
    """Loads a vector with an alignment of 4 bytes. Lanes where the mask `which` is not set are not read, and
    are zero. None: all are."""
    place = pointer(builder, address, FLOATS)
    if which is None:
        return builder.load(place, align=4)
    kind = ir.FunctionType(FLOATS, [place.type, WHOLE, MASK, FLOATS])
    function = insert(builder.module, kind, f"llvm.masked.load.{NAME}.p0")
    return builder.call(function, [place, WHOLE(4), which, ZEROS])


def store(builder: Any, values: Any, address: Any, which: Any) -> None:
    place = pointer(builder, address, FLOATS)
    if which is None:
        builder.store(values, place, align=4)
        return
    kind = ir.FunctionType(ir.VoidType(), [FLOATS, place.type, WHOLE, MASK])
    function = insert(builder.module, kind, f"llvm.masked.store.{NAME}.p0")
    builder.call(function, [values, place, WHOLE(4), which])


def put(builder: Any, values: Sequence[Any], places: Sequence[Any], which: Sequence[Any], add: Any) -> None:
    """Stores vectors at addresses; where `add` is not 0 they are added to what is there. `which`: a mask for
    each."""
    with builder.if_else(builder.icmp_signed("!=", add, LONG(0))) as (adding, writing):
        with adding:
            for value, place, mask in zip(values, places, which, strict=True):
                store(builder, builder.fadd(load(builder, place, mask), value), place, mask)
        with writing:
            for value, place, mask in zip(values, places, which, strict=True):
                store(builder, value, place, mask)


def load_everywhere(builder: Any, address: Any) -> Any:
    """A vector of which each lane is the value at an address."""
    return everywhere(builder, builder.load(pointer(builder, address, FLOAT), align=4), FLOATS)


def fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    function = insert(builder.module, ir.FunctionType(FLOATS, [FLOATS] * 3), f"llvm.fma.{NAME}")
    return builder.call(function, [a, b, c])


def transposed(builder: Any, lines: Sequence[Any]) -> list[Any]:
    """The columns of LANES vectors of values of four bytes."""
    half, lines = LANES // 2, list(lines)
    low, high = (
        ir.Constant(INDICES, [at for j in range(first, first + half) for at in (j, LANES + j)])
        for first in (0, half)
    )
    for _ in range(LANES.bit_length() - 1):  # each pass interleaves both halves, as in a riffle shuffle
        lines = [
            builder.shuffle_vector(lines[i], lines[i + half], which)
            for i in range(half)
            for which in (low, high)
        ]
    return lines


def repeat(
    builder: Any, count: Any, carried: Sequence[Any], body: Callable[[Any, Sequence[Any]], Sequence[Any]]
) -> list[Any]:
    """Emits a loop of `count` rounds, which may be none. `carried`: values before the first round;
    body(number, values) emits a round and returns the values after it. Returns those after the last."""
    before, (head, inside, after) = (
        builder.block,
        map(builder.append_basic_block, ("head", "inside", "after")),
    )
    builder.branch(head)
    builder.position_at_end(head)
    number, values = builder.phi(LONG), [builder.phi(one.type) for one in carried]
    builder.cbranch(builder.icmp_signed("<", number, count), inside, after)
    builder.position_at_end(inside)
    following = [builder.add(number, LONG(1)), *body(number, values)]
    end = builder.block
    builder.branch(head)
    for phi, first, later in zip([number, *values], [LONG(0), *carried], following, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, end)
    builder.position_at_end(after)
    return values


def choose(builder: Any, cases: Mapping[int, Any], case: Any, values: Sequence[Any]) -> None:
    """Emits a call of the function that `cases` has for the number `case`, and none for another number. Code
    cannot choose a register by a number, so each number of registers has a function of its own."""
    after = builder.append_basic_block("chosen")
    choice = builder.switch(case, after)
    for number, function in cases.items():
        block = builder.append_basic_block("case")
        choice.add_case(LONG(number), block)
        with builder.goto_block(block):
            builder.call(function, values)
            builder.branch(after)
    builder.position_at_end(after)


def routine(module: Any, name: str, arguments: int, emit: Callable[..., None]) -> Any:
    """The LLVM function of a name, of so many whole numbers; emit(builder, *arguments) writes its code."""
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [LONG] * arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("start"))
    emit(builder, *function.args)
    builder.ret_void()
    return function
