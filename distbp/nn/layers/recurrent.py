"""Recurrent layers: options, parameters and shapes. `recurrence` has the formulas and the loop over steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from distbp.core.arrays import Array
from distbp.core.options import option
from distbp.nn.activations import count_live_rows
from distbp.nn.initializers import GlorotUniform, Initializer, Orthogonal, Values, Zeros
from distbp.nn.layers.base import (
    ABSENT,
    Backward,
    LayerFacts,
    Lengths,
    Lowering,
    ParameterSpec,
    Shape,
    StateSpec,
    Value,
)
from distbp.nn.layers.recurrence import CELLS, Direction, Parameters, RecurrentCell
from distbp.nn.layers.steps import steps_of
from distbp.nn.tape import Ref, Tape


@dataclass(frozen=True)
class _EachGate:
    """Draws the part of each gate separately, and adds the gate's shift. So each part can be orthogonal."""

    initializer: Initializer
    shifts: tuple[float, ...]

    def draw(self, shape: Shape, fan_in: int, fan_out: int, generator: np.random.Generator) -> Array:
        part = (shape[0] // len(self.shifts), *shape[1:])
        return np.concatenate(
            [self.initializer.draw(part, fan_in, fan_out, generator) + shift for shift in self.shifts]
        )


@dataclass(frozen=True, kw_only=True)
class _Recurrent(LayerFacts):
    """The common part of recurrent layers: everything except the cell."""

    trains: ClassVar[bool] = True
    carries: ClassVar[bool] = True

    type: str = ""
    units: int = option(help="numbers in the state", gt=0)
    return_sequences: bool = option(False, help="give the state after every step, not only after the last")
    bidirectional: bool = option(
        False,
        help="take the steps from last to first, too, with parameters of its own, and give both states",
    )
    initializer: Initializer = option(
        GlorotUniform(), help="of the weights of the inputs", choices="initializers"
    )
    recurrent_initializer: Initializer = option(
        Orthogonal(), help="of the weights of the state before", choices="initializers"
    )
    bias_initializer: Initializer = option(Zeros(), help="of the biases", choices="initializers")

    @property
    def _cell(self) -> RecurrentCell:
        return CELLS[self.type]

    @property
    def _bias_shifts(self) -> tuple[float, ...]:
        return (0.0,) * self._cell.gates

    @property
    def _suffixes(self) -> tuple[str, ...]:
        """The suffix of the parameters' names for each direction, as in PyTorch."""
        return ("", "_reverse") if self.bidirectional else ("",)

    @property
    def lengths(self) -> Lengths:
        return "keep" if self.return_sequences else "use"

    @property
    def window_fault(self) -> str:
        if self.bidirectional:
            return (
                f"{self.type} with bidirectional: true takes a series from its end, too, and no state comes"
                " from there into a window; leave bidirectional out"
            )
        if not self.return_sequences:
            return f"{self.type} gives the state after a window alone; set return_sequences: true"
        return ""

    @property
    def own_shape(self) -> Shape | None:
        return None if self.return_sequences else (self.units * len(self._suffixes),)

    def output_shape(self, input_shape: Shape) -> Shape:
        steps, _ = steps_of(self.type, input_shape)
        units = self.units * len(self._suffixes)
        return (steps, units) if self.return_sequences else (units,)

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        features, units, gates = input_shape[1], self.units, self._cell.gates

        def drawn(initializer: Initializer, shifts: tuple[float, ...]) -> Any:
            whole = gates == 1 or isinstance(initializer, Values)  # listed values cover all gates
            return initializer if whole else _EachGate(initializer, shifts)

        none, found = (0.0,) * gates, []
        weight, recurrent = drawn(self.initializer, none), drawn(self.recurrent_initializer, none)
        bias = drawn(self.bias_initializer, self._bias_shifts)
        for suffix in self._suffixes:
            found += [
                ParameterSpec(f"weight{suffix}", (gates * units, features), weight, features, units),
                ParameterSpec(f"recurrent_weight{suffix}", (gates * units, units), recurrent, units, units),
                ParameterSpec(f"bias{suffix}", (gates * units,), bias, features, units, decays=False),
            ]
            if self._cell.apart:
                name, draw = f"recurrent_bias{suffix}", self.bias_initializer
                found.append(ParameterSpec(name, (units,), draw, units, units, decays=False))
        return tuple(found)

    def states(self, input_shape: Shape) -> tuple[StateSpec, ...]:
        return tuple(StateSpec(name, (self.units,)) for name in self._cell.states)

    def flops(self, input_shape: Shape) -> float:
        return 6.0 * input_shape[0] * sum(math.prod(one.shape) for one in self.parameters(input_shape))

    def _directions(self, low: Lowering, inputs: Ref, steps: int, ends: Ref | None) -> list[Direction]:
        def ending(places: Parameters, suffix: str) -> Parameters:
            names = ("weight", "recurrent_weight", "bias", "recurrent_bias")
            return {name: places[name + suffix] for name in names if name + suffix in places}

        orders = (range(steps), range(steps)[::-1])
        return [
            Direction(
                low, self._cell, inputs, order, ending(low.parameters, end), ending(low.gradients, end), ends
            )
            for order, end in zip(orders, self._suffixes, strict=False)
        ]

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        tape, units, (steps, features) = low.tape, self.units, x.shape
        inputs, every = x.ref.reshaped(features, 1), self.return_sequences
        if steps > 1:
            inputs = tape.work(features, steps)._replace(most=0 if x.lengths is None else steps)
            tape.emit("steps_first", x.ref.reshaped(steps * features, 1), inputs)
        directions = self._directions(low, inputs, steps, x.lengths)
        for one in directions:
            one.forward()
        if self.ends_in is not None:
            count_live_rows(tape, self.ends_in, [one.h for one in directions], ABSENT)
        y = _beside(tape, [one.h if every else one.last() for one in directions])
        if every and steps > 1:
            joined, y = y, tape.work(steps * y.columns)
            tape.emit("samples_first", joined, y)

        def backward(dy: Ref) -> Sequence[Ref | None]:
            puts = _parted(tape, dy.reshaped(y.columns, y.times), units, steps if every else 1, inputs.most)
            gradients = [one.backward(put, every) for one, put in zip(directions, puts, strict=True)]
            if not low.wanted[0]:
                return (None,)
            d_inputs, dx = tape.like(inputs), tape.work(steps * features)
            for number, (da, suffix) in enumerate(zip(gradients, self._suffixes, strict=True)):
                weight = low.parameters[f"weight{suffix}"]
                tape.emit("product_nn", da, weight, d_inputs, whole=(int(number > 0),))
            tape.emit("samples_first", d_inputs, dx)
            return (dx,)

        return Value(y, self.output_shape(x.shape)), backward


def _beside(tape: Tape, parts: Sequence[Ref]) -> Ref:
    """Emits copies of matrices with the same rows, side by side. Returns the joined matrix."""
    if len(parts) == 1:
        return parts[0]
    out = tape.work(sum(part.columns for part in parts), parts[0].times)._replace(most=parts[0].most)
    for number, part in enumerate(parts):
        tape.emit("copy_columns", part, out, whole=(0, number * part.columns, part.columns))
    return out


def _parted(tape: Tape, dy: Ref, units: int, steps: int, most: int) -> list[Callable[[Ref], None]]:
    """For each direction, a function that emits the copy of its part of dy, (rows, steps * directions *
    units), to a place, (steps * rows, units). most: see `Ref`; the place ends with the longest row."""
    wide = dy.columns // steps
    if wide == units:
        return [lambda place: tape.emit("steps_first" if steps > 1 else "copy", dy, place)]
    if steps > 1:
        moved = tape.work(wide, steps)._replace(most=most)
        tape.emit("steps_first", dy, moved)
    else:
        moved = dy

    def put(first: int) -> Callable[[Ref], None]:
        return lambda place: tape.emit("copy_columns", moved, place, whole=(first, 0, units))

    return [put(first) for first in range(0, wide, units)]


@dataclass(frozen=True, kw_only=True)
class Elman(_Recurrent):
    """An Elman layer over steps: h_t = f(W x_t + R h_(t-1) + b), from h = 0. Inputs (steps, features).

    As `torch.nn.RNN` with one layer, whose two biases are one here: their sum.
    """

    activation_option: ClassVar[str] = "activation"

    type: Literal["elman"] = "elman"
    activation: Literal["tanh", "relu"] = option("tanh", help="f")

    @property
    def _cell(self) -> RecurrentCell:
        return CELLS[self.activation]


@dataclass(frozen=True, kw_only=True)
class Lstm(_Recurrent):
    """A long short-term memory over steps, from h = c = 0: gates i, f, g, o of W x_t + R h_(t-1) + b, then
    c_t = f c_(t-1) + i g and h_t = o tanh(c_t). Inputs (steps, features).

    As `torch.nn.LSTM` with one layer, whose two biases are one here: their sum.
    """

    type: Literal["lstm"] = "lstm"
    forget_bias: float = option(
        1.0, help="added to the first biases of the forget gate f: above 0, the memory lasts from the start"
    )

    @property
    def _bias_shifts(self) -> tuple[float, ...]:
        return (0.0, self.forget_bias, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Gru(_Recurrent):
    """A gated recurrent unit over steps, from h = 0: gates r, z of W x_t + R h_(t-1) + b, then
    n = tanh(W_n x_t + b_n + r (R_n h_(t-1) + b_q)) and h_t = (1 - z) n + z h_(t-1). Inputs (steps, features).

    As `torch.nn.GRU` with one layer. For r and z, its two biases are one here: their sum. The candidate n has
    both: `bias` outside of the product with r, `recurrent_bias` (b_q) inside.
    """

    type: Literal["gru"] = "gru"
