"""What every process of a job must agree on, and what each builds from it for itself.

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
    """What was trained before a job that goes on with the state of an optimizer."""

    steps: int = 0
    epochs: int = 0


@dataclass(frozen=True)
class Blueprint:
    """`shards` is resolved (never "auto"). `rows`: of each split, by name ("train", "validation", "test").
    `class_weights`: for each class, or None. `kernels`: the kernel set's name, resolved. `notes`: what the
    data made of the job that may surprise the user. `frames`: where the targets of a split lie, by name, for
    metrics of values. `entry`: by which the rows of a table enter the network. `lengths`: whether rows have
    lengths. `series`: whether rows are windows of series, through which recurrent layers carry their states.
    `past`: from where on the optimizer counts its updates, and everything random its draws."""

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
        """This blueprint for the processes that compute: its job has the same fields, but for `data`, and no
        methods. So they need not import `distbp.job`, which takes a twentieth of a second."""
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
        """Numbers that travel for each block beside the totals: the gradient; none where only losses do."""
        return 0 if self.job.optimizer.copies else self.network().size

    @property
    def steps_per_epoch(self) -> int:
        return self.sharding().steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Steps of the whole job; it may end in the middle of an epoch where `max_steps` says so."""
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
        shuffle = job.shuffle and job.batch_size != "full"  # of a sum over all rows the order changes nothing
        buckets = shuffle and not self.series and job.bucket_by_length
        return Sharding(
            rows, self.batch_size, self.shards, job.seed, shuffle, job.drop_last,
            self._lengths_at if buckets else (), self.series, self.past.epochs,
        )  # fmt: skip

    @property
    def _lengths_at(self) -> tuple[int, ...]:
        """Which numbers of a row are lengths."""
        several = tuple(one.end for one in named_inputs(self.job.model.layers) if one.ragged)
        return several or (-1,) * self.lengths

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
        """The ranges of the flat vector that penalties and weight decay touch."""
        biases, groups = self.job.regularization.biases, self.job.parameter_groups or {}
        if not groups:
            return [(0, network.parameter_count)] if biases else network.decays
        found = []
        for tensor in network.tensors:
            group = group_of(groups, tensor.path)
            decays = tensor.decays or biases if group is None or group.decays is None else group.decays
            if decays:
                found.append((tensor.start, tensor.stop))
        return found

    def rates(self, network: Network) -> list[tuple[int, int, float]]:
        """The ranges of the flat vector with a factor on the learning rate: (start, stop, factor)."""
        groups = self.job.parameter_groups or {}
        pairs = ((tensor, group_of(groups, tensor.path)) for tensor in network.tensors)
        return [(t.start, t.stop, group.rate) for t, group in pairs if group is not None and group.rate != 1]

    def learning_rate(self) -> Callable[[int, PlateauState], float]:
        """The rate of the update at a step (0-based), given the state of reduce-on-plateau."""
        base, schedule = self.job.optimizer.learning_rate, self.job.optimizer.schedule
        if isinstance(schedule, Constant):
            return lambda step, plateau: base
        per_epoch, total = self.steps_per_epoch, self.total_steps
        return lambda step, plateau: schedule.rate(base, Progress(step, per_epoch, total, plateau))

    def decay(self) -> Callable[[int], float]:
        """The factor on the weight decay of the update at a step (0-based)."""
        schedule = self.job.optimizer.decay_schedule
        if schedule is None:
            return lambda step: 1.0
        per_epoch, total = self.steps_per_epoch, self.total_steps
        return lambda step: schedule.rate(1.0, Progress(step, per_epoch, total))

    def weights_of(self, targets: Array, sample_weights: Array | None) -> Array | None:
        """Weights in the loss, (rows,) in the job's dtype: class weight x sample weight; None: all are 1."""
        return loss_weights(self.class_weights, targets, sample_weights, self.dtype)


def group_of(groups: Mapping[str, Any], path: str) -> Any:
    """The group of a tensor: the one with its name, else that of the longest pattern that fits; None where
    there is none."""
    fits = [path] if path in groups else [pattern for pattern in groups if fnmatchcase(path, pattern)]
    return groups[max(fits, key=lambda pattern: (len(pattern), pattern))] if fits else None


def _plain(part: Any, without: frozenset[str] = frozenset()) -> Any:
    """A part of a job as a namespace; what is not of pydantic stays as it is."""
    if isinstance(part, Mapping):
        return {name: _plain(value) for name, value in part.items()}
    if not hasattr(type(part), "model_fields"):
        return part
    return SimpleNamespace(**{name: _plain(value) for name, value in part if name not in without})
