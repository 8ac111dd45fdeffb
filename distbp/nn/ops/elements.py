"""Operations element by element, copies in another order, and masks."""

from __future__ import annotations

import math

import numpy as np

from distbp.core.arrays import Array
from distbp.core.streams import Purpose, Stream
from distbp.nn.ops.base import Op, Real, Whole

DROPOUT_LEVELS = 1 << 16  # a random number of 16 bits decides whether a value is dropped


def _add(a: Array, b: Array, out: Array, whole: Whole, real: Real) -> None:
    """out <- a + b; `out` may be `a`."""
    np.add(a, b, out=out)


def _multiply(a: Array, b: Array, out: Array, whole: Whole, real: Real) -> None:
    """out <- a * b; `out` may be `a`."""
    np.multiply(a, b, out=out)


def _copy(a: Array, out: Array, whole: Whole, real: Real) -> None:
    """out <- a, element after element; the shapes may differ."""
    out.reshape(-1)[:] = a.reshape(-1)


def _copy_columns(a: Array, out: Array, whole: Whole, real: Real) -> None:
    """whole[2] columns of `out` from whole[1] on <- those of a from whole[0] on. Other columns stay."""
    source, target, count = whole
    out[:, target : target + count] = a[:, source : source + count]


def _steps_first(a: Array, out: Array, whole: Whole, real: Real) -> None:
    """out (steps * rows, features) <- samples a (rows, steps * features): step 0 of all samples, then step 1,
    and so on, as many steps as `out` has."""
    rows, features = a.shape[0], out.shape[1]
    steps = len(out) // max(1, rows)
    samples = a.reshape(rows, a.shape[1] // features, features)[:, :steps]
    out.reshape(steps, rows, features)[:] = samples.swapaxes(0, 1)


def _samples_first(a: Array, out: Array, whole: Whole, real: Real) -> None:
    """The inverse of `steps_first`; steps that a lacks are set to 0."""
    rows, features = out.shape[0], a.shape[1]
    steps = len(a) // max(1, rows)
    samples = out.reshape(rows, out.shape[1] // features, features)
    samples[:, :steps] = a.reshape(steps, rows, features).swapaxes(0, 1)
    samples[:, steps:] = 0


def _fill(out: Array, whole: Whole, real: Real) -> None:
    """out <- real[0]."""
    out.fill(real[0])


def flat_cosine(step: int, steps: int, flat: float) -> float:
    """The factor at a step (0-based): 1 for the share `flat` of the steps, then down to 0 along a cosine."""
    part = max(0.0, min(step / max(1, steps), 1.0) - flat) / (1 - flat)
    return (1 + math.cos(math.pi * part)) / 2


def _dropout(position: Array, x: Array, factors: Array, y: Array, whole: Whole, real: Real) -> None:
    """y <- x * factors. A factor is 0 if its random level is below whole[0], else real[0] (Srivastava et al.,
    2014). If whole[2] is 1, fewer values are dropped in the second half of training, see `flat_cosine`.

    position: (1, 5), step, shard, seed, steps of the job, steps before the job. whole[1]: the number of the
    layer. The levels are 16-bit parts of Philox words: a pure function of seed, step (counted with the steps
    before the job), shard and layer.
    """
    step, shard, seed, steps, past = (int(one) for one in position[0])
    dropped, factor = int(whole[0]), float(real[0])
    if whole[2]:
        dropped = int(dropped * flat_cosine(step, steps, 0.5) + 0.5)
        factor = DROPOUT_LEVELS / (DROPOUT_LEVELS - dropped)
    words = -(-x.size * 2 // 8)
    bits = Stream(seed, Purpose.DROPOUT).at(past + step, shard, int(whole[1])).bit_generator.random_raw(words)
    levels = bits.view(np.uint16)[: x.size].reshape(x.shape)
    np.multiply(levels >= dropped, x.dtype.type(factor), out=factors)
    np.multiply(x, factors, out=y)


ELEMENTS = (
    Op("add", "ffF", _add, "distbp.nn.ops.loops_elements:add"),
    Op("multiply", "ffF", _multiply, "distbp.nn.ops.loops_elements:multiply"),
    Op("copy", "fF", _copy, "distbp.nn.ops.loops_elements:copy"),
    Op("copy_columns", "fF", _copy_columns, "distbp.nn.ops.loops_elements:copy_columns"),
    Op("steps_first", "fF", _steps_first, "distbp.nn.ops.loops_elements:steps_first"),
    Op("samples_first", "fF", _samples_first, "distbp.nn.ops.loops_elements:samples_first"),
    Op("fill", "F", _fill, "distbp.nn.ops.loops_elements:fill"),
    Op("dropout", "ifFF", _dropout, "distbp.nn.ops.loops_elements:dropout"),
)
