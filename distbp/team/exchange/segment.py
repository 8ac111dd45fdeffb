"""The layout of the memory that a parameter server and the workers of its node share.

    control   the step, the shards of each worker, two futex words
    vector    the flat parameter vector; the server writes it between steps
    slots     MAX_SLOTS for each worker: the gradient sums of a block, and a header that is written last

A worker writes only its own row of the control block and its own slots. Aligned 8-byte stores are atomic on
every processor that Linux and NumPy support. A `fence` stands where their order matters. The server believes
a header only if its attempt and step are the current ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import ExchangeError
from distbp.core.reduction import Block
from distbp.machine import memory
from distbp.machine.futex import Futex, fence

MAX_WORKERS = 64  # on one node, over the life of a segment
MAX_RANGES = 8  # ranges of shards for one worker
MAX_SLOTS = 48  # blocks that one worker can push in one step

# 8-byte words of the control block.
# VECTOR_STEP: the vector is that of this step or a later step. Written when there is nothing to compute.
ATTEMPT, STEP, STATE, VERSION, SERVER_BEAT, VECTOR_STEP = range(6)
_ROWS = 16  # where the workers' rows begin
_ROW = 8 + 3 * MAX_RANGES
BEAT, RANGES, SLOTS_USED, PID, FIRST_RANGE = 0, 1, 2, 3, 8  # within a worker's row
_FUTEX_BYTES = 128  # two futex words on cache lines of their own, at the start of the memory

WAITING, RUNNING, CLOSED = 0, 1, 2  # values of STATE

# 8-byte words of a slot's header; the totals follow.
SLOT_ATTEMPT, SLOT_STEP, SLOT_START, SLOT_STOP = range(4)
_HEADER = 8


class Range(NamedTuple):
    """Shards [start, stop) for one worker.

    only_step: -1, or the only step at which the worker computes these shards in addition to their host."""

    start: int
    stop: int
    only_step: int = -1


@dataclass(frozen=True)
class SegmentHandle:
    """The facts that another process of the node needs to attach. See `Segment` for the other fields."""

    memory: memory.MemoryHandle
    size: int
    dtype: str
    totals: int
    pushed: int


def _align(count: int, to: int) -> int:
    return -(-count // to) * to


class Segment:
    """A mapped segment. `size`: the length of the flat vector. `pushed`: the length of a block's gradient.
    `totals`: the number of its float64 totals."""

    def __init__(self, mapped: memory.Memory, size: int, dtype: Any, totals: int, pushed: int) -> None:
        self._memory = mapped
        self.handle = SegmentHandle(mapped.handle, size, np.dtype(dtype).str, totals, pushed)
        self._dtype = np.dtype(dtype)
        futexes = mapped.array(0, (_FUTEX_BYTES // 4,), np.int32)
        self.published = Futex(futexes, 0)  # the server has something new to read
        self.arrived = Futex(futexes, 16)  # a worker has pushed
        self.control = mapped.array(_FUTEX_BYTES, (_ROWS + MAX_WORKERS * _ROW,), np.int64)
        self.words = self.control.data.cast("B").cast("q")
        vector_at, self._slots_at, self._slot_bytes, _ = _layout(size, self._dtype.itemsize, totals, pushed)
        self.vector = mapped.array(vector_at, (size,), self._dtype)
        self._slots: dict[tuple[int, int], Slot] = {}

    def slot(self, worker: int, number: int) -> Slot:
        """Slot `number` of a worker, from 0. Always the same object, so that programs stay bound to it.

        Raises ExchangeError from MAX_SLOTS on."""
        if number >= MAX_SLOTS:
            raise ExchangeError(f"a worker hosts more than {MAX_SLOTS} blocks of shards; use more workers")
        slot = self._slots.get((worker, number))
        if slot is None:
            at = self._slots_at + (worker * MAX_SLOTS + number) * self._slot_bytes
            header = self._memory.array(at, (_HEADER,), np.int64)
            totals = self._memory.array(at + 8 * _HEADER, (self.handle.totals,), np.float64)
            body = at + _align(8 * (_HEADER + self.handle.totals), 64)
            gradient = self._memory.array(body, (self.handle.pushed,), self._dtype)
            slot = Slot(header.data.cast("B").cast("q"), totals, gradient, header.ctypes.data)
            self._slots[worker, number] = slot
        return slot

    def row(self, worker: int) -> int:
        """The index of the first 8-byte word of a worker's row in the control block."""
        return _ROWS + worker * _ROW

    @property
    def version(self) -> int:
        """A number that changes whenever the shards of workers change. It is odd during a change."""
        return self.words[VERSION]

    def set_ranges(self, ranges: Mapping[int, Sequence[Range]]) -> None:
        """Writes the ranges of these workers; other workers keep theirs. Only one thread of the server may
        call it.

        Raises ExchangeError for more than MAX_RANGES ranges of a worker."""
        for given in ranges.values():
            if len(given) > MAX_RANGES:
                raise ExchangeError(
                    f"a worker can host at most {MAX_RANGES} ranges of shards, not {len(given)}"
                )
        words = self.words
        words[VERSION] += 1  # odd: readers ignore what they read
        fence()
        for worker, given in ranges.items():
            row = self.row(worker)
            for index, (start, stop, only_step) in enumerate(given):
                at = row + FIRST_RANGE + 3 * index
                words[at], words[at + 1], words[at + 2] = start, stop, only_step
            words[row + RANGES] = len(given)
        fence()
        words[VERSION] += 1

    def ranges(self, worker: int) -> list[Range]:
        """The ranges of a worker. Empty while the server changes them; the server announces the change
        later."""
        words, row = self.words, self.row(worker)
        version = words[VERSION]
        fence()
        places = range(row + FIRST_RANGE, row + FIRST_RANGE + 3 * words[row + RANGES], 3)
        ranges = [Range(words[at], words[at + 1], words[at + 2]) for at in places]
        fence()
        return ranges if words[VERSION] == version and version % 2 == 0 else []

    def beat(self, worker: int | None = None) -> None:
        """Records a sign of life of a worker (None: of the server)."""
        at = SERVER_BEAT if worker is None else self.row(worker) + BEAT
        self.words[at] = time.monotonic_ns()

    def beat_age_s(self, worker: int | None = None) -> float:
        """Seconds since the last sign of life. All processes of a node share the clock."""
        at = SERVER_BEAT if worker is None else self.row(worker) + BEAT
        return (time.monotonic_ns() - self.words[at]) / 1e9

    def close(self) -> None:
        self._memory.close()


