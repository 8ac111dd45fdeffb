"""The formulas of a layer with the numbers in them, for text and for pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distbp.core.arrays import Array
from distbp.run.explain.explanation import Explanation, LayerStep
from distbp.run.explain.window_loops import chosen_place, grid_of
from distbp.run.explain.words import MOST_TERMS, Place, at, plain, short, total

RESHAPES = ("flatten", "reshape")
POOLS = ("max_pool2d", "average_pool2d")

LETTERS = {"weight": "w", "recurrent_weight": "r", "bias": "b"}


@dataclass(frozen=True)
class Formulas:
    """Of layer `own` of a step. Every method takes the place of a number and gives one line of text."""

    found: Explanation
    own: LayerStep

    @property
    def recurrent(self) -> bool:
        return self.own.seen.states is not None

    def unit(self, place: Place) -> str:
        """The name of a unit; of a recurrent layer with its step."""
        return f"t={place[0]} [{place[1]}]" if self.recurrent else at(place)

    def _tensor(self, name: str) -> Array:
        return next(one.before for one in self.own.parameters if one.name == name)

    # Forward ----------------------------------------------------------------------------------------------

    @property
    def forward_rule(self) -> str:
        kind, f = self.own.type, self.own.seen.activation
        return {
            "dense": f"z[j] = sum over k of w[j, k] * x[k] + b[j],  a = {f}(z)",
            "conv2d": f"z[f, y, x] = sum over the window of w[f, c, u, v] * x + b[f],  a = {f}(z)",
            "elman": f"z[t] = W x[t] + R h[t-1] + b,  h[t] = {f}(z[t]),  h[-1] = 0",
            "max_pool2d": "a = the largest number of each window",
            "average_pool2d": "a = the average of each window (padding counts as 0)",
        }.get(kind, f"a = {f}(z), z the output of the layer below")

    def forward(self, place: Place) -> str:
        """z and a of a unit, with the numbers they are made of."""
        own, seen = self.own, self.own.seen
        if own.type in POOLS:
            return self._pooled(place)
        assert seen.z is not None
        name, values = at(place), seen.a if seen.states is None else seen.states
        z, a = float(seen.z[place]), float(values[place])
        letter = "h" if self.recurrent else "a"
        after = f"{letter}{name} = {seen.activation}({plain(z)}) = {plain(a)}"
        if own.type == "dense":
            (j,) = place
            terms = total(zip(self._tensor("weight")[j], own.inputs, strict=True), [self._tensor("bias")[j]])
        elif own.type == "elman":
            t, j = place
            pairs = list(zip(self._tensor("weight")[j], own.inputs[t], strict=True))
            if t > 0:
                pairs += list(zip(self._tensor("recurrent_weight")[j], values[t - 1], strict=True))
            terms = total(pairs, [self._tensor("bias")[j]])
        elif own.type == "conv2d":
            terms = total(self._window(place), [self._tensor("bias")[place[0]]])
        else:
            return after
        return f"z{name} = {terms} = {plain(z)};  {after}"

    def _window(self, place: Place) -> list[tuple[float, float]]:
        """Weight and number of each term of a convolution."""
        w, x = self._tensor("weight"), self.own.inputs
        f, i, j = place
        first = f // (w.shape[0] // self.own.options["groups"]) * w.shape[1]
        grid = grid_of(self.own.options)
        return [
            (w[f, c, u, v], x[first + c, row, column])
            for c in range(w.shape[1])
            for u, v, row, column in grid.places(x.shape[1:], i, j)
        ]

    def _pooled(self, place: Place) -> str:
        x, grid, (c, i, j) = self.own.inputs, grid_of(self.own.options), place
        values = [float(x[c, row, column]) for _, _, row, column in grid.places(x.shape[1:], i, j)]
        listed = ", ".join(short(v) for v in values[:MOST_TERMS]) + (
            ", ..." if len(values) > MOST_TERMS else ""
        )
        a = plain(self.own.seen.a[place])
        if self.own.type == "max_pool2d":
            where = at((c, *chosen_place(grid, x, c, i, j)))
            return f"a{at(place)} = max({listed}) = {a}, which is x{where}"
        return f"a{at(place)} = ({listed.replace(', ', ' + ')}) / {grid.kernel[0] * grid.kernel[1]} = {a}"

    # Backward ---------------------------------------------------------------------------------------------

    @property
    def above(self) -> LayerStep | None:
        """The next layer that computes something; None for the last."""
        later = self.found.layers[self.own.number + 1 :]
        return next((layer for layer in later if layer.type not in RESHAPES), None)

    @property
    def backward_rules(self) -> tuple[str, ...]:
        above, own = self.above, self.own.type
        if above is None:
            first = f"BP1  dE/da is the derivative of the loss ({self.found.loss['type']})"
        elif above.type in POOLS:
            first = "dE/da comes from the windows above: to the largest number of each"
            if above.type == "average_pool2d":
                first = "dE/da comes from the windows above: an equal part to each number"
        elif above.type in ("dense", "conv2d", "elman"):
            first = f"BP2  dE/da = W^T delta, over all that layer {above.number} made of it"
        else:
            first = f"dE/da = delta of layer {above.number}"
        if own in POOLS:
            return (first,)
        second = "delta = dE/da * f'(z)"
        if self.own.seen.slope is None:
            second = "delta[j] = a[j] (dE/da[j] - sum over i of dE/da[i] a[i])   (softmax)"
        if own == "elman":
            return (first, "through time: dE/dh[t] = dE/da[t] + R^T delta[t+1]", second.replace("da", "dh"))
        return (first, second)

    def backward(self, place: Place) -> list[str]:
        """dE/da and delta of a unit, with the numbers they are made of."""
        seen = self.own.seen
        d = seen.d_a if seen.d_states is None else seen.d_states
        assert d is not None
        name, letter = at(place), "h" if self.recurrent else "a"
        found = [f"dE/d{letter}{name} = {self._arrives(place)} = {plain(d[place])}"]
        if seen.delta is not None and seen.slope is not None:
            factors = f"{short(float(d[place]))} * {short(float(seen.slope[place]))}"
            found.append(f"delta{name} = {factors} = {plain(seen.delta[place])}")
        elif seen.delta is not None:
            found.append(f"delta{name} = {plain(seen.delta[place])}")
        return found

    def _arrives(self, place: Place) -> str:
        """What dE/da of a unit is the sum of."""
        seen = self.own.seen
        if seen.d_states is None or seen.delta is None:
            return self._from_above(place)
        t, i = place
        steps = len(seen.delta)
        parts = []
        if seen.a.ndim == 2:
            parts.append(self._from_above(place))
        elif t == steps - 1:
            parts.append(self._from_above((i,)))
        if t + 1 < steps:
            parts.append(total(zip(self._tensor("recurrent_weight")[:, i], seen.delta[t + 1], strict=True)))
        return " + ".join(parts)

    def _from_above(self, place: Place) -> str:
        above = self.above
        if above is None:
            return self._from_loss(place)
        flat = int(np.ravel_multi_index(place, self.own.seen.a.shape))
        there = tuple(map(int, np.unravel_index(flat, above.inputs.shape)))
        delta, tensors = above.seen.delta, {one.name: one.before for one in above.parameters}
        if above.type == "dense" and delta is not None:
            return total(zip(tensors["weight"][:, there[0]], delta, strict=True))
        if above.type == "elman" and delta is not None:
            return total(zip(tensors["weight"][:, there[1]], delta[there[0]], strict=True))
        if above.type == "conv2d" and delta is not None:
            return total(_windows_of(above, there))
        if above.type in POOLS:
            return _pools_of(above, there)
        return f"delta{at(there)} of layer {above.number}"

    def _from_loss(self, place: Place) -> str:
        """BP1, where the derivative of the loss is simple."""
        found, y = self.found, self.own.seen.a.ravel()
        at_place = int(np.ravel_multi_index(place, self.own.seen.a.shape))
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
    def bias_rule(self) -> str:
        where = {"conv2d": "[f] = the sum of delta over the places", "elman": " = the sum of delta over t"}
        return f"dE/db{where.get(self.own.type, ' = delta')}"

    def weight_rule(self, name: str) -> str:
        return {
            ("dense", "weight"): "dE/dw[j, k] = dE/da[j] * da/dz[j] * dz/dw[j, k] = delta[j] * x[k]",
            ("conv2d", "weight"): "dE/dw[f, c, u, v] = sum over the places of delta * (the number there)",
            ("elman", "weight"): "dE/dw[j, k] = sum over t of delta[t, j] * x[t, k]",
            ("elman", "recurrent_weight"): "dE/dr[j, i] = sum over t of delta[t, j] * h[t-1, i]",
        }[self.own.type, name]

    def weight(self, name: str, place: Place) -> str:
        """dE/dw of one number, with its factors."""
        own, seen = self.own, self.own.seen
        one = next(one for one in own.parameters if one.name == name)
        delta, d = seen.delta, plain(one.gradient[place])
        assert delta is not None
        if name == "bias":
            j = place[0]
            values = np.ravel(delta[:, j] if own.type == "elman" else delta[j])
            terms = total([], [float(v) for v in values])
        elif own.type == "dense":
            j, k = place
            factors = [] if seen.slope is None or seen.d_a is None else [seen.d_a[j], seen.slope[j]]
            terms = " * ".join(short(float(v)) for v in [*(factors or [delta[j]]), own.inputs[k]])
        elif own.type == "elman":
            j, k = place
            pairs = list(zip(delta[:, j], own.inputs[:, k], strict=True))
            if name == "recurrent_weight" and seen.states is not None:
                pairs = list(zip(delta[1:, j], seen.states[:-1, k], strict=True))
            terms = total(pairs)
        else:
            terms = total(self._places_of_weight(place, delta))
        return f"dE/d{LETTERS[name]}{at(place)} = {terms} = {d}"

    def _places_of_weight(self, place: Place, delta: Array) -> list[tuple[float, float]]:
        f, c, u, v = place
        w, x, grid = self._tensor("weight"), self.own.inputs, grid_of(self.own.options)
        first = f // (w.shape[0] // self.own.options["groups"]) * w.shape[1]
        return [
            (delta[f, i, j], x[first + c, row, column])
            for i, j in np.ndindex(*delta.shape[1:])
            for a, b, row, column in grid.places(x.shape[1:], i, j)
            if (a, b) == (u, v)
        ]


def _windows_of(layer: LayerStep, there: Place) -> list[tuple[float, float]]:
    """(delta, weight) of every window of a convolution in which a number stands."""
    w = next(one.before for one in layer.parameters if one.name == "weight")
    delta, grid, (channel, row, column) = layer.seen.delta, grid_of(layer.options), there
    assert delta is not None
    many = w.shape[0] // layer.options["groups"]
    group = channel // w.shape[1]
    return [
        (delta[f, i, j], w[f, channel - group * w.shape[1], u, v])
        for f in range(group * many, (group + 1) * many)
        for u, v, i, j in grid.around(delta.shape[1:], row, column)
    ]


def _pools_of(layer: LayerStep, there: Place) -> str:
    """The parts that windows hand down to one number."""
    grid, (c, row, column), d_a = grid_of(layer.options), there, layer.seen.d_a
    assert d_a is not None
    size, parts = grid.kernel[0] * grid.kernel[1], []
    for _, _, i, j in grid.around(d_a.shape[1:], row, column):
        if layer.type == "average_pool2d":
            parts.append(f"{short(float(d_a[c, i, j]))} / {size}")
        elif chosen_place(grid, layer.inputs, c, i, j) == (row, column):
            parts.append(short(float(d_a[c, i, j])))
    return " + ".join(parts) if parts else "0 (it is the largest of no window)"
