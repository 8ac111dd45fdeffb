"""The totals that travel with the gradient of a block: a few float64 sums, joined in the same tree.

[loss, weight, rows, then (saturated, all) units for each layer that can saturate]
"""

from __future__ import annotations

from distbp.blueprint import Blueprint
from distbp.nn import kernels

LOSS, WEIGHT, ROWS, SATURATION = 0, 1, 2, 3


def saturating_layers(blueprint: Blueprint) -> list[int]:
    """Numbers of the layers that report saturated units, in the order of the totals."""
    network = blueprint.network()
    program = network.bind(
        1, network.initialize(0), kernels=kernels.load(blueprint.kernels), seed=blueprint.job.seed
    )
    return [index for index, _ in program.saturated]


def totals_size(blueprint: Blueprint) -> int:
    """How many totals a block has."""
    return SATURATION + 2 * len(saturating_layers(blueprint))
