"""Training data that the processes of a node share without copies, and the rows that are sent to other
nodes."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from distbp.core.arrays import Array
from distbp.data.batches import WholeData
from distbp.data.prepared import PreparedRows
from distbp.data.preprocessing import Preprocessing
from distbp.data.sharding import Sharding
from distbp.data.windows import Windows
from distbp.machine.memory import Memory, SharedArrays, share

_PIECE = 1 << 16  # rows that are gathered at a time


@dataclass(frozen=True)
class FilePlace:
    """The place of an array in a file that other processes can map. `offset`: bytes."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def attach(self) -> Array:
        return np.memmap(self.path, np.dtype(self.dtype), "r", self.offset, self.shape)


@dataclass(frozen=True)
class SharedRows:
    """A handle on the rows of a split, or on one shard's part of them, for other processes of the node.

    preprocessing: applied to inputs when they are gathered; None: they are prepared already. window: if rows
    are windows of the inputs, the rows of a window, and whether it is flat; else None."""

    arrays: SharedArrays
    inputs: FilePlace | None = None  # None: they are in `arrays`
    preprocessing: Preprocessing | None = None
    window: tuple[int, bool] | None = None

    def attach(self) -> PreparedRows:
        """Maps the rows. Raises ExchangeError if their owner has ended."""
        arrays = self.arrays.attach()
        inputs = arrays["inputs"] if self.inputs is None else self.inputs.attach()
        windows = None if self.window is None else Windows(arrays["starts"], *self.window)
        return PreparedRows(
            inputs, arrays["targets"], arrays.get("weights"), self.preprocessing, windows=windows
        )


def share_rows(rows: PreparedRows) -> tuple[Memory, SharedRows]:
    """Moves the rows to shared memory. `rows` itself then reads from there, so that only one copy remains.

    Inputs that are mapped from a file stay in the file. The caller keeps the Memory as long as other
    processes attach."""
    place = _place_in_file(rows.inputs)
    arrays = {"targets": rows.targets}
    if place is None:
        arrays["inputs"] = rows.inputs
    if rows.weights is not None:
        arrays["weights"] = rows.weights
    window = None if rows.windows is None else (rows.windows.length, rows.windows.flat)
    if rows.windows is not None:
        arrays["starts"] = rows.windows.starts
    memory, names = share(arrays)
    mine = names.attach()
    rows.targets = mine["targets"]
    rows.weights = mine.get("weights")
    if place is None:
        rows.inputs = mine["inputs"]
    return memory, SharedRows(names, place, rows.preprocessing, window)


def _place_in_file(array: Array) -> FilePlace | None:
    """The place of a memory-mapped array, or of a slice of one; None if another process cannot map it so."""
    if not isinstance(array, np.memmap) or not array.flags.c_contiguous or array.filename is None:
        return None
    root: np.memmap[tuple[int, ...], np.dtype[np.generic]] = array
    while isinstance(root.base, np.memmap):
        root = root.base
    distance = array.ctypes.data - root.ctypes.data
    return FilePlace(str(array.filename), root.offset + distance, array.shape, array.dtype.str)


@dataclass(frozen=True)
class ShardData:
    """All rows of one shard, as plain arrays: name of the split -> {"inputs", "targets", "weights"}.

    Training rows are in the order in which they were dealt. on_disk: whether to keep the rows in a file,
    because they are too many for memory."""

    shard: int
    splits: Mapping[str, Mapping[str, Array]]
    on_disk: bool = False


def cut(data: WholeData, shard: int, dtype: np.dtype[np.generic]) -> ShardData:
    """Copies the rows of a shard, for a node that cannot read the data itself. dtype: of the inputs."""
    splits = {}
    on_disk = any(isinstance(source.inputs, np.memmap) for source in data.splits.values())
    for name, source in data.splits.items():
        if name == "train":
            rows = data.dealt(shard)
        else:
            _, start, stop = data.split(name, shard)
            rows = np.arange(start, stop, dtype=np.int64)
        inputs = _room((len(rows), *source.input_shape), dtype, on_disk)
        for start in range(0, len(rows), _PIECE):
            source.gather(rows[start : start + _PIECE], inputs[start : start + _PIECE])
        arrays = {"inputs": inputs, "targets": source.targets[rows]}
        if source.weights is not None:
            arrays["weights"] = source.weights[rows]
        splits[name] = arrays
    return ShardData(shard, splits, on_disk)


def _room(shape: tuple[int, ...], dtype: np.dtype[np.generic], on_disk: bool) -> Array:
    if not on_disk or 0 in shape:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the space; it is freed with the array
        return np.asarray(np.memmap(file, dtype, "w+", shape=shape))


class HeldShards:
    """The `Holdings` of a process that has the rows of some shards only.

    fetch: returns a shard's rows by split. Called when a shard is first needed; may wait."""

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
        if shard not in self._shards:
            self._shards[shard] = {name: rows.attach() for name, rows in self._fetch(shard).items()}
        return self._shards[shard]


class NodeStore:
    """The rows of shards that were sent to this node, in memory that its workers map.

    It lives in one process of the node; all threads of that process may call it."""

    def __init__(self) -> None:
        self._memories: list[Memory] = []
        self._shards: dict[int, dict[str, SharedRows]] = {}
        self._arrived = threading.Condition()

    def add(self, part: ShardData) -> None:
        """Copies the rows of a shard. Does nothing if the shard is there already."""
        names = {}
        for name, arrays in part.splits.items():
            memory, names[name] = share(arrays, on_disk=part.on_disk)
            self._memories.append(memory)
        with self._arrived:
            self._shards.setdefault(part.shard, {name: SharedRows(rows) for name, rows in names.items()})
            self._arrived.notify_all()

    def __contains__(self, shard: int) -> bool:
        """Whether the rows of a shard have arrived."""
        return shard in self._shards

    def rows(self, shard: int) -> Mapping[str, SharedRows]:
        """A shard's rows, by split; waits until they have arrived."""
        with self._arrived:
            self._arrived.wait_for(lambda: shard in self._shards)
            return self._shards[shard]


def whole_data(handles: Mapping[str, SharedRows], rows: Mapping[str, int], sharding: Sharding) -> WholeData:
    """The `Holdings` of a process on the trainer's node. rows: name of the split -> number of its rows."""
    return WholeData({name: handle.attach() for name, handle in handles.items()}, rows, sharding)
