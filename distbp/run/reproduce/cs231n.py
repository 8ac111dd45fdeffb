"""One step of an Elman network, from the exercises of Stanford's cs231n (2016).

The exercise is given a state h; our layer begins with h = 0. So it is run for two steps: its inputs have
columns of their own that, by weights 1, bring in arctanh(h) less the bias, and the first step ends in h.
"""

from __future__ import annotations

import numpy as np

from distbp.core.arrays import Array
from distbp.nn import kernels
from distbp.nn.layers import LAYERS
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.run.reproduce.figures import Curve, Folders, Reproduction, Tell, printed

ROWS, FEATURES, UNITS = 3, 10, 4
PUBLISHED = ("-0.58172089", "-0.50182032", "-0.41232771", "-0.31410098")  # the first row


def _between(low: float, high: float, *shape: int) -> Array:
    return np.linspace(low, high, num=int(np.prod(shape))).reshape(shape)


def states() -> Array:
    """h after the step, (3, 4) float64, by the engine."""
    x, h = _between(-0.4, 0.7, ROWS, FEATURES), _between(-0.2, 0.5, ROWS, UNITS)
    wx, wh = _between(-0.1, 0.9, FEATURES, UNITS), _between(-0.3, 0.7, UNITS, UNITS)
    b = _between(-0.2, 0.4, UNITS)
    network = Network([LAYERS["elman"](units=UNITS)], (2, FEATURES + UNITS), np.float64)
    weight = np.hstack([wx.T, np.eye(UNITS)])  # (units, features), as the layer has it
    vector = np.concatenate([weight.ravel(), wh.T.ravel(), b])
    inputs = np.zeros((ROWS, 2, FEATURES + UNITS))
    inputs[:, 0, FEATURES:] = np.arctanh(h) - b
    inputs[:, 1, :FEATURES] = x
    program = Program(network, ROWS, vector, kernels=kernels.NUMPY)
    program.run(inputs)
    return program.outputs(ROWS).copy()


def reproduce(folders: Folders, tell: Tell) -> Reproduction:
    """Needs nothing, and takes no time."""
    ours = states()[0]
    figures = tuple(
        printed(f"h[0, {unit}]", text, float(value))
        for unit, (text, value) in enumerate(zip(PUBLISHED, ours, strict=True))
    )
    published = [(float(unit), float(text)) for unit, text in enumerate(PUBLISHED)]
    points = [(float(unit), float(value)) for unit, value in enumerate(ours)]
    return Reproduction(
        "One step of an Elman network",
        "Stanford cs231n, assignment 3 (2016), rnn_step_forward",
        figures,
        (Curve("state of the first row", "unit", published, points, dots=True),),
    )
