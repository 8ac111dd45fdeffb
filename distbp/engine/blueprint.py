"""The facts that all processes of a job share, and the objects that each process builds from them.

The trainer opens the data, checks the job against it, and makes a `Blueprint`: plain, picklable, small. The
parameter server and each worker build their network, loss and update rule from it. Nothing in it depends on
the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from distbp.core.arrays import Array, Shape
from distbp.data.sharding import Sharding
from distbp.engine.evaluation import Measures, loss_weights
from distbp.nn.head_metrics import metrics_of
from distbp.nn.layers.columns import Columns
from distbp.nn.losses.several import heads_of, names_of
from distbp.nn.metrics import Frame
from distbp.nn.named_inputs import named_inputs
from distbp.nn.network import Carry, Network
from distbp.optim import Part, chain
from distbp.optim.schedules import Constant, PlateauState, Progress

if TYPE_CHECKING:
    from distbp.job import TrainingJob


class Past(NamedTuple):
    """The length of the training that this job continues (`init_keeps: [optimizer]`); else 0 and 0."""

    steps: int = 0
    epochs: int = 0


@dataclass(frozen=True)
class Blueprint:
    """`shards` and `kernels` (the name of the kernel set) are resolved, never "auto". `rows`: the number of
    rows of each split, by name ("train", "validation", "test"). `class_weights`: one for each class, or None.
    `notes`: facts about the data that may surprise the user. `frames`: center and size of each split's
    targets, for the metrics of regression. `entry`: the layer by which the rows of a table enter the network,
    or None. `lengths`: whether rows have lengths. `series`: whether rows are windows of series; recurrent
    layers then carry their states from window to window. `past`: the optimizer's count of updates and all
    random draws go on after these steps and epochs."""

    job: TrainingJob
    shards: int
    input_shape: Shape
    rows: Mapping[str, int]
    kernels: str
    class_weights: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()
    frames: Mapping[str, Frame] = field(default_factory=dict)
    entry: Columns | None = None
    lengths: bool = False
    series: bool = False
    past: Past = field(default_factory=Past)

    def slim(self) -> Blueprint:
        """A copy for servers and workers. Its job has the same fields except `data`, and no methods, so these
        processes need not import `distbp.job`, which takes 50 ms."""
        return replace(self, job=cast("TrainingJob", _plain(self.job, without=frozenset({"data"}))))

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.job.dtype)

    @property
    def batch_size(self) -> int:
        """Rows of a batch, over all shards."""
        size = self.job.batch_size
        return self.rows["train"] if isinstance(size, str) else size

    @property
    def flops(self) -> float:
        """Floating-point operations of one sample in a step."""
        return self.network().flops * self.job.optimizer.passes

    @property
    def pushed(self) -> int:
        """The length of the gradient that a worker pushes for a block; 0 if it pushes only losses."""
        return 0 if self.job.optimizer.copies else self.network().size

    @property
    def steps_per_epoch(self) -> int:
        return self.sharding().steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Steps of the whole job. `max_steps` may end it in the middle of an epoch."""
        steps = [] if self.job.epochs is None else [self.job.epochs * self.steps_per_epoch]
        return min([*steps, *([] if self.job.max_steps is None else [self.job.max_steps])])

    def network(self) -> Network:
        return Network(
            self.job.model.layers,
            self.input_shape,
            self.dtype,
            entry=self.entry,
            lengths=self.lengths,
            outputs=names_of(self.job.loss),
            carry=Carry(self.shards, self.sharding().slice_rows(0, 0)) if self.series else None,
        )

    def sharding(self) -> Sharding:
        job, rows = self.job, self.rows["train"]
        shuffle = job.shuffle and job.batch_size != "full"  # every batch has all rows: no order to draw
        buckets = shuffle and not self.series and job.bucket_by_length
        return Sharding(
            rows, self.batch_size, self.shards, job.seed, shuffle, job.drop_last,
            self._lengths_at if buckets else (), self.series, self.past.epochs,
        )  # fmt: skip

    @property
    def _lengths_at(self) -> tuple[int, ...]:
        """The places in a row that hold a length of the row."""
        named = tuple(entry.end for entry in named_inputs(self.job.model.layers) if entry.ragged)
        return named or (-1,) * self.lengths

    def measures(self, network: Network, split: str = "") -> Measures:
        heads = heads_of(self.job.loss, network.answer_shapes)
        metrics = metrics_of(heads, self.job.metrics, self.frames.get(split))
        return Measures(heads, metrics, self.class_weights)

    def update_rule(self) -> tuple[Part, ...]:
        """The optimizer with clipping and penalties, as a chain of parts."""
        clip, penalty = self.job.clip, self.job.regularization
        return chain(
            self.job.optimizer,
            clip_norm=clip.norm if clip else None,
            clip_value=clip.value if clip else None,
            l1=penalty.l1,
            l2=penalty.l2,
        )

    def decays(self, network: Network) -> list[tuple[int, int]]:
        """The ranges [start, stop) of the flat vector to which penalties and weight decay apply."""
        biases, groups = self.job.regularization.biases, self.job.parameter_groups or {}
        if not groups:
            return [(0, network.parameter_count)] if biases else network.decays
        ranges = []
        for tensor in network.tensors:
            group = group_of(groups, tensor.path)
            decays = tensor.decays or biases if group is None or group.decays is None else group.decays
            if decays:
                ranges.append((tensor.start, tensor.stop))
        return ranges

    def rates(self, network: Network) -> list[tuple[int, int, float]]:
        """The ranges of the flat vector with a factor on the learning rate: (start, stop, factor)."""
        groups = self.job.parameter_groups or {}
        pairs = ((tensor, group_of(groups, tensor.path)) for tensor in network.tensors)
        return [(t.start, t.stop, group.rate) for t, group in pairs if group is not None and group.rate != 1]

    def learning_rate(self) -> Callable[[int, PlateauState], float]:
        """The function from a step (0-based) and the state of reduce_on_plateau to the learning rate."""
        base, schedule = self.job.optimizer.learning_rate, self.job.optimizer.schedule
        if isinstance(schedule, Constant):
            return lambda step, plateau: base
        per_epoch, total = self.steps_per_epoch, self.total_steps
        return lambda step, plateau: schedule.rate(base, Progress(step, per_epoch, total, plateau))

    def decay(self) -> Callable[[int], float]:
        """The function from a step (0-based) to the factor on the weight decay."""
        schedule = self.job.optimizer.decay_schedule
        if schedule is None:
            return lambda step: 1.0
        per_epoch, total = self.steps_per_epoch, self.total_steps
        return lambda step: schedule.rate(1.0, Progress(step, per_epoch, total))

    def weights_of(self, targets: Array, sample_weights: Array | None) -> Array | None:
        """See `loss_weights`; in the job's dtype."""
        return loss_weights(self.class_weights, targets, sample_weights, self.dtype)


def group_of(groups: Mapping[str, Any], path: str) -> Any:
    """The group of a tensor: the group with the tensor's name, else that of the longest pattern that matches
    the name, else None."""
    matches = [path] if path in groups else [pattern for pattern in groups if fnmatchcase(path, pattern)]
    return groups[max(matches, key=lambda pattern: (len(pattern), pattern))] if matches else None


def _plain(part: Any, without: frozenset[str] = frozenset()) -> Any:
    """A part of a job with namespaces in place of pydantic's models. Other values stay as they are."""
    if isinstance(part, Mapping):
        return {name: _plain(value) for name, value in part.items()}
    if not hasattr(type(part), "model_fields"):
        return part
    return SimpleNamespace(**{name: _plain(value) for name, value in part if name not in without})
