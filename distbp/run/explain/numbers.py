"""What is known of a layer at one step, and what a kind of layer says of itself. Nothing here imports the
engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from distbp.run.explain.words import Place, at, places, plain, short

Values = NDArray[Any]
Numbers = dict[str, Values | None]  # by the names of the JSON; None: not computed
Tensors = Mapping[str, Values]  # parameters by name
# type, number, options, activation; shape of the output; seed, step, steps (of the job) and past (before it),
# which decide what is drawn
Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A tensor at the step. `state_before`, `state_after`: of the optimizer, by name. `decays`: whether
    penalties and weight decay apply to it. `rate`: its factor on the learning rate. Arrays have the shape of
    the tensor.

    Where several layers use the tensor, `part` is what this one gives to the gradient, and `owner` the number
    of the layer that has it; else they are None.
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
        """What this layer gives to the gradient."""
        return self.gradient if self.part is None else self.part


@dataclass(frozen=True)
class LayerStep:
    """A layer at the step, or number -1: what makes columns of the cells of a table's row. `sources`: the
    numbers of the layers that it takes; the data have the number before that of the first layer. `inputs`:
    what it takes from each. `a`: its output, `d_a`: dE/da, None where nothing below is trained. `numbers`:
    what lies between, by the names of the JSON."""

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
        """Of a layer that takes one input."""
        return self.inputs[0]

    def get(self, name: str) -> Values:
        """A number that is there, by its name in the JSON."""
        found = {"a": self.a, "dE_da": self.d_a, **self.numbers}[name]
        assert found is not None, name
        return found

    def has(self, name: str) -> bool:
        return {"a": self.a, "dE_da": self.d_a, **self.numbers}.get(name) is not None

    def tensor(self, name: str) -> Values:
        """A parameter before the step."""
        return next(one.before for one in self.parameters if one.name == name)


class Ops(Protocol):
    """The ops of a layer that the engine has run, in order, each by its name."""

    def before(self, name: str, operand: int) -> list[Values]:
        """An operand of every op of this name, as it was before the op; a matrix each."""
        ...

    def after(self, name: str, operand: int) -> list[Values]: ...

    def slopes(self, name: str) -> list[Values]:
        """f'(z), which the backward op of an activation makes of ones."""
        ...


class Back(NamedTuple):
    """`numbers`: of the backward pass, by the names of the JSON. `gradients`: of the parameters. `inputs`:
    dE/dx for each input."""

    numbers: Numbers
    gradients: dict[str, Values]
    inputs: list[Values]


class Weight(NamedTuple):
    """How the derivative of a parameter is told. `letter`: it stands for the tensor. `rule`: the formula;
    `terms`: the same for one number, with numbers. `equation`: which of the four. `rows`: those of the tensor
    that the sample names, which are shown; None: the first ones are."""

    letter: str
    rule: str
    terms: Callable[[LayerStep, Place], str]
    equation: str = "BP4"
    rows: Sequence[int] | None = None

    def places(self, shape: Sequence[int], most: int) -> list[Place]:
        """Of the numbers that are shown."""
        if self.rows is None:
            return list(places(shape, most))
        return [(row, *place) for row in self.rows for place in places(shape[1:], most)][:most]


Columns = tuple[tuple[str, str], ...]  # head, name of the number; all of one shape


def plain_unit(step: LayerStep, place: Place) -> str:
    return at(place)


def arriving(step: LayerStep, place: Place, from_above: Callable[[Place], str]) -> list[str]:
    """What dE/da of a number is the sum of."""
    return [f"dE/da{at(place)} = {from_above(place)} = {plain(step.get('dE_da')[place])}"]


def same(step: LayerStep, which: int, place: Place) -> str:
    """What is handed down by a layer that hands on dE/da as it is."""
    return short(float(step.get("dE_da")[place]))


def first_steps(numbers: Numbers, length: int) -> Numbers:
    """Of numbers with a row for each step."""
    return {name: None if values is None else values[:length] for name, values in numbers.items()}


@dataclass(frozen=True)
class Kind:
    """A row of the table: all that `explain` knows of a type of layer.

    Computed:
    - `read(spec, ops)`: what the engine computed, from the operands of its ops, without a and dE_da.
    - `forward(spec, parameters, inputs)`: the same once more, by formulas alone; with "a".
    - `backward(spec, parameters, inputs, numbers, d_a)`: the rest of `read`, and what is handed on.

    Told, with the numbers of a step in them:
    - `rule`, `back_rules`: the formulas in letters. `tables`, `back_tables`: numbers side by side.
    - `made(step, place)`: how the number at a place of the first table comes about. `brought(step, place,
      from_above)`: the same of its derivatives; `from_above` says what is handed down to a number of a.
    - `hands_rule(step)`, `hands(step, input, place)`: what is handed down to one number of an input.
    - `weights`: by the names of the parameters. `unit`: the name of a place. `drawn`: the numbers
      that a picture shows, going forward and coming back.

    `ended(numbers, length)`: those of the steps of a row, without what lies past its end.
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
    passes: bool = False  # it gives its input in another shape


def unread(spec: Spec, ops: Ops) -> Numbers:
    """Of a layer without numbers of its own."""
    return {}


def one_of(parts: Sequence[Values]) -> Values | None:
    """What the only op of a name has; None where there is none."""
    return parts[0] if parts else None


def is_bias(name: str) -> bool:
    """Whether a parameter is a bias, which `hold_biases` keeps: by its name, as `bias` or `in_proj_bias`."""
    return "bias" in name.rsplit(".", 1)[-1].split("_")
