"""Describes a job: its layers, the costs of a step, and its tape op by op (`distbp describe`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distbp.core import settings
from distbp.core.arguments import path_given
from distbp.core.arrays import Shape
from distbp.core.reduction import PIECE
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.engine.memory_need import Need, needed
from distbp.job import TrainingJob
from distbp.job.graph import GraphNode, graph_of
from distbp.nn import kernels as kernel_sets
from distbp.nn.lowered import Lowered, lower
from distbp.nn.network import Network, Tensor
from distbp.nn.tape import ENTRY, LOSS, Ref, Row, Space
from distbp.optim.parts import Rule, Vector
from distbp.run.blueprints import make_blueprint
from distbp.run.plan.op_times import op_seconds, random_slice, random_vectors
from distbp.run.splits import open_splits
from distbp.run.train import by_split, check_job


@dataclass(frozen=True)
class LayerFacts:
    """`number`: None for the entry of a table's columns. `sources`: the numbers of the layers that it takes;
    -1: the data. `parameters`: their number. `flops`: of its ops, for one sample in one step."""

    number: int | None
    type: str
    name: str | None
    sources: tuple[int, ...]
    output_shape: Shape
    parameters: int
    flops: float


@dataclass(frozen=True)
class Operand:
    """Elements [start, stop) of a space, as a matrix. `tensor`: the path of a tensor; None for others."""

    space: str
    start: int
    stop: int
    rows: int
    columns: int
    writes: bool
    tensor: str | None = None

    def __str__(self) -> str:
        place = f"{self.space}[{self.start}:{self.stop}] ({self.rows} x {self.columns})"
        return place if self.tensor is None else f"{place} {self.tensor}"


@dataclass(frozen=True)
class TapeRow:
    """One op. `section`: forward, loss, backward or update. `layer`: its number; None: no layer. `whole`,
    `real`: the op's own numbers. `flops`, `seconds`: for one slice; for an update, for all parameters.
    `share`: of the step's time; all ops but updates run once for each shard and copy of the parameters."""

    number: int
    section: str
    op: str
    layer: int | None
    operands: tuple[Operand, ...]
    whole: tuple[int, ...]
    real: tuple[float, ...]
    flops: int
    deferred: bool
    seconds: float
    share: float


