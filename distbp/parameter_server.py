"""The parameter server: joins the shards' sums in the fixed tree, and applies each update once.

A plain class: it knows no exchange and no cluster. Whoever hosts it hands it the sums of all blocks of a
step and reads the flat parameter vector afterward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from distbp.blueprint import Blueprint
from distbp.errors import FencedError
from distbp.nn import kernels
from distbp.nn.arrays import Array
from distbp.nn.network import Network, aligned_vector
from distbp.optimizers import Step, Updater, sum_of_squares
from distbp.reduction import Block, Join, joins
from distbp.schedules import PlateauState
from distbp.totals import LOSS, ROWS, WEIGHT, totals_size

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


class Sums(NamedTuple):
    """What a server knows of a step's gradient before the update: the sum of squares of each piece of its
    range, in order, and whether everything is finite."""

    squares: tuple[float, ...]
    finite: bool


def joint(parts: Sequence[Sums]) -> Sums:
    """Of the whole vector, from those of its ranges, in order: one sum, with the same bits for any cut."""
    total = 0.0
    for part in parts:
        for squares in part.squares:
            total += squares
    return Sums((total,), math.isfinite(total) and all(part.finite for part in parts))


class Norms(NamedTuple):
    """Sums of squares of the part of a tensor (by number) that lies in one piece: of its averaged gradient,
    of its values before the update, and of the update."""

    tensor: int
    gradient: float
    values: float
    update: float


class ParameterServer:
    """`vector`: the flat parameter vector (size,), which it alone writes. `attempt`: fences older ones.

    `slots`: the optimizer's state by name, as `snapshot` gave it. Call it within `one_blas_thread`.

    `first`: a server of a range has the stretch of the flat vector that begins there (see `ranges`); its
    contributions, slots and snapshots are of that stretch alone, and its steps are `prepare` and `finish`.
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
        first: int = 0,
    ) -> None:
        self.blueprint = blueprint
        self.vector = vector
        self.step = step  # the next one to apply
        self.attempt = attempt
        self.applied = 0  # updates applied by this attempt; the ledger: step == first step + applied
        network = blueprint.network()
        self._network = network
        stop = first + len(vector)
        count = max(0, min(network.parameter_count, stop) - first)  # trained values; statistics follow
        self.gradient = aligned_vector(len(vector), vector.dtype)
        self.totals = np.zeros(totals_size(blueprint))
        self.epoch_totals = np.zeros_like(self.totals) if epoch_totals is None else epoch_totals.copy()
        self.norms: list[Norms] = []  # at the last step of an epoch
        self._steps_per_epoch = blueprint.steps_per_epoch
        self.learning_rate = blueprint.learning_rate()  # of (step, plateau)
        self._updater = Updater(
            blueprint.update_rule(),
            vector[:count],
            self.gradient[:count],
            [(a - first, b - first) for a, b in _within(blueprint.decays(network), first, first + count)],
            slots=None if slots is None else {name: values.copy() for name, values in slots.items()},
            piece=PIECE,
            kernels_name=kernels.load(blueprint.kernels).updates,
            threads=threads,
        )
        self.slots = self._updater.slots  # the optimizer's state by name, as it lies
        self._averaged = [self.gradient[at : min(at + PIECE, count)] for at in range(0, count, PIECE)]
        self._statistics = [
            (slice(t.start - first, t.stop - first), t.rate)
            for t in network.statistics
            if first <= t.start and t.stop <= stop
        ]
        # The parts of tensors that lie within one piece; a norm is joined from them in order, for any cut.
        self._parts = [
            (number, slice(a - first, b - first))
            for number, t in enumerate(network.tensors)
            for at in range(first, first + count, PIECE)
            for a, b in _within([(t.start, t.stop)], at, min(at + PIECE, first + count))
        ]
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
        sums = joint([self.prepare(step, contributions)])
        if not sums.finite:
            raise NotFiniteError(step)
        self.finish(step, sums.squares[0], plateau)

    def prepare(self, step: int, contributions: Sequence[Contribution]) -> Sums:
        """The first half of a step: joins the blocks, nothing more. Raises FencedError, ValueError."""
        if step != self.step:
            raise FencedError(
                f"attempt {self.attempt}: step {step} was pushed, but the next one is {self.step}"
            )
        join = self._joined_totals(contributions)
        squares = []
        for number, start in enumerate(range(0, len(self.gradient), PIECE)):
            if join is not None:
                join(slice(start, start + PIECE))
            if number < len(self._averaged):  # while the piece is in the cache
                squares.append(sum_of_squares(self._averaged[number]))
        return Sums(tuple(squares), math.isfinite(self.totals[LOSS]) and self._statistics_are_finite())

    def finish(self, step: int, squares: float, plateau: PlateauState = NO_PLATEAU) -> None:
        """The second half: the update. `squares`: of the gradient sums of the whole vector (`joint`)."""
        totals = self.totals
        weight = float(totals[WEIGHT])
        scale = 1.0 / weight if weight > 0 else 0.0
        info = Step(
            number=step + 1,
            learning_rate=self.learning_rate(step, plateau),
            gradient_norm=math.sqrt(squares) * scale,
        )
        last_of_epoch = (step + 1) % self._steps_per_epoch == 0
        before = None
        if last_of_epoch:
            before = self.vector[: self._count].copy()
            gradients = [_squares(self.gradient[part]) * scale * scale for _, part in self._parts]
        self._updater.apply(info, scale)  # overwrites the gradient
        if self._statistics:
            self._update_statistics(float(totals[ROWS]))
        if step % self._steps_per_epoch == 0:
            self.epoch_totals[:] = 0
        self.epoch_totals += totals
        if before is not None:
            self.norms = [
                Norms(number, gradient, _squares(before[part]), _squares(self.vector[part] - before[part]))
                for (number, part), gradient in zip(self._parts, gradients, strict=True)
            ]
        self.step += 1
        self.applied += 1

    def advance(self, losses: Array, rows: int) -> None:
        """Notes steps that somebody else has applied to the vector and the slots, exactly as `apply` would
        have, none of them the last of an epoch. losses: their loss sums; rows: of each, of weight 1."""
        if self.step % self._steps_per_epoch == 0:
            self.epoch_totals[:] = 0
        for loss in losses:  # one after the other, for a sum with the same bits
            self.epoch_totals[LOSS] += loss
        self.epoch_totals[[WEIGHT, ROWS]] += rows * len(losses)
        self.step += len(losses)
        self.applied += len(losses)

    @property
    def health(self) -> list[TensorHealth]:
        return health(self._network, self.norms)

    def snapshot(self) -> dict[str, Array]:
        """Copies of all arrays that a checkpoint needs."""
        arrays = {"vector": self.vector.copy(), "epoch_totals": self.epoch_totals.copy()}
        for name, values in self._updater.slots.items():
            arrays[f"slots.{name}"] = values.copy()
        return arrays

    def close(self) -> None:
        self._updater.close()

    def _joined_totals(self, contributions: Sequence[Contribution]) -> Callable[[slice], None] | None:
        """Joins the totals; returns what joins a piece of the gradients, None where that is done."""
        if len(contributions) == 1 and contributions[0].block == self._whole:
            only = contributions[0]
            if only.gradient is not self.gradient:
                np.copyto(self.gradient, only.gradient)
                np.copyto(self.totals, only.totals)
            return None
        blocks = tuple(c.block for c in contributions)
        order = self._joins.get(blocks)
        if order is None:
            order = self._joins[blocks] = joins(self._whole, blocks)
        *inner, last = order
        for left, right in inner:
            np.add(contributions[left].totals, contributions[right].totals, out=contributions[left].totals)
        np.add(contributions[last.left].totals, contributions[last.right].totals, out=self.totals)
        gradients = [c.gradient for c in contributions]

        def join(piece: slice) -> None:
            for left, right in inner:
                np.add(gradients[left][piece], gradients[right][piece], out=gradients[left][piece])
            np.add(gradients[last.left][piece], gradients[last.right][piece], out=self.gradient[piece])

        return join

    def _statistics_are_finite(self) -> bool:
        sums = self.gradient[self._count :]
        return not len(sums) or bool(np.isfinite(sums).all())

    def _update_statistics(self, rows: float) -> None:
        for place, rate in self._statistics:
            values, sums = self.vector[place], self.gradient[place]
            np.multiply(values, 1.0 - rate, out=values)
            np.multiply(sums, rate / rows, out=sums)
            np.add(values, sums, out=values)


