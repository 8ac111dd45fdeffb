"""Losses as ops, (y, targets, d, losses), and ops that add up losses.

y: the outputs of the network, (rows, outputs). targets: int64 labels (rows, 1), or values (rows, outputs) in
the network's dtype. losses <- the loss of each output, (rows, outputs), or for labels the loss of each row,
(rows, 1), without the loss factor. d <- the gradient of the sum of the rows' losses with respect to y.
`add_losses` applies the weights of the rows.

real: (loss factor, gradient factor, ...), by which a formula's loss and derivative are multiplied.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole, element_ops

# PyTorch's bounds (see BCELoss): no logarithm is below -100, no divisor below 1e-12.
LOWEST_LOG = -100.0
SMALLEST_DIVISOR = 1e-12
POISSON_EPSILON = 1e-8  # keeps log(y) and 1 / y finite at y = 0; PyTorch's default

Formula = Callable[[Array, Array, Real], tuple[Array, Array]]  # from (y, t, real) to (losses, derivative)


def _elementwise(formula: Formula) -> Callable[..., None]:
    def loss(y: Array, t: Array, d: Array, losses: Array, whole: Whole, real: Real) -> None:
        losses[:], derivative = formula(y, t, real)
        np.multiply(derivative, y.dtype.type(real[1]), out=d)

    return loss


def _add_losses(
    losses: Array, weights: Array, d: Array, loss: Array, weight: Array, whole: Whole, real: Real
) -> None:
    """loss (1, 1) += the weighted sum of the losses, times real[0]; weight (1, 1) += the sum of the weights;
    d <- d times the weights, (rows, 1). If weights are absent, all are 1."""
    rows = losses.sum(axis=1, dtype=np.float64)
    if len(weights):
        rows = rows * weights[:, 0]
        np.multiply(d, weights, out=d)
    loss[0, 0] += real[0] * rows.sum()
    weight[0, 0] += weights.sum(dtype=np.float64) if len(weights) else len(d)


def _join_loss(own: Array, total: Array, d: Array, whole: Whole, real: Real) -> None:
    """Joins the loss of one of several outputs, with the factor real[0]: total (1, 1) += own (1, 1), its loss
    sum, times the factor; d <- d times the factor."""
    total[0, 0] += real[0] * own[0, 0]
    np.multiply(d, d.dtype.type(real[0]), out=d)


def _take_labels(targets: Array, labels: Array, whole: Whole, real: Real) -> None:
    """labels (rows, 1), int64 <- column whole[0] of the targets (rows, columns)."""
    labels[:, 0] = targets[:, whole[0]]


def _squares(y: Array, t: Array, real: Real) -> tuple[Array, Array]:
    return (y - t) * (y - t), y - t


def _absolute(y: Array, t: Array, real: Real) -> tuple[Array, Array]:
    return np.abs(y - t), np.sign(y - t)


def _huber(y: Array, t: Array, real: Real) -> tuple[Array, Array]:
    """With e = y - t and c = e clipped to +-delta (real[2]), both branches of the loss are c (2e - c) / 2.
    Returns twice the loss; the loss factor divides by 2."""
    e, delta = y - t, y.dtype.type(real[2])
    c = np.minimum(np.maximum(e, -delta), delta)
    return c * (2 * e - c), c


def _poisson_log(y: Array, t: Array, real: Real) -> tuple[Array, Array]:
    rate = np.exp(y)
    return rate - t * y, rate - t


def _poisson(y: Array, t: Array, real: Real) -> tuple[Array, Array]:
    rate = y + y.dtype.type(POISSON_EPSILON)
    return y - t * np.log(rate), 1 - t / rate


def _perceptron(z: Array, t: Array, real: Real) -> tuple[Array, Array]:
    wrong = (z > 0).astype(z.dtype) - t
    return wrong * z, wrong


def _sigmoid_cross_entropy(z: Array, t: Array, real: Real) -> tuple[Array, Array]:
    """-t log s(z) - (1 - t) log(1 - s(z)), with the logistic function s; derivative s(z) - t.

    With h = 1 for z >= 0, else 0, and q = s(-|z|), the derivative is (h - t) - q for z >= 0, else
    (h - t) + q. The loss is log(1 + exp(-|z|)) + z (h - t), where both terms are at least 0. Neither formula
    overflows or loses digits near 0.
    """
    small = np.exp(-np.abs(z))
    h = 0.5 + np.copysign(0.5, z) - t  # by the sign bit, as below; so -0 counts as negative
    return np.log1p(small) + z * h, h - np.copysign(small / (1 + small), z)


def _binary_cross_entropy(p: Array, t: Array, real: Real) -> tuple[Array, Array]:
    with np.errstate(divide="ignore"):  # log(0) is -inf, which becomes -100
        yes, no = np.maximum(np.log(p), LOWEST_LOG), np.maximum(np.log(1 - p), LOWEST_LOG)
    return -(yes * t + no * (1 - t)), (p - t) / np.maximum((1 - p) * p, y_type(p, SMALLEST_DIVISOR))


def y_type(like: Array, value: float) -> Array:
    """`value` in the dtype of `like`."""
    return like.dtype.type(value)  # type: ignore[no-any-return]


def _softmax_cross_entropy(
    z: Array, labels: Array, d: Array, losses: Array, whole: Whole, real: Real
) -> None:
    """-log softmax(z) at the label; derivative softmax(z) - target. real[2]: the share s of the target that
    is spread over all classes: the target is (1 - s) onehot + s / classes (Szegedy et al., 2016)."""
    row, label = np.arange(len(z)), labels[:, 0]
    on, off = y_type(z, 1 - real[2]), y_type(z, real[2] / z.shape[1])
    shifted = z - z.max(axis=1, keepdims=True)  # so that exp cannot overflow
    spread = real[2] / z.shape[1] * shifted.sum(axis=1, dtype=np.float64) if real[2] else 0.0
    np.exp(shifted, out=d)
    sums = d.sum(axis=1, keepdims=True)
    np.divide(d, sums, out=d)
    if real[2]:
        np.subtract(d, off, out=d)
    d[row, label] -= on
    losses[:, 0] = np.log(sums[:, 0]).astype(np.float64) - on * shifted[row, label] - spread


def _nll(p: Array, labels: Array, d: Array, losses: Array, whole: Whole, real: Real) -> None:
    """-log p at the label; derivative -1 / p there, elsewhere 0."""
    row, label = np.arange(len(p)), labels[:, 0]
    chosen = p[row, label]
    with np.errstate(divide="ignore"):
        losses[:, 0] = -np.maximum(np.log(chosen), LOWEST_LOG)
    d.fill(0)
    d[row, label] = -1 / np.maximum(chosen, y_type(p, SMALLEST_DIVISOR))


def _hinge(z: Array, labels: Array, d: Array, losses: Array, whole: Whole, real: Real) -> None:
    """max(0, margin - z_y + z_j)^power over the classes j other than y, divided by the number of all
    classes.

    real[2]: the margin; whole[0]: the power, 1 or 2.
    """
    row, label = np.arange(len(z)), labels[:, 0]
    over = np.maximum(z + (y_type(z, real[2]) - z[row, label])[:, None], 0)
    over[row, label] = 0
    factor = y_type(z, real[1] * whole[0])
    np.multiply(over if whole[0] == 2 else (over > 0), factor, out=d)
    d[row, label] -= d.sum(axis=1)
    losses[:, 0] = (over * over if whole[0] == 2 else over).sum(axis=1, dtype=np.float64)


_HERE = "distbp.nn.ops.loops_losses:"
_ORDER = "a row's outputs in four sums, then row after row, in float64"


def _values(name: str, formula: Formula, cost: int) -> Op:
    return Op(name, "ffFF", _elementwise(formula), _HERE + name, "", element_ops(cost))


def _labels(name: str, loss: Callable[..., None], cost: int) -> Op:
    return Op(name, "fiFF", loss, _HERE + name, "classes one after the other", element_ops(cost))


LOSS_OPS = (
    Op("add_losses", "ffFDD", _add_losses, f"{_HERE}add_losses", _ORDER, element_ops(2)),
    Op("join_loss", "dDF", _join_loss, f"{_HERE}join_loss"),
    Op("take_labels", "fI", _take_labels, f"{_HERE}take_labels", "", element_ops(0)),
    _values("squares", _squares, 4),
    _values("absolute", _absolute, 4),
    _values("huber", _huber, 8),
    _values("poisson_log", _poisson_log, 20),
    _values("poisson", _poisson, 20),
    _values("perceptron", _perceptron, 3),
    _values("sigmoid_cross_entropy", _sigmoid_cross_entropy, 40),
    _values("binary_cross_entropy", _binary_cross_entropy, 40),
    _labels("softmax_cross_entropy", _softmax_cross_entropy, 25),
    _labels("nll", _nll, 2),
    _labels("hinge", _hinge, 6),
)
