"""A compiled rule bound to one vector: joins the sums of a step's blocks and applies it, with several threads
(Numba, optional)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import numpy as np

from distbp.nn.arrays import Array
from distbp.nn.blas import dots
from distbp.optimizers.compiled import Rule
from distbp.optimizers.joined import (
    address,
    constants_of,
    join_and_update,
    shares_of,
    slots_of,
    stretches_of,
    with_decays,
    worth_threads,
)
from distbp.optimizers.measured import join_measure_and_update
from distbp.optimizers.parts import Step


class JoinedUpdate:
    """A rule bound to `parameters` (n,) and its slots; `decays`: stretches [start, stop) that decay.

    `apply` is one update by as many threads as the vector is worth, at most `threads`. shares: the stretches
    of each; pool: of all but the calling one; vectors: the parameters and the two slots. `apply_measured` is
    the same and measures `parts`: of every piece the (tensor, where); only where it `measures`: with NumPy's
    own BLAS."""

    def __init__(
        self,
        rule: Rule,
        parameters: Array,
        slots: Mapping[str, Array],
        decays: Sequence[tuple[int, int]],
        threads: int,
        parts: Sequence[Sequence[tuple[int, slice]]],
    ) -> None:
        self.rule = rule
        threads = worth_threads(parameters.size, threads)
        self.shares = shares_of(stretches_of(parameters.size, decays), threads)
        places = np.array([(w.start, w.stop) for piece in parts for _, w in piece], np.int64).reshape(-1, 2)
        self._parts = with_decays(places[:, 0], places[:, 1], decays)
        self._dots = dots()
        self.vectors = parameters, *slots_of(rule, slots, parameters)
        self.pool = ThreadPoolExecutor(threads - 1, "distbp-update") if threads > 1 else None

    def apply(
        self, sums: Sequence[Array], order: Sequence[tuple[int, int]], step: Step, scale: float
    ) -> None:
        """sums: of each block, (n or more,), of which those left of an addition are overwritten; order: the
        additions; scale: 1 / (the batch's weight)."""
        join = partial(join_and_update, *_addresses(sums, order))
        self._together(join, [(share,) for share in self.shares], step, scale)

    @property
    def measures(self) -> bool:
        return self._dots is not None

    def apply_measured(
        self, sums: Sequence[Array], order: Sequence[tuple[int, int]], step: Step, scale: float
    ) -> Array:
        """The same. Returns the sums of squares of each part, (parts, 3): of the gradient sums, of the
        parameters before the update, and of the update."""
        squares = np.empty((len(self._parts), 3))
        shares = shares_of(self._parts, len(self.shares))
        found = shares_of(squares, len(self.shares))  # views
        join = partial(join_measure_and_update, self._dots, *_addresses(sums, order))
        self._together(join, list(zip(shares, found, strict=True)), step, scale)
        return squares

    def close(self) -> None:
        """Ends the threads. Harmless when there are none, and when called twice."""
        if self.pool is not None:
            self.pool.shutdown()

    def _together(
        self, work: Callable[..., None], each: Sequence[tuple[Array, ...]], step: Step, scale: float
    ) -> None:
        """Calls `work` in every thread with what each is given. Waits."""
        constants = np.array(constants_of(self.rule, step))
        rest: Any = (self.rule.number, *self.vectors, float(scale), self.rule.l2, constants)
        mine, *others = each
        waiting = [self.pool.submit(work, *given, *rest) for given in others if self.pool is not None]
        try:
            work(*mine, *rest)
        finally:
            wait(waiting)  # after Ctrl-C, too: they use the sums by their addresses
        for other in waiting:
            other.result()


def _addresses(sums: Sequence[Array], order: Sequence[tuple[int, int]]) -> tuple[Array, Array]:
    sources = np.array([address(one) for one in sums], np.int64)
    return sources, np.array(order, np.int64).reshape(-1, 2)
