"""Initializers: the rules by which parameter tensors are drawn before the first step.

The contract: an initializer is a frozen dataclass of its options, with one method

    draw(shape, fan_in, fan_out, generator) -> float64 array of `shape`

that draws from `generator` alone. Values are drawn in float64 for every dtype, so a float32 job starts from
the rounded weights of the float64 job. `fan_in` and `fan_out` are the numbers of inputs and outputs of one
unit (`ParameterSpec`). The scaled initializers choose their variance by them, so that signals neither grow
nor fade from layer to layer. An initializer that looks at the training rows names in `by_data` the tensor
that it sets. `distbp.engine.starting` then changes the drawn values by these rows.

    family   variance               keeps                        source
    glorot   2 / (fan_in + fan_out) both passes (sigmoid, tanh)  Glorot and Bengio, AISTATS 2010, equation 16
    he       2 / fan_in             the forward pass with ReLU   He et al., ICCV 2015, equation 10
    lecun    1 / fan_in             the forward pass, linear     LeCun et al., "Efficient BackProp", 1998

Each family has a normal distribution and a uniform one of the same variance (limits +- sqrt(3 * variance)).
They are PyTorch's `xavier_*`, `kaiming_*` (fan_in mode, gain sqrt 2) and `kaiming_*` with gain 1. The normal
distributions are not truncated (Keras truncates at two standard deviations).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from distbp.core.arrays import Shape
from distbp.core.options import choosing, option, registry

Float64Array = NDArray[np.float64]


class Initializer(Protocol):
    """The interface of every initializer dataclass. `type` is its name in a job."""

    by_data: ClassVar[str]

    @property
    def type(self) -> str: ...

    def draw(
        self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator
    ) -> Float64Array: ...


class InitializerFacts:
    """`by_data`: what it sets from the training rows; empty where it does not look at them."""

    by_data: ClassVar[str] = ""


def initializers_of(layer: Any) -> dict[str, Initializer]:
    """The initializers among the options of a layer, by option."""
    return {name: getattr(layer, name) for name in choosing(layer, "initializers")}


def _normal(shape: Shape, variance: float, generator: np.random.Generator) -> Float64Array:
    return generator.standard_normal(shape) * math.sqrt(variance)


def _uniform(shape: Shape, variance: float, generator: np.random.Generator) -> Float64Array:
    limit = math.sqrt(3 * variance)
    return generator.uniform(-limit, limit, shape)


@dataclass(frozen=True, kw_only=True)
class Zeros(InitializerFacts):
    """All zeros: for biases and shifts. Weights that start equal stay equal."""

    type: Literal["zeros"] = "zeros"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return np.zeros(shape)


@dataclass(frozen=True, kw_only=True)
class Constant(InitializerFacts):
    """Every element `value`."""

    type: Literal["constant"] = "constant"
    value: float = option(help="the value of every element")

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return np.full(shape, self.value, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Normal(InitializerFacts):
    """N(mean, std squared), whatever the fans."""

    type: Literal["normal"] = "normal"
    mean: float = option(0.0, help="the center of the distribution")
    std: float = option(0.05, help="standard deviation", ge=0)

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return generator.standard_normal(shape) * self.std + self.mean


@dataclass(frozen=True, kw_only=True)
class Uniform(InitializerFacts):
    """Evenly between `low` (included) and `high` (excluded), whatever the fans."""

    type: Literal["uniform"] = "uniform"
    low: float = option(-0.05, help="lower limit")
    high: float = option(0.05, help="upper limit")

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return self.low + (self.high - self.low) * generator.random(shape)


@dataclass(frozen=True, kw_only=True)
class GlorotUniform(InitializerFacts):
    """Uniform with variance 2 / (fan_in + fan_out); the default of dense weights."""

    type: Literal["glorot_uniform"] = "glorot_uniform"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return _uniform(shape, 2 / (fan_in + fan_out), generator)


@dataclass(frozen=True, kw_only=True)
class GlorotNormal(InitializerFacts):
    """Normal with variance 2 / (fan_in + fan_out)."""

    type: Literal["glorot_normal"] = "glorot_normal"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return _normal(shape, 2 / (fan_in + fan_out), generator)


@dataclass(frozen=True, kw_only=True)
class HeUniform(InitializerFacts):
    """Uniform with variance 2 / fan_in."""

    type: Literal["he_uniform"] = "he_uniform"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return _uniform(shape, 2 / fan_in, generator)


@dataclass(frozen=True, kw_only=True)
class HeNormal(InitializerFacts):
    """Normal with variance 2 / fan_in."""

    type: Literal["he_normal"] = "he_normal"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return _normal(shape, 2 / fan_in, generator)


@dataclass(frozen=True, kw_only=True)
class LecunUniform(InitializerFacts):
    """Uniform with variance 1 / fan_in."""

    type: Literal["lecun_uniform"] = "lecun_uniform"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return _uniform(shape, 1 / fan_in, generator)


@dataclass(frozen=True, kw_only=True)
class LecunNormal(InitializerFacts):
    """Normal with variance 1 / fan_in; the default of Nielsen's book (`weights / sqrt(fan_in)`)."""

    type: Literal["lecun_normal"] = "lecun_normal"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return _normal(shape, 1 / fan_in, generator)


