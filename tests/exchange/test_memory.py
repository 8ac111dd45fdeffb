"""Shared memory: without a name, gone with its last user, however that one ends."""

from __future__ import annotations

import multiprocessing
import re
import signal
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from distbp.core.errors import ExchangeError
from distbp.data.batches import WholeData
from distbp.data.prepared import PreparedRows
from distbp.data.sharding import Sharding
from distbp.machine import memory
from distbp.machine.memory import MemoryHandle, share
from distbp.team.exchange.shared_data import NodeStore, cut, share_rows

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


def _mapped(values: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryFile() as file:
        file.write(values.tobytes())
        file.flush()
        return np.asanyarray(memory.mapped(file, values.shape, values.dtype))


def _sum(pipe: Connection, names: object) -> None:
    pipe.send(float(names.attach().inputs.sum()))  # type: ignore[attr-defined]


def test_what_is_larger_than_memory_is_not_copied_into_it() -> None:
    """Rows that are mapped from a file without a name stay there; others map it, too."""
    values = np.arange(600, dtype=np.float32).reshape(100, 6)
    rows = PreparedRows(_mapped(values)[10:], np.zeros((90, 1), np.float32), None)
    held, names = share_rows(rows)
    assert names.inputs is not None and names.arrays.places.keys() == {"targets"}
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=_sum, args=(there, names))
    process.start()
    assert here.recv() == values[10:].sum()
    process.join()
    for pipe in (here, there):
        pipe.close()
    held.close()
    assert Path(names.inputs.path).exists()
    del rows
    assert not Path(names.inputs.path).exists()


def test_what_is_larger_than_memory_is_sent_to_files_of_the_other_node() -> None:
    values = np.arange(600, dtype=np.float32).reshape(100, 6)
    found = {}
    for name, inputs in (("memory", values), ("file", _mapped(values))):
        rows = PreparedRows(inputs, np.arange(100, dtype=np.float32)[:, None], None)
        data = WholeData({"train": rows}, {"train": 100}, Sharding(100, 8, 4))
        store = NodeStore()
        for shard in range(4):
            store.add(cut(data, shard, np.dtype(np.float32)))
        places = [store.rows(shard)["train"] for shard in range(4)]
        links = [str(Path(f"/proc/self/fd/{one.arrays.memory.fd}").readlink()) for one in places]
        assert {"memfd" in link for link in links} == {name == "memory"}
        found[name] = [one.attach() for one in places]
    for one, other in zip(found["memory"], found["file"], strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.targets, other.targets)
