"""exp, the logistic function, tanh, sine and cosine for compiled loops over float32 (Numba, optional).

Each function is straight-line code without calls or branches, so the compiler turns a loop over it into
vector instructions. The C library's functions would compute one value at a time. NaN gives NaN. The largest
errors, against float64, are 1 ulp for exp, 2 ulp for the logistic function, and 3 ulp for tanh. Every
operation is written out and the compiler may reorder none, so the bits do not depend on the position of a
value in a vector.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from distbp.machine.distributions import NORMAL_FLOAT32, NORMAL_K
from distbp.machine.scalars import as_float

_inline: Any = njit(inline="always", error_model="numpy")

_LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts. The first has so few bits that its product with a small whole number is exact (Cody and
# Waite, "Software Manual for the Elementary Functions", 1980).
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(0.693147180559945309417 - 0.693359375)
_ONE, _HALF, _TWO = np.float32(1), np.float32(0.5), np.float32(2)
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / n) for n in (2, 6, 24, 120, 720, 5040))
_LOWEST, _HIGHEST = np.float32(-87.0), np.float32(88.0)


@_inline  # type: ignore[untyped-decorator]
def _reduced(x: np.float32) -> Any:
    """Returns (2^n, exp(r) - 1), where x = n ln 2 + r and |r| <= ln 2 / 2. x must be from -87 to 88."""
    n = np.floor(x * _LOG2_E + _HALF)
    n = n if n == n else np.float32(0)  # NaN has no whole number; r below stays NaN
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    series = r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7)))))
    power = as_float(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))
    return power, r + r * series


@_inline  # type: ignore[untyped-decorator]
def exp(x: np.float32) -> Any:
    """e^x. Returns 0 below -87, where float32 begins to lose digits, and e^88 above 88."""
    inside = _LOWEST if x < _LOWEST else x
    inside = _HIGHEST if inside > _HIGHEST else inside
    power, rest = _reduced(inside)
    value = power + power * rest
    return np.float32(0) if x < _LOWEST else value


@_inline  # type: ignore[untyped-decorator]
def logistic(x: np.float32) -> Any:
    """1 / (1 + e^-x)."""
    return _ONE / (_ONE + exp(-x))


@_inline  # type: ignore[untyped-decorator]
def tanh(x: np.float32) -> Any:
    """(e^2|x| - 1) / (e^2|x| + 1) with the sign of x. The numerator is computed without cancellation."""
    twice = np.abs(x) * _TWO
    twice = np.float32(40) if twice > np.float32(40) else twice
    power, rest = _reduced(twice)
    less_one = power * rest + (power - _ONE)
    return np.copysign(less_one / (less_one + _TWO), x)


@_inline  # type: ignore[untyped-decorator]
def expm1(x: np.float32) -> Any:
    """e^x - 1 for x up to 88, without cancellation. -1 below -87."""
    inside = _LOWEST if x < _LOWEST else x
    inside = _HIGHEST if inside > _HIGHEST else inside
    power, rest = _reduced(inside)
    return power * rest + (power - _ONE)


_L3, _L5, _L7, _L9, _L11, _L13, _L15 = (np.float32(1 / n) for n in (3, 5, 7, 9, 11, 13, 15))


@_inline  # type: ignore[untyped-decorator]
def log1p(x: np.float32) -> Any:
    """log(1 + x) for x from 0 to 1: twice the inverse hyperbolic tangent of x / (2 + x), as a series."""
    t = x / (_TWO + x)
    s = t * t
    series = s * (_L3 + s * (_L5 + s * (_L7 + s * (_L9 + s * (_L11 + s * (_L13 + s * _L15))))))
    return _TWO * (t + t * series)


_K = np.float32(NORMAL_K)
_TWO_K, _FAR, _ROOT2 = np.float32(2 * NORMAL_K), np.float32(40), np.float32(math.sqrt(2))
_DENSITY = np.float32(1 / math.sqrt(2 * math.pi))
_P0, _P1, _P2, _P3, _P4, _P5, _P6, _P7, _P8, _P9, _P10, _P11, _P12 = (np.float32(c) for c in NORMAL_FLOAT32)


@_inline  # type: ignore[untyped-decorator]
def normal_tail(distance: np.float32) -> Any:
    """(Phi(-d), Phi'(d)) for a distance d >= 0; see `distbp.machine.distributions`."""
    d = _FAR if distance > _FAR else distance
    t = _ONE - _TWO_K / (d + _K)
    p = _P6 + t * (_P7 + t * (_P8 + t * (_P9 + t * (_P10 + t * (_P11 + t * _P12)))))
    p = _P0 + t * (_P1 + t * (_P2 + t * (_P3 + t * (_P4 + t * (_P5 + t * p)))))
    bell = exp(-(d * d) * _HALF)
    return p / (_ONE + d * _ROOT2) * _HALF * bell, bell * _DENSITY


_TWO_OVER_PI, _MOST_ANGLE = np.float32(2 / math.pi), np.float32(1e5)
# pi / 2 in three parts. The first two have few bits, like the first part of ln 2 above.
_QUARTER_HIGH, _QUARTER_MIDDLE = np.float32(1.5703125), np.float32(0.00048351287841796875)
_QUARTER_LOW = np.float32(math.pi / 2 - 1.5703125 - 0.00048351287841796875)
_S3, _S5, _S7, _S9 = (np.float32(c) for c in (-1 / 6, 1 / 120, -1 / 5040, 1 / 362880))
_K2, _K4, _K6 = (np.float32(c) for c in (-1 / 2, 1 / 24, -1 / 720))
_K8, _K10 = np.float32(1 / 40320), np.float32(-1 / 3628800)


@_inline  # type: ignore[untyped-decorator]
def sine_and_cosine(x: np.float32) -> Any:
    """(sin x, cos x). Angles beyond 1e5, where neighboring float32 numbers are almost a hundredth of a radian
    apart, count as 1e5. Both are NaN for an infinite angle."""
    inside = -_MOST_ANGLE if x < -_MOST_ANGLE else x
    inside = _MOST_ANGLE if inside > _MOST_ANGLE else inside
    n = np.floor(inside * _TWO_OVER_PI + _HALF)
    n = n if n == n else np.float32(0)  # NaN has no whole number; r below stays NaN
    inside += x - x  # NaN where x is infinite, else 0
    r = ((inside - n * _QUARTER_HIGH) - n * _QUARTER_MIDDLE) - n * _QUARTER_LOW
    s = r * r
    sine = r + r * (s * (_S3 + s * (_S5 + s * (_S7 + s * _S9))))
    cosine = _ONE + s * (_K2 + s * (_K4 + s * (_K6 + s * (_K8 + s * _K10))))
    quarter = np.int32(n) & np.int32(3)
    odd = (quarter & np.int32(1)) == np.int32(1)
    first, second = cosine if odd else sine, sine if odd else cosine
    first = -first if quarter >= np.int32(2) else first
    second = -second if (quarter == np.int32(1)) | (quarter == np.int32(2)) else second
    return first, second
