"""One step of an Elman network and one of an LSTM, from the exercises of Stanford's cs231n (2016).

The exercises begin with a given state, but our layers begin with zeros. So our layers run one step more:
additional columns of the inputs make that step end in the given state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distbp.core.arrays import Array
from distbp.nn import kernels
from distbp.nn.layers import LAYERS
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.run.explain.figures import Figure, printed
from distbp.run.reproduce.figures import Curve, Folders, Reproduction, Tell

ROWS, FEATURES, UNITS = 3, 10, 4
PUBLISHED = ("-0.58172089", "-0.50182032", "-0.41232771", "-0.31410098")  # the first row
LSTM_FEATURES, LSTM_UNITS = 4, 5
STATES = ("0.24635157", "0.28610883", "0.32240467", "0.35525807", "0.38474904")
# The third is printed as 0.451556 there: NumPy leaves out trailing zeros.
MEMORY = ("0.32986176", "0.39145139", "0.45155600", "0.51014116", "0.56717407")
OPEN = 40.0  # from here on a gate is 1 in float64, and from -OPEN down it is as good as 0


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
    """Needs no data, and takes no time."""
    ours = states()[0]
    return Reproduction(
        "One step of an Elman network",
        "Stanford cs231n, assignment 3 (2016), rnn_step_forward",
        _figures("h", PUBLISHED, ours),
        (_curve("state of the first row", PUBLISHED, ours),),
    )


def lstm_states() -> tuple[Array, Array]:
    """h and c after the step of the LSTM, each (3, 5) float64, by the engine.

    A third step opens the gates f and o and closes i, so its state is tanh(c)."""
    n, k = LSTM_UNITS, LSTM_FEATURES
    x, h, c = _between(-0.4, 1.2, ROWS, k), _between(-0.3, 0.7, ROWS, n), _between(-0.4, 0.9, ROWS, n)
    wx, wh, b = _between(-2.1, 1.3, k, 4 * n), _between(-0.7, 2.2, n, 4 * n), _between(0.3, 0.7, 4 * n)
    order = np.r_[0 : 2 * n, 3 * n : 4 * n, 2 * n : 3 * n]  # the exercise has i, f, o, g; we have i, f, g, o
    wx, wh, b = wx[:, order], wh[:, order], b[order]
    # Separate columns: one for all of i, one for all of f, and one for each unit of g and of o.
    own = np.zeros((4 * n, 2 + 2 * n))
    own[:n, 0] = own[n : 2 * n, 1] = 1
    own[2 * n :, 2:] = np.eye(2 * n)
    inputs = np.zeros((ROWS, 3, k + 2 + 2 * n))
    o = h / np.tanh(c)
    inputs[:, 0, k] = OPEN
    inputs[:, 0, k + 2 :] = np.hstack([np.arctanh(c), np.log(o / (1 - o))]) - b[2 * n :]
    inputs[:, 1, :k] = x
    inputs[:, 2, k : k + 2] = -OPEN, OPEN
    inputs[:, 2, k + 2 + n :] = OPEN
    layer = LAYERS["lstm"](units=n, return_sequences=True)
    network = Network([layer], inputs.shape[1:], np.float64)
    vector = np.concatenate([np.hstack([wx.T, own]).ravel(), wh.T.ravel(), b])
    program = Program(network, ROWS, vector, kernels=kernels.NUMPY)
    program.run(inputs)
    found = program.outputs(ROWS)
    return found[:, 1].copy(), np.arctanh(found[:, 2])


def reproduce_lstm(folders: Folders, tell: Tell) -> Reproduction:
    """Needs no data, and takes no time."""
    h, c = (one[0] for one in lstm_states())
    return Reproduction(
        "One step of an LSTM",
        "Stanford cs231n, assignment 3 (2016), lstm_step_forward",
        _figures("h", STATES, h) + _figures("c", MEMORY, c),
        (_curve("state of the first row", STATES, h), _curve("memory of the first row", MEMORY, c)),
    )


def _figures(letter: str, published: Sequence[str], ours: Array) -> tuple[Figure, ...]:
    pairs = enumerate(zip(published, ours, strict=True))
    return tuple(printed(f"{letter}[0, {unit}]", text, float(value)) for unit, (text, value) in pairs)


def _curve(title: str, published: Sequence[str], ours: Array) -> Curve:
    points = [(float(unit), float(text)) for unit, text in enumerate(published)]
    return Curve(title, "unit", points, [(float(u), float(v)) for u, v in enumerate(ours)], dots=True)
