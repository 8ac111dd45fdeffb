"""Shared memory: without a name, gone with its last user, however that one ends."""

from __future__ import annotations

import multiprocessing
import re
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from distbp.core.errors import ExchangeError
from distbp.machine import memory
from distbp.machine.memory import MemoryHandle, share

SPAWN = multiprocessing.get_context("spawn")
SIZE = 8 << 20


def memfds(pid: int | str = "self") -> list[str]:
    """The memories that a process holds open or mapped."""
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(fd.readlink()))
        except FileNotFoundError:  # the one that listed the folder
            continue
    return [link for link in links if "memfd:distbp" in link]


def mapped() -> int:
    return len(re.findall("memfd:distbp", Path("/proc/self/maps").read_text()))


def test_what_one_writes_the_other_reads() -> None:
    mine = memory.create(100)
    yours = memory.attach(mine.handle)
    mine.array(8, (3,), np.float32)[:] = [1, 2, 3]
    assert yours.array(8, (3,), np.float32).tolist() == [1, 2, 3]


def test_fresh_memory_is_zero_and_untouched_pages_take_none() -> None:
    huge = memory.create(1 << 40)  # far more than any machine that runs tests has
    assert huge.array((1 << 40) - 8, (1,), np.float64)[0] == 0
    huge.close()


def test_arrays_are_shared_read_only_without_copies() -> None:
    arrays = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "empty": np.zeros((0, 2), np.int64)}
    held, names = share(arrays)
    found = names.attach()
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
        k: (v.shape, v.dtype) for k, v in arrays.items()
    }
    assert np.array_equal(found["x"], arrays["x"])
    with pytest.raises(ValueError, match="read-only"):
        found["x"][0] = 1
    offset, shape, dtype = names.places["x"]
    held.array(offset, shape, dtype)[1, 1] = 77
    assert found["x"][1, 1] == 77


def test_nothing_stays_open_or_mapped() -> None:
    before = len(memfds()), mapped()
    mine = memory.create(SIZE)
    yours = memory.attach(mine.handle)
    array = yours.array(0, (4,), np.float64)
    assert len(memfds()) > before[0]
    mine.close()
    mine.close()  # fine twice
    yours.close()
    array[0] = 5  # a view in use keeps the mapping
    del mine, yours, array
    assert (len(memfds()), mapped()) == before


def _hold(pipe: Connection, handle: MemoryHandle | None) -> None:
    """Creates a memory (or attaches to one), fills it, and waits to be killed."""
    held = memory.create(SIZE) if handle is None else memory.attach(handle)
    held.array(0, (SIZE,), np.uint8)[:] = 7
    pipe.send(held.handle)
    signal.pause()


def _child(handle: MemoryHandle | None) -> tuple[multiprocessing.process.BaseProcess, MemoryHandle]:
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=_hold, args=(there, handle))
    process.start()
    there.close()
    found = here.recv()
    here.close()
    return process, found


def test_killing_those_who_attach_leaves_the_creator_unharmed() -> None:
    mine = memory.create(SIZE)
    for _ in range(2):
        process, _ = _child(mine.handle)
        process.kill()
        process.join()
    assert mine.array(0, (SIZE,), np.uint8)[-1] == 7
    yours = memory.attach(mine.handle)
    assert yours.array(0, (SIZE,), np.uint8)[0] == 7


def test_killing_the_creator_leaves_the_memory_to_those_who_have_it_and_then_nothing() -> None:
    process, handle = _child(None)
    held = memory.attach(handle)
    process.kill()
    process.join()
    view = held.array(0, (SIZE,), np.uint8)
    assert view[-1] == 7
    with pytest.raises(
        ExchangeError,
        match=rf"the shared memory of process {handle.pid} cannot be opened \(.*\): that process has ended",
    ):
        memory.attach(handle)
    before = mapped()
    del held, view
    assert mapped() == before - 1
