"""The recurrent layer of Elman ("Finding structure in time", Cognitive Science 14, 1990).

Its state is h_t = f(W x_t + R h_(t-1) + b), from h = 0.

The network is unrolled over the steps, which is backpropagation through time: with dz_t = dh_t * f'(z_t),

    dh_t = dy_t + dz_(t+1) R                 from the outputs, and from the step after
    dW = sum of dz_t^T x_t, dR = sum of dz_t^T h_(t-1), db = sum of dz_t, dx_t = dz_t W

Inside, all samples of one step lie together, then those of the next. So there is one product with W for the
inputs of all steps, and one for the gradient of each weight matrix; only the products with R go step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import option
from distbp.nn.activations import count_live_rows
from distbp.nn.initializers import GlorotUniform, Initializer, Orthogonal, Zeros
from distbp.nn.layers.base import ABSENT, Backward, Facts, Lowering, ParameterSpec, Shape, Value
from distbp.nn.tape import Ref


@dataclass(frozen=True, kw_only=True)
class Elman(Facts):
    """An Elman layer over steps: h_t = f(W x_t + R h_(t-1) + b), from h = 0. Inputs (steps, features).

    As `torch.nn.RNN` with one layer, whose two biases are one here.
    """

    trains: ClassVar[bool] = True
    activation_option: ClassVar[str] = "activation"

    type: Literal["elman"] = "elman"
    units: int = option(help="numbers in the state", gt=0)
    activation: Literal["tanh", "relu"] = option("tanh", help="f")
    return_sequences: bool = option(False, help="give the state after every step, not only after the last")
    initializer: Initializer = option(
        GlorotUniform(), help="of the weights of the inputs", choices="initializers"
    )
    recurrent_initializer: Initializer = option(
        Orthogonal(), help="of the weights of the state before", choices="initializers"
    )
    bias_initializer: Initializer = option(Zeros(), help="of the biases", choices="initializers")

    @property
    def own_shape(self) -> Shape | None:
        return None if self.return_sequences else (self.units,)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 2:
            raise ValueError(
                f"elman takes steps of features, a shape of two sizes, but is given shape"
                f" {list(input_shape)}; put a {{type: reshape, shape: [steps, features]}} layer before it"
            )
        return (input_shape[0], self.units) if self.return_sequences else (self.units,)

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        features, units = input_shape[1], self.units
        return (
            ParameterSpec("weight", (units, features), self.initializer, features, units),
            ParameterSpec("recurrent_weight", (units, units), self.recurrent_initializer, units, units),
            ParameterSpec("bias", (units,), self.bias_initializer, features, units, decays=False),
        )

    def flops(self, input_shape: Shape) -> float:
        steps, features = input_shape
        return 6.0 * steps * self.units * (features + self.units + 1)

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        tape, units, (steps, features) = low.tape, self.units, x.shape
        inputs = x.ref.reshaped(features, 1)
        if steps > 1:
            inputs = tape.work(features, steps)
            tape.emit("steps_first", x.ref.reshaped(steps * features, 1), inputs)
        h = tape.work(units, steps)
        low.product(inputs, low.parameters["weight"], h)
        recur = low.product_with(low.parameters["recurrent_weight"], tape.most_rows) if steps > 1 else None
        for t in range(steps):
            if t > 0 and recur is not None:
                recur(h.step(t - 1), h.step(t), add=True)
            tape.emit(self.activation, h.step(t), low.parameters["bias"], h.step(t), ABSENT)
        count_live_rows(tape, self.activation, h, ABSENT)
        y = h.step(steps - 1)
        if self.return_sequences and steps > 1:
            y = tape.work(steps * units)
            tape.emit("samples_first", h, y)

        def backward(dy: Ref) -> Sequence[Ref | None]:
            dz = tape.work(units, steps)
            if self.return_sequences:
                tape.emit("steps_first", dy.reshaped(steps * units, 1), dz)
            else:
                tape.emit("copy", dy, dz.step(steps - 1))
            for t in reversed(range(steps)):
                if t < steps - 1:
                    add = int(self.return_sequences)
                    tape.emit(
                        "product_nn",
                        dz.step(t + 1),
                        low.parameters["recurrent_weight"],
                        dz.step(t),
                        whole=(add,),
                    )
                tape.emit(f"{self.activation}_backward", ABSENT, h.step(t), dz.step(t), ABSENT)
            tape.emit("sum_rows", dz, low.gradients["bias"], whole=(0,))
            low.weight_gradient(low.gradients["weight"], dz, inputs)
            recurrent = low.gradients["recurrent_weight"]
            if steps > 1:
                low.weight_gradient(recurrent, dz.steps(1, steps - 1), h.steps(0, steps - 1))
            else:
                tape.emit("fill", recurrent, real=(0.0,))
            if not low.wanted[0]:
                return (None,)
            d_inputs, dx = tape.like(inputs), tape.work(steps * features)
            tape.emit("product_nn", dz, low.parameters["weight"], d_inputs, whole=(0,))
            tape.emit("samples_first", d_inputs, dx)
            return (dx,)

        return Value(y, self.output_shape(x.shape)), backward
