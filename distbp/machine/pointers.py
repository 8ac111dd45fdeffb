"""Memory access by address, and meeting points of threads and processes, for compiled code (Numba, optional).

Addresses are int64 numbers of bytes. No function here raises an error.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

from distbp.machine.jit import inner

intrinsic: Any = _intrinsic
insert: Any = cgutils.get_or_insert_function
allocate: Any = cgutils.alloca_once

# Threads with equal work wait for each other for microseconds, rarely for tenths of a millisecond. A thread
# that naps wakes a tenth of a millisecond late, and the other threads wait for it at the next meeting.
LOOKS = 2000  # reads of a counter before the thread yields its processor; some microseconds
OFFERS = 2000  # yields of the processor before the thread naps; some tenths of a millisecond
NAP_US = 50

# Addresses of sched_yield(2), usleep(3) and clock_gettime(2). A thread that only reads a counter keeps its
# processor busy. If other programs use the processors too, the thread that it waits for may be waiting for
# this processor.
_OFFER, _NAP, CLOCK = (
    ctypes.cast(function, ctypes.c_void_p).value or 0
    for function in (ctypes.CDLL(None).sched_yield, ctypes.CDLL(None).usleep, ctypes.CDLL(None).clock_gettime)
)
WAYS = (_OFFER, _NAP)


def emits(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    """Makes an intrinsic from `emit(builder, *values)`, which writes its code and returns its result. result,
    arguments: Numba's types. If the result is types.void, `emit` returns nothing."""

    def made(emit: Callable[..., Any]) -> Any:
        @functools.wraps(emit)
        def typed(context: Any, *given: Any) -> Any:
            def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                found = emit(builder, *values)
                return context.get_dummy_value() if result is types.void else found

            return result(*arguments), code

        names = ["context", *(f"a{number}" for number in range(len(arguments)))]
        named: Any = typed  # Numba reads the names in the signature
        named.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names])
        return intrinsic(named)

    return made


def call_at(builder: Any, result: ir.Type, address: Any, arguments: Sequence[Any]) -> Any:
    """Emits a call of the function at an address."""
    kind = ir.FunctionType(result, [one.type for one in arguments]).as_pointer()
    return builder.call(builder.inttoptr(address, kind), arguments)


@emits(types.void)
def compact(builder: Any) -> None:
    """Makes LLVM compile the calling function for size. LLVM then neither unrolls loops nor makes several
    versions of them, which takes most of the time. For functions that call others, or whose loops have few
    rounds."""
    builder.function.attributes.add("optsize")


@emits(types.voidptr, types.int64)
def pointer(builder: Any, address: Any) -> Any:
    """The address as a pointer to bytes, for `numba.carray`."""
    return builder.inttoptr(address, ir.IntType(8).as_pointer())


@emits(types.int64, types.int64)
def load(builder: Any, address: Any) -> Any:
    """The int64 at an address. An acquire load: everything stored before that number is visible after it."""
    place = builder.inttoptr(address, ir.IntType(64).as_pointer())
    return builder.load_atomic(place, ordering="acquire", align=8)


@emits(types.int64, types.int64)
def load_int32(builder: Any, address: Any) -> Any:
    """The int32 at an address. An acquire load: everything stored before that number is visible after it."""
    place = builder.inttoptr(address, ir.IntType(32).as_pointer())
    return builder.sext(builder.load_atomic(place, ordering="acquire", align=4), ir.IntType(64))


@emits(types.void, types.int64, types.int64)
def store(builder: Any, address: Any, value: Any) -> None:
    """Stores an int64. A release store: all earlier stores are visible before it."""
    place = builder.inttoptr(address, ir.IntType(64).as_pointer())
    builder.store_atomic(value, place, ordering="release", align=8)


@emits(types.void, types.int64, types.int64)
def store_int32(builder: Any, address: Any, value: Any) -> None:
    """Stores an int32. A release store: all earlier stores are visible before it."""
    place = builder.inttoptr(address, ir.IntType(32).as_pointer())
    builder.store_atomic(builder.trunc(value, ir.IntType(32)), place, ordering="release", align=4)


@emits(types.int64, *[types.int64] * 8)
def system_call(builder: Any, address: Any, *arguments: Any) -> Any:
    """Calls syscall(2) at an address with seven int64 arguments; returns its result. Waits as long as the
    call."""
    return call_at(builder, ir.IntType(64), address, arguments)


@emits(types.int32, types.int64, types.int64)
def call(builder: Any, address: Any, argument: Any) -> Any:
    """Calls the C function `int f(unsigned)` at an address; returns its result."""
    whole = ir.IntType(32)
    return call_at(builder, whole, address, [builder.trunc(argument, whole)])


@emits(types.int64, types.int64)
def nanoseconds(builder: Any, clock: Any) -> Any:
    """The nanoseconds of the monotonic clock, int64. clock: CLOCK."""
    whole = ir.IntType(64)
    room = allocate(builder, ir.ArrayType(whole, 2))  # a struct timespec of 64-bit systems
    place, number = builder.ptrtoint(room, whole), ir.IntType(32)(time.CLOCK_MONOTONIC)
    call_at(builder, ir.IntType(32), clock, [number, place])
    found = builder.load(room)
    second = builder.mul(builder.extract_value(found, 0), whole(1_000_000_000))
    return builder.add(second, builder.extract_value(found, 1))


def emit_prefetch(builder: Any, place: Any, to_write: int = 0, nearest: bool = True) -> None:
    """Adds to the code of `builder` a prefetch of the cache line at `place`, a pointer to bytes.

    to_write: 1 if the line will be written. nearest: into the first-level cache, else into the second."""
    whole = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [place.type, whole, whole, whole])
    keep, data = whole(3 if nearest else 2), whole(1)
    builder.call(insert(builder.module, kind, "llvm.prefetch.p0"), [place, whole(to_write), keep, data])


def _prefetcher(to_write: int, nearest: bool = True) -> Any:
    @emits(types.void, types.int64)
    def prefetch(builder: Any, address: Any) -> None:
        emit_prefetch(builder, builder.inttoptr(address, ir.IntType(8).as_pointer()), to_write, nearest)

    return prefetch


# Prefetch the cache line of an address that will soon be read or written. They do not wait, and any address
# is allowed.
prefetch, prefetch_to_write, prefetch_to_second = _prefetcher(0), _prefetcher(1), _prefetcher(0, False)


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
    compact()
    store(counters + 64 * me, number)
    for other in range(threads):
        if not await_number(counters + 64 * other, number, counters + 64 * threads, ways):
            return False
    return True
