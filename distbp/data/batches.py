"""The slices of one shard, step after step, gathered ahead in blocks that stay in the cache."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from distbp.core.arrays import Array, aligned_vector
from distbp.data.prepared import PreparedRows
from distbp.data.series import begins_of
from distbp.data.sharding import Sharding, evaluated_rows

# One gather serves several steps: a NumPy call costs as much as copying a few kilobytes, and what is gathered
# should still be in a core's second-level cache when it is used.
BLOCK_BYTES = 128 * 1024
STAGED_BYTES = 4 * 2**20  # the most inputs that are prepared at a time for compiled steps
ALIGNMENT = 64  # bytes


class Rows(Protocol):
    """Rows from which batches are gathered."""

    @property
    def input_shape(self) -> tuple[int, ...]: ...

    @property
    def targets(self) -> Array: ...

    @property
    def weights(self) -> Array | None: ...

    def gather(self, rows: Array, out: Array) -> None:
        """Writes the preprocessed inputs of `rows` (int64) to `out`, (len(rows), *input_shape)."""
        ...


class TrainingRows(Rows, Protocol):
    """Rows that compiled code may read where they lie."""

    @property
    def inputs(self) -> Array: ...

    def ready(self, dtype: np.dtype[np.generic]) -> bool:
        """Whether `inputs` are what `gather` would give, in this dtype and in plain memory."""
        ...


class Holdings(Protocol):
    """The rows that a process holds: everything, or only those of the shards it may be asked to host."""

    def train(self, shard: int) -> tuple[TrainingRows, Array]:
        """The rows that hold a shard's training rows, and the shard's row numbers in them, as dealt
        (int64)."""
        ...

    def split(self, name: str, shard: int) -> tuple[Rows, int, int]:
        """The rows that hold a shard's part of a split, and the range [start, stop) of that part in them."""
        ...


class WholeData:
    """Holdings of a process that reaches all rows of all splits."""

    def __init__(
        self, splits: Mapping[str, PreparedRows], rows: Mapping[str, int], sharding: Sharding
    ) -> None:
        self.splits = splits
        self.rows = rows
        self.sharding = sharding

    def train(self, shard: int) -> tuple[TrainingRows, Array]:
        return self.splits["train"], self.dealt(shard)

    def dealt(self, shard: int) -> Array:
        """A shard's rows of the training set, int64."""
        return self.sharding.dealt(shard, self._begins("train"))

    def split(self, name: str, shard: int) -> tuple[Rows, int, int]:
        begins = self._begins(name)
        return self.splits[name], *evaluated_rows(self.rows[name], self.sharding.shards, shard, begins)

    def _begins(self, name: str) -> Array | None:
        return begins_of(self.splits[name].inputs) if self.sharding.series else None


class Slice(NamedTuple):
    """One shard's part of a batch. Views of reused buffers: valid until the next slice is taken.

    x: (rows, *features). targets: (rows,) or (rows, outputs). weights: (rows,) or None. For windows of
    series: targets (rows, steps) or (rows, steps * outputs), weights (rows, steps) or None. rows: their
    number.
    """

    x: Array
    targets: Array
    weights: Array | None
    rows: int


class Sources(NamedTuple):
    """The widths of rows of a shard's inputs, targets and weights, in units of 4 bytes; 0: no weights."""

    widths: tuple[int, int, int]


class ShardPart(NamedTuple):
    """The rows of some steps, for compiled code: addresses of the tables of inputs, targets and weights (0:
    no weights), and row numbers in them, int64, slice after slice."""

    sources: tuple[int, int, int]
    order: Array


