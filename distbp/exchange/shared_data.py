"""Training data that the processes of a node share without copies, and the part of it that another node needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    """Holdings of a process that has only the rows of some shards, each from its first row on."""

    def __init__(self) -> None:
        self._shards: dict[int, Mapping[str, PreparedRows]] = {}

    def add(self, shard: int, splits: Mapping[str, SharedRows]) -> None:
        if shard not in self._shards:
            self._shards[shard] = {name: rows.attach() for name, rows in splits.items()}

    def train(self, shard: int) -> tuple[PreparedRows, Array]:
        rows = self._shards[shard]["train"]
        return rows, np.arange(len(rows), dtype=np.int64)

    def split(self, name: str, shard: int) -> tuple[PreparedRows, int, int]:
        rows = self._shards[shard][name]
        return rows, 0, len(rows)


class NodeStore:
    """Shards that were sent to this node, in memory that its workers map. Lives in one process of the node."""

    def __init__(self) -> None:
        self._memories: list[Memory] = []
        self.shards: dict[int, dict[str, SharedRows]] = {}

    def add(self, parts: Iterable[ShardData]) -> None:
        for part in parts:
            if part.shard in self.shards:
                continue
            self.shards[part.shard] = {}
            for name, arrays in part.splits.items():
                memory, names = share(arrays)
                self._memories.append(memory)
                self.shards[part.shard][name] = SharedRows(names)


def whole_data(
    handles: Mapping[str, SharedRows], rows: Mapping[str, int], sharding: Sharding
) -> WholeData:
    """Holdings of a process on the trainer's node."""
    return WholeData({name: handle.attach() for name, handle in handles.items()}, rows, sharding)
