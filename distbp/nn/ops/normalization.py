"""Batch and layer normalization: y = scale * n + shift, with n = (x - mean) / sqrt(variance + epsilon).

With g = dy * scale, the gradient is dx = (g - average(g) - n * average(g * n)) / sqrt(variance + epsilon).
Averages run over the same numbers as mean and variance (Ioffe and Szegedy, ICML 2015, section 3). The
variance is biased. x, n, y, dy, dx: (rows, features). scale, shift, d_scale, d_shift: (1, features). root:
sqrt(variance + epsilon). real: (epsilon,).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole, element_ops


def _batch(
    x: Array, scale: Array, shift: Array, n: Array, root: Array, y: Array, mean: Array, variance: Array,
    whole: Whole, real: Real,
) -> None:  # fmt: skip
    """Normalizes each column over the rows of x. mean, variance (1, features) <- the statistics of this slice
    times its samples, for the running statistics; this variance is unbiased. root: (1, features).

    whole[0]: matrix rows for each sample. A slice of one sample has no unbiased variance and contributes 0.
    """
    count = len(x)
    samples = count // whole[0]
    samples = samples if samples > 1 else 0
    average = np.add.reduce(x, axis=0, keepdims=True) / x.dtype.type(count)
    np.subtract(x, average, out=n)
    spread = np.add.reduce(n * n, axis=0, keepdims=True) / x.dtype.type(count)
    np.multiply(average, samples, out=mean)
    np.multiply(spread, samples * count / max(1, count - 1), out=variance)
    np.sqrt(spread + x.dtype.type(real[0]), out=root)
    np.divide(n, root, out=n)
    np.add(n * scale, shift, out=y)


def _batch_running(
    x: Array, scale: Array, shift: Array, mean: Array, variance: Array, y: Array, whole: Whole, real: Real
) -> None:
    """Normalizes with the running statistics. mean, variance: (1, features)."""
    np.subtract(x, mean, out=y)
    np.multiply(y, scale / np.sqrt(variance + x.dtype.type(real[0])), out=y)
    np.add(y, shift, out=y)


def _batch_backward(
    dy: Array, n: Array, root: Array, scale: Array, d_scale: Array, d_shift: Array, dx: Array,
    whole: Whole, real: Real,
) -> None:  # fmt: skip
    """dx may be dy, or absent."""
    np.add.reduce(dy * n, axis=0, keepdims=True, out=d_scale)
    np.add.reduce(dy, axis=0, keepdims=True, out=d_shift)
    if len(dx):
        count = dy.dtype.type(len(dy))
        np.multiply(dy - d_shift / count - n * (d_scale / count), scale / root, out=dx)


def _layer(
    x: Array, scale: Array, shift: Array, n: Array, root: Array, y: Array, whole: Whole, real: Real
) -> None:
    """Normalizes each row over the columns of x. root: (rows, 1)."""
    features = x.dtype.type(x.shape[1])
    np.subtract(x, np.add.reduce(x, axis=1, keepdims=True) / features, out=n)
    np.sqrt(np.add.reduce(n * n, axis=1, keepdims=True) / features + x.dtype.type(real[0]), out=root)
    np.divide(n, root, out=n)
    np.add(n * scale, shift, out=y)


def _layer_backward(
    dy: Array, n: Array, root: Array, scale: Array, d_scale: Array, d_shift: Array, dx: Array,
    whole: Whole, real: Real,
) -> None:  # fmt: skip
    """dx may be dy, or absent."""
    np.add.reduce(dy * n, axis=0, keepdims=True, out=d_scale)
    np.add.reduce(dy, axis=0, keepdims=True, out=d_shift)
    if len(dx):
        features = dy.dtype.type(dy.shape[1])
        g = dy * scale
        along = np.add.reduce(g * n, axis=1, keepdims=True) / features
        level = np.add.reduce(g, axis=1, keepdims=True) / features
        np.divide(g - level - n * along, root, out=dx)


_OVER_ROWS = "row after row"
_LOOPS = "distbp.nn.ops.loops_normalization:"


def _op(name: str, operands: str, define: Callable[..., None], order: str, cost: int) -> Op:
    return Op(name, operands, define, _LOOPS + name, order, element_ops(cost))


NORMALIZATION = (
    _op("batch_norm", "fffFFFFF", _batch, _OVER_ROWS, 8),
    _op("batch_norm_running", "fffffF", _batch_running, "", 3),
    _op("batch_norm_backward", "ffffFFF", _batch_backward, _OVER_ROWS, 9),
    _op("layer_norm", "fffFFF", _layer, "eight sums over each row", 8),
    _op(
        "layer_norm_backward", "ffffFFF", _layer_backward,
        "gradients: row after row; within a row eight sums", 12,
    ),
)  # fmt: skip
