"""An update that is measured: with the pass that joins the sums and applies a compiled rule, the norms of the
gradient, of the parameters and of the update, while they lie in a cache (Numba, optional).

The update has the bits of `joined`, the norms those of `distbp.health.NormsOfUpdate`, which takes some ten
calls of NumPy for each part of a tensor, so that threads mostly wait for each other.
"""

from __future__ import annotations

import numpy as np

from distbp.nn.arrays import Array
from distbp.nn.blas import Dots
from distbp.nn.dot import sum_of_squares
from distbp.nn.jit import jit
from distbp.optimizers.compiled import update
from distbp.optimizers.joined import joined_sums


@jit
def join_measure_and_update(
    dots: Dots,
    sources: Array,
    order: Array,
    parts: Array,
    squares: Array,
    rule: int,
    parameters: Array,
    first: Array,
    second: Array,
    scale: float,
    l2: float,
    constants: Array,
) -> None:
    """As `join_and_update`. parts: (start, stop, whether it decays), each within one tensor and one piece;
    squares: (parts, 3), the sums of squares of the gradient sums, of the parameters before, of the update."""
    longest = 0
    for i in range(parts.shape[0]):
        longest = max(longest, parts[i, 1] - parts[i, 0])
    room, change = np.empty(longest, parameters.dtype), np.empty(longest, parameters.dtype)
    keep, after_keep = constants[0], constants[1:]
    for i in range(parts.shape[0]):
        start, stop, decays = parts[i, 0], parts[i, 1], parts[i, 2]
        values, moved = parameters[start:stop], change[: stop - start]
        sums = joined_sums(sources, order, start, values, room)
        squares[i, 0] = sum_of_squares(dots, sums)
        squares[i, 1] = sum_of_squares(dots, values)
        moved[:] = values
        update(
            rule, values, sums, first[start:stop], second[start:stop], scale,
            l2 if decays else 0.0, keep if decays else 1.0, after_keep,
        )  # fmt: skip
        for n in range(moved.size):
            moved[n] = values[n] - moved[n]
        squares[i, 2] = sum_of_squares(dots, moved)
