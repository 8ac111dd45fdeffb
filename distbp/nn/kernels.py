"""Kernels: the small element-wise steps between two matrix products, each as one call.

Two sets with one contract: plain NumPy here, and compiled ones (`distbp.nn.compiled`, Numba, optional) that
fuse several NumPy calls into one. The sets round differently, so the name of the set is part of the
numerics fingerprint: every process of a job uses the same one.

    activate(z, bias, y, scratch)             z <- z + bias; y <- f(z)           (bias: (units,))
    activate_backward(dy, z, y, scratch, db)  dy <- dy * f'(z); db <- sum of dy over the rows
    softmax_cross_entropy(rows, classes, dtype) makes a function with buffers of its own:
        loss(z, labels, weights, dz) -> loss sum
        z: (rows, classes) logits; labels: (rows,) intp; weights: (rows,) or None.
        dz <- gradient of the weighted sum; `dz` may be `z`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distbp.nn.activations import ACTIVATIONS, Activation
from distbp.nn.arrays import Array

Activate = Callable[[Array, Array, Array, Array], None]
ActivateBackward = Callable[[Array, Array, Array, Array, Array], None]
LossOfLabels = Callable[[Array, Array, Array | None, Array], float]


@dataclass(frozen=True)
class Kernels:
    name: str
    activate: Callable[[Activation], Activate]
    activate_backward: Callable[[Activation], ActivateBackward]
    softmax_cross_entropy: Callable[[int, int, np.dtype[Any]], LossOfLabels]


def _activate(activation: Activation) -> Activate:
    forward = activation.forward

    def activate(z: Array, bias: Array, y: Array, scratch: Array) -> None:
        np.add(z, bias, out=z)
        forward(z, y, scratch)

    return activate


def _activate_backward(activation: Activation) -> ActivateBackward:
    backward = activation.backward

    def activate_backward(dy: Array, z: Array, y: Array, scratch: Array, db: Array) -> None:
        backward(dy, z, y, scratch)
        np.add.reduce(dy, axis=0, out=db)

    return activate_backward


def _softmax_cross_entropy(rows: int, classes: int, dtype: np.dtype[Any]) -> LossOfLabels:
    column = np.empty((rows, 1), dtype)
    flat = column[:, 0]
    picked = np.empty(rows, dtype)
    losses = np.empty(rows)  # float64: many small terms are added
    starts = np.arange(rows, dtype=np.intp) * classes
    places = np.empty(rows, np.intp)

    def loss(z: Array, labels: Array, weights: Array | None, dz: Array) -> float:
        """See the module. Shifted by each row's maximum, so exp cannot overflow. Sums in float64."""
        np.maximum.reduce(z, axis=1, keepdims=True, out=column)
        np.subtract(z, column, out=dz)
        flat_dz = dz.reshape(-1)
        np.add(starts, labels, out=places)
        flat_dz.take(places, out=picked, mode="clip")  # labels were checked; "raise" would copy
        np.exp(dz, out=dz)
        np.add.reduce(dz, axis=1, keepdims=True, out=column)
        np.divide(dz, column, out=dz)
        np.log(flat, out=losses)
        np.subtract(losses, picked, out=losses)
        flat_dz.take(places, out=picked, mode="clip")
        np.subtract(picked, 1, out=picked)
        flat_dz[places] = picked
        if weights is None:
            return float(np.add.reduce(losses))
        np.multiply(dz, weights[:, None], out=dz)
        return float(np.dot(losses, weights))

    return loss


NUMPY = Kernels("numpy", _activate, _activate_backward, _softmax_cross_entropy)


def load(name: str) -> Kernels:
    """The set called `name`: "numpy", "numba" (ImportError where Numba is missing), or "auto": the
    compiled set where Numba is installed, else NumPy's."""
    if name == "numpy":
        return NUMPY
    try:
        from distbp.nn.compiled import NUMBA
    except ImportError:
        if name == "auto":
            return NUMPY
        raise
    return NUMBA


__all__ = ["ACTIVATIONS", "NUMPY", "Kernels", "load"]
