"""Waits for a word in shared memory and wakes waiters, from compiled code (Numba, optional).

These functions do what `distbp.machine.futex` does, without the interpreter. See futex(2).
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from distbp.machine.futex import LATE_S, RESTS, SYSTEM_CALL, WAIT, WAKE
from distbp.machine.jit import jit
from distbp.machine.pointers import (
    CLOCK,
    WAYS,
    call,
    load,
    load_int32,
    nanoseconds,
    store,
    store_int32,
    system_call,
)

PATIENCE_S = 0.05  # the longest sleep without a change
EVERYBODY = 0x7FFFFFFF  # the most waiters that futex(2) wakes, and the most that a word holds
_LATE_NS = round(LATE_S * 1e9)
_PATIENCE = np.array([0, round(PATIENCE_S * 1e9)], np.int64)  # struct timespec: seconds, nanoseconds


class Ways(NamedTuple):
    """The addresses that compiled code needs to wait. offer: of sched_yield(2). nap: of usleep(3). clock: of
    clock_gettime(2). system: of syscall(2). futex: the number of futex(2). patience: address of the longest
    sleep, a struct timespec."""

    offer: int
    nap: int
    clock: int
    system: int
    futex: int
    patience: int


def ways() -> Ways:
    """The addresses in this process.

    Call it only after making a `Futex`, which raises an error on a system without futex(2)."""
    system = ctypes.cast(ctypes.CDLL(None).syscall, ctypes.c_void_p).value or 0
    return Ways(WAYS[0], WAYS[1], CLOCK, system, SYSTEM_CALL or 0, _PATIENCE.ctypes.data)


@jit
def change(word: int, ways: Ways) -> None:
    """Stores the next value of the int32 at an address, and wakes its waiters. One writer at a time."""
    store_int32(word, (load_int32(word) + 1) & EVERYBODY)
    system_call(ways.system, ways.futex, word, WAKE, EVERYBODY, 0, 0, 0)


@jit
def sleep(word: int, seen: int, ways: Ways) -> bool:
    """Waits at most PATIENCE_S for the int32 at an address to differ from `seen`. Returns whether it does."""
    system_call(ways.system, ways.futex, word, WAIT, seen, ways.patience, 0, 0)
    return load_int32(word) != seen  # type: ignore[no-any-return]


@jit
def yields(rests: int) -> bool:
    """Whether the wait that begins now may yield the processor before it sleeps (see `futex.LATE_S`).

    rests: address of an int64 of the calling thread, 0 at first: the number of next waits that will not."""
    left = load(rests)
    if left:
        store(rests, left - 1)
    return left == 0  # type: ignore[no-any-return]


@jit
def offer(rests: int, ways: Ways) -> bool:
    """Yields the processor. Returns whether it came back in time; else the next waits will not yield. rests:
    as of `yields`."""
    began = nanoseconds(ways.clock)
    call(ways.offer, 0)
    if nanoseconds(ways.clock) - began <= _LATE_NS:
        return True
    store(rests, RESTS)
    return False
