"""Implements `distbp explain --check`: computes every number of the JSON again from the step's inputs.

The inputs are the sample, its target, the parameters and optimizer state before the step, and the options.
The loops in this package compute everything else. They share no code with the engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from distbp.run.explain.kinds.directions import BEGIN
from distbp.run.explain.recompute import Document, recomputed
from distbp.run.explain.words import MISSING

TOLERANCE = 1e-9  # far above rounding, far below an error in a formula
ROUNDING = 1e-15  # of a sum of products, relative to the largest of such sums
# A derivative smaller than this share of the sum of its terms' sizes is compared with that share. It carries
# the rounding of terms that cancel, for example that of a bias below a normalization.
FLOOR = 1e-3

# The fields of a layer that are not computed.
_GIVEN = {"number", "type", "name", "inputs", "options", "activation", "parameters", *BEGIN.values()}

Pair = tuple[str, Any, Any, float]  # place, value in the JSON, value found here, scale of the difference


class Checked(NamedTuple):
    """`largest`: the largest difference, relative to the largest number of its array (see `FLOOR`). `place`:
    where it is, such as layers.0.parameters.weight.dE_dw[1, 0]. `told`, `found`: the two values there.
    `numbers`: how many were compared."""

    numbers: int
    largest: float
    place: str
    told: float
    found: float

    @property
    def passed(self) -> bool:
        return self.largest <= TOLERANCE

    def __str__(self) -> str:
        what = (
            f"{self.numbers:,} numbers computed again by loops: the largest difference is {self.largest:.1e}"
        )
        if self.passed:
            return f"{what}, at {self.place}" if self.largest else what
        return (
            f"{what} (allowed {TOLERANCE:.0e}): {self.place} is {self.told!r}, but computed again"
            f" {self.found!r}"
        )


def check(document: Document) -> Checked:
    """Compares the numbers of `Explanation.to_json`, or of a file with it, with those computed again."""
    worst, numbers = Checked(0, 0.0, "", 0.0, 0.0), 0
    for place, told, again, scale in _pairs(document, recomputed(document)):
        if told is None and again is None:
            continue
        one, other = (np.asarray(math.nan if v is None else v, np.float64) for v in (told, again))
        if one.shape != other.shape:
            return Checked(numbers, math.inf, place, math.nan, math.nan)
        numbers += one.size
        off = np.abs(one - other) / (scale or 1.0)
        off = np.where(np.isnan(off), math.inf, off)
        at = np.unravel_index(int(np.argmax(off)), one.shape)
        if off[at] > worst.largest:
            inside = f"[{', '.join(map(str, at))}]" if at else ""
            worst = Checked(0, float(off[at]), place + inside, float(one[at]), float(other[at]))
    return worst._replace(numbers=numbers)


def _size(values: Any) -> float:
    return 0.0 if values is None else float(np.max(np.abs(np.asarray(values, np.float64)), initial=0.0))


def _terms(layer: Document, found: Mapping[str, Any], inputs: Iterable[Any]) -> float:
    """An upper limit of the terms in the derivatives of a layer's parameters: the sum of all derivatives that
    reached the layer, times its largest number."""
    names = layer.keys() - _GIVEN
    back = {name for name in names if name.startswith(("delta", "dE_"))}
    met = max(1.0, *map(_size, (*inputs, *(found.get(name) for name in names - back))))
    sums = (np.sum(np.abs(found[name])) for name in back if found.get(name) is not None)
    return met * float(sum(sums))


def _pairs(document: Document, again: Mapping[str, Any]) -> Iterator[Pair]:
    for at, (output, found) in enumerate(zip(document["outputs"], again["outputs"], strict=True)):
        for name, value in found.items():
            yield f"outputs.{at}.{name}", output[name], value, max(1.0, _size(value))
    loss = again["loss"]
    for name in ("E", "E_after", "E_after_biases_held"):
        yield f"loss.{name}", document["loss"][name], loss[name], max(1.0, _size(loss[name]))
    a = {layer["number"]: layer["a"] for layer in document["layers"]}
    given = np.asarray(document["input"], np.float64)
    given = np.where(given == MISSING, 0.0, given)  # a missing cell is in no sum
    for at, (layer, found) in enumerate(zip(document["layers"], again["layers"], strict=True)):
        terms = _terms(layer, found, (a.get(source, given) for source in layer["inputs"]))
        for name in layer.keys() - _GIVEN:
            again_here = found.get(name)
            yield f"layers.{at}.{name}", layer[name], again_here, _size(again_here)
        for tensor, one in layer["parameters"].items():
            place, new = f"layers.{at}.parameters.{tensor}", found["parameters"][tensor]
            least = FLOOR * max(terms, _size(new["dE_dw"]))
            for name in {"dE_dw", "part"} & one.keys():
                yield f"{place}.{name}", one[name], new[name], max(least, _size(new[name]))
            # A difference of two numbers is only as exact as they are. Dividing by a root plus epsilon
            # enlarges the rounding of a gradient that should be 0; so does the momentum.
            spec = document["optimizer"]
            divided = least / FLOOR * ROUNDING / TOLERANCE / spec["epsilon"] if "epsilon" in spec else 0.0
            size = max(_size(new["after"]), spec["learning_rate"] * max(least, divided))
            for name in ("after", "update"):
                yield f"{place}.{name}", one[name], new[name], size
            for slot, state in new["state_after"].items():
                size = max(least, _size(state), divided if slot == "momentum" else 0.0)
                yield f"{place}.state_after.{slot}", one["state_after"].get(slot), state, size
