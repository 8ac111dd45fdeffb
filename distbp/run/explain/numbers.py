"""The numbers of a layer at one step, and the contract of a kind of layer. Nothing here imports the
engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from distbp.run.explain.words import Place, at, places, plain, short

Values = NDArray[Any]
Numbers = dict[str, Values | None]  # by their names in the JSON; None: not computed
Tensors = Mapping[str, Values]  # parameters by name
# Type, number, options and activation of a layer; the shape of its output; seed, step, steps (of the job) and
# past (before it), which decide the random draws.
Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A tensor at the step. `state_before`, `state_after`: of the optimizer, by name. `decays`: whether
    penalties and weight decay apply to it. `rate`: its factor on the learning rate. Arrays have the shape of
    the tensor.

    If several layers use the tensor, `part` is this layer's part of the gradient, and `owner` the number of
    the layer that owns the tensor; else both are None.
    """

    name: str
    decays: bool
    rate: float
    before: Values
    gradient: Values
    after: Values
    state_before: Mapping[str, Values]
    state_after: Mapping[str, Values]
    part: Values | None
    owner: int | None

    @property
    def given(self) -> Values:
        """This layer's part of the gradient."""
        return self.gradient if self.part is None else self.part


@dataclass(frozen=True)
class LayerStep:
    """A layer at the step. Number -1 is the entry that turns a table's row into columns. `sources`: the
    numbers of the layers that it takes; the data has the number before the first layer's. `inputs`: one for
    each source. `a`: its output. `d_a`: dE/da; None if nothing below is trained. `numbers`: all others, by
    their names in the JSON."""

    number: int
    type: str
    name: str | None
    sources: tuple[int, ...]
    options: Mapping[str, Any]
    activation: str | None
    inputs: tuple[Values, ...]
    a: Values
    d_a: Values | None
    numbers: Mapping[str, Values | None]
    parameters: tuple[Parameter, ...]

    @property
    def words(self) -> str:
        return "columns" if self.number < 0 else f"layer {self.number}"

    @property
    def x(self) -> Values:
        """The input of a layer with one input."""
        return self.inputs[0]

    def get(self, name: str) -> Values:
        """The values with this name in the JSON. They must have been computed."""
        found = {"a": self.a, "dE_da": self.d_a, **self.numbers}[name]
        assert found is not None, name
        return found

    def has(self, name: str) -> bool:
        return {"a": self.a, "dE_da": self.d_a, **self.numbers}.get(name) is not None

    def tensor(self, name: str) -> Values:
        """A parameter before the step."""
        return next(one.before for one in self.parameters if one.name == name)


class Ops(Protocol):
    """The ops of a layer that the engine has run, in order."""

    def before(self, name: str, operand: int) -> list[Values]:
        """An operand of each op with this name, as a matrix, before the op ran."""
        ...

    def after(self, name: str, operand: int) -> list[Values]: ...

    def slopes(self, name: str) -> list[Values]:
        """f'(z): the result of an activation's backward op for ones."""
        ...


class Back(NamedTuple):
    """`numbers`: of the backward pass, by their names in the JSON. `gradients`: of the parameters. `inputs`:
    dE/dx for each input."""

    numbers: Numbers
    gradients: dict[str, Values]
    inputs: list[Values]


class Weight(NamedTuple):
    """The text about a parameter's derivative. `letter`: of the tensor. `rule`: the formula. `terms`: the
    formula for one element, with numbers. `equation`: one of BP1 to BP4. `rows`: the rows of the tensor that
    are shown, those that the sample uses; None: the first rows."""

    letter: str
    rule: str
    terms: Callable[[LayerStep, Place], str]
    equation: str = "BP4"
    rows: Sequence[int] | None = None

    def places(self, shape: Sequence[int], most: int) -> list[Place]:
        """The places of the numbers that are shown, at most `most`."""
        if self.rows is None:
            return list(places(shape, most))
        return [(row, *place) for row in self.rows for place in places(shape[1:], most)][:most]


Columns = tuple[tuple[str, str], ...]  # (head, name of the numbers); all numbers have the same shape


def plain_unit(step: LayerStep, place: Place) -> str:
    return at(place)


def arriving(step: LayerStep, place: Place, from_above: Callable[[Place], str]) -> list[str]:
    """The terms of dE/da of one number, as lines."""
    return [f"dE/da{at(place)} = {from_above(place)} = {plain(step.get('dE_da')[place])}"]


def same(step: LayerStep, which: int, place: Place) -> str:
    """The dE/dx of a layer that passes dE/da on unchanged, as text."""
    return short(float(step.get("dE_da")[place]))


def first_steps(numbers: Numbers, length: int) -> Numbers:
    """The first `length` rows of numbers that have a row for each step."""
    return {name: None if values is None else values[:length] for name, values in numbers.items()}


@dataclass(frozen=True)
class Kind:
    """A row of the table of kinds: all that `explain` knows about a type of layer.

    Functions that compute:
    - `read(spec, ops)`: the engine's numbers, from the operands of its ops, without a and dE_da.
    - `forward(spec, parameters, inputs)`: the numbers of the forward pass from the formulas, with "a".
    - `backward(spec, parameters, inputs, numbers, d_a)`: those of the backward pass, gradients, and dE/dx.

    Functions that return text about a step:
    - `rule`, `back_rules`: the formulas in letters. `tables`, `back_tables`: the numbers in columns.
    - `made(step, place)`: the computation of the number at a place of the first table. `brought(step, place,
      from_above)`: that of its derivatives; `from_above` returns the dE/da that arrives, as text.
    - `hands_rule(step)`, `hands(step, input, place)`: the dE/dx of one number of an input.
    - `weights`: by the names of the parameters. `unit`: the name of a place. `drawn`: the names of the
      values and of the derivatives that a picture shows.

    `ended(numbers, length)`: the numbers of a row's steps, without those past its end.
    """

    read: Callable[[Spec, Ops], Numbers]
    forward: Callable[[Spec, Tensors, Sequence[Values]], Numbers]
    backward: Callable[[Spec, Tensors, Sequence[Values], Numbers, Values], Back]
    rule: Callable[[LayerStep], str]
    hands_rule: Callable[[LayerStep], str]
    hands: Callable[[LayerStep, int, Place], str]
    made: Callable[[LayerStep, Place], list[str]]
    back_rules: Callable[[LayerStep], Sequence[str]] = lambda step: ()
    tables: Callable[[LayerStep], Sequence[Columns]] = lambda step: ((("a", "a"),),)
    back_tables: Callable[[LayerStep], Sequence[Columns]] = lambda step: ((("dE/da", "dE_da"),),)
    brought: Callable[[LayerStep, Place, Callable[[Place], str]], list[str]] = arriving
    weights: Callable[[LayerStep], Mapping[str, Weight]] = lambda step: MappingProxyType({})
    unit: Callable[[LayerStep, Place], str] = plain_unit
    drawn: Callable[[LayerStep], tuple[str, str]] = lambda step: ("a", "dE_da")
    ended: Callable[[Numbers, int], Numbers] = first_steps
    passes: bool = False  # whether the layer only changes the shape of its input


def unread(spec: Spec, ops: Ops) -> Numbers:
    """The `read` of a layer without numbers of its own."""
    return {}


def one_of(parts: Sequence[Values]) -> Values | None:
    """The first of `parts`, which have at most one; None if there is none."""
    return parts[0] if parts else None


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias by its name, such as `bias` or `in_proj_bias` (see `hold_biases`)."""
    return "bias" in name.rsplit(".", 1)[-1].split("_")
