"""The numbers of a network's output and its loss at one step. Nothing here imports the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distbp.run.explain.numbers import Values
from distbp.run.explain.words import Place, places, plain, short


@dataclass(frozen=True)
class OutputStep:
    """`name`: of its layer; None for the only output. `loss`: its type and options. `error`: its E;
    `factor * error` is its part of the network's E. `weights`: of the steps if each has a target, else None;
    their sum is 1. `losses`: of each number of the output, or of the label; their sum is `error`. `a`: the
    output. `d_a`: the derivative of `factor * error`, in the shape of `a`."""

    name: str | None
    layer: int
    loss: Mapping[str, Any]
    factor: float
    target: Values
    weights: Values | None
    a: Values
    losses: Values
    error: float
    d_a: Values

    @property
    def words(self) -> str:
        """The loss in words: `mse`, or `size: 0.5 x mse`."""
        weighed = self.loss["type"] if self.factor == 1 else f"{self.factor:g} x {self.loss['type']}"
        return weighed if self.name is None else f"{self.name}: {weighed}"

    @property
    def target_words(self) -> str:
        """The words in front of the target's value."""
        return "target" if self.name is None else f"target {self.name}"

    def wanted(self, place: Place) -> float:
        """The target of one number of the output; for classes 1 or 0."""
        if self.target.ndim == self.a.ndim:
            return float(self.target[place])
        return float(place[-1] == int(self.target[place[:-1]]))

    def rows(self, most: int) -> Iterator[tuple[Place, list[float]]]:
        """Yields (place, the numbers of `heads`) for the first `most` numbers of the output."""
        for place in places(self.a.shape, most):
            part = [float(self.losses[place])] if self.losses.shape == self.a.shape else []
            yield place, [self.wanted(place), float(self.a[place]), *part, float(self.d_a[place])]

    @property
    def heads(self) -> Sequence[str]:
        parted = ["part of E"] if self.losses.shape == self.a.shape else []
        return ("target", "a", *parted, "dE/da")

    def derivative(self, place: Place) -> tuple[str, str]:
        """BP1 for one number of the output, in letters and with numbers ("" if that is not simple)."""
        letters, numbers = self._derivative(place)
        weight = 1.0 if self.weights is None else self.weights[place[0]]
        by = [plain(one) for one in (self.factor, weight) if one != 1]
        if not by or not numbers:
            return letters, numbers
        return f"{' '.join(by)} ({letters})", f"{' * '.join(by)} * ({numbers})"

    def _derivative(self, place: Place) -> tuple[str, str]:
        y, a, t = self.a[place[:-1]], short(float(self.a[place])), short(self.wanted(place))
        kind = self.loss["type"]
        if kind == "softmax_cross_entropy" and not self.loss["label_smoothing"]:
            p = np.exp(y - y.max())
            named = f"[{', '.join(map(str, place))}]"
            return f"softmax(a){named} - {t}", f"{plain(p[place[-1]] / p.sum())} - {t}"
        if kind not in ("quadratic", "mse", "sigmoid_cross_entropy"):
            return f"the derivative of {kind}", ""
        share = f" / {y.size}" if kind == "mse" or self.loss.get("outputs") == "mean" else ""
        return {
            "quadratic": ("a - t", f"{a} - {t}"),
            "mse": (f"2 (a - t){share}", f"2 * ({a} - {t}){share}"),
            "sigmoid_cross_entropy": (f"(sigmoid(a) - t){share}", f"(sigmoid({a}) - {t}){share}"),
        }[kind]