@dataclass(frozen=True, kw_only=True)
class Orthogonal(InitializerFacts):
    """`gain` times a matrix with orthonormal rows or columns, whichever are fewer (Saxe et al., ICLR 2014).

    A tensor is seen as a matrix (first axis, all others), as PyTorch does. Uniform over such matrices: Q of
    the QR decomposition of a normal matrix, signed as R's diagonal (Mezzadri, Notices of the AMS 54, 2007).
    """

    type: Literal["orthogonal"] = "orthogonal"
    gain: float = option(1.0, help="factor on the matrix")

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        rows = shape[0]
        columns = math.prod(shape[1:])
        tall = generator.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(tall)
        q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
        return np.ascontiguousarray(q if rows >= columns else q.T).reshape(shape) * self.gain


@dataclass(frozen=True, kw_only=True)
class Large(InitializerFacts):
    """Plain N(0, 1), the "large" initializer of Nielsen's book: shows how saturated units slow learning."""

    type: Literal["large"] = "large"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return generator.standard_normal(shape)


@dataclass(frozen=True, kw_only=True)
class UnitVariance(InitializerFacts):
    """N(0, 1), and then each unit's weights divided by the deviation of its weighted sums over training rows
    (at most 1024 of them), whatever the inputs' sizes. Of dense weights; layer after layer, as in Mishkin and
    Matas, "All You Need Is a Good Init", ICLR 2016. A unit whose sums are all one keeps its weights."""

    by_data: ClassVar[str] = "weights"

    type: Literal["unit_variance"] = "unit_variance"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return generator.standard_normal(shape)

    def factors(self, sums: Float64Array) -> Float64Array:
        """The factors on the weights of each unit, (units,). sums: (rows, units), the weighted sums."""
        deviation = sums.std(axis=0)
        constant = ~(deviation > 1e-9 * np.abs(sums).max(axis=0, initial=0.0))
        return 1 / np.where(constant, 1.0, deviation)


@dataclass(frozen=True, kw_only=True)
class DataPoints(InitializerFacts):
    """For biases of dense layers: minus a mean of the unit's weighted sums over `points` training rows. The
    rows are drawn anew for each unit. The weights of the mean are uniform over those that add up to 1. So
    each unit bends among the data (He+5 of I. Steinwart, "A Sober Look at Neural Network Initializations",
    2019). Where there are no data yet, the biases are drawn from N(0, 2 / (points + 1)), which has the same
    variance where the sums are N(0, 1)."""

    by_data: ClassVar[str] = "biases"

    type: Literal["data_points"] = "data_points"
    points: int = option(5, help="training rows in each mean", ge=1, le=1000)

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return _normal(shape, 2 / (self.points + 1), generator)

    def values(self, sums: Float64Array, generator: np.random.Generator) -> Float64Array:
        """The biases, (units,). sums: (rows, units), the weighted sums with the current weights."""
        shape = (self.points, sums.shape[1])
        rows = generator.integers(0, len(sums), shape)
        shares = generator.standard_exponential(shape)
        points = (np.take_along_axis(sums, rows, axis=0) * shares).sum(axis=0)
        found: Float64Array = -points / shares.sum(axis=0)
        return found


@dataclass(frozen=True, kw_only=True)
class Values(InitializerFacts):
    """The elements themselves, for worked examples: those of a matrix row by row."""

    type: Literal["values"] = "values"
    values: tuple[float, ...] = option(help="every element, row by row", min_length=1)

    def check(self, name: str, shape: Shape) -> None:
        """Raises ValueError if the tensor has another number of elements."""
        if len(self.values) != math.prod(shape):
            raise ValueError(
                f"its {name} has {math.prod(shape)} numbers (shape {list(shape)}), but the initializer gives"
                f" {len(self.values)} values"
            )

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Float64Array:
        return np.array(self.values, np.float64).reshape(shape)


INITIALIZERS: Mapping[str, Any] = registry(
    Zeros,
    Constant,
    Normal,
    Uniform,
    GlorotUniform,
    GlorotNormal,
    HeUniform,
    HeNormal,
    LecunUniform,
    LecunNormal,
    Orthogonal,
    Large,
    UnitVariance,
    DataPoints,
    Values,
)
