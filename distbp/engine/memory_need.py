"""The memory that a job needs, computed before any of it is taken, and the memory that this process may have.

The need is the memory that training surely fills: parameters and optimizer state twice (in use, and copied
for a checkpoint), a gradient for each thread or worker and for each level of its part of the tree, the values
of one slice, prepared data. The memory that a process may have is the least of the machine's memory, of the
limits of all control groups around the process (cgroups v1 and v2), and of `ulimit -v`. Pages of files that
the system may drop count as free.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distbp.core.arrays import Shape
from distbp.core.errors import Fault, JobError, NoMemoryError
from distbp.engine.evaluation import EVALUATION_ROWS
from distbp.engine.updating import state_vectors
from distbp.job.members import has_folds, least_workers, networks
from distbp.nn.layers.columns import Columns
from distbp.nn.losses.several import heads_of, names_of
from distbp.nn.network import Network
from distbp.nn.tape import ENTRY

if TYPE_CHECKING:
    from distbp.job import TrainingJob

_ROOT = Path("/")


@dataclass(frozen=True)
class Need:
    """`parts`: bytes by purpose. `largest`: the number of the layer with the most parameters, or ENTRY."""

    parts: Mapping[str, int]
    largest: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def needed(
    job: TrainingJob,
    input_shape: Shape | None,
    rows: Mapping[str, int],
    *,
    entry: Columns | None = None,
    data: int = 0,
    threads: int = 1,
) -> Need | None:
    """The memory that training takes, over all its processes. input_shape: of one row; None, not known,
    counts as (1,). entry: the layer of the table's columns, or None. rows: of each split, where known. data:
    bytes of the prepared inputs. threads: how many threads compute if the job does not say a number of
    workers. Returns None if the layers' shapes do not fit together."""
    try:
        shape = (1,) if input_shape is None else input_shape
        network = Network(job.model.layers, shape, job.dtype, entry=entry, outputs=names_of(job.loss))
    except ValueError:
        return None
    members = networks(job)
    computing = least_workers(job) or threads
    side = min(members, computing)  # networks that train at the same time
    item = network.dtype.itemsize
    state = state_vectors(job.optimizer) * network.parameter_count * item
    train = rows.get("train")
    batch = job.batch_rows(train or 1)
    shards = job.resolved_shards(network, train or 1)
    parts = min(shards, max(1, computing // side))
    levels = 1 + math.ceil(math.log2(math.ceil(shards / parts)))
    slice_rows = math.ceil((batch if train is None else min(batch, train)) / shards)
    carried = 0 if job.data.truncated_bptt_steps is None else shards * slice_rows * network.states_of_a_row
    vector = (network.size + carried) * item
    numbers = [math.prod(shape) for shape in network.shapes]
    largest_split = max([count for name, count in rows.items() if name != "train"], default=0)
    of_training = parts * slice_rows * (2 * sum(numbers) - numbers[0])
    values = max(of_training, min(EVALUATION_ROWS, largest_split) * sum(numbers))
    heads = heads_of(job.loss, network.output_shapes)
    labels = not heads.several and heads.all[0].is_label  # labels are not copied
    targets = 0 if labels else sum(rows.values()) * heads.target_columns
    if has_folds(job):  # each network that trains has a copy of its rows
        folded = sum(rows.get(name, 0) for name in ("train", "validation"))
        data += side * folded * math.prod(shape) * item
    by_layer = network.parameters_by_layer
    return Need(
        {
            "parameters": max(2 * side, members) * vector,
            "optimizer state": 2 * side * state,
            "gradients": side * ((parts * levels + (parts > 1)) * vector + parts * network.shared * item),
            "values of a batch": side * values * item,
            "data": targets * item + data,
        },
        max(by_layer, key=lambda layer: (by_layer[layer], -layer), default=0),
    )


def too_much(need: Need | None, there: int, says: str) -> list[Fault]:
    """The fault of a need above `there` bytes, or no fault. says: a text with {} for these bytes, for example
    "this machine has {}"."""
    if need is None or need.total <= there:
        return []
    # The batch is at fault only if all the rest would fit.
    model = {name: count for name, count in need.parts.items() if name != "values of a batch"}
    parts = need.parts if sum(model.values()) <= there else model
    most = max(parts, key=lambda name: parts[name])
    layer = "data.columns" if need.largest == ENTRY else f"model.layers.{need.largest}"
    where, advice = {
        "parameters": (layer, "make the layers narrower"),
        "optimizer state": (layer, "make the layers narrower, or use sgd"),
        "gradients": (layer, "make the layers narrower, or use fewer shards or workers"),
        "values of a batch": ("batch_size", "lower it, or make the layers narrower"),
        "data": ("data", "use fewer rows, or fewer outputs"),
    }[most]
    listed = ", ".join(f"{name} {size(count)}" for name, count in need.parts.items() if count)
    text = f"the job needs {size(need.total)} of memory ({listed}), and {says.format(size(there))}; {advice}"
    return [Fault(where, text)]


def check_memory(need: Need | None, root: Path = _ROOT) -> None:
    """Raises JobError if a job needs more memory than this process may have, NoMemoryError if it needs more
    than is free now. Both name the two figures. root: of the file system, for tests."""
    total, free = total_bytes(root), free_bytes(root)
    if faults := too_much(need, total, "this process may have {}"):
        raise JobError(faults)
    if faults := too_much(need, free, f"{{}} of {size(total)} is free now"):
        raise NoMemoryError(faults)


def total_bytes(root: Path = _ROOT) -> int:
    """The bytes that this process could have if no other process used any. root: as in `check_memory`."""
    return min(_meminfo(root)["MemTotal"], *(limit for limit, _ in _limits(root)))


def free_bytes(root: Path = _ROOT) -> int:
    """The bytes that this process can have now. root: as in `check_memory`."""
    memory = _meminfo(root)
    free = memory.get("MemAvailable", memory["MemTotal"])
    return max(0, min(free, *(limit - used for limit, used in _limits(root))))


def size(count: int) -> str:
    """A number of bytes as text, in the largest unit that is not above it: "1.5 GiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.4g} EiB"


def _meminfo(root: Path) -> dict[str, int]:
    lines = (root / "proc/meminfo").read_text().splitlines()
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yields (limit, used) in bytes for each limit of this process."""
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        pages = int((root / "proc/self/statm").read_text().split()[0])
        yield address_space, pages * resource.getpagesize()
    else:
        yield 2**63, 0
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"] if not kinds else ["sys/fs/cgroup/memory"]
        if not kinds or "memory" in kinds.split(","):
            for mount in mounts:
                yield from _groups(root / mount, path)


def _groups(mount: Path, path: str) -> Iterator[tuple[int, int]]:
    """Yields (limit, used) in bytes for a control group and each group around it. In a container `path` may
    be the host's path, which is not mounted. The mounted group is then the container's own."""
    group = mount / path.lstrip("/")
    while True:
        for limit, used, old in (
            ("memory.max", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ):
            text = _text(group / limit).strip()
            if text.isdecimal():
                stat = dict(line.split()[:2] for line in _text(group / "memory.stat").splitlines())
                files = sum(int(stat.get(f"{old}{name}", 0)) for name in ("inactive_file", "active_file"))
                yield int(text), max(0, int(_text(group / used) or 0) - files)
        if group == mount or mount not in group.parents:
            return
        group = group.parent


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
