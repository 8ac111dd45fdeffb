"""Futex: waking other processes, and never missing a change."""

from __future__ import annotations

import ctypes
import multiprocessing
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from distbp.core.errors import ExchangeError
from distbp.machine import futex, memory
from distbp.machine.futex import Futex

SPAWN = multiprocessing.get_context("spawn")
PATIENCE_S = 60.0  # of a waiter; a test that waits this long has failed


def words() -> tuple[memory.Memory, Futex, Futex]:
    shared = memory.create(128)
    array = shared.array(0, (32,), np.int32)
    return shared, Futex(array, 0), Futex(array, 16)


def test_a_change_before_the_wait_is_seen() -> None:
    _, word, _ = words()
    seen = word.value
    word.advance()
    assert word.wait(seen, PATIENCE_S) == seen + 1


def test_the_time_is_kept() -> None:
    _, word, _ = words()
    began = time.monotonic()
    assert word.wait(0, 0.02, spins=5) == 0
    assert 0.02 <= time.monotonic() - began < PATIENCE_S


def test_a_thread_is_woken_and_others_run_meanwhile() -> None:
    """The wait gives up the interpreter's lock, or this would hang."""
    _, word, other = words()

    def wake() -> None:
        while other.value == 0:
            other.wait(0, PATIENCE_S)
        word.advance()

    waker = threading.Thread(target=wake)
    waker.start()
    other.advance()
    assert word.wait(0, PATIENCE_S) == 1
    waker.join()


def test_numbers_stay_within_31_bits() -> None:
    _, word, _ = words()
    word.set(0x7FFFFFFF)
    word.advance()
    assert word.value == 0


def _echo(handle: memory.MemoryHandle, rounds: int, spins: int) -> None:
    array = memory.attach(handle).array(0, (32,), np.int32)
    ping, pong = Futex(array, 0), Futex(array, 16)
    for number in range(rounds):
        assert ping.wait(number, PATIENCE_S, spins) == number + 1
        pong.advance()


@pytest.mark.parametrize("spins", [0, 20])
def test_no_wake_up_is_lost_between_processes(spins: int) -> None:
    """Thousands of round trips: one lost wake-up would cost a minute, and fail."""
    rounds = 5000
    shared, ping, pong = words()
    process = SPAWN.Process(target=_echo, args=(shared.handle, rounds, spins))
    process.start()
    for number in range(rounds):
        ping.advance()
        assert pong.wait(number, PATIENCE_S, spins) == number + 1
    process.join()
    assert process.exitcode == 0


def test_waits_do_not_yield_for_a_while_after_a_late_yield(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program had the processor for a slice of time, and would have it again."""
    _, word, _ = words()
    now, took, yields = [0.0], [0.0], []

    def sched_yield() -> None:
        yields.append(None)
        now[0] += took[0]

    def yields_of(waits: int) -> int:
        yields.clear()
        for _ in range(waits):
            word.wait(0, 0.0, spins=10)
        return len(yields)

    monkeypatch.setattr(futex.os, "sched_yield", sched_yield)
    monkeypatch.setattr(futex.time, "perf_counter", lambda: now[0])
    assert yields_of(3) == 30
    took[0] = 2 * futex.LATE_S
    assert yields_of(1) == 1
    assert yields_of(futex.RESTS) == 0
    assert yields_of(1) == 1  # it tries again, in vain
    took[0] = 0.0
    assert yields_of(futex.RESTS) == 0
    assert yields_of(2) == 20


def test_compiled_waits_do_not_yield_for_a_while_after_a_late_yield() -> None:
    pytest.importorskip("numba")
    from distbp.machine import compiled_futex
    from distbp.machine.structures import address

    late = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint)(lambda _: time.sleep(2 * futex.LATE_S) or 0)
    ways = compiled_futex.ways()._replace(offer=ctypes.cast(late, ctypes.c_void_p).value)
    rests = np.zeros(1, np.int64)
    at = address(rests)
    assert compiled_futex.yields(at)
    assert not compiled_futex.offer(at, ways)
    assert not any(compiled_futex.yields(at) for _ in range(futex.RESTS))
    assert compiled_futex.yields(at)


def test_advances_from_several_threads_are_all_different() -> None:
    _, word, _ = words()

    def advance() -> None:
        for _ in range(2000):
            word.advance()

    threads = [threading.Thread(target=advance) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert word.value == 8000


def test_other_systems_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = memory.create(128)
    monkeypatch.setattr(futex.os, "uname", lambda: SimpleNamespace(sysname="Darwin"))
    monkeypatch.setattr(futex.platform, "machine", lambda: "arm64")
    with pytest.raises(ExchangeError, match=r"needs Linux on one of aarch64, .*; this is Darwin on arm64"):
        Futex(shared.array(0, (32,), np.int32), 0)


def test_where_stores_may_be_seen_out_of_order_there_is_a_fence() -> None:
    """On x86-64 none is needed; elsewhere the kernel's, which any machine can execute."""
    calls = []

    class Library:
        @staticmethod
        def syscall(*given: object) -> int:
            calls.append(given)
            return int(real(*given))

    real, futex._libc = futex._libc.syscall, Library()
    try:
        futex.fence_for("x86_64")()
        assert not calls
        futex.fence_for("aarch64")()
    finally:
        futex._libc = ctypes.CDLL(None, use_errno=True)
    ((number, _, operation, most, *_),) = calls
    assert (number, operation, most) == (futex.SYSTEM_CALL, 129, 1)  # FUTEX_WAKE_PRIVATE


def test_what_is_announced_comes_after_what_it_announces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that says that others are there has a fence before it; a load that believes it, after."""
    from distbp.core.reduction import Block
    from distbp.team.exchange import segment as seg

    made = seg.create(4, np.float32, 3, attempt=1)
    slot, told = made.slot(0, 0), []

    def fence() -> None:
        told.append((slot.header[seg.SLOT_STEP], slot.header[seg.SLOT_STOP], made.words[seg.VERSION] % 2))

    monkeypatch.setattr(seg, "fence", fence)
    slot.post(1, 7, Block(0, 2))
    assert told == [(-1, 0, 0), (-1, 2, 0)]
    told.clear()
    assert slot.posted(1, 7) == Block(0, 2) and len(told) == 2
    told.clear()
    made.set_ranges({0: [seg.Range(0, 2)]})
    assert [odd for *_, odd in told] == [1, 1]
    told.clear()
    assert made.ranges(0) == [seg.Range(0, 2)] and len(told) == 2
    made.close()
