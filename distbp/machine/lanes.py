"""Vectors of float32 in LLVM's own terms, for compiled code (Numba, optional).

A vector is as wide as a register of AVX-512, or else of AVX2. If registers are narrower, LLVM uses several of
them for a vector. No bit may depend on the width. Addresses and steps are int64 numbers of bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from llvmlite import binding, ir

from distbp.machine.pointers import insert

# The number of float32 values in a vector, and the number of vector registers.
LANES, REGISTERS = (16, 32) if binding.get_host_cpu_features().get("avx512f") else (8, 16)

BIT, BYTE, WHOLE, LONG, FLOAT = *(ir.IntType(bits) for bits in (1, 8, 32, 64)), ir.FloatType()
FLOATS, INDICES, MASK = (ir.VectorType(kind, LANES) for kind in (FLOAT, WHOLE, BIT))
ZEROS = ir.Constant(FLOATS, [0.0] * LANES)
MOST_SUMS = 14  # sums for each vector of the right operand; more would gain little and need more code
MASKED_STORES = REGISTERS == 32  # with AVX2, a masked store takes some processors as long as fifty others
NAME = f"v{LANES}f32"  # the vector type in LLVM's names of functions


def sums_beside(vectors: int) -> int:
    """The number of sums for each of `vectors` vectors that fit in the registers with them and one value."""
    return min(MOST_SUMS, (REGISTERS - 1 - vectors) // vectors)


def plus(builder: Any, address: Any, step: Any, times: int) -> Any:
    return builder.add(address, builder.mul(step, LONG(times)))


def pointer(builder: Any, address: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def everywhere(builder: Any, value: Any, kind: ir.Type) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, WHOLE(0))
    return builder.shuffle_vector(one, one, ir.Constant(INDICES, [0] * LANES))


class Some(NamedTuple):
    """The first lanes of a vector. count: their number, which may be below 0 or above LANES. mask: the lanes
    as a mask."""

    count: Any
    mask: Any


def first(builder: Any, count: Any, skipped: int = 0) -> Some:
    """The first `count - skipped` lanes."""
    numbers = ir.Constant(INDICES, [skipped + lane for lane in range(LANES)])
    mask = builder.icmp_signed("<", numbers, everywhere(builder, builder.trunc(count, WHOLE), INDICES))
    return Some(builder.sub(count, LONG(skipped)), mask)


def load(builder: Any, address: Any, which: Some | None) -> Any:
    """Loads a vector with an alignment of 4 bytes. which: the lanes to read; the others become 0. None: all
    lanes."""
    place = pointer(builder, address, FLOATS)
    if which is None:
        return builder.load(place, align=4)
    kind = ir.FunctionType(FLOATS, [place.type, WHOLE, MASK, FLOATS])
    function = insert(builder.module, kind, f"llvm.masked.load.{NAME}.p0")
    return builder.call(function, [place, WHOLE(4), which.mask, ZEROS])


def store(builder: Any, values: Any, address: Any, which: Some | None) -> None:
    """Stores the lanes `which` of a vector; None: all lanes."""
    place = pointer(builder, address, FLOATS)
    if which is None:
        builder.store(values, place, align=4)
    elif MASKED_STORES:
        kind = ir.FunctionType(ir.VoidType(), [FLOATS, place.type, WHOLE, MASK])
        function = insert(builder.module, kind, f"llvm.masked.store.{NAME}.p0")
        builder.call(function, [values, place, WHOLE(4), which.mask])
    else:
        builder.call(_store_pieces(builder.module), [values, address, which.count])


def _store_pieces(module: Any) -> Any:
    """An LLVM function (vector, address, count): stores all lanes at once if `count` is at least LANES; else
    the first `count` lanes, by one store for each power of two in `count`."""
    name = "distbp_store_some"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [FLOATS, LONG, LONG]), name)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block("start"))
    values, address, count = function.args
    size = LANES
    while size >= 1:
        many = builder.icmp_signed(">=", count, LONG(size))
        kind = ir.Constant(ir.VectorType(WHOLE, size), list(range(size)))
        with builder.if_then(many):
            piece = builder.shuffle_vector(values, values, kind)
            builder.store(piece, pointer(builder, address, piece.type), align=4)
        rest = ir.Constant(INDICES, [(lane + size) % LANES for lane in range(LANES)])
        values = builder.select(many, builder.shuffle_vector(values, values, rest), values)
        address = builder.select(many, builder.add(address, LONG(4 * size)), address)
        count = builder.select(many, builder.sub(count, LONG(size)), count)
        if size == LANES:
            count = builder.select(many, LONG(0), count)  # no lanes are left
        size //= 2
    builder.ret_void()
    return function


def put(
    builder: Any, values: Sequence[Any], places: Sequence[Any], which: Sequence[Some | None], add: Any
) -> None:
    """Stores vectors at addresses. If `add` is not 0, they are added to the values there. which: the lanes of
    each vector, as in `store`."""
    with builder.if_else(builder.icmp_signed("!=", add, LONG(0))) as (adding, writing):
        with adding:
            for value, place, some in zip(values, places, which, strict=True):
                store(builder, builder.fadd(load(builder, place, some), value), place, some)
        with writing:
            for value, place, some in zip(values, places, which, strict=True):
                store(builder, value, place, some)


def added_up(builder: Any, vectors: Sequence[Any]) -> Any:
    """The sum of all lanes of one or two vectors. The second half is added to the first half, until one lane
    is left."""
    total = vectors[0] if len(vectors) == 1 else builder.fadd(*vectors)
    for size in (LANES >> step for step in range(1, LANES.bit_length())):
        low, high = (
            builder.shuffle_vector(
                total, total, ir.Constant(ir.VectorType(WHOLE, size), list(range(begin, begin + size)))
            )
            for begin in (0, size)
        )
        total = builder.fadd(low, high)
    return builder.extract_element(total, WHOLE(0))


def load_everywhere(builder: Any, address: Any) -> Any:
    """A vector whose lanes are all the value at an address."""
    return everywhere(builder, builder.load(pointer(builder, address, FLOAT), align=4), FLOATS)


def fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    function = insert(builder.module, ir.FunctionType(FLOATS, [FLOATS] * 3), f"llvm.fma.{NAME}")
    return builder.call(function, [a, b, c])


def transposed(builder: Any, lines: Sequence[Any]) -> list[Any]:
    """The transpose of n vectors of n values with four bytes; n is a power of two."""
    count, lines = len(lines), list(lines)
    half, kind = count // 2, ir.VectorType(WHOLE, count)
    low, high = (
        ir.Constant(kind, [at for j in range(first, first + half) for at in (j, count + j)])
        for first in (0, half)
    )
    for _ in range(count.bit_length() - 1):  # each pass interleaves both halves, as in a riffle shuffle
        lines = [
            builder.shuffle_vector(lines[i], lines[i + half], which)
            for i in range(half)
            for which in (low, high)
        ]
    return lines


def repeat(
    builder: Any, count: Any, carried: Sequence[Any], body: Callable[[Any, Sequence[Any]], Sequence[Any]]
) -> list[Any]:
    """Emits a loop of `count` rounds, which may be 0. carried: the values before the first round.
    body(number, values) emits a round and returns the values after it. Returns the values after the last
    round."""
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
    """Emits a call of `cases[case]`, or of no function if `cases` does not have that number. Code cannot
    choose a register by a number, so there is a function for each number of registers."""
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
    """The LLVM function with this name, which takes `arguments` whole numbers of 64 bits. The first call
    makes it: emit(builder, *arguments) writes its code."""
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [LONG] * arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("start"))
    emit(builder, *function.args)
    builder.ret_void()
    return function
