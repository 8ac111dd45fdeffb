"""The totals that travel with the gradient of a block: a few float64 sums, joined in the same tree.

[loss, weight, rows, then (saturated, all) units for each layer that can saturate, bound]

Rows are those that running statistics are taken over: where there are some, without slices of one row.

The bound is at least every absolute value of the gradient, and of what it is joined to: a sum of bounds is a
bound of the sums. Infinity or NaN says that nobody looked, or that the gradient is not finite.
"""

from __future__ import annotations

import numpy as np

from distbp.blueprint import Blueprint
from distbp.nn.kernels import NUMPY

LOSS, WEIGHT, ROWS, SATURATION = 0, 1, 2, 3
BOUND = -1

# A gradient with a smaller bound is finite: it is less than the largest float32.
SURELY_FINITE = 1e38


def saturating_layers(blueprint: Blueprint) -> list[int]:
    """Numbers of the layers that report saturated units, in the order of the totals."""
    network = blueprint.network()
    # Bound in order to be asked, never run: zeros will do for parameters, and any kernels for the job's.
    program = network.bind(1, np.zeros(network.size, network.dtype), kernels=NUMPY, seed=blueprint.job.seed)
    return [index for index, _ in program.saturated]


def totals_size(blueprint: Blueprint) -> int:
    """How many totals a block has."""
    return SATURATION + 2 * len(saturating_layers(blueprint)) + 1
