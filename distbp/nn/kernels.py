"""Kernels: the small element-wise steps between two matrix products, each as one call; and who computes those
products.

Five sets with one contract: plain NumPy here; compiled ones (`distbp.nn.compiled`, Numba, optional) that
fuse several NumPy calls into one; those with large float32 products of our own (`distbp.nn.fma`); those with
MKL's products (`distbp.nn.mkl`, optional); and those with large float32 products on the processor's matrix
unit (`distbp.nn.amx`, where there is one). They round differently, so the name of the set is part of the
numerics fingerprint: every process of a job uses the same one. Each is a factory that is given the buffers
(or their sizes) once and returns the function for the hot loop:

    activate(activation, z, bias, y, scratch) -> step()
        z <- z + bias; y <- f(z). z, y: (rows, units), one buffer where the activation allows; bias: (units,);
        scratch: see `distbp.nn.activations`.
    activate_backward(activation, z, y, scratch, db) -> step(dy)
        dy <- dy * f'(z); db <- sum of dy over the rows
    softmax_cross_entropy(rows, classes, dtype) -> loss(z, labels, weights, dz) -> loss sum
        z: (rows, classes) logits; labels: (rows,) intp, 0 to classes - 1 (not checked here);
        weights: (rows,) or None. dz <- gradient of the weighted sum, C-contiguous; `dz` may be `z`.
        The sum is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distbp.nn.activations import Activation, Scratch
from distbp.nn.arrays import Array
from distbp.nn.blas import Gemm
from distbp.nn.products import NUMPY_PRODUCTS, Products

LossOfLabels = Callable[[Array, Array, Array | None, Array], float]


@dataclass(frozen=True)
class Kernels:
    """A set of kernels; `name` is "numpy", "numba", "fma", "mkl" or "amx". The contract stands at the top of
    the module.

    `products(dtype)`: the matrix products. `updates`: which set of update rules goes with it. `gemm(dtype)`:
    who computes them in compiled code, for those who compile more than kernels (`dense_stack`); None: nobody.
    `largest(values)`: the largest absolute value of a contiguous vector, not finite where one of them is not;
    infinity from a set that does not look.
    """

    name: str
    activate: Callable[[Activation, Array, Array, Array, Scratch], Callable[[], None]]
    activate_backward: Callable[[Activation, Array, Array, Scratch, Array], Callable[[Array], None]]
    softmax_cross_entropy: Callable[[int, int, np.dtype[Any]], LossOfLabels]
    products: Callable[[np.dtype[Any]], Products] = lambda dtype: NUMPY_PRODUCTS
    updates: str = "numpy"
    gemm: Callable[[np.dtype[Any]], Gemm] | None = None
    largest: Callable[[Array], float] = lambda values: math.inf


def _activate(
    activation: Activation, z: Array, bias: Array, y: Array, scratch: Scratch
) -> Callable[[], None]:
    forward = activation.forward
    add = np.add

    def step() -> None:
        add(z, bias, out=z)
        forward(z, y, scratch)

    return step


def _activate_backward(
    activation: Activation, z: Array, y: Array, scratch: Scratch, db: Array
) -> Callable[[Array], None]:
    backward = activation.backward
    total = np.add.reduce

    def step(dy: Array) -> None:
        backward(dy, z, y, scratch)
        total(dy, axis=0, out=db)

    return step


def _softmax_cross_entropy(rows: int, classes: int, dtype: np.dtype[Any]) -> LossOfLabels:
    column = np.empty((rows, 1), dtype)
    flat_column = column[:, 0]
    picked = np.empty(rows, dtype)
    losses = np.empty(rows)  # float64: many small terms are added
    starts = np.arange(rows, dtype=np.intp) * classes
    places = np.empty(rows, np.intp)

    def loss(z: Array, labels: Array, weights: Array | None, dz: Array) -> float:
        # Shifted by each row's maximum, so that exp cannot overflow.
        np.maximum.reduce(z, axis=1, keepdims=True, out=column)
        np.subtract(z, column, out=dz)
        flat = dz.reshape(-1)
        np.add(starts, labels, out=places)
        flat.take(places, out=picked, mode="clip")  # "raise" would copy
        np.exp(dz, out=dz)
        np.add.reduce(dz, axis=1, keepdims=True, out=column)
        np.divide(dz, column, out=dz)
        np.log(flat_column, out=losses)
        np.subtract(losses, picked, out=losses)
        flat.take(places, out=picked, mode="clip")
        np.subtract(picked, 1, out=picked)
        flat[places] = picked
        if weights is None:
            return float(np.add.reduce(losses))
        np.multiply(dz, weights[:, None], out=dz)
        return float(np.dot(losses, weights))

    return loss


NUMPY = Kernels("numpy", _activate, _activate_backward, _softmax_cross_entropy)


def load(name: str) -> Kernels:
    """The set called `name`: "numpy", "numba" (compiled), "fma" (with large products of our own, too), "mkl"
    (with MKL's matrix products) or "amx" (with large products on the matrix unit). Imports what it takes.
    Raises ImportError where that is not there, KeyError for another name."""
    if name == "amx":
        from distbp.nn.amx import AMX

        return AMX
    if name == "fma":
        from distbp.nn.fma import FMA

        return FMA
    if name == "mkl":
        from distbp.nn.mkl import MKL

        return MKL
    if name == "numba":
        from distbp.nn.compiled import NUMBA

        return NUMBA
    return {NUMPY.name: NUMPY}[name]
