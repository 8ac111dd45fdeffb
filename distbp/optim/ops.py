"""The ops of update rules. Each works element by element on a stretch of the flat vectors.

u: the direction so far; for the first op it is the gradient sum. out: the new direction; may be u. c: (1, 4)
float64, the factor f of the direction u, then the op's own numbers c1, c2 and c3. Every op treats all
elements alike, so the result does not depend on where a vector is cut. A running mean that fades
ends at 0 (`_fade`). For the sources of the formulas see `distbp.optim.parts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from distbp.core.arrays import Array
from distbp.nn.ops.base import Op, Real, Whole, element_ops, table


def _times(u: Array, c: Array, number: int = 0) -> Array:
    return np.asarray(u * u.dtype.type(c[0, number]))


def _fade(state: Array, kept: Array, change: Array) -> None:
    """state <- kept + change, or 0 where that is closer to 0 than the least normal number (IEEE 754).

    The running means of a ReLU unit that is never active fade by a factor at each step, until rounding keeps
    them at a subnormal number for good. Processors of Intel take many times as long for such a number.
    """
    np.add(kept, change, out=state)
    np.copyto(state, 0, where=np.abs(state) < np.finfo(state.dtype).tiny)


def _clip_value(u: Array, out: Array, c: Array, whole: Whole, real: Real) -> None:
    """out <- f u limited to [-c1, c1]."""
    limit = u.dtype.type(c[0, 1])
    np.maximum(np.minimum(_times(u, c), limit), -limit, out=out)


def _add_l2(u: Array, p: Array, out: Array, c: Array, whole: Whole, real: Real) -> None:
    """out <- f u + c1 p."""
    np.add(_times(u, c), _times(p, c, 1), out=out)


def _add_l1(u: Array, p: Array, out: Array, c: Array, whole: Whole, real: Real) -> None:
    """out <- f u + c1 sign(p)."""
    np.add(_times(u, c), _times(np.sign(p), c, 1), out=out)


def _decay(p: Array, c: Array, whole: Whole, real: Real) -> None:
    """p <- c1 p."""
    np.multiply(p, p.dtype.type(c[0, 1]), out=p)


def _trace(u: Array, b: Array, c: Array, whole: Whole, real: Real) -> None:
    """b <- c1 b + f u."""
    _fade(b, _times(b, c, 1), _times(u, c))


def _nesterov(u: Array, b: Array, out: Array, c: Array, whole: Whole, real: Real) -> None:
    """b <- c1 b + f u; out <- f u + c1 b, with the new b."""
    g = _times(u, c)
    _fade(b, _times(b, c, 1), g)
    np.add(g, _times(b, c, 1), out=out)


def _adagrad(u: Array, s: Array, out: Array, c: Array, whole: Whole, real: Real) -> None:
    """s <- s + (f u)^2; out <- f u / (sqrt(s) + c1)."""
    g = _times(u, c)
    np.add(s, g * g, out=s)
    np.divide(g, np.sqrt(s) + u.dtype.type(c[0, 1]), out=out)


def _rms(u: Array, v: Array, out: Array, c: Array, whole: Whole, real: Real) -> None:
    """v <- c1 v + c2 (f u)^2; out <- f u / (sqrt(v) + c3)."""
    g = _times(u, c)
    _fade(v, _times(v, c, 1), _times(g * g, c, 2))
    np.divide(g, np.sqrt(v) + u.dtype.type(c[0, 3]), out=out)


def _centered_rms(u: Array, v: Array, m: Array, out: Array, c: Array, whole: Whole, real: Real) -> None:
    """v <- c1 v + c2 (f u)^2; m <- c1 m + c2 f u; out <- f u / (sqrt(v - m^2) + c3)."""
    g = _times(u, c)
    _fade(v, _times(v, c, 1), _times(g * g, c, 2))
    _fade(m, _times(m, c, 1), _times(g, c, 2))
    variance = np.maximum(v - m * m, 0)  # rounding may leave a variance just below zero
    np.divide(g, np.sqrt(variance) + u.dtype.type(c[0, 3]), out=out)


def _adam(u: Array, m: Array, v: Array, out: Array, c: Array, whole: Whole, real: Real) -> None:
    """m <- c1 m + (1 - c1) f u; v <- c2 v + (1 - c2) (f u)^2; out <- m / (sqrt(v) + c3)."""
    g, rest1, rest2 = _times(u, c), u.dtype.type(1 - c[0, 1]), u.dtype.type(1 - c[0, 2])
    _fade(m, _times(m, c, 1), rest1 * g)
    _fade(v, _times(v, c, 2), rest2 * (g * g))
    np.divide(m, np.sqrt(v) + u.dtype.type(c[0, 3]), out=out)


def _descend(u: Array, p: Array, c: Array, whole: Whole, real: Real) -> None:
    """p <- p - f u. Every rule ends with this op."""
    np.subtract(p, _times(u, c), out=p)


def _op(name: str, operands: str, define: Callable[..., None], cost: int) -> Op:
    return Op(name, operands + "d", define, f"distbp.optim.loops:{name}", "", element_ops(cost))


RULE_OPS: Mapping[str, Op] = table(
    (
        _op("clip_value", "fF", _clip_value, 3),
        _op("add_l2", "ffF", _add_l2, 3),
        _op("add_l1", "ffF", _add_l1, 4),
        _op("decay", "F", _decay, 1),
        _op("trace", "fF", _trace, 3),
        _op("nesterov", "fFF", _nesterov, 5),
        _op("adagrad", "fFF", _adagrad, 8),
        _op("rms", "fFF", _rms, 10),
        _op("centered_rms", "fFFF", _centered_rms, 14),
        _op("adam", "fFFF", _adam, 14),
        _op("descend", "fF", _descend, 2),
    )
)