class ShardReader:
    """Returns the slice of `shard` at any step. Steps in ascending order are fastest."""

    def __init__(
        self, data: TrainingRows, dealt: Array, sharding: Sharding, shard: int, dtype: np.dtype[np.generic]
    ) -> None:
        self.sharding = sharding
        self.shard = shard
        self._data = data
        self._dealt = dealt
        lengths = [data.inputs[dealt, column] for column in sharding.buckets]
        self._lengths = np.max(lengths, axis=0).astype(np.int64) if lengths else None
        self._begins = begins_of(data.inputs, dealt) if sharding.series else None
        self._steps = sharding.steps_per_epoch
        self._full_batches = sharding.rows // sharding.batch_size
        self._slice = sharding.slice_rows(0, shard)  # rows of every slice, except perhaps an epoch's last
        slice_bytes = max(1, int(np.prod(data.input_shape)) * dtype.itemsize * self._slice)
        # Slices in one gather. A slice begins at a multiple of 64 bytes whichever slices are gathered with
        # it: the last bits of a product may depend on that (see docs/numerics.md).
        self._ahead = max(1, BLOCK_BYTES // slice_bytes) if slice_bytes % ALIGNMENT == 0 else 1
        capacity = min(self._ahead, self._steps) * max(1, self._slice)
        self._x = aligned_vector(capacity * int(np.prod(data.input_shape)), dtype).reshape(
            capacity, *data.input_shape
        )
        self._targets = np.empty((capacity, *data.targets.shape[1:]), data.targets.dtype)
        given = data.weights
        self._weights = None if given is None else np.empty((capacity, *given.shape[1:]), given.dtype)
        self._epoch = -1
        self._order: Array = self._dealt
        self._first = self._last = 0  # the steps of the epoch that the buffers hold: [first, last)

    def slice(self, step: int) -> Slice:
        """The shard's slice of the batch at `step`."""
        epoch, index = divmod(step, self._steps)
        self.order(epoch)
        if not self._first <= index < self._last:
            self._gather(index)
        size = self._slice
        start = (index - self._first) * size
        stop = start + (size if index < self._full_batches else self.sharding.slice_rows(index, self.shard))
        weights = None if self._weights is None else self._weights[start:stop]
        return Slice(self._x[start:stop], self._targets[start:stop], weights, stop - start)

    @property
    def sources(self) -> Sources:
        inputs = self._x[0].nbytes // 4
        targets = self._targets.itemsize * math.prod(self._targets.shape[1:]) // 4
        weights = 0 if self._weights is None else math.prod(self._weights.shape[1:])
        return Sources((inputs, targets, weights))

    @property
    def most_steps(self) -> int:
        """The most steps of one call of `part`."""
        return (
            self._steps
            if self._ready
            else min(self._steps, max(1, STAGED_BYTES // max(1, self._slice * self._x[0].nbytes)))
        )

    @property
    def _ready(self) -> bool:
        """Whether compiled code can read the rows as they lie."""
        return self._data.ready(self._x.dtype)

    def part(self, epoch: int, index: int, steps: int) -> ShardPart:
        """The rows of `steps` steps of an epoch, from step `index` of the epoch on. Valid until the next
        call."""
        order = self.order(epoch)[index * self._slice : (index + steps) * self._slice]
        data = self._data
        if self._ready:
            tables = data.inputs, data.targets, data.weights
        else:
            x = self._staged[: len(order)]
            data.gather(order, x)
            tables = x, data.targets[order], None if data.weights is None else data.weights[order]
            order = np.arange(len(order), dtype=np.int64)
        self._tables = tables
        inputs, targets, weights = (0 if table is None else int(table.ctypes.data) for table in tables)
        return ShardPart((inputs, targets, weights), order)

    @functools.cached_property
    def _staged(self) -> Array:
        rows = self.most_steps * max(1, self._slice)
        return np.empty((rows, *self._x.shape[1:]), self._x.dtype)

    def order(self, epoch: int) -> Array:
        """The shard's row numbers in the order of an epoch, int64: its slices, one after the other."""
        if epoch != self._epoch:
            self._order = self.sharding.order(self.shard, self._dealt, epoch, self._lengths, self._begins)
            self._epoch, self._first, self._last = epoch, 0, 0
        return self._order

    def rows(self, step: int) -> Array:
        """Row numbers of the training set in the shard's slice at `step`, int64."""
        epoch, index = divmod(step, self._steps)
        order = self.sharding.order(self.shard, self._dealt, epoch, self._lengths, self._begins)
        start = index * self._slice
        return order[start : start + self.sharding.slice_rows(index, self.shard)]

    def _gather(self, index: int) -> None:
        first = index
        last = min(first + self._ahead, self._steps)
        rows = self._order[first * self._slice : last * self._slice]
        count = len(rows)
        if count:
            self._data.gather(rows, self._x[:count])
            np.take(self._data.targets, rows, axis=0, out=self._targets[:count], mode="clip")
            if self._weights is not None:
                assert self._data.weights is not None
                np.take(self._data.weights, rows, axis=0, out=self._weights[:count], mode="clip")
        self._first, self._last = first, last
