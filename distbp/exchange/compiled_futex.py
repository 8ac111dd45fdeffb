"""Waiting for a word in shared memory and waking those who wait, from compiled code (Numba, optional).

As `distbp.exchange.futex` does it, without the interpreter. See futex(2).
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from distbp.exchange.futex import SYSTEM_CALL, WAIT, WAKE
from distbp.nn.jit import jit
from distbp.nn.pointers import WAYS, load_int32, store_int32, system_call

PATIENCE_S = 0.05  # to sleep without news
EVERYBODY = 0x7FFFFFFF
_PATIENCE = np.array([0, round(PATIENCE_S * 1e9)], np.int64)  # struct timespec: seconds, nanoseconds


class Ways(NamedTuple):
    """Addresses of sched_yield(2), usleep(3) and syscall(2), the number of futex(2), and the address of how
    long to sleep."""

    offer: int
    nap: int
    system: int
    futex: int
    patience: int


def ways() -> Ways:
    """Of this process. For who has a `Futex`: without one there may be no such system call."""
    system = ctypes.cast(ctypes.CDLL(None).syscall, ctypes.c_void_p).value or 0
    return Ways(WAYS[0], WAYS[1], system, SYSTEM_CALL or 0, _PATIENCE.ctypes.data)


@jit
def change(word: int, ways: Ways) -> None:
    """Gives the int32 at an address the next value, and wakes all who wait for that. One writer at a time."""
    store_int32(word, (load_int32(word) + 1) & EVERYBODY)
    system_call(ways.system, ways.futex, word, WAKE, EVERYBODY, 0, 0, 0)


@jit
def sleep(word: int, seen: int, ways: Ways) -> bool:
    """Waits until the int32 at an address is another than `seen`. False when that takes too long."""
    system_call(ways.system, ways.futex, word, WAIT, seen, ways.patience, 0, 0)
    return load_int32(word) != seen  # type: ignore[no-any-return]
