"""Training data that the processes of a node share without copies, and the part that another node needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from distbp.data.batches import WholeData
from distbp.data.prepared import PreparedRows
from distbp.data.preprocessing import Preprocessing
from distbp.data.sharding import Sharding
from distbp.exchange.memory import Memory, SharedArrays, share
from distbp.nn.arrays import Array


@dataclass(frozen=True)
class FilePlace:
    """An array within a file that is mapped where it lies."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def attach(self) -> Array:
        return np.memmap(self.path, np.dtype(self.dtype), "r", self.offset, self.shape)


@dataclass(frozen=True)
class SharedRows:
    """Names the rows of one split (or of one shard's part of it) to other processes of the node."""

    arrays: SharedArrays
    inputs: FilePlace | None = None  # None: among `arrays`
    preprocessing: Preprocessing | None = None

    def attach(self) -> PreparedRows:
        """The rows; raises ExchangeError when their owner is gone."""
        arrays = self.arrays.attach()
        inputs = arrays["inputs"] if self.inputs is None else self.inputs.attach()
        return PreparedRows(inputs, arrays["targets"], arrays.get("weights"), self.preprocessing)


def share_rows(rows: PreparedRows) -> tuple[Memory, SharedRows]:
    """Moves the rows to shared memory: afterwards `rows` itself reads from there, so there is one copy.
    Inputs that are mapped from a file stay there. Keep the Memory as long as others attach."""
    place = _place_in_file(rows.inputs)
    arrays = {"targets": rows.targets}
    if place is None:
        arrays["inputs"] = rows.inputs
    if rows.weights is not None:
        arrays["weights"] = rows.weights
    memory, names = share(arrays)
    mine = names.attach()
    rows.targets = mine["targets"]
    rows.weights = mine.get("weights")
    if place is None:
        rows.inputs = mine["inputs"]
    return memory, SharedRows(names, place, rows.preprocessing)


def _place_in_file(array: Array) -> FilePlace | None:
    """Where a (slice of a) memory-mapped array lies, if another process can map it the same way."""
    if not isinstance(array, np.memmap) or not array.flags.c_contiguous or array.filename is None:
        return None
    root: np.memmap[tuple[int, ...], np.dtype[np.generic]] = array
    while isinstance(root.base, np.memmap):
        root = root.base
    distance = array.ctypes.data - root.ctypes.data
    return FilePlace(str(array.filename), root.offset + distance, array.shape, array.dtype.str)


@dataclass(frozen=True)
class ShardData:
    """All rows that one shard needs, as plain arrays: split name -> {"inputs", "targets", "weights"}. The
    training rows are in the order in which they were dealt."""

    shard: int
    splits: Mapping[str, Mapping[str, Array]]


def cut(data: WholeData, shard: int, dtype: np.dtype[np.generic]) -> ShardData:
    """Copies out what a shard needs, for a node that does not reach the data itself."""
    splits = {}
    for name, source in data.splits.items():
        if name == "train":
            rows = data.sharding.dealt(shard)
        else:
            _, start, stop = data.split(name, shard)
            rows = np.arange(start, stop, dtype=np.int64)
        inputs = np.empty((len(rows), *source.input_shape), dtype)
        source.gather(rows, inputs)
        arrays = {"inputs": inputs, "targets": source.targets[rows]}
        if source.weights is not None:
            arrays["weights"] = source.weights[rows]
        splits[name] = arrays
    return ShardData(shard, splits)


class HeldShards:
    """Holdings of a process that has only the rows of some shards, each from its first row on.

    fetch: names the rows of a shard by split; asked when a shard is first needed. It may wait.
    """

    def __init__(self, fetch: Callable[[int], Mapping[str, SharedRows]]) -> None:
        self._fetch = fetch
        self._shards: dict[int, Mapping[str, PreparedRows]] = {}

    def train(self, shard: int) -> tuple[PreparedRows, Array]:
        rows = self._rows(shard)["train"]
        return rows, np.arange(len(rows), dtype=np.int64)

    def split(self, name: str, shard: int) -> tuple[PreparedRows, int, int]:
        rows = self._rows(shard)[name]
        return rows, 0, len(rows)

    def _rows(self, shard: int) -> Mapping[str, PreparedRows]:
        found = self._shards.get(shard)
        if found is None:
            found = {name: rows.attach() for name, rows in self._fetch(shard).items()}
            self._shards[shard] = found
        return found


class NodeStore:
    """Shards that were sent to this node, in memory that its workers map. Lives in one process of the node,
    whose threads may all call it."""

    def __init__(self) -> None:
        self._memories: list[Memory] = []
        self._shards: dict[int, dict[str, SharedRows]] = {}
        self._arrived = threading.Condition()

    def add(self, part: ShardData) -> None:
        """Copies a shard's rows; those of a shard that is there already are ignored."""
        names = {}
        for name, arrays in part.splits.items():
            memory, names[name] = share(arrays)
            self._memories.append(memory)
        with self._arrived:
            self._shards.setdefault(part.shard, {name: SharedRows(rows) for name, rows in names.items()})
            self._arrived.notify_all()

    def __contains__(self, shard: int) -> bool:
        """Whether the rows of a shard have come."""
        return shard in self._shards

    def rows(self, shard: int) -> Mapping[str, SharedRows]:
        """Names the rows of a shard; waits until they have come."""
        with self._arrived:
            self._arrived.wait_for(lambda: shard in self._shards)
            return self._shards[shard]


def whole_data(handles: Mapping[str, SharedRows], rows: Mapping[str, int], sharding: Sharding) -> WholeData:
    """Holdings of a process on the trainer's node."""
    return WholeData({name: handle.attach() for name, handle in handles.items()}, rows, sharding)
