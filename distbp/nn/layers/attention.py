"""Multi-head self-attention over steps: each step takes the steps' values, weighted by query times key.

x is (steps, features). W_in holds the weights of Q, K and V, one below the other:

    Q, K, V = x W_in^T + b_in                          (steps, units) each, cut into heads of equal width
    P = softmax(Q K^T / sqrt(units / heads))           for each head
    y = (P V) W_out^T + b_out                          the heads side by side

(Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2). Backward, with dm = dy W_out:

    dW_out = dy^T (P V),  db_out = sum of dy           over all steps of all samples
    dQ, dK, dV                                         from dm, by the op `attention_backward`
    dW_in = (dQ, dK, dV)^T x,  db_in = sum of (dQ, dK, dV),  dx = (dQ, dK, dV) W_in

P is kept for the backward pass: heads * steps^2 numbers for each sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import OptionError, option
from distbp.nn.initializers import GlorotUniform, Initializer, Zeros
from distbp.nn.layers.base import ABSENT, Backward, LayerFacts, Lengths, Lowering, ParameterSpec, Shape, Value
from distbp.nn.layers.steps import steps_of
from distbp.nn.tape import Ref


@dataclass(frozen=True, kw_only=True)
class Attention(LayerFacts):
    """Each step attends to all steps, several times over (heads): softmax(Q K^T / sqrt(size)) V, where Q, K
    and V of all heads are W_in x + b_in, and what the heads find goes through W_out. (steps, features) ->
    (steps, units).

    As `torch.nn.MultiheadAttention(features, heads)` of an input with itself. The parameters have the same
    names and shapes. If rows have lengths, no step attends to padding; the heads give 0 at steps that attend
    to nothing. Memory grows with heads * steps^2.
    """

    trains: ClassVar[bool] = True

    type: Literal["attention"] = "attention"
    heads: int = option(1, help="how many; each has its share of the units", gt=0)
    units: int | None = option(
        None, help="outputs of a step, and numbers in Q, K and V; left out: as many as its features", gt=0
    )
    causal: bool = option(False, help="a step attends to itself and to those before it only")
    bias: bool = option(True, help="add b_in and b_out")
    initializer: Initializer = option(GlorotUniform(), help="of the weights", choices="initializers")
    bias_initializer: Initializer = option(Zeros(), help="of the biases", choices="initializers")

    def __post_init__(self) -> None:
        if self.units is not None and self.heads > 0 and self.units % self.heads:
            raise OptionError("heads", f"must divide units, {self.units}, into equal parts, not {self.heads}")

    @property
    def lengths(self) -> Lengths:
        return "keep"

    @property
    def window_fault(self) -> str:
        return "attention finds nothing before a window of a series; use recurrent layers alone"

    def _units(self, input_shape: Shape) -> int:
        features = steps_of(self.type, input_shape)[1]
        if self.units is None and features % self.heads:
            raise ValueError(
                f"heads is {self.heads}, but must divide the features of a step, {features}, into equal"
                " parts; choose other heads, or give units"
            )
        return self.units or features

    def output_shape(self, input_shape: Shape) -> Shape:
        return steps_of(self.type, input_shape)[0], self._units(input_shape)

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        features, units = input_shape[1], self._units(input_shape)
        draw, bias = self.initializer, self.bias_initializer
        found = (
            ParameterSpec("in_proj_weight", (3 * units, features), draw, features, units),
            ParameterSpec("in_proj_bias", (3 * units,), bias, features, units, decays=False),
            ParameterSpec("out_proj_weight", (units, units), draw, units, units),
            ParameterSpec("out_proj_bias", (units,), bias, units, units, decays=False),
        )
        return found if self.bias else found[::2]

    def flops(self, input_shape: Shape) -> float:
        steps, features = input_shape
        units = self._units(input_shape)
        return 6.0 * steps * units * (3 * features + units + 4 * self.bias + 2 * steps)

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        tape, (steps, features), units = low.tape, x.shape, self._units(x.shape)
        inputs, qkv = x.ref.reshaped(features, steps), tape.work(3 * units, steps)
        shares, mixed = tape.work(steps, self.heads * steps), tape.work(units, steps)
        y = tape.like(mixed)
        whole = (self.heads, steps, 0 if self.causal else steps)
        self._project(low, "in", inputs, qkv)
        ends = ABSENT if x.lengths is None else x.lengths
        tape.emit("attention", qkv, shares, mixed, ends, whole=whole)
        self._project(low, "out", mixed, y)

        def backward(dy: Ref) -> tuple[Ref | None]:
            d_mixed, d_qkv, room = tape.like(mixed), tape.like(qkv), tape.work(steps, 0, steps)
            self._project_backward(low, "out", mixed, dy.reshaped(units, steps), d_mixed)
            tape.emit("attention_backward", qkv, shares, d_mixed, room, d_qkv, whole=whole)
            dx = tape.like(inputs) if low.wanted[0] else None
            self._project_backward(low, "in", inputs, d_qkv, dx)
            return (dx,)

        return Value(y.reshaped(steps * units, 1), (steps, units)), backward

    def _project(self, low: Lowering, name: str, x: Ref, y: Ref) -> None:
        """Emits y <- x W^T + b. name: "in" or "out"."""
        low.product(x, low.parameters[f"{name}_proj_weight"], y)
        if self.bias:
            low.tape.emit("linear", y, low.parameters[f"{name}_proj_bias"], y, ABSENT)

    def _project_backward(self, low: Lowering, name: str, x: Ref, dy: Ref, dx: Ref | None) -> None:
        """Emits dx <- dy W (if dx is not None), dW <- dy^T x, and db <- the sum of the rows of dy."""
        if self.bias:
            low.tape.emit("sum_rows", dy, low.gradients[f"{name}_proj_bias"], whole=(0,))
        low.weight_gradient(low.gradients[f"{name}_proj_weight"], dy, x)
        if dx is not None:
            low.tape.emit("product_nn", dy, low.parameters[f"{name}_proj_weight"], dx, whole=(0,))
