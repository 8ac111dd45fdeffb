"""The engine that joins the sums of a step and applies an update rule, stretch by stretch.

A stretch is small enough to stay in a core's cache. The engine joins its sums and runs every op of the rule
on it before it goes on to the next stretch, so a step reads and writes memory once. No element's arithmetic
depends on its neighbors, so the bits are the same for any cut and any number of threads.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import pairwise
from operator import is_not, itemgetter
from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.reduction import PIECE
from distbp.nn.run_tape import encode
from distbp.optim.groups import Rates, groups_of
from distbp.optim.parts import Part, Rule, Step, Vector

WORTH_A_THREAD = 131072  # parameters; to update this many takes about as long as to wake a thread

Order = Sequence[tuple[int, int]]


class Updater:
    """Applies a chain of parts to `parameters`, in place.

    parameters: (n,), C-contiguous, floating. decays: stretches [start, stop) to which L1, L2 and weight decay
    apply, in any order. tensors: stretches that are measured separately. rates: stretches with a factor on
    the learning rate, (start, stop, factor); other parameters have the factor 1. slots: the saved state, by
    name, which is updated in place (not copied); None: a new state. compiled: whether to use compiled ops,
    for float32. threads: the most threads that share a large vector.

    `.slots` is the whole state: name -> (n,). An updater made from the slots saved after an `apply` goes on
    with the same bits. Raises ValueError if arrays, slots, decays or rates do not fit.
    """

    bears_infinity = False  # a loss that is not finite ends training
    verdict = ""  # these methods do not notice that they have converged

    def __init__(
        self,
        parts: Sequence[Part],
        parameters: Array,
        decays: Sequence[tuple[int, int]],
        *,
        tensors: Sequence[tuple[int, int]] = (),
        rates: Rates = (),
        slots: Mapping[str, Array] | None = None,
        compiled: bool = False,
        threads: int = 1,
        piece: int = PIECE,
    ) -> None:
        _check_vector("the parameters", parameters, parameters)
        self.groups = groups_of(decays, rates, parameters.size)
        self.rule = Rule(parts, self.groups.kinds)
        self.parameters = parameters
        self.slots: dict[str, Array] = _make_slots(self.rule.slots, parameters, slots)
        self._apply: Callable[..., None]
        self.compiled = compiled and parameters.dtype == np.float32
        if self.compiled:
            from distbp.machine.structures import address
            from distbp.nn.ops.rows import compiled as compiled_code  # loads Numba
            from distbp.nn.run_compiled import addresses
            from distbp.optim import compiled as code

            self._code = code
            self._update = compiled_code(code.update).ctypes
            piece = code.STRETCH
            vectors = np.array([address(one) for one in (parameters, *self.slots.values())], np.int64)
            self.program = *encode(self.rule.rows), addresses(self.rule.rows), vectors
            self._apply = self._compiled
        else:
            self._apply = self._in_numpy
        covers = self.groups.stretches
        self.stretches = cut([(0, parameters.size)], covers, piece)
        self.parts = cut(tensors, covers, piece)
        self._places: tuple[list[Array], Order, Any] = [], [], None
        self._threads = max(1, min(threads, parameters.size // WORTH_A_THREAD))
        # The caller checks for overflow afterward. NumPy's warnings must be turned off in each thread.
        self.pool = (
            ThreadPoolExecutor(self._threads - 1, "distbp-update", partial(np.seterr, all="ignore"))
            if self._threads > 1
            else None
        )

    def apply(self, sums: Sequence[Array], order: Order, step: Step, scale: float) -> None:
        """Makes one update with the averaged gradient `scale * (the joined sums)`. Waits. scale: 1 / (the
        batch's weight).

        sums: (n or more,) for each block; the left operands of additions may be overwritten. order: the
        additions (left, right) that join the sums."""
        self._together(self.stretches, None, sums, order, step, scale)

    def apply_measured(self, sums: Sequence[Array], order: Order, step: Step, scale: float) -> Array:
        """Does what `apply` does. Returns the sums of squares of each of `parts`, (parts, 3) float64: of the
        gradient sums, of the parameters before the update, and of the update."""
        squares = np.zeros((len(self.parts), 3))
        self._together(self.parts, squares, sums, order, step, scale)
        return squares

    @property
    def one_pass(self) -> bool:
        """Whether an update does not need the norm of the whole gradient first."""
        return self.rule.clip is None

    def probe(self) -> None:
        """Does nothing: the next gradient is computed at the parameters (see `Searching.probe`)."""

    def close(self) -> None:
        """Ends the threads and drops the references to the sums. A second call does nothing."""
        self._places = [], [], None
        if self.pool is not None:
            self.pool.shutdown()

    @property
    def shares(self) -> list[Array]:
        """The stretches of each thread."""
        return [self.stretches[a:b] for a, b in self._cuts(self.stretches)]

    def _cuts(self, stretches: Array) -> Iterator[tuple[int, int]]:
        return pairwise(len(stretches) * thread // self._threads for thread in range(self._threads + 1))

    def constants(self, step: Step, scale: float) -> Array:
        """The numbers that the ops of the rule read at a step, with the scale: (groups, rows, 4) float64."""
        # NumPy scalars in a step would change the types of the rule's numbers.
        plain = Step(int(step.number), float(step.learning_rate), decay=float(step.decay))
        found: Array = self.rule.constants([plain])[0]
        found[:, self.rule.scaled, 0] *= self.rule.scale(float(scale), float(step.gradient_norm))
        return found

    def _together(
        self,
        stretches: Array,
        squares: Array | None,
        sums: Sequence[Array],
        order: Order,
        step: Step,
        scale: float,
    ) -> None:
        constants = self.constants(step, scale)
        if self.pool is None:
            self._apply(stretches, squares, sums, order, constants)
            return
        mine, *others = [
            (stretches[a:b], None if squares is None else squares[a:b], sums, order, constants)
            for a, b in self._cuts(stretches)
        ]
        waiting = [self.pool.submit(self._apply, *given) for given in others]
        try:
            self._apply(*mine)
        finally:
            wait(waiting)  # after Ctrl-C, too: the threads use the addresses of the sums
        for other in waiting:
            other.result()

    def _compiled(
        self, stretches: Array, squares: Array | None, sums: Sequence[Array], order: Order, constants: Array
    ) -> None:
        # Most steps use the same arrays as the step before. Finding their addresses takes as long as a small
        # update.
        known, joined, joining = self._places
        if not joining or order != joined or len(sums) != len(known) or any(map(is_not, sums, known)):
            joining = self._code.joining_of(self.program, sums, order, self._threads > 1)
            self._places = list(sums), order, joining
        part = self._code.part_of(stretches, squares)
        self._update(joining.at, part.at, constants.ctypes.data)

    def _in_numpy(
        self, stretches: Array, squares: Array | None, sums: Sequence[Array], order: Order, constants: Array
    ) -> None:
        for number, (start, stop, group) in enumerate(stretches.tolist()):
            piece = slice(start, stop)
            joined = join([one[piece] for one in sums], order)
            values = self.parameters[piece]
            if squares is not None:
                squares[number, :2] = sum_of_squares(joined), sum_of_squares(values)
                before = values.copy()
            spaces = {
                Vector.PARAMETERS: values,
                Vector.SUMS: joined,
                Vector.DIRECTION: np.empty_like(values),
                **{Vector(Vector.SLOTS + n): slot[piece] for n, slot in enumerate(self.slots.values())},
            }
            for place, row in enumerate(self.rule.rows):
                *vectors, _ = row.refs
                operands = [spaces[Vector(ref.space)] for ref in vectors]
                row.op.define(*operands, constants[group, place : place + 1], row.whole, row.real)
            if squares is not None:
                squares[number, 2] = sum_of_squares(values - before)


def join(sums: Sequence[Array], order: Order) -> Array:
    """Joins the blocks' sums in the fixed tree. Returns a new array or, if there is one block only, its own.
    The left operands of all additions but the last are overwritten."""
    if not order:
        return sums[0]
    *inner, (left, right) = order
    for a, b in inner:
        np.add(sums[a], sums[b], out=sums[a])
    return np.add(sums[left], sums[right])


def sum_of_squares(gradient: Array, piece: int = PIECE) -> float:
    """The sum of g^2, for the norm. The same pass checks that every entry is finite.

    gradient: (n,), float32 or float64. Returns NaN if an entry is NaN or infinite, and infinity if all are
    finite and float64 cannot hold their sum of squares. Pieces are added in order in float64. So a vector
    that is cut at multiples of `piece` gives the same bits if the sums of its pieces are added in order.
    """
    total = 0.0
    for start in range(0, gradient.size, piece):
        part = gradient[start : start + piece]
        squares = float(np.vdot(part, part))  # np.dot would also check for overflow, which takes 3 us
        if not math.isfinite(squares):
            squares = _exact_sum_of_squares(part)
        total += squares
    return total


def _exact_sum_of_squares(part: Array) -> float:
    """The sum of squares of a piece whose plain sum is not finite: in float32, squares overflow from 1.8e19
    on."""
    if not np.isfinite(part).all():
        return math.nan
    wide = part.astype(np.float64)
    return float(np.vdot(wide, wide))


def cut(
    stretches: Sequence[tuple[int, int]], covers: Sequence[tuple[int, int, int]], piece: int = 4096
) -> Array:
    """The stretches as (start, stop, number), int64, cut at the ends of covers and at multiples of `piece`.
    covers: (start, stop, number), in order and without overlap. Outside of all covers the number is 0."""
    found, places = [], [at for cover in covers for at in cover[:2]]
    for first, last in stretches:
        ends = places[bisect_right(places, first) : bisect_left(places, last)]
        cuts = sorted({first, last, *ends, *range(first - first % piece + piece, last, piece)})
        for start, stop in pairwise(cuts):
            found.append((start, stop, number_of(start, stop, covers)))
    return np.array(found, np.int64).reshape(-1, 3)


def number_of(start: int, stop: int, covers: Sequence[tuple[int, int, int]]) -> int:
    """Returns the number of the cover that contains the stretch, else 0. covers: as in `cut`."""
    at = bisect_right(covers, start, key=itemgetter(0))
    return next((number for _, end, number in covers[max(0, at - 1) : at] if stop <= end), 0)


def _check_vector(what: str, vector: Array, like: Array) -> None:
    fits = vector.shape == (like.size,) and vector.dtype == like.dtype
    if not (fits and vector.flags.c_contiguous and vector.flags.writeable and vector.dtype.kind == "f"):
        raise ValueError(
            f"{what} must be a writable contiguous vector ({like.size},) of {like.dtype};"
            f" found shape {vector.shape} of {vector.dtype}"
        )


def _make_slots(
    initial: Mapping[str, float], like: Array, given: Mapping[str, Array] | None
) -> dict[str, Array]:
    if given is None:
        return {name: np.full(like.size, value, like.dtype) for name, value in initial.items()}
    if given.keys() != initial.keys():
        raise ValueError(
            f"the saved optimizer state has the slots {sorted(given)}, but this optimizer keeps"
            f" {sorted(initial)}; resume with the optimizer that wrote it"
        )
    for name, slot in given.items():
        _check_vector(f"optimizer slot {name!r}", slot, like)
    return {name: given[name] for name in initial}
