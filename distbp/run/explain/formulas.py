"""The formulas of a layer with the numbers in them, for text and for pictures: what its kind says, and what
comes from the layers that take its output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distbp.run.explain.explanation import Explanation
from distbp.run.explain.kinds import KINDS
from distbp.run.explain.numbers import Columns, Kind, LayerStep, Values, Weight
from distbp.run.explain.words import Place, at, plain, short

Taker = tuple[LayerStep, int]  # a layer, and which of its inputs


def kind_of(layer: LayerStep) -> Kind:
    return KINDS[layer.type]


@dataclass(frozen=True)
class Formulas:
    """Of layer `own` of a step. Methods that take the place of a number give lines of text."""

    found: Explanation
    own: LayerStep

    def unit(self, place: Place) -> str:
        """The name of a place in the first table; of a recurrent layer with its step."""
        return kind_of(self.own).unit(self.own, place)

    @property
    def drawn(self) -> tuple[Values, Values | None]:
        """What a picture shows going forward, and coming back."""
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
        """How the number at a place of the first table comes about."""
        return kind_of(self.own).made(self.own, place)

    # Backward ---------------------------------------------------------------------------------------------

    @property
    def takers(self) -> list[Taker]:
        """The layers that compute with the output; what only changes its shape is passed over."""
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
        rules = [kind_of(layer).hands_rule(layer) for layer, _ in self.takers]
        if not rules:
            first = [f"BP1  dE/da is the derivative of the loss ({self.found.loss['type']})"]
        elif len(rules) == 1:
            first = rules
        else:
            above = dict.fromkeys(str(layer.number) for layer, _ in self.takers)
            first = [f"dE/da is the sum of what comes from layers {', '.join(above)}:", *dict.fromkeys(rules)]
            if len(above) == 1:
                first[0] = (
                    f"dE/da is the sum of the {len(rules)} parts that come from layer {', '.join(above)}:"
                )
        return [*first, *kind_of(self.own).back_rules(self.own)]

    @property
    def back_tables(self) -> Sequence[Columns]:
        return kind_of(self.own).back_tables(self.own)

    def backward(self, place: Place) -> list[str]:
        """How the derivatives at a place of the first table come about."""
        return kind_of(self.own).brought(self.own, place, self._from_above)

    def _from_above(self, place: Place) -> str:
        """What is handed down to a number of the output."""
        if not self.takers:
            return self._from_loss(place)
        flat = int(np.ravel_multi_index(place, self.own.a.shape)) if place else 0
        parts = []
        for layer, which in self.takers:
            there = tuple(map(int, np.unravel_index(flat, layer.inputs[which].shape)))
            parts.append(kind_of(layer).hands(layer, which, there))
        return " + ".join(parts)

    def _from_loss(self, place: Place) -> str:
        """BP1, where the derivative of the loss is simple."""
        found, y = self.found, self.own.a.ravel()
        at_place = int(np.ravel_multi_index(place, self.own.a.shape))
        kind, a = found.loss["type"], short(y[at_place])
        if kind == "softmax_cross_entropy" and not found.loss["label_smoothing"]:
            wanted = int(at_place == int(found.target))
            p = np.exp(y - y.max())
            return f"softmax(a){at(place)} - {wanted} = {plain(p[at_place] / p.sum())} - {wanted}"
        if kind not in ("quadratic", "mse", "sigmoid_cross_entropy"):
            return f"the derivative of {kind}"
        t = short(found.target.ravel()[at_place])
        share = f" / {y.size}" if kind == "mse" or found.loss.get("outputs") == "mean" else ""
        return {
            "quadratic": f"a - t = {a} - {t}",
            "mse": f"2 (a - t){share} = 2 ({a} - {t}){share}",
            "sigmoid_cross_entropy": f"(sigmoid(a) - t){share} = (sigmoid({a}) - {t}){share}",
        }[kind]

    # Weights ----------------------------------------------------------------------------------------------

    @property
    def weights(self) -> Mapping[str, Weight]:
        return kind_of(self.own).weights(self.own)

    def weight(self, name: str, place: Place) -> str:
        """dE/dw of one number, with its factors."""
        one = next(one for one in self.own.parameters if one.name == name)
        told = self.weights[name]
        return f"dE/d{told.letter}{at(place)} = {told.terms(self.own, place)} = {plain(one.given[place])}"

    def shared(self, name: str) -> str:
        """Who else uses a parameter, in words; "" where nobody does."""
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
