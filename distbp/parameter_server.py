"""The parameter server: joins the shards' sums in the fixed tree, and applies each update once.

A plain class: it knows no exchange and no cluster. Whoever hosts it hands it the sums of all blocks of a
step and reads the flat parameter vector afterward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from distbp.blueprint import Blueprint
from distbp.errors import FencedError
from distbp.nn import kernels
from distbp.nn.arrays import Array
from distbp.nn.network import aligned_vector
from distbp.optimizers import Step, Updater, sum_of_squares
from distbp.reduction import Block, Join, joins
from distbp.schedules import PlateauState
from distbp.worker import LOSS, ROWS, WEIGHT, totals_size

# The vector is worked on in pieces that stay in a core's cache. The places where pieces begin decide the
# order in which squares are summed, so this number is part of the numerics.
PIECE = 32768


NO_PLATEAU = PlateauState()


class Contribution(NamedTuple):
    """The sums of one block at one step: gradient (size,), totals float64. The server may overwrite both."""

    block: Block
    gradient: Array
    totals: Array


class NotFiniteError(ArithmeticError):
    """The sums of `step` hold NaN or Inf; nothing was updated."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(step)


@dataclass
class TensorHealth:
    """One trained tensor at the last step of an epoch: L2 norms of its averaged gradient, of its update and
    of its values before it."""

    path: str
    gradient_norm: float
    update_ratio: float  # |update| / |values|; about 1e-3 is healthy


class ParameterServer:
    """`vector`: the flat parameter vector (size,), which it alone writes. `attempt`: fences older ones.

    `slots`: the optimizer's state by name, as `snapshot` gave it. Call it within `one_blas_thread`.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        vector: Array,
        *,
        step: int = 0,
        attempt: int = 1,
        slots: Mapping[str, Array] | None = None,
        epoch_totals: Array | None = None,
        threads: int = 1,
    ) -> None:
        self.blueprint = blueprint
        self.vector = vector
        self.step = step  # the next one to apply
        self.attempt = attempt
        self.applied = 0  # updates applied by this attempt; the ledger: step == first step + applied
        network = blueprint.network()
        self._network = network
        count = network.parameter_count
        self.gradient = aligned_vector(network.size, vector.dtype)
        self.totals = np.zeros(totals_size(blueprint))
        self.epoch_totals = np.zeros_like(self.totals) if epoch_totals is None else epoch_totals.copy()
        self.health: list[TensorHealth] = []
        self._steps_per_epoch = blueprint.steps_per_epoch
        self._rate = blueprint.learning_rate()
        self._updater = Updater(
            blueprint.update_rule(),
            vector[:count],
            self.gradient[:count],
            blueprint.decays(network),
            slots=None if slots is None else {name: values.copy() for name, values in slots.items()},
            piece=PIECE,
            kernels_name=kernels.load(blueprint.kernels).updates,
            threads=threads,
        )
        self._averaged = self.gradient[:count]
        self._whole = Block(0, blueprint.shards)
        self._joins: dict[tuple[Block, ...], list[Join]] = {}
        self._count = count

    def apply(
        self, step: int, contributions: Sequence[Contribution], plateau: PlateauState = NO_PLATEAU
    ) -> None:
        """Joins the blocks of `step`, divides by the total weight and updates the vector, once.

        Together the blocks cover every shard once. `plateau`: the state of the schedule reduce_on_plateau.
        Raises FencedError for any other step than the next; NotFiniteError before the update; ValueError
        where the blocks are not those of a step. After each of them nothing has changed.
        """
        if step != self.step:
            raise FencedError(
                f"attempt {self.attempt}: step {step} was pushed, but the next one is {self.step}"
            )
        self._reduce(contributions)
        totals = self.totals
        squares = sum_of_squares(self._averaged, PIECE)
        if not (math.isfinite(squares) and math.isfinite(totals[LOSS]) and self._statistics_are_finite()):
            raise NotFiniteError(step)
        weight = float(totals[WEIGHT])
        scale = 1.0 / weight if weight > 0 else 0.0
        info = Step(
            number=step + 1,
            learning_rate=self._rate(step, plateau),
            gradient_norm=math.sqrt(squares) * scale,
        )
        last_of_epoch = (step + 1) % self._steps_per_epoch == 0
        before = None
        if last_of_epoch:
            before = self.vector[: self._count].copy()
            norms = [_norm(self.gradient[t.start : t.stop]) * scale for t in self._network.tensors]
        self._updater.apply(info, scale)  # overwrites the gradient
        if self._network.statistics:
            self._update_statistics(float(totals[ROWS]))
        if step % self._steps_per_epoch == 0:
            self.epoch_totals[:] = 0
        self.epoch_totals += totals
        if before is not None:
            self.health = self._measure_health(before, norms)
        self.step += 1
        self.applied += 1

    def snapshot(self) -> dict[str, Array]:
        """Copies of all arrays that a checkpoint needs."""
        arrays = {"vector": self.vector.copy(), "epoch_totals": self.epoch_totals.copy()}
        for name, values in self._updater.slots.items():
            arrays[f"slots.{name}"] = values.copy()
        return arrays

    def close(self) -> None:
        self._updater.close()

    def _reduce(self, contributions: Sequence[Contribution]) -> None:
        if len(contributions) == 1 and contributions[0].block == self._whole:
            only = contributions[0]
            if only.gradient is not self.gradient:
                np.copyto(self.gradient, only.gradient)
                np.copyto(self.totals, only.totals)
            return
        blocks = tuple(c.block for c in contributions)
        order = self._joins.get(blocks)
        if order is None:
            order = self._joins[blocks] = joins(self._whole, blocks)
        for left, right in order[:-1]:
            np.add(contributions[left].totals, contributions[right].totals, out=contributions[left].totals)
        last = order[-1]
        np.add(contributions[last.left].totals, contributions[last.right].totals, out=self.totals)
        for start in range(0, len(self.gradient), PIECE):
            piece = slice(start, start + PIECE)
            for left, right in order[:-1]:
                into = contributions[left].gradient[piece]
                np.add(into, contributions[right].gradient[piece], out=into)
            np.add(
                contributions[last.left].gradient[piece],
                contributions[last.right].gradient[piece],
                out=self.gradient[piece],
            )

    def _statistics_are_finite(self) -> bool:
        sums = self.gradient[self._count :]
        return not len(sums) or bool(np.isfinite(sums).all())

    def _update_statistics(self, rows: float) -> None:
        for tensor in self._network.statistics:
            place = slice(tensor.start, tensor.stop)
            values, sums = self.vector[place], self.gradient[place]
            np.multiply(values, 1.0 - tensor.rate, out=values)
            np.multiply(sums, tensor.rate / rows, out=sums)
            np.add(values, sums, out=values)

    def _measure_health(self, before: Array, gradient_norms: Sequence[float]) -> list[TensorHealth]:
        found = []
        for tensor, gradient_norm in zip(self._network.tensors, gradient_norms, strict=True):
            place = slice(tensor.start, tensor.stop)
            values = _norm(before[place])
            update = _norm(self.vector[place] - before[place])
            ratio = update / values if values > 0 else 0.0
            found.append(TensorHealth(tensor.path, gradient_norm, ratio))
        return found


def _norm(values: Array) -> float:
    """L2 norm with the squares summed in float64."""
    wide: Any = values.astype(np.float64)
    return float(np.sqrt(np.dot(wide, wide)))
