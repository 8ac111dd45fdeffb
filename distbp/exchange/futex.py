"""Waiting for a 32-bit word in shared memory to change, and waking those who wait (Linux futex).

A futex needs no name, no file descriptor and no set-up, works between unrelated processes that map the
same memory, and leaves nothing behind when a process is killed. See futex(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import threading
import time
from collections.abc import Callable

from distbp.errors import ExchangeError
from distbp.nn.layers.base import Array

_NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
SYSTEM_CALL = _NUMBERS.get(platform.machine())  # its number
WAIT, WAKE = 0, 1  # what it can do
_WAKE_OWN = WAKE | 128  # of a word that no other process waits for
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _no_fence() -> None:
    """These processors show stores to others in their order, and load in order (Intel SDM 3A, 8.2.2; for
    s390x, Principles of Operation, 5.14); each access here is a call of its own, which no compiler moves."""


def _fence_of_the_kernel() -> Callable[[], None]:
    """Python has no barrier of its own. To wake waiters the kernel must first see what was stored before, and
    executes a full one (smp_mb, in its kernel/futex), also where nobody waits, in less than a microsecond."""
    word = ctypes.c_int32()
    address = ctypes.byref(word)

    def fence() -> None:
        _libc.syscall(SYSTEM_CALL, address, _WAKE_OWN, 1, None, None, 0)

    return fence


def fence_for(machine: str) -> Callable[[], None]:
    """A function that lets no load or store of this thread pass it, as others see them."""
    return _no_fence if machine in ("x86_64", "s390x") else _fence_of_the_kernel()


fence = fence_for(platform.machine())


class Futex:
    """`words`: an int32 array in shared memory; the futex is its entry at `index`."""

    def __init__(self, words: Array, index: int) -> None:
        if SYSTEM_CALL is None or os.uname().sysname != "Linux":
            raise ExchangeError(
                f"the shared-memory exchange needs Linux on one of {', '.join(sorted(_NUMBERS))};"
                f" this is {os.uname().sysname} on {platform.machine()}. Use workers: 0 here."
            )
        self._lock = threading.Lock()
        self._words = words.data.cast("B").cast("i")
        self._index = index
        self.address = words.ctypes.data + 4 * index  # in this process
        self._address = ctypes.c_void_p(self.address)

    @property
    def value(self) -> int:
        """What was stored before it can be read after."""
        found = self._words[self._index]
        fence()
        return found

    def set(self, value: int) -> None:
        """Stores `value` (31 bits) and wakes everybody. Where several processes write, each must only store
        values that nobody stored before, or a waiter may take a change for none."""
        fence()
        self._words[self._index] = value
        _libc.syscall(SYSTEM_CALL, self._address, WAKE, 0x7FFFFFFF, None, None, 0)

    def advance(self) -> None:
        """Stores the next number and wakes everybody; for a word that one process writes, from any thread."""
        with self._lock:
            self.set((self._words[self._index] + 1) & 0x7FFFFFFF)

    def wait(self, seen: int, timeout_s: float, spins: int = 0) -> int:
        """Waits until the value differs from `seen`, or the time is up; returns the value then.

        First yields the processor `spins` times: a change that comes within microseconds is then noticed
        without a sleep and a wake-up, which cost about ten times more.
        """
        words, index = self._words, self._index
        for _ in range(spins):
            if words[index] != seen:
                return self.value
            os.sched_yield()
        until = 0.0
        while words[index] == seen:
            now = time.monotonic()
            until = until or now + timeout_s
            if now >= until:
                break
            whole, part = divmod(until - now, 1.0)
            spec = _Timespec(int(whole), int(part * 1e9))
            result = _libc.syscall(
                SYSTEM_CALL, self._address, WAIT, ctypes.c_int(seen), ctypes.byref(spec), None, 0
            )
            # Zero does not mean a change: the wake-up may belong to an earlier one, whose maker was held up.
            if result == -1 and ctypes.get_errno() not in (errno.EAGAIN, errno.ETIMEDOUT, errno.EINTR):
                raise OSError(ctypes.get_errno(), "futex wait failed")
        return self.value