def ranges(network: Network, servers: int) -> list[tuple[int, int]]:
    """The stretches of the flat vector that so many servers have: cut where pieces begin, as equal as can be.
    Fewer than asked for where there are fewer pieces."""
    pieces = max(1, -(-network.parameter_count // PIECE))
    count = min(servers, pieces)
    cuts = [PIECE * (pieces * server // count) for server in range(count)]
    return list(zip(cuts, [*cuts[1:], network.size], strict=True))


def health(network: Network, norms: Sequence[Norms]) -> list[TensorHealth]:
    """Of every trained tensor, from the norms of its parts, in order; empty before the end of an epoch."""
    if not norms:
        return []
    sums = np.zeros((len(network.tensors), 3))
    for number, gradient, values, update in norms:
        sums[number] += gradient, values, update
    return [
        TensorHealth(tensor.path, float(gradient), float(update / values) if values > 0 else 0.0)
        for tensor, (gradient, values, update) in zip(network.tensors, np.sqrt(sums), strict=True)
    ]


def _within(stretches: Sequence[tuple[int, int]], first: int, stop: int) -> list[tuple[int, int]]:
    return [(max(a, first), min(b, stop)) for a, b in stretches if max(a, first) < min(b, stop)]


def _squares(values: Array) -> float:
    """The sum of squares, in float64."""
    wide: Any = values.astype(np.float64)
    return float(np.dot(wide, wide))
