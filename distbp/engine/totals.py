"""The totals that travel with the gradient of a block: a few float64 sums, joined in the same tree.

[loss, weight, rows, then for each unit that can saturate the rows in which it did not, bound]

Where copies of the parameters are evaluated in place of the gradient, their losses stand in place of the rows
of units: those of pair n at 2n and 2n + 1.

Rows are those that running statistics are taken over. A network with such statistics leaves out slices of one
row.

The bound is at least every absolute value of the gradient, and of what it is joined to: a sum of bounds is a
bound of the sums. Infinity or NaN says that the gradient was not looked at, or is not finite.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distbp.core.arrays import Array
from distbp.engine.blueprint import Blueprint
from distbp.nn.lowered import lower

LOSS, WEIGHT, ROWS, LIVE = 0, 1, 2, 3
BOUND = -1

# A gradient with a smaller bound is finite: it is less than the largest float32.
SURELY_FINITE = 1e38


def saturating_layers(blueprint: Blueprint) -> dict[int, int]:
    """How many units each layer has that can saturate, by the layer's number, in the order of the totals.
    Empty where they are not counted."""
    if blueprint.job.optimizer.copies:
        return {}
    return {one.layer: one.units for one in lower(blueprint.network(), 1).watched}


def dead_share(saturating: Mapping[int, int], epoch_totals: Array) -> dict[str, float]:
    """By layer, the share of units that were saturated on all rows of an epoch. saturating: as of
    `saturating_layers`."""
    found, place = {}, LIVE
    for layer, units in saturating.items():
        found[f"layers.{layer}"] = float(np.mean(epoch_totals[place : place + units] == 0))
        place += units
    return found


def totals_size(blueprint: Blueprint) -> int:
    """How many totals a block has."""
    return LIVE + blueprint.job.optimizer.copies + sum(saturating_layers(blueprint).values()) + 1
