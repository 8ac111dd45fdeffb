"""The parameter server joins the shards' sums in the fixed tree and applies each update once.

It knows no exchange. Its host hands over the sums of all blocks of a step and then reads the flat vector.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np

from distbp.core.arrays import Array, aligned_vector
from distbp.core.errors import FencedError
from distbp.core.reduction import PIECE, Block, Join, joins
from distbp.engine.blueprint import Blueprint
from distbp.engine.health import Norms, TensorHealth, health, norms_of, within
from distbp.engine.ranges import RangeSums, joint
from distbp.engine.totals import BOUND, LIVE, LOSS, ROWS, SURELY_FINITE, WEIGHT, totals_size
from distbp.engine.updating import updater_of
from distbp.nn.tape import merged
from distbp.optim import Searching, Step, sum_of_squares
from distbp.optim.evolution import Evolution, Noise, estimate
from distbp.optim.schedules import PlateauState

NO_PLATEAU = PlateauState()


class Contribution(NamedTuple):
    """The sums of one block at one step: gradient (size,) in the job's dtype, totals (totals_size,) float64.
    The server may overwrite both."""

    block: Block
    gradient: Array
    totals: Array


class NotFiniteError(ArithmeticError):
    """The sums of `step` hold NaN or Inf; nothing was updated."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(step)


