"""Waits for a 32-bit word in shared memory to change, and wakes waiters (Linux futex).

A futex needs no name, no file descriptor and no setup. It works between unrelated processes that map the same
memory, and leaves nothing behind when a process is killed. See futex(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import threading
import time
from collections.abc import Callable

from distbp.core.arrays import Array
from distbp.core.errors import ExchangeError

_NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
SYSTEM_CALL = _NUMBERS.get(platform.machine())  # the number of futex(2); None: unknown
WAIT, WAKE = 0, 1  # operations of futex(2)
_WAKE_OWN = WAKE | 128  # FUTEX_WAKE_PRIVATE: for a word that no other process waits for
_libc = ctypes.CDLL(None, use_errno=True)
# A yield returns within microseconds if nobody else wants the processor. Else another program computes for
# its slice of time, some milliseconds, and newer Linux also takes the rest of the yielding thread's slice
# from its fair share. A thread that sleeps loses nothing, and is mostly woken at once. So after a late yield,
# the next waits sleep without yields. That costs some milliseconds if it was chance.
LATE_S = 0.001
RESTS = 50  # the number of these waits


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _no_fence() -> None:
    """Does nothing. On these processors, other cores see stores in program order, and loads are in order
    (Intel SDM 3A, 8.2.2; for s390x, Principles of Operation, 5.14). Each access in Python is a separate call,
    which no compiler moves."""


def _fence_of_the_kernel() -> Callable[[], None]:
    """A fence by a system call that wakes nobody, since Python has no barrier of its own. Before the kernel
    wakes waiters it must see all earlier stores, so it executes a full barrier (smp_mb, in its kernel/futex),
    even if nobody waits. That takes less than a microsecond."""
    word = ctypes.c_int32()
    address = ctypes.byref(word)

    def fence() -> None:
        _libc.syscall(SYSTEM_CALL, address, _WAKE_OWN, 1, None, None, 0)

    return fence


def fence_for(machine: str) -> Callable[[], None]:
    """A function that is a full memory barrier for the calling thread. machine: as `platform.machine()`."""
    return _no_fence if machine in ("x86_64", "s390x") else _fence_of_the_kernel()


fence = fence_for(platform.machine())


class Futex:
    """The entry at `index` of `words`, an int32 array in shared memory.

    Raises ExchangeError on a system without futexes, or on a machine whose system call is not known."""

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
        self._rests = 0  # the number of next waits that will not yield

    @property
    def value(self) -> int:
        """The current value. Everything that its writer stored before it is visible afterward."""
        found = self._words[self._index]
        fence()
        return found

    def set(self, value: int) -> None:
        """Stores `value` (31 bits) and wakes all waiters; does not wait.

        If several processes write, each may only store values that nobody stored before. Otherwise a waiter
        may miss a change."""
        fence()
        self._words[self._index] = value
        _libc.syscall(SYSTEM_CALL, self._address, WAKE, 0x7FFFFFFF, None, None, 0)

    def advance(self) -> None:
        """Stores the next number and wakes all waiters. For a word that one process writes, from any
        thread."""
        with self._lock:
            self.set((self._words[self._index] + 1) & 0x7FFFFFFF)

    def wait(self, seen: int, timeout_s: float, spins: int = 0) -> int:
        """Waits until the value differs from `seen`, at most `timeout_s` seconds. Returns the value then.

        First looks `spins` times and yields the processor in between: this notices a change within
        microseconds without a sleep and a wake-up, which cost about ten times more. On a busy machine it
        sleeps at once (see LATE_S). Raises OSError if futex(2) fails."""
        words, index = self._words, self._index
        if spins and self._rests:
            self._rests -= 1
        elif spins and self._changed(seen, spins):
            return self.value
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
            # A result of 0 need not mean a change: a delayed wake-up may belong to an earlier change.
            if result == -1 and ctypes.get_errno() not in (errno.EAGAIN, errno.ETIMEDOUT, errno.EINTR):
                raise OSError(ctypes.get_errno(), "futex wait failed")
        return self.value

    def _changed(self, seen: int, spins: int) -> bool:
        """Looks `spins` times, and yields the processor in between, as long as yields return in time. Returns
        whether the value differs from `seen`."""
        words, index, now = self._words, self._index, time.perf_counter()
        for _ in range(spins):
            if words[index] != seen:
                break
            os.sched_yield()
            began, now = now, time.perf_counter()
            if now - began > LATE_S:
                self._rests = RESTS
                break
        return words[index] != seen
