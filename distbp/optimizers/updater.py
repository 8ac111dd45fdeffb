"""The engine that applies an update rule, piece by piece.

A piece is small enough to stay in a core's cache: every part of the chain runs on one piece before the
next piece is touched, so memory is read and written once for a step, not once for a part. All views are made
once. No element's arithmetic depends on its neighbors, so the bits are the same for any size of a piece,
any number of threads and any split of the vectors over updaters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from distbp.optimizers.parts import Apply, Array, BoundPart, Part, Piece, Step

# Waking a thread costs about as much as SGD on this many pieces: fewer are not worth one.
PIECES_WORTH_A_THREAD = 8
PIECE = 32768

_Chain = tuple[int, tuple[Apply, ...]]  # the number of a piece, and what updates it
Fuse = Callable[[Sequence[Part], Piece], Apply | None]


class Watch(Protocol):
    """Is told of the update of every piece, by number, in the thread that does it."""

    def before(self, piece: int) -> None: ...

    def after(self, piece: int) -> None: ...


class Updater:
    """Applies a chain of parts to `parameters`, in place.

    parameters, gradient: (n,), C-contiguous, one floating dtype. `gradient` holds sums over samples when
    `apply` is called; its contents are undefined afterwards. decays: stretches [start, stop) of the vectors
    that L1, L2 and weight decay touch, in any order. slots: existing state, by name, which is used as it
    lies (not copied); None makes fresh state. kernels_name: "numpy" or "numba" (ImportError where Numba is
    missing); the two may round differently. threads: how many threads share the pieces of a large vector.

    `.slots` is the whole state: name -> (n,). Save it after an `apply` and give it back later, and the bits
    go on as if nothing had happened. ValueError where arrays, slots or decays do not fit.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        parameters: Array,
        gradient: Array,
        decays: Sequence[tuple[int, int]],
        *,
        slots: Mapping[str, Array] | None = None,
        piece: int = PIECE,
        kernels_name: str = "numpy",
        threads: int = 1,
    ) -> None:
        _check_vector("the gradient", gradient, parameters)
        _check_vector("the parameters", parameters, parameters)
        self.slots: dict[str, Array] = _make_slots(parts, parameters, slots)
        size = parameters.size
        stretches = _merged(decays, size)
        fuse = _fuse(kernels_name)
        starts = range(0, size, piece)
        self._threads = max(1, min(threads, len(starts) // PIECES_WORTH_A_THREAD))
        share = math.ceil(len(starts) / self._threads)
        self._shares: list[list[_Chain]] = []
        for thread in range(self._threads):
            scratch = np.empty(min(piece, size), parameters.dtype)
            bound = []
            for start in starts[thread * share : (thread + 1) * share]:
                view = slice(start, min(start + piece, size))
                one = Piece(
                    gradient=gradient[view],
                    direction=gradient[view],
                    parameters=parameters[view],
                    slots={name: slot[view] for name, slot in self.slots.items()},
                    decayed=tuple(_within(stretches, view)),
                    scratch=scratch[: view.stop - start],
                )
                bound.append((start // piece, _bind(parts, one, fuse)))
            self._shares.append(bound)
        self._pool = ThreadPoolExecutor(self._threads - 1, "distbp-update") if self._threads > 1 else None

    def apply(self, step: Step, scale: float, watch: Watch | None = None) -> None:
        """One update with the averaged gradient `scale * gradient`; scale is 1 / (the batch's weight)."""
        # A NumPy float64 scalar would make every float32 operation a float64 one: slower, and other bits.
        step = Step(int(step.number), float(step.learning_rate), float(step.gradient_norm))
        scale = float(scale)
        if self._pool is None:
            _run(self._shares[0], step, scale, watch)
            return
        waiting = [self._pool.submit(_run, share, step, scale, watch) for share in self._shares[1:]]
        _run(self._shares[0], step, scale, watch)
        for other in waiting:
            other.result()

    def close(self) -> None:
        """Ends the threads. Harmless when there are none, and when called twice."""
        if self._pool is not None:
            self._pool.shutdown()


def sum_of_squares(gradient: Array, piece: int = PIECE) -> float:
    """The sum of g^2, for the norm, and in the same pass the check that every entry is finite.

    gradient: (n,), float32 or float64. NaN means that an entry is NaN or infinite; infinity, that all are
    finite and their sum of squares is more than float64 holds. Pieces are added in order in float64, so a
    vector cut at multiples of `piece` gives the same bits when the sums of its pieces are added in order.
    """
    total = 0.0
    for start in range(0, gradient.size, piece):
        part = gradient[start : start + piece]
        squares = float(np.vdot(part, part))  # as np.dot, but it does not warn of overflow: 3 us less
        if not math.isfinite(squares):
            squares = _exact_sum_of_squares(part)
        total += squares
    return total


def _exact_sum_of_squares(part: Array) -> float:
    """For a piece whose plain sum is not finite: float32 squares overflow from 1.8e19 on."""
    if not np.isfinite(part).all():
        return math.nan
    wide = part.astype(np.float64)
    return float(np.vdot(wide, wide))


def _run(pieces: Iterable[_Chain], step: Step, scale: float, watch: Watch | None) -> None:
    for number, chain in pieces:
        if watch is not None:
            watch.before(number)
        factor = scale
        for apply in chain:
            factor = apply(step, factor)
        if watch is not None:
            watch.after(number)


def _bind(parts: Sequence[Part], piece: Piece, fuse: Fuse) -> tuple[Apply, ...]:
    fused = fuse(parts, piece)
    if fused is not None:
        return (fused,)
    applies = []
    for part in parts:
        direction, apply = part.bind(piece)
        piece = piece._replace(direction=direction)
        applies.append(apply)
    return (*applies, _descend(piece).apply)


def _descend(piece: Piece) -> BoundPart:
    """The end of every chain: p <- p - u."""
    u, p, scratch = piece.direction, piece.parameters, piece.scratch

    def apply(step: Step, factor: float) -> float:
        np.multiply(u, factor, out=scratch)
        np.subtract(p, scratch, out=p)
        return 0.0

    return BoundPart(u, apply)


def _fuse(kernels_name: str) -> Fuse:
    if kernels_name == "numpy":
        return lambda parts, piece: None
    if kernels_name == "numba":
        from distbp.optimizers.compiled import fuse

        return fuse
    raise ValueError(f"kernels_name is {kernels_name!r}; it must be 'numpy' or 'numba'")


def _check_vector(what: str, vector: Array, like: Array) -> None:
    fits = vector.shape == (like.size,) and vector.dtype == like.dtype
    if not (fits and vector.flags.c_contiguous and vector.flags.writeable and vector.dtype.kind == "f"):
        raise ValueError(
            f"{what} must be a writable contiguous vector ({like.size},) of {like.dtype};"
            f" found shape {vector.shape} of {vector.dtype}"
        )


def _make_slots(parts: Sequence[Part], like: Array, given: Mapping[str, Array] | None) -> dict[str, Array]:
    initial: dict[str, float] = {}
    for part in parts:
        for name, value in part.slots().items():
            if name in initial:
                raise ValueError(f"two parts of one update rule keep a slot named {name!r}")
            initial[name] = value
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


def _merged(decays: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """In order, neighbors joined: fewer calls in the hot loop."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(decays):
        if not 0 <= start <= stop <= size or (merged and start < merged[-1][1]):
            raise ValueError(f"decays must be stretches within 0..{size} that do not overlap; found {decays}")
        if merged and start == merged[-1][1]:
            merged[-1] = (merged[-1][0], stop)
        elif start < stop:
            merged.append((start, stop))
    return merged


def _within(stretches: Sequence[tuple[int, int]], view: slice) -> Iterable[slice]:
    for start, stop in stretches:
        first, last = max(start, view.start), min(stop, view.stop)
        if first < last:
            yield slice(first - view.start, last - view.start)
