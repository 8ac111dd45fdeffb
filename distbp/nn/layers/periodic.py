"""Periodic embeddings of numbers: [x, W cos(2 pi f x + phase) + bias]. Each number x has its own f, phase, W
and bias.

The source is Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep
Learning", NeurIPS 2022, in the form of Holzmueller et al., "Better by Default", NeurIPS 2024, section 3
(PBLD): a phase in place of a sine beside the cosine, no activation after W, and the number itself beside the
code. With a = 2 pi f x + phase, ds = W^T dz and da = -sin(a) ds, the gradients are dW = dz cos(a)^T,
dbias = dz, dphase = da and df = 2 pi x da, each summed over the rows. To dx, the sum of 2 pi f da over the
frequencies is added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from distbp.core.options import option
from distbp.nn.initializers import Normal, Uniform
from distbp.nn.layers.base import ABSENT, Backward, LayerFacts, Lowering, ParameterSpec, Shape, Takes, Value
from distbp.nn.tape import Ref


class Periodic(NamedTuple):
    """The options of an embedding: `frequencies` cosines of a number become `dimension` - 1 numbers beside
    it. `std`: the standard deviation of the initial frequencies."""

    frequencies: int
    dimension: int
    std: float

    @property
    def made(self) -> int:
        """The number of columns made beside each number."""
        return self.dimension - 1

    def parameters(self, numbers: int, before: str = "") -> tuple[ParameterSpec, ...]:
        """The tensors. before: the prefix of their names. Weight and bias are drawn as those of PyTorch's
        linear layer."""
        k, d = self.frequencies, self.made
        even = Uniform(low=-1 / math.sqrt(k), high=1 / math.sqrt(k))
        turn = Uniform(low=-math.pi, high=math.pi)
        return (
            ParameterSpec(f"{before}frequency", (numbers, k), Normal(std=self.std), 1, k),
            ParameterSpec(f"{before}phase", (numbers, k), turn, 1, k, decays=False),
            ParameterSpec(f"{before}weight", (numbers, d, k), even, k, d),
            ParameterSpec(f"{before}bias", (numbers, d), even, k, d, decays=False),
        )

    def flops(self, numbers: int) -> float:
        return 6.0 * numbers * self.frequencies * (self.made + 2)

    def emit(self, low: Lowering, x: Ref, column: int, y: Ref, first: int, numbers: int, before: str) -> Ref:
        """Emits the embeddings of the numbers in columns of x from `column` on, to columns of y from `first`
        on. before: as in `parameters`. Returns the cosines and sines, for the backward pass."""
        kept = low.tape.work(2 * numbers * self.frequencies, x.times)
        tensors = [low.parameters[before + name] for name in ("frequency", "phase", "weight", "bias")]
        low.tape.emit("periodic", x, *tensors, y, kept, whole=(column, first))
        return kept

    def emit_backward(
        self, low: Lowering, x: Ref, column: int, kept: Ref, dy: Ref, first: int, dx: Ref, before: str
    ) -> None:
        """Emits the gradients of the tensors. If dx (rows, numbers) is not absent, adds the gradients of the
        numbers to it. kept: the result of `emit`."""
        own = [low.parameters[before + name] for name in ("frequency", "weight")]
        gradients = [low.gradients[before + name] for name in ("frequency", "phase", "weight", "bias")]
        low.tape.emit("periodic_backward", x, *own, kept, dy, *gradients, dx, whole=(column, first))


@dataclass(frozen=True, kw_only=True)
class PeriodicEmbedding(LayerFacts):
    """Each of n numbers becomes `dimension` numbers: itself, and the others from cosines of it, (n,) -> (n *
    dimension,). The numbers themselves stand first."""

    takes: ClassVar[Takes] = "row"
    trains: ClassVar[bool] = True

    type: Literal["periodic_embedding"] = "periodic_embedding"
    frequencies: int = option(16, help="cosines of each number", ge=1, le=1024)
    dimension: int = option(4, help="numbers that a number becomes, itself among them", ge=2, le=1024)
    std: float = option(0.1, help="standard deviation of the first frequencies", gt=0)

    @property
    def _how(self) -> Periodic:
        return Periodic(self.frequencies, self.dimension, self.std)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ValueError(
                f"a periodic embedding takes one row of numbers for each sample, but is given shape"
                f" {list(input_shape)}; put a {{type: flatten}} layer before it"
            )
        return (input_shape[0] * self.dimension,)

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        return self._how.parameters(input_shape[0])

    def flops(self, input_shape: Shape) -> float:
        return self._how.flops(input_shape[0])

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        (numbers,), how = x.shape, self._how
        row = x.ref.reshaped(numbers, 1)
        y = low.tape.work(numbers * self.dimension)
        low.tape.emit("copy_columns", row, y, whole=(0, 0, row.columns))
        kept = how.emit(low, row, 0, y, numbers, numbers, "")

        def backward(dy: Ref) -> tuple[Ref | None]:
            dx = low.tape.like(row) if low.wanted[0] else ABSENT
            if low.wanted[0]:
                low.tape.emit("copy_columns", dy, dx, whole=(0, 0, dx.columns))
            how.emit_backward(low, row, 0, kept, dy, numbers, dx, "")
            return (dx if low.wanted[0] else None,)

        return Value(y, (y.columns,)), backward