class ParameterServer:
    """`vector`: the flat parameter vector (size,), which only the server writes. `step`: the next step to
    apply. `attempt`: the number of the attempt, for messages. `slots`, `epoch_totals`: the optimizer's state
    by name, and the totals of the epoch so far, as a snapshot has them; None: none yet. `threads`: how many
    threads apply an update. `first`: where the server's range begins in the flat vector (see `ranges`). The
    contributions, slots and snapshots of a server of a range cover its range only, and a step is `prepare`,
    then `finish`.

    Call all methods within `one_blas_thread`. No method waits for others.
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
        self.step = step
        self.attempt = attempt
        self.applied = 0  # updates applied by this attempt: step == first step + applied
        network = blueprint.network()
        self._network = network
        stop = first + len(vector)
        count = max(0, min(network.parameter_count, stop) - first)  # trained values; others follow
        self.gradient = aligned_vector(len(vector), vector.dtype)
        self.totals = np.zeros(totals_size(blueprint))
        self.epoch_totals = self.totals[:BOUND].copy() if epoch_totals is None else epoch_totals.copy()
        self.norms: list[Norms] = []  # at the last step of an epoch
        self._steps_per_epoch = blueprint.steps_per_epoch
        self.learning_rate = blueprint.learning_rate()  # of (step, plateau)
        self._decay = blueprint.decay()  # of a step
        decays = [(a - first, b - first) for a, b in within(blueprint.decays(network), first, first + count)]
        rates = [
            (a - first, b - first, factor)
            for start, stop, factor in blueprint.rates(network)
            for a, b in within([(start, stop)], first, first + count)
        ]
        tensors = within([(t.start, t.stop) for t in network.tensors], first, first + count)
        measured = [(a - first, b - first) for a, b in tensors]
        self.updater = updater_of(blueprint, vector[:count], decays, rates, measured, slots, threads)
        drawn = blueprint.job.seed, count, vector.dtype, blueprint.past.steps
        self._noise = Noise(*drawn) if blueprint.job.optimizer.copies else None
        self.slots = self.updater.slots  # the optimizer's state by name, as it lies
        ends = [t.stop - first for t in network.tensors]
        # The number of the tensor of each measured part.
        self._tensors = [bisect_right(ends, start) for start in self.updater.parts[:, 0].tolist()]
        self._averaged = [self.gradient[at : min(at + PIECE, count)] for at in range(0, count, PIECE)]
        self._statistics = [
            (slice(t.start - first, t.stop - first), t.rate)
            for t in network.statistics
            if first <= t.start and t.stop <= stop
        ]
        self._states = [
            slice(start - first, end - first)
            for start, end in merged((t.start, t.stop) for t in network.states)
            if first <= start and end <= stop
        ]
        self._whole = Block(0, blueprint.shards)
        self._joins: dict[tuple[Block, ...], list[Join]] = {}
        self._count = count

    def apply(
        self, step: int, contributions: Sequence[Contribution], plateau: PlateauState = NO_PLATEAU
    ) -> None:
        """Joins the blocks of `step`, divides by the total weight and updates the vector, once.

        Together the blocks cover every shard once. `plateau`: the state of the schedule reduce_on_plateau.
        Raises FencedError for any step but the next one, ValueError if the blocks do not cover every shard
        once, NotFiniteError if a sum is NaN or Inf. After an error nothing has changed.
        """
        order = self._begin(step, contributions)
        gradients = [c.gradient for c in contributions]
        if self._noise is not None:
            self._estimate(step, self._noise)
            gradients, order = [self.gradient], []
        if self.one_pass and self.totals[BOUND] < SURELY_FINITE and math.isfinite(self.totals[LOSS]):
            self._update(gradients, order, *self._info(step, 0.0, plateau))
            self._join(gradients, order, slice(self._count, None))
            self._end(step)
            return
        sums = joint([self._check(gradients, order)])
        if not (sums.finite or self.updater.bears_infinity):
            raise NotFiniteError(step)
        self.finish(step, sums.squares[0], plateau)

    @property
    def one_pass(self) -> bool:
        """Whether an update may begin before the whole gradient has been joined and checked."""
        return self.updater.one_pass and self._noise is None

    def probe(self) -> None:
        """Writes the trial point of a line search, at which the next step needs the gradient, to the vector.
        The update writes the last accepted point back. Other optimizers change nothing here."""
        self.updater.probe()

    @property
    def verdict(self) -> str:
        """The reason, for people, that further steps would change nothing; else ""."""
        return self.updater.verdict

    @property
    def has_untrained(self) -> bool:
        """Whether the vector also holds values that are not trained: running statistics or states."""
        return self._count < len(self.vector)

    def prepare(self, step: int, contributions: Sequence[Contribution]) -> RangeSums:
        """The first half of a range's step: joins the blocks. Raises FencedError, ValueError."""
        return self._check([c.gradient for c in contributions], self._begin(step, contributions))

    def finish(self, step: int, squares: float, plateau: PlateauState = NO_PLATEAU) -> None:
        """The second half: the update. `squares`: of the whole vector's gradient sums (`joint`)."""
        self._update([self.gradient], [], *self._info(step, squares, plateau))
        self._end(step)

    def _estimate(self, step: int, noise: Noise) -> None:
        """Writes evolution's direction, estimated from the losses of the copies, in place of the gradient."""
        evolution = cast("Evolution", self.blueprint.job.optimizer)
        estimate(self.totals[LIVE:BOUND], evolution.sigma, step, noise, self.gradient)

    def _update(self, gradients: Sequence[Array], order: Sequence[Join], scale: float, info: Step) -> None:
        if isinstance(self.updater, Searching):
            squares = self.updater.apply_measured(gradients[0][: self._count], info, scale)
            self.norms = norms_of(self._tensors, squares, 1.0)
            self.totals[LOSS] = self.updater.found.loss * self.totals[WEIGHT]  # of the accepted point
        elif self._ends_epoch(self.step):
            squares = self.updater.apply_measured(gradients, order, info, scale)
            self.norms = norms_of(self._tensors, squares, scale)
        else:
            self.updater.apply(gradients, order, info, scale)

    def advance(self, steps: Sequence[Sequence[float]]) -> None:
        """Records steps that compiled code has applied to the vector, the slots and the statistics, exactly
        as `apply` would have. All are of one epoch, and none is its last step. steps: the loss sum, the
        weight and the rows of each."""
        if self.step % self._steps_per_epoch == 0:
            self.epoch_totals[:] = 0
        places = [LOSS, WEIGHT, ROWS]  # added one after the other, because the order decides the last bits
        self.epoch_totals[places] = np.add.accumulate([self.epoch_totals[places].tolist(), *steps])[-1]
        self.advance_by(len(steps))

    def add_live_rows(self, live: Array) -> None:
        """Adds the live rows of each unit, (units,), in steps given to `advance` (see `engine.totals`)."""
        self.epoch_totals[LIVE:] += live

    def advance_by(self, steps: int) -> None:
        """Records steps that compiled code has applied, if the epoch's totals already include them."""
        self.step += steps
        self.applied += steps

    @property
    def health(self) -> list[TensorHealth]:
        return health(self._network, self.norms)

    def snapshot(self, whole: bool = True) -> dict[str, Array]:
        """Copies of all arrays that a checkpoint needs; not `whole`: only of the epoch's totals."""
        arrays = {"epoch_totals": self.epoch_totals.copy()}
        if not whole:
            return arrays
        arrays = {"vector": self.vector.copy(), **arrays}
        for name, values in self.slots.items():
            arrays[f"slots.{name}"] = values.copy()
        return arrays

    def close(self) -> None:
        self.updater.close()

    def _ends_epoch(self, step: int) -> bool:
        return (step + 1) % self._steps_per_epoch == 0

    def _begin(self, step: int, contributions: Sequence[Contribution]) -> list[Join]:
        """Joins the totals; returns the joins of the gradients. Raises FencedError, ValueError."""
        if step != self.step:
            raise FencedError(
                f"attempt {self.attempt}: step {step} was pushed, but the next one is {self.step}"
            )
        blocks = tuple(c.block for c in contributions)
        order = self.order_of(blocks)
        totals = [c.totals for c in contributions]
        for left, right in order:
            np.add(totals[left], totals[right], out=totals[left])
        np.copyto(self.totals, totals[order[-1].left if order else 0])
        return order

    def order_of(self, blocks: tuple[Block, ...]) -> list[Join]:
        """The additions that join the sums of `blocks`, found once for each. Raises ValueError."""
        order = self._joins.get(blocks)
        if order is None:
            order = self._joins[blocks] = joins(self._whole, blocks)
        return order

    def _join(self, gradients: Sequence[Array], order: Sequence[Join], piece: slice) -> None:
        """Joins a piece of the gradients into the same piece of `self.gradient`."""
        if not order:
            if gradients[0] is not self.gradient:
                np.copyto(self.gradient[piece], gradients[0][piece])
            return
        *inner, last = order
        for left, right in inner:
            np.add(gradients[left][piece], gradients[right][piece], out=gradients[left][piece])
        np.add(gradients[last.left][piece], gradients[last.right][piece], out=self.gradient[piece])

    def _check(self, gradients: Sequence[Array], order: Sequence[Join]) -> RangeSums:
        squares = []
        for number, start in enumerate(range(0, len(self.gradient), PIECE)):
            self._join(gradients, order, slice(start, start + PIECE))
            if number < len(self._averaged):  # while the piece is in the cache
                squares.append(sum_of_squares(self._averaged[number]))
        return RangeSums(tuple(squares), math.isfinite(self.totals[LOSS]) and self._untrained_is_finite())

    def _info(self, step: int, squares: float, plateau: PlateauState) -> tuple[float, Step]:
        weight = float(self.totals[WEIGHT])
        scale = 1.0 / weight if weight > 0 else 0.0
        if self._noise is not None:
            scale = 1.0  # ranks know no weight
        loss, norm = float(self.totals[LOSS]) * scale, math.sqrt(squares) * scale
        [known] = self.steps_of([step], plateau)
        return scale, known._replace(gradient_norm=norm, loss=loss)

    def steps_of(self, steps: Iterable[int], plateau: PlateauState) -> list[Step]:
        """The facts of the updates of `steps` that do not depend on gradients: number, rate, decay."""
        rate, decay, first = self.learning_rate, self._decay, self.blueprint.past.steps + 1
        return [Step(first + n, float(rate(n, plateau)), 0.0, 0.0, decay(n)) for n in steps]

    def _end(self, step: int) -> None:
        """What follows every update."""
        if self._statistics and self.totals[ROWS]:
            self._update_statistics(float(self.totals[ROWS]))
        for place in self._states:  # each epoch begins every series anew
            self.vector[place] = 0 if self._ends_epoch(step) else self.gradient[place]
        if step % self._steps_per_epoch == 0:
            self.epoch_totals[:] = 0
        self.epoch_totals += self.totals[:BOUND]
        self.step += 1
        self.applied += 1

    def _untrained_is_finite(self) -> bool:
        sums = self.gradient[self._count :]
        return not len(sums) or bool(np.isfinite(sums).all())

    def _update_statistics(self, rows: float) -> None:
        for place, rate in self._statistics:
            values, sums = self.vector[place], self.gradient[place]
            np.multiply(values, 1.0 - rate, out=values)
            np.multiply(sums, rate / rows, out=sums)
            np.add(values, sums, out=values)