@dataclass(frozen=True)
class Description:
    """`flops`: of all ops of one step. `work`: the numbers in the work space of one slice. `memory`: the
    bytes that training needs, by purpose. `tape`: None unless requested."""

    name: str
    input_shape: Shape
    layers: tuple[LayerFacts, ...]
    parameters: int
    batch_size: int
    shards: int
    slice_rows: int
    flops: int
    memory: Mapping[str, int]
    work: int
    kernels: str
    dtype: str
    graph: tuple[GraphNode, ...]
    tape: tuple[TapeRow, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        del found["graph"]  # used only for drawing
        return found


@numerics.quiet()
def describe_job(
    job: TrainingJob, folder: str | Path = ".", *, tape: bool = False, given: Mapping[str, Any] | None = None
) -> Description:
    """Opens the job's data and describes its network. `tape`: also list its ops and measure each of them on
    random data, which takes time. `folder`, `given`: as in `train`. Raises JobError, DataError."""
    check_job(job)
    splits = open_splits(job, path_given(folder, "folder"), by_split(given))
    blueprint = make_blueprint(job, splits)
    network, slice_rows = blueprint.network(), blueprint.sharding().slice_rows(0, 0)
    lowered = lower(network, slice_rows, job.loss, training=not job.optimizer.copies)
    updates = [] if job.optimizer.whole_batch else Rule(blueprint.update_rule()).rows  # updates without ops
    data, threads = splits.copied_bytes(job), settings.processors()
    need = needed(
        job, blueprint.input_shape, blueprint.rows, entry=blueprint.entry, data=data, threads=threads
    )
    assert isinstance(need, Need)  # the network was built
    rows: tuple[TapeRow, ...] | None = None
    if tape:
        with numerics.one_blas_thread():
            weighted = splits.ready(blueprint).splits["train"].weights is not None
            rows = _tape(blueprint, network, lowered, updates, slice_rows, weighted)
    return Description(
        job.name,
        network.input_shape,
        tuple(_layers(network, lowered.rows, slice_rows, _runs(blueprint))),
        network.parameter_count,
        blueprint.batch_size,
        blueprint.shards,
        slice_rows,
        _flops_of_a_step(blueprint, lowered.rows, updates),
        dict(need.parts),
        lowered.work,
        blueprint.kernels,
        job.dtype,
        graph_of(network.layers, network.shapes[0], loss=job.loss),
        rows,
    )


def _runs(blueprint: Blueprint) -> int:
    """How often a shard runs its slice in a step: once with the parameters and once with each copy."""
    return 1 + blueprint.job.optimizer.copies


def _flops(row: Row, rows: int) -> int:
    return int(row.op.flops([ref.shape(rows) for ref in row.refs]))


def _flops_of_a_step(blueprint: Blueprint, ops: Sequence[Row], updates: Sequence[Row]) -> int:
    sharding = blueprint.sharding()
    slices = Counter(sharding.slice_rows(0, shard) for shard in range(blueprint.shards))
    of_shards = sum(count * _flops(row, rows) for rows, count in slices.items() if rows for row in ops)
    count = blueprint.network().parameter_count
    return _runs(blueprint) * of_shards + sum(_flops(row, count) for row in updates)


def _layers(network: Network, ops: Sequence[Row], slice_rows: int, runs: int) -> list[LayerFacts]:
    counts, flops = network.parameters_by_layer, Counter[int]()
    for row in ops:
        flops[row.layer] += runs * _flops(row, slice_rows)
    entry = [ENTRY] if network.entry is not None else []
    return [
        LayerFacts(
            None if number == ENTRY else number,
            network.layer(number).type,
            network.layer(number).name,
            () if number == ENTRY else network.wiring[number],
            network.shapes[0 if number == ENTRY else number + 1],
            counts.get(number, 0),
            flops[number] / slice_rows,
        )
        for number in (*entry, *range(len(network.layers)))
    ]


def _tape(
    blueprint: Blueprint,
    network: Network,
    lowered: Lowered,
    updates: Sequence[Row],
    slice_rows: int,
    weighted: bool,
) -> tuple[TapeRow, ...]:
    kernels, count = kernel_sets.load(blueprint.kernels), network.parameter_count
    ops, runs = lowered.rows, blueprint.shards * _runs(blueprint)
    rule = Rule(blueprint.update_rule())
    spaces, slices = random_slice(blueprint, network, lowered, slice_rows, weighted)
    alone = [row.of_all_steps() for row in ops]  # independent of the drawn lengths
    of_network = op_seconds(alone, spaces, slices, slice_rows, kernels, network)
    stretch = min(count, PIECE)
    spaces, slices = random_vectors(rule, network, stretch)
    of_piece = op_seconds(updates, spaces, slices, stretch, kernels, network)
    of_rule = [seconds * count / stretch for seconds in of_piece]
    total = runs * sum(of_network) + sum(of_rule)
    found = []
    sections = [*_sections(ops), *["update"] * len(updates)]
    for number, (row, section) in enumerate(zip([*ops, *updates], sections, strict=True)):
        update = section == "update"
        rows = count if update else slice_rows
        seconds = of_rule[number - len(ops)] if update else of_network[number]
        found.append(
            TapeRow(
                number,
                section,
                row.op.name,
                row.layer if row.layer >= 0 else None,
                _operands(row, rows, list(rule.slots) if update else None, network, weighted),
                row.whole,
                row.real,
                _flops(row, rows),
                row.deferred,
                seconds,
                seconds * (1 if update else runs) / total,
            )
        )
    return tuple(found)


def _sections(ops: Sequence[Row]) -> list[str]:
    """The section of each op. The loss follows the forward pass, and the layers' ops after it are the
    backward pass."""
    loss = next(number for number, row in enumerate(ops) if row.layer == LOSS)
    after = [number for number, row in enumerate(ops) if number > loss and row.layer != LOSS]
    backward = after[0] if after else len(ops)
    return ["forward"] * loss + ["loss"] * (backward - loss) + ["backward"] * (len(ops) - backward)


def _operands(
    row: Row, rows: int, slots: Sequence[str] | None, network: Network, weighted: bool
) -> tuple[Operand, ...]:
    """The operands of an op, without empty ones. slots: the names of an update rule's slots; None: the op
    belongs to the network."""
    found = []
    for ref, letter in zip(row.refs, row.op.operands, strict=True):
        m, n = ref.shape(rows)
        if not m or (slots is None and ref.space == Space.WEIGHTS and not weighted):
            continue
        start = ref.start + rows * ref.per_row
        name = Space(ref.space).name.lower() if slots is None else _vector_name(ref, slots)
        tensor = _tensor(ref, start, network) if slots is None else None
        path = None if tensor is None else tensor.path
        found.append(Operand(name, start, start + m * n, m, n, letter.isupper(), path))
    return tuple(found)


def _vector_name(ref: Ref, slots: Sequence[str]) -> str:
    number = ref.space - Vector.SLOTS
    return slots[number] if 0 <= number < len(slots) else Vector(ref.space).name.lower()


def _tensor(ref: Ref, start: int, network: Network) -> Tensor | None:
    if ref.space not in (Space.PARAMETERS, Space.GRADIENT):
        return None
    every = (*network.tensors, *network.statistics, *network.states)
    return next((t for t in every if t.start <= start < t.stop), None)
