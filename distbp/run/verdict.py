"""The verdict on a run, after every epoch and at its end: is it learning, or what is wrong?

The training loss is compared with two values that depend on the data alone: the loss of the best constant
prediction, and the loss of outputs that are all 0. So the verdict is the same for any number of workers, and
after any resume. It does not influence training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.data.prepared import PreparedRows
from distbp.engine.blueprint import Blueprint
from distbp.engine.evaluation import step_by_step
from distbp.nn.losses.several import Head, heads_of
from distbp.nn.program import loss_sum

SAMPLE = 1 << 22  # numbers of targets, or of inputs, that are looked at, in rows that are evenly spread
EARLY = 5  # epochs in which a run must become better than a constant
NEARLY = 1e-3  # of the constant's loss: a smaller gain is none
DEAD = 0.5  # the share of a layer's units that must be dead for a warning
LARGE, SMALL = 10.0, 1e-3  # inputs are unscaled if the largest column's root mean square is beyond these


class Expected(NamedTuple):
    """`constant`: the loss of the best constant prediction. `untrained`: the loss of outputs that are 0.
    `inputs`: the root mean square of the largest column of prepared inputs; NaN if the inputs are ids, or if
    the first layer normalizes them."""

    constant: float
    untrained: float
    inputs: float


class EpochLosses(NamedTuple):
    """The mean training losses of a run's epochs, and their number."""

    first: float
    lowest: float
    last: float
    epochs: int

    @staticmethod
    def after(before: EpochLosses | None, loss: float) -> EpochLosses:
        if before is None:
            return EpochLosses(loss, loss, loss, 1)
        return EpochLosses(before.first, min(before.lowest, loss), loss, before.epochs + 1)


def expected(blueprint: Blueprint, rows: PreparedRows) -> Expected:
    """The values with which the run is compared, from the training rows. Takes milliseconds, for large data a
    tenth of a second."""
    network = blueprint.network()
    heads = heads_of(blueprint.job.loss, network.answer_shapes)
    outputs = sum(head.outputs[1] for head in heads)
    some = slice(None, None, max(1, -(-len(rows) * network.answers * outputs // SAMPLE)))
    targets, weights = rows.targets[some], None if rows.weights is None else rows.weights[some]
    if network.carry is not None:
        nothing = np.empty((0, outputs))
        _, targets, weights = step_by_step(nothing, targets, weights)
    total = len(targets) if weights is None else float(weights.sum(dtype=np.float64))
    if not total:
        return Expected(math.nan, math.nan, math.nan)
    constant = untrained = 0.0
    for head in heads:
        losses = _of_head(head, head.targets_of(targets), weights, total)
        constant, untrained = constant + head.factor * losses[0], untrained + head.factor * losses[1]
    return Expected(constant, untrained, _size(blueprint, rows))


def _of_head(head: Head, targets: Array, weights: Array | None, total: float) -> tuple[float, float]:
    """The losses of one head: of the best constant prediction, and of outputs that are 0. total: the sum of
    the weights."""
    loss, (_, outputs) = head.loss, head.outputs
    if targets.ndim == 1:
        mean = middle = np.bincount(targets, weights, outputs) / total
    else:
        mean = np.average(targets, axis=0, weights=weights).astype(np.float64)
        middle = np.median(targets, axis=0).astype(np.float64)

    def mean_loss(constant: Array) -> float:
        lost = 0.0
        for start in range(0, len(targets), size := max(1, 2**18 // outputs)):
            part = slice(start, start + size)
            t = targets[part] if targets.ndim == 1 else targets[part].astype(np.float64)
            w = None if weights is None else weights[part].astype(np.float64)
            lost += loss_sum(loss, np.tile(constant, (len(t), 1)), t, w)
        return lost / total

    best = loss.constant(mean, middle)
    start = best if loss.takes == "probabilities" else np.zeros(outputs)
    return mean_loss(best), mean_loss(start)


def _size(blueprint: Blueprint, rows: PreparedRows) -> float:
    """See `Expected.inputs`."""
    network = blueprint.network()
    if (network.entry or network.layers[0]).rescales or network.ids_below is not None:
        return math.nan  # ids have no scale
    count = max(1, min(len(rows), SAMPLE // max(1, math.prod(rows.input_shape))))
    x = np.empty((count, *rows.input_shape), blueprint.dtype)
    rows.gather(np.arange(count) * len(rows) // count, x)
    x = x.reshape(count, -1)[:, : math.prod(network.input_shape)]  # without the lengths
    if named := network.named_inputs:
        numbers = [np.r_[entry.first : entry.end] for entry in named if entry.ids_below is None]
        if not numbers:
            return math.nan
        x = x[:, np.concatenate(numbers)]
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64), axis=0).max()))


def unhealthy(
    expected: Expected, losses: EpochLosses, dead: Mapping[str, float], ended: bool
) -> dict[str, str]:
    """What is wrong with a run, by name, each in a sentence that says what to try. Empty if nothing is wrong.

    Names: "diverged", "no_better" (than a constant), "saturated", "unscaled_inputs". `dead`: the share of
    units, by layer, that were saturated on all rows of the epoch.
    """
    faults = {}
    constant, last = expected.constant, losses.last
    bar = max(constant, expected.untrained)
    above, size = last - bar, abs(bar)
    # The loss rose, or it never fell near an untrained network's loss. A bar of 0 has no size to compare
    # with.
    if above > size > 0 and (last - losses.lowest > size or (above > 9 * size and last > losses.first / 2)):
        faults["diverged"] = (
            f"training diverged: its loss ended at {last:.4g}, and that of the best constant prediction is"
            f" {constant:.4g}; lower learning_rate, or set clip"
        )
    elif (ended or losses.epochs >= EARLY) and constant - losses.lowest <= NEARLY * abs(constant) != 0:
        faults["no_better"] = (
            f"nothing was learned: the training loss never fell below {losses.lowest:.4g}, and that of the"
            f" best constant prediction is {constant:.4g}; try more epochs or another learning_rate, or scale"
            " the inputs"
        )
    layers = [f"{name} ({share:.0%})" for name, share in dead.items() if share >= DEAD]
    if layers:
        faults["saturated"] = (
            f"units are saturated on all rows of the epoch in {', '.join(layers)}, and do not learn; lower"
            " learning_rate, or take the activation leaky_relu"
        )
    if expected.inputs > LARGE or expected.inputs < SMALL:
        faults["unscaled_inputs"] = (
            f"the inputs are not scaled: a typical value of the largest column is {expected.inputs:.4g};"
            " set data.standardize: true, or data.scale"
        )
    return faults
