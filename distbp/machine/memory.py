"""Memory shared by the processes of one node. It vanishes when the last of them ends.

The memory is a Linux memfd, a file without a name. Another process of the same user opens it through
/proc/<pid>/fd/<fd> of its creator. So a kill -9 leaves nothing to clean up, no resource tracker is needed,
and the size of /dev/shm in a container does not limit it.

Data that may be larger than memory lies in a temporary file without a name instead, which processes open in
the same way. If memory is short, the system writes its pages to the disk.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import ExchangeError


@dataclass(frozen=True)
class MemoryHandle:
    """The name of a memory of `size` bytes for other processes of the node. Valid while the process `pid`
    keeps its file descriptor `fd` open."""

    pid: int
    fd: int
    size: int


class Memory:
    """A mapped memory of `handle.size` bytes. A page takes memory only after its first use."""

    def __init__(self, handle: MemoryHandle, mapped: mmap.mmap, owned: bool) -> None:
        self.handle = handle
        self._map = mapped
        self._owned = owned

    def array(self, offset: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """A view of the bytes from `offset` on. Writing to it writes to the shared memory."""
        return np.ndarray(shape, dtype, buffer=self._map, offset=offset)

    def close(self) -> None:
        """Closes the creator's file descriptor, so that no process can attach anymore. Views keep the mapping
        alive."""
        if self._owned:
            os.close(self.handle.fd)
            self._owned = False


def create(size: int, *, on_disk: bool = False) -> Memory:
    """Creates a memory of `size` bytes, all zero. on_disk: whether it lies in a file below TMPDIR. Raises
    OSError."""
    if on_disk:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    else:
        fd = os.memfd_create("distbp", os.MFD_CLOEXEC)
    os.ftruncate(fd, max(size, mmap.PAGESIZE))
    return Memory(MemoryHandle(os.getpid(), fd, size), mmap.mmap(fd, max(size, mmap.PAGESIZE)), True)


def attach(handle: MemoryHandle) -> Memory:
    """Maps a memory that another process of this node created.

    Raises ExchangeError if its creator has ended or belongs to another user."""
    try:
        fd = os.open(f"/proc/{handle.pid}/fd/{handle.fd}", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise ExchangeError(
            f"the shared memory of process {handle.pid} cannot be opened ({error.strerror}): that process has"
            " ended, or runs as another user or in another container"
        ) from None
    try:
        mapped = mmap.mmap(fd, max(handle.size, mmap.PAGESIZE))
    finally:
        os.close(fd)
    return Memory(handle, mapped, False)


@dataclass(frozen=True)
class SharedArrays:
    """The names of arrays in one memory. `places`: name -> (offset in bytes, shape, dtype)."""

    memory: MemoryHandle
    places: Mapping[str, tuple[int, tuple[int, ...], str]]

    def attach(self) -> dict[str, Array]:
        """Maps the arrays by name, read-only, without a copy. Raises ExchangeError as `attach` does."""
        memory = attach(self.memory)
        found = {}
        for name, (offset, shape, dtype) in self.places.items():
            array = memory.array(offset, shape, np.dtype(dtype))
            array.flags.writeable = False
            found[name] = array
        return found


def share(arrays: Mapping[str, Array], *, on_disk: bool = False) -> tuple[Memory, SharedArrays]:
    """Copies arrays into a new memory, each from a new page on. on_disk: as in `create`.

    The caller keeps the Memory as long as other processes attach it."""
    places = {}
    size = 0
    for name, array in arrays.items():
        places[name] = (size, array.shape, array.dtype.str)
        size += -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = create(size, on_disk=on_disk)
    for name, array in arrays.items():
        offset, shape, dtype = places[name]
        memory.array(offset, shape, np.dtype(dtype))[...] = array
    return memory, SharedArrays(memory.handle, places)


class _Descriptor(str):
    """The path of an open file without a name, for processes of this node. The file stays open as long as
    this object lives."""

    fd: int

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)


def mapped(file: IO[bytes], shape: tuple[int, ...], dtype: Any, mode: Literal["r", "r+", "w+"] = "r") -> Any:
    """A temporary file without a name as an array. Other processes of the node can map it by the array's
    `filename`. Its space is freed when the last view of the array is gone."""
    found: Any = np.memmap(file, dtype, mode, shape=shape)
    fd = os.dup(file.fileno())
    found.filename = _Descriptor(f"/proc/{os.getpid()}/fd/{fd}")  # slices have the same
    found.filename.fd = fd
    return found
