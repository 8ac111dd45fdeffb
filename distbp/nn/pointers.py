"""Memory by its address, and what threads and processes need to meet, for compiled code (Numba, optional)."""

from __future__ import annotations

import ctypes
from typing import Any

from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

from distbp.nn.arrays import Array
from distbp.nn.jit import inner, jit

intrinsic: Any = _intrinsic
insert: Any = cgutils.get_or_insert_function

# Threads with like work wait for each other for microseconds, seldom for tenths of a millisecond. Who naps
# comes back a tenth of a millisecond late, and at the next meeting the others wait for that one.
LOOKS = 2000  # at a counter before the processor is offered to others; some microseconds
OFFERS = 2000  # of the processor before napping; some tenths of a millisecond
NAP_US = 50

# See sched_yield(2) and usleep(3). Where other programs use the processors too, whoever is awaited may wait
# for one that is only being looked from.
WAYS = tuple(
    ctypes.cast(function, ctypes.c_void_p).value or 0
    for function in (ctypes.CDLL(None).sched_yield, ctypes.CDLL(None).usleep)
)


@intrinsic  # type: ignore[untyped-decorator]
def pointer(context: Any, address: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def load(context: Any, address: Any) -> Any:
    """The int64 at an address; what its writer wrote before it is seen as well."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load_atomic(
            builder.inttoptr(values[0], ir.IntType(64).as_pointer()), ordering="acquire", align=8
        )

    return types.int64(types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def load_int32(context: Any, address: Any) -> Any:
    """The int32 at an address; what its writer wrote before it is seen as well."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = builder.inttoptr(values[0], ir.IntType(32).as_pointer())
        return builder.sext(builder.load_atomic(pointer, ordering="acquire", align=4), ir.IntType(64))

    return types.int64(types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def store_int32(context: Any, address: Any, value: Any) -> Any:
    """Writes an int32 after everything that was written before."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = builder.inttoptr(values[0], ir.IntType(32).as_pointer())
        builder.store_atomic(builder.trunc(values[1], ir.IntType(32)), pointer, ordering="release", align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def system_call(
    context: Any, address: Any, number: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any
) -> Any:
    """Calls syscall(2), which is at an address; all arguments are whole numbers."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        whole = ir.IntType(64)
        function = ir.FunctionType(whole, [whole] * 7).as_pointer()
        return builder.call(builder.inttoptr(values[0], function), values[1:])

    return types.int64(*[types.int64] * 8), code


@intrinsic  # type: ignore[untyped-decorator]
def store(context: Any, address: Any, value: Any) -> Any:
    """Writes a whole number after everything that was written before."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = builder.inttoptr(values[0], ir.IntType(64).as_pointer())
        builder.store_atomic(values[1], pointer, ordering="release", align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def call(context: Any, address: Any, argument: Any) -> Any:
    """Calls the function int f(unsigned) at an address."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        whole = ir.IntType(32)
        function = ir.FunctionType(whole, [whole]).as_pointer()
        return builder.call(builder.inttoptr(values[0], function), [builder.trunc(values[1], whole)])

    return types.int32(types.int64, types.int64), code


def emit_prefetch(builder: Any, place: Any, to_write: int = 0, nearest: bool = True) -> None:
    """Puts a prefetch of the cache line at `place`, a pointer to bytes, into what `builder` builds: to the
    nearest cache, or to the second one."""
    whole = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [place.type, whole, whole, whole])
    keep, data = whole(3 if nearest else 2), whole(1)
    builder.call(insert(builder.module, kind, "llvm.prefetch.p0"), [place, whole(to_write), keep, data])


def _prefetcher(to_write: int, nearest: bool = True) -> Any:
    def call(context: Any, address: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            place = builder.inttoptr(values[0], ir.IntType(8).as_pointer())
            emit_prefetch(builder, place, to_write, nearest)
            return context.get_dummy_value()

        return types.void(types.int64), code

    return intrinsic(call)


# Ask for the cache line of an address, which will be read or written soon; they wait for nothing, and any
# address is allowed.
prefetch, prefetch_to_write, prefetch_to_second = _prefetcher(0), _prefetcher(1), _prefetcher(0, False)


@inner
def ask_to_write(address: int, size: int) -> None:
    """Asks for `size` bytes that will be written soon. Where another core has read them, each cache line must
    be taken from it first: stores wait for that one by one, what is asked for comes side by side."""
    for line in range(address, address + size, 64):
        prefetch_to_write(line)


@jit
def vector_at(address: int, count: int, like: Array) -> Array:
    """The `count` values at an address, of the dtype of `like`."""
    return carray(pointer(address), (count,), like.dtype)


@inner
def await_number(place: int, number: int, over: int, ways: tuple[int, int]) -> bool:
    """Waits until the int64 at an address is `number` or more; what was written before that is seen as well.
    False when the one at `over` is set: it will not come. ways: WAYS."""
    looks = 0
    while load(place) < number:
        looks += 1
        if looks > LOOKS:
            if load(over):
                return False
            if looks < LOOKS + OFFERS:
                call(ways[0], 0)
            else:
                call(ways[1], NAP_US)
    return True


@jit
def meet(counters: Array, me: int, number: int, ways: tuple[int, int]) -> bool:
    """Waits until every thread has said `number`, a higher one at each meeting; then all see what each wrote
    before it. False when somebody has set the last counter: the others will not come.

    counters: (threads + 1, 8) int64, a cache line for each. ways: WAYS."""
    base = counters.ctypes.data
    others = counters.shape[0] - 1
    store(base + 64 * me, number)
    for other in range(others):  # noqa: SIM110 - compiled, there is no all()
        if not await_number(base + 64 * other, number, base + 64 * others, ways):
            return False
    return True