class Slot(NamedTuple):
    """The sums of one block. `header`: its 8-byte words. `totals`: float64. `gradient`: (pushed,). `address`:
    of the header in this process.

    The header is written last, and SLOT_STEP last of all. A reader believes it if SLOT_STEP is the same
    before and after it reads the rest."""

    header: memoryview
    totals: Array
    gradient: Array
    address: int

    def post(self, attempt: int, step: int, block: Block) -> None:
        """Writes the header: the sums in this slot are those of `block` at `step`."""
        header = self.header
        header[SLOT_STEP] = -1
        fence()
        header[SLOT_ATTEMPT] = attempt
        header[SLOT_START] = block.start
        header[SLOT_STOP] = block.stop
        fence()  # gradient and totals, too
        header[SLOT_STEP] = step

    def posted(self, attempt: int, step: int) -> Block | None:
        """The block whose sums of `step` are in this slot; None if they are not there yet."""
        header = self.header
        if header[SLOT_STEP] != step or header[SLOT_ATTEMPT] != attempt:
            return None
        fence()
        block = Block(header[SLOT_START], header[SLOT_STOP])
        fence()
        return block if header[SLOT_STEP] == step else None


def _layout(size: int, itemsize: int, totals: int, pushed: int) -> tuple[int, int, int, int]:
    """(offset of the vector, offset of the first slot, size of a slot, size of the memory), in bytes."""
    vector_at = _align(_FUTEX_BYTES + 8 * (_ROWS + MAX_WORKERS * _ROW), 4096)
    slots_at = vector_at + _align(size * itemsize, 4096)
    slot_bytes = _align(_align(8 * (_HEADER + totals), 64) + pushed * itemsize, 4096)
    return vector_at, slots_at, slot_bytes, slots_at + MAX_WORKERS * MAX_SLOTS * slot_bytes


def create(size: int, dtype: Any, totals: int, attempt: int, pushed: int | None = None) -> Segment:
    """Creates a segment, in the server's process. pushed: see `Segment`; None: `size`. Slots that no worker
    uses take no memory."""
    pushed = size if pushed is None else pushed
    total = _layout(size, np.dtype(dtype).itemsize, totals, pushed)[3]
    segment = Segment(memory.create(total), size, dtype, totals, pushed)
    segment.words[ATTEMPT] = attempt
    segment.words[STEP] = -1
    segment.words[VECTOR_STEP] = -1
    segment.beat()
    return segment


def attach(handle: SegmentHandle) -> Segment:
    """Maps a segment, in a worker's process. Raises ExchangeError if the server has ended."""
    return Segment(memory.attach(handle.memory), handle.size, handle.dtype, handle.totals, handle.pushed)
