"""Memory access by address, and meeting points of threads and processes, for compiled code (Numba, optional).

Addresses are int64 numbers of bytes. No function here raises an error.
"""

from __future__ import annotations

import ctypes
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

from distbp.machine.jit import inner

intrinsic: Any = _intrinsic
insert: Any = cgutils.get_or_insert_function

# Threads with equal work wait for each other for microseconds, rarely for tenths of a millisecond. A thread
# that naps wakes a tenth of a millisecond late, and the other threads wait for it at the next meeting.
LOOKS = 2000  # reads of a counter before the thread yields its processor; some microseconds
OFFERS = 2000  # yields of the processor before the thread naps; some tenths of a millisecond
NAP_US = 50

# Addresses of sched_yield(2) and usleep(3). A thread that only reads a counter keeps its processor busy. If
# other programs use the processors too, the thread that it waits for may be waiting for this processor.
WAYS = tuple(
    ctypes.cast(function, ctypes.c_void_p).value or 0
    for function in (ctypes.CDLL(None).sched_yield, ctypes.CDLL(None).usleep)
)


@intrinsic  # type: ignore[untyped-decorator]
def pointer(context: Any, address: Any) -> Any:
    """The address as a pointer to bytes, for `numba.carray`."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def load(context: Any, address: Any) -> Any:
    """The int64 at an address. An acquire load: everything stored before that number is visible after it."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load_atomic(
            builder.inttoptr(values[0], ir.IntType(64).as_pointer()), ordering="acquire", align=8
        )

    return types.int64(types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def load_int32(context: Any, address: Any) -> Any:
    """The int32 at an address. An acquire load: everything stored before that number is visible after it."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = builder.inttoptr(values[0], ir.IntType(32).as_pointer())
        return builder.sext(builder.load_atomic(pointer, ordering="acquire", align=4), ir.IntType(64))

    return types.int64(types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def store_int32(context: Any, address: Any, value: Any) -> Any:
    """Stores an int32. A release store: all earlier stores are visible before it."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = builder.inttoptr(values[0], ir.IntType(32).as_pointer())
        builder.store_atomic(builder.trunc(values[1], ir.IntType(32)), pointer, ordering="release", align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def system_call(
    context: Any, address: Any, number: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any
) -> Any:
    """Calls syscall(2) at an address with int64 arguments; returns its result. Waits as long as the call."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        whole = ir.IntType(64)
        function = ir.FunctionType(whole, [whole] * 7).as_pointer()
        return builder.call(builder.inttoptr(values[0], function), values[1:])

    return types.int64(*[types.int64] * 8), code


@intrinsic  # type: ignore[untyped-decorator]
def store(context: Any, address: Any, value: Any) -> Any:
    """Stores an int64. A release store: all earlier stores are visible before it."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = builder.inttoptr(values[0], ir.IntType(64).as_pointer())
        builder.store_atomic(values[1], pointer, ordering="release", align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def call(context: Any, address: Any, argument: Any) -> Any:
    """Calls the C function `int f(unsigned)` at an address; returns its result."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        whole = ir.IntType(32)
        function = ir.FunctionType(whole, [whole]).as_pointer()
        return builder.call(builder.inttoptr(values[0], function), [builder.trunc(values[1], whole)])

    return types.int32(types.int64, types.int64), code


def emit_prefetch(builder: Any, place: Any, to_write: int = 0, nearest: bool = True) -> None:
    """Adds to the code of `builder` a prefetch of the cache line at `place`, a pointer to bytes.

    to_write: 1 if the line will be written. nearest: into the first-level cache, else into the second."""
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


# Prefetch the cache line of an address that will soon be read or written. They do not wait, and any address
# is allowed.
prefetch, prefetch_to_write, prefetch_to_second = _prefetcher(0), _prefetcher(1), _prefetcher(0, False)


@inner
def ask_to_write(address: int, size: int) -> None:
    """Prefetches `size` bytes at an address that will soon be written. Does not wait.

    If another core has read them, each cache line must first be taken from it. Stores wait for their lines
    one by one; prefetched lines arrive side by side."""
    for line in range(address, address + size, 64):
        prefetch_to_write(line)


@inner
def await_number(place: int, number: int, over: int, ways: tuple[int, int]) -> bool:
    """Waits until the int64 at the address `place` is `number` or more. Returns True.

    Returns False if the int64 at the address `over` is not 0: the number will not come. ways: WAYS."""
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


@inner
def meet(counters: int, threads: int, me: int, number: int, ways: tuple[int, int]) -> bool:
    """Waits until every thread has called this with `number`. Then each sees what the others wrote before.

    counters: address of (threads + 1, 8) int64, a cache line for each thread and a last one. me: the number
    of the calling thread, from 0. number: higher at each meeting. ways: WAYS. Returns False if a thread has
    set the last counter: the others will not come."""
    store(counters + 64 * me, number)
    for other in range(threads):
        if not await_number(counters + 64 * other, number, counters + 64 * threads, ways):
            return False
    return True
