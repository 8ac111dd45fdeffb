"""The formulas of a layer with numbers, for text and pictures. They combine the layer's kind with the layers
that take its output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distbp.run.explain.explanation import Explanation
from distbp.run.explain.kinds import KINDS
from distbp.run.explain.numbers import Columns, Kind, LayerStep, Values, Weight
from distbp.run.explain.outputs import OutputStep
from distbp.run.explain.words import Place, at, plain

Taker = tuple[LayerStep, int]  # a layer and the number of its input


def kind_of(layer: LayerStep) -> Kind:
    return KINDS[layer.type]


@dataclass(frozen=True)
class Formulas:
    """The formulas of the layer `own` in a step. Methods with a `place` return text about one number."""

    found: Explanation
    own: LayerStep

    def unit(self, place: Place) -> str:
        """The name of a place in the first table; for a recurrent layer with the step."""
        return kind_of(self.own).unit(self.own, place)

    @property
    def drawn(self) -> tuple[Values, Values | None]:
        """The values and (or None) the derivatives that a picture shows."""
        forth, back = kind_of(self.own).drawn(self.own)
        return self.own.get(forth), self.own.get(back) if self.own.has(back) else None

    # Forward ----------------------------------------------------------------------------------------------

    @property
    def forward_rule(self) -> str:
        return kind_of(self.own).rule(self.own)

    @property
    def tables(self) -> Sequence[Columns]:
        return kind_of(self.own).tables(self.own)

    def forward(self, place: Place) -> list[str]:
        """The computation of the number at a place of the first table."""
        return kind_of(self.own).made(self.own, place)

    # Backward ---------------------------------------------------------------------------------------------

    @property
    def outputs(self) -> list[OutputStep]:
        """The network's outputs that are the output of this layer."""
        return self._outputs(self.own.number)

    def _outputs(self, number: int) -> list[OutputStep]:
        outputs = [one for one in self.found.outputs if one.layer == number]
        for layer in self.found.layers:
            if kind_of(layer).passes and number in layer.sources:
                outputs += self._outputs(layer.number)
        return outputs

    @property
    def takers(self) -> list[Taker]:
        """The layers that compute with the output, through layers that only change its shape."""
        return self._takers(self.own.number)

    def _takers(self, number: int) -> list[Taker]:
        takers: list[Taker] = []
        for layer in self.found.layers:
            for which, source in enumerate(layer.sources):
                if source == number:
                    takers += self._takers(layer.number) if kind_of(layer).passes else [(layer, which)]
        return takers

    @property
    def backward_rules(self) -> Sequence[str]:
        rules = [f"BP1  dE/da is the derivative of the loss ({one.words})" for one in self.outputs]
        rules += [kind_of(layer).hands_rule(layer) for layer, _ in self.takers]
        if len(rules) > 1:
            above = list(dict.fromkeys(str(layer.number) for layer, _ in self.takers))
            many = "layers" if len(above) > 1 else "layer"
            sources = ["the loss"] * bool(self.outputs) + [f"{many} {', '.join(above)}"] * bool(above)
            told = f"dE/da is the sum of what comes from {' and '.join(sources)}:"
            if len(sources) == 1 and len(above) == 1:
                told = f"dE/da is the sum of the {len(rules)} parts that come from layer {above[0]}:"
            rules = [told, *dict.fromkeys(rules)]
        return [*rules, *kind_of(self.own).back_rules(self.own)]

    @property
    def back_tables(self) -> Sequence[Columns]:
        return kind_of(self.own).back_tables(self.own)

    def backward(self, place: Place) -> list[str]:
        """The computation of the derivatives at a place of the first table."""
        return kind_of(self.own).brought(self.own, place, self._from_above)

    def _from_above(self, place: Place) -> str:
        """The derivative that arrives at a number of the output, as text."""
        flat = int(np.ravel_multi_index(place, self.own.a.shape)) if place else 0

        def there(shape: tuple[int, ...]) -> Place:
            return tuple(map(int, np.unravel_index(flat, shape)))

        lost = [one.derivative(there(one.a.shape)) for one in self.outputs]
        if len(lost) == 1 and not self.takers:
            return " = ".join(part for part in lost[0] if part)
        parts = [f"({numbers or letters})" for letters, numbers in lost]
        for layer, which in self.takers:
            parts.append(kind_of(layer).hands(layer, which, there(layer.inputs[which].shape)))
        return " + ".join(parts)

    # Weights ----------------------------------------------------------------------------------------------

    @property
    def weights(self) -> Mapping[str, Weight]:
        return kind_of(self.own).weights(self.own)

    def weight(self, name: str, place: Place) -> str:
        """dE/dw of one number of a parameter, with its factors."""
        one = next(one for one in self.own.parameters if one.name == name)
        told = self.weights[name]
        return f"dE/d{told.letter}{at(place)} = {told.terms(self.own, place)} = {plain(one.given[place])}"

    def shared(self, name: str) -> str:
        """The other layers that use a parameter, in words; "" if there are none."""
        one = next(one for one in self.own.parameters if one.name == name)
        if one.part is None:
            return ""
        users = [
            str(layer.number)
            for layer in self.found.layers
            if any(p.name == name and p.owner == one.owner and p.part is not None for p in layer.parameters)
        ]
        listed = " and ".join(users)
        return (
            f"{name} is one tensor for layers {listed}, and layer {one.owner} has it; here is what this layer"
            " gives to its gradient, the sum of all"
        )
