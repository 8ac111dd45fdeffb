"""Tails of the logistic and the normal distribution, for whole arrays.

Both tails have one form: distance <- min(|z|, far), tail <- F(-|z|), density <- F'(z), where F is the
distribution function. All arrays have one shape and float dtype; the last three are written and may not
overlap `z`. Tails are accurate relative to themselves, not only to 1. Nothing is allocated.

NumPy has no erfc. Here erfc(x) = exp(-x^2) P(t) / (1 + 2 x) for x >= 0, with t = (x - k) / (x + k), k =
3.75 and P a polynomial: the form of Shepherd and Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2)
erfc x in 0 <= x < infinity", Mathematics of Computation 36 (1981). One polynomial serves all x, so no
branch and no mask is needed. The coefficients were computed anew (Chebyshev interpolation in 60 digits,
then in powers of t, which is well conditioned: the sum of their magnitudes is 1.8). Relative error of P:
4e-16 in float64, 2e-7 in float32.
"""

from __future__ import annotations

import math

import numpy as np

from distbp.core.arrays import Array

# fmt: off
_FLOAT64 = (
    1.2375126308378275, -0.14024059858554697, 0.0035854154854644293, 0.0822767384901452,
    -0.10880393014174886, 0.09230432116037748, -0.05869339858963677, 0.028362277418956406,
    -0.009746579558029276, 0.0017556258528952954, 0.0002937136655913448, -0.0002901540805408417,
    5.164909889268241e-05, 2.238423915508223e-05, -1.1444146237700524e-05, -9.73559896736775e-07,
    1.751637648849062e-06, -5.7218230603224086e-08, -2.5866850716155884e-07, 2.3263508708859124e-08,
    3.8675334242222354e-08, -3.744210080962018e-09, -5.1739902140113095e-09, 3.1114333809799254e-10,
    4.2514714447963895e-10,
)
NORMAL_FLOAT32 = (
    1.2375126300326993, -0.1402406583213864, 0.00358549531406309, 0.08227841998347046,
    -0.10880522754949953, 0.09229076959130378, -0.05868544049363111, 0.02840925236412726,
    -0.009770087183368234, 0.001675912217981131, 0.00033016745627228067, -0.00022411674674416022,
    2.2046718905694024e-05,
)
# fmt: on
NORMAL_K = 3.75 * math.sqrt(2)  # in units of z = sqrt(2) x
_FAR_NORMAL, _FAR_LOGISTIC = 40.0, 800.0  # tails beyond this distance are 0 in both dtypes


_MOST = {np.dtype(np.float32): 88.0, np.dtype(np.float64): 709.0}  # the largest whole z with a finite e^z


def logistic(z: Array, out: Array) -> None:
    """out <- 1 / (1 + exp(-z)). The relative error is small as long as the result is a normal number. `out`
    may be `z`. The form with tanh(z / 2) would lose a decimal digit for each 2.3 that z lies below 0."""
    np.maximum(z, -_MOST[z.dtype], out=out)
    np.negative(out, out=out)
    np.exp(out, out=out)
    np.add(out, 1, out=out)
    np.divide(1, out, out=out)


def logistic_tail(z: Array, *, tail: Array, distance: Array, density: Array) -> None:
    """The tail of F(z) = 1 / (1 + exp(-z)), the logistic distribution."""
    np.abs(z, out=distance)
    np.minimum(distance, _FAR_LOGISTIC, out=distance)
    np.negative(distance, out=density)
    np.exp(density, out=density)
    np.add(density, 1, out=tail)
    np.divide(density, tail, out=tail)
    np.subtract(1, tail, out=density)
    np.multiply(density, tail, out=density)


def normal_tail(z: Array, *, tail: Array, distance: Array, density: Array) -> None:
    """The tail of F(z) = Phi(z) = erfc(-z / sqrt(2)) / 2, the normal distribution."""
    np.abs(z, out=distance)
    np.minimum(distance, _FAR_NORMAL, out=distance)
    t = density
    np.add(distance, NORMAL_K, out=t)
    np.divide(-2 * NORMAL_K, t, out=t)
    np.add(t, 1, out=t)
    coefficients = NORMAL_FLOAT32 if z.dtype == np.float32 else _FLOAT64
    np.multiply(t, coefficients[-1], out=tail)
    for coefficient in coefficients[-2:0:-1]:
        np.add(tail, coefficient, out=tail)
        np.multiply(tail, t, out=tail)
    np.add(tail, coefficients[0], out=tail)
    np.multiply(distance, math.sqrt(2), out=density)
    np.add(density, 1, out=density)
    np.divide(tail, density, out=tail)
    np.multiply(tail, 0.5, out=tail)
    np.multiply(distance, distance, out=density)
    np.multiply(density, -0.5, out=density)
    np.exp(density, out=density)
    np.multiply(tail, density, out=tail)
    np.multiply(density, 1 / math.sqrt(2 * math.pi), out=density)
