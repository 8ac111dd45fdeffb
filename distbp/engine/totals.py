"""The totals that are pushed with the gradient of a block: a few float64 sums, joined in the same tree.

[loss, weight, rows, live rows of each unit that can saturate, bound]

The loss is the weighted sum over rows; the weight is the sum of the rows' weights. The rows are those that
enter running statistics: a network with such statistics leaves out slices of one row. A row is live for a
unit that is not saturated on this row. With evolution, the losses of the copies take the place of the live
rows: those of pair n stand at 2n and 2n + 1.

The bound is not below any absolute value of the gradient. A sum of bounds is a bound of the sum, so this
holds after joins, too. Infinity or NaN says that the gradient was not checked, or is not finite.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distbp.core.arrays import Array
from distbp.engine.blueprint import Blueprint
from distbp.nn.lowered import lower

LOSS, WEIGHT, ROWS, LIVE = 0, 1, 2, 3
BOUND = -1

# A gradient with a smaller bound is finite: the largest float32 is 3.4e38.
SURELY_FINITE = 1e38


def saturating_layers(blueprint: Blueprint) -> dict[int, int]:
    """The number of each layer's units that can saturate, by the layer's number, in the order of the totals.
    Empty for evolution, which does not count them."""
    if blueprint.job.optimizer.copies:
        return {}
    return {watched.layer: watched.units for watched in lower(blueprint.network(), 1).watched}


def dead_share(saturating: Mapping[int, int], epoch_totals: Array) -> dict[str, float]:
    """The share of each layer's units that were saturated on all rows of an epoch, by "layers.N". saturating:
    see `saturating_layers`."""
    shares, place = {}, LIVE
    for layer, units in saturating.items():
        shares[f"layers.{layer}"] = float(np.mean(epoch_totals[place : place + units] == 0))
        place += units
    return shares


def totals_size(blueprint: Blueprint) -> int:
    """The number of totals of a block."""
    return LIVE + blueprint.job.optimizer.copies + sum(saturating_layers(blueprint).values()) + 1
