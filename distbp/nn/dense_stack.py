"""A stack of dense layers with softmax cross-entropy on labels as one compiled call (Numba, optional).

Forward, loss and backward of small batches are some twenty short pieces of work; called one by one from
Python the calls cost as much as the work. The formulas, kernels and products are those of the layers
(`layers.dense`) and of `compiled`; only who calls them differs. float32 only, as `vector_math` is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from distbp.nn import compiled
from distbp.nn.activations import ACTIVATIONS, live_rows
from distbp.nn.arrays import Array
from distbp.nn.blas import Gemm
from distbp.nn.gemm import PLAIN, TRANSPOSED, product
from distbp.nn.jit import jit
from distbp.nn.layers.dense import Dense
from distbp.nn.network import Network, aligned_vector

_CODES = {"linear": 0, "relu": 1, "leaky_relu": 2, "sigmoid": 3, "tanh": 4}
LINEAR, RELU, LEAKY_RELU, SIGMOID = 0, 1, 2, 3  # of _CODES, as constants of compiled code
LINE = 16  # float32 values in 64 bytes


class Plan(NamedTuple):
    """Where everything stands. Per layer: `units`, its activation's `codes`, and where its weight and bias
    begin in the flat vector, its output and the gradient of its output in the work vector. `features`: of
    the input; `gemm`: who computes the products."""

    features: int
    units: Array
    codes: Array
    weights: Array
    biases: Array
    outputs: Array
    deltas: Array
    gemm: Gemm


def covers(network: Network) -> bool:
    """Whether the network is a stack that this module computes."""
    return (
        network.dtype == np.float32
        and bool(network.layers)
        and all(isinstance(one, Dense) and one.activation in _CODES for one in network.layers)
    )


def plan(network: Network, rows: int, gemm: Gemm) -> tuple[Plan, Array]:
    """The places for slices of `rows` rows, and a work vector for them. Buffers begin at multiples of 64
    bytes: the last bits of a product may depend on that."""
    units = [shape[0] for shape in network.shapes[1:]]
    sizes = [-(-rows * count // LINE) * LINE for count in units]
    at = np.cumsum([0, *sizes, *sizes])
    starts = {(t.layer, t.name): t.start for t in network.tensors}
    layers = range(len(units))
    whole = functools.partial(np.array, dtype=np.int64)
    places = Plan(
        network.shapes[0][0],
        whole(units),
        whole([_CODES[layer.activation] for layer in network.layers if isinstance(layer, Dense)]),
        whole([starts[i, "weight"] for i in layers]),
        whole([starts[i, "bias"] for i in layers]),
        whole(at[: len(units)]),
        whole(at[len(units) : -1]),
        gemm,
    )
    return places, aligned_vector(int(at[-1]), network.dtype)


@jit
def block(vector: Array, start: int, rows: int, columns: int) -> Array:
    """A matrix that stands in a flat vector."""
    return vector[start : start + rows * columns].reshape(rows, columns)


@jit
def backward_to_biases(
    places: Plan,
    vector: Array,
    gradient: Array,
    work: Array,
    x: Array,
    labels: Array,
    weights: Array | None,
    losses: Array,
    totals: Array,
) -> float:
    """Forward, loss, and backward but for the weights' gradients: what they need lies in `work` (`factors`).

    vector, gradient: flat; x: (rows, features); labels: (rows,); weights: (rows,) or None; losses float64
    and totals: scratch (rows,). Writes the biases' gradients. Returns the loss sum."""
    rows, last = x.shape[0], places.units.size - 1
    below, features = x, places.features
    for i in range(last + 1):
        units = places.units[i]
        z = block(work, places.outputs[i], rows, units)
        product(places.gemm, PLAIN, TRANSPOSED, below, block(vector, places.weights[i], units, features), z)
        bias = vector[places.biases[i] : places.biases[i] + units]
        code = places.codes[i]
        if code == LINEAR:
            compiled.add_bias(z, bias)
        elif code == RELU:
            compiled.add_bias_relu(z, bias)
        elif code == LEAKY_RELU:
            compiled.add_bias_leaky_relu(z, bias)
        elif code == SIGMOID:
            compiled.add_bias_sigmoid(z, bias)
        else:
            compiled.add_bias_tanh(z, bias)
        below, features = z, units
    dz = block(work, places.deltas[last], rows, features)
    loss = compiled.cross_entropy(below, labels, weights, dz, losses, totals)
    for back in range(last + 1):
        i = last - back
        units = places.units[i]
        y = block(work, places.outputs[i], rows, units)
        dz = block(work, places.deltas[i], rows, units)
        db = gradient[places.biases[i] : places.biases[i] + units]
        code = places.codes[i]
        if code == LINEAR:
            compiled.linear_backward(y, db, dz)
        elif code == RELU:
            compiled.relu_backward(y, db, dz)
        elif code == LEAKY_RELU:
            compiled.leaky_relu_backward(y, db, dz)
        elif code == SIGMOID:
            compiled.sigmoid_backward(y, db, dz)
        else:
            compiled.tanh_backward(y, db, dz)
        if i > 0:
            features = places.units[i - 1]
            weight = block(vector, places.weights[i], units, features)
            product(places.gemm, PLAIN, PLAIN, dz, weight, block(work, places.deltas[i - 1], rows, features))
    return float(loss)


_LOW, _HIGH, _FLAT = np.float32(0.01), np.float32(0.99), np.float32(0.98)


@jit
def add_live_rows(places: Plan, work: Array, rows: int, live: Array) -> None:
    """Adds to `live`, float32, one after the other of all layers that can saturate, what `live_rows` counts
    in the outputs that lie in `work`."""
    zero, one, at = np.float32(0), np.float32(1), 0
    for i in range(places.units.size):
        units, code = places.units[i], places.codes[i]
        if code in (LINEAR, LEAKY_RELU):
            continue
        y = block(work, places.outputs[i], rows, units)
        some = live[at : at + units]
        for row in range(rows):
            if code == RELU:
                for j in range(units):
                    some[j] += zero if y[row, j] == zero else one
            elif code == SIGMOID:
                for j in range(units):
                    some[j] += zero if y[row, j] < _LOW or y[row, j] > _HIGH else one
            else:
                for j in range(units):
                    some[j] += zero if np.abs(y[row, j]) > _FLAT else one
        at += units


@jit
def factors(places: Plan, work: Array, x: Array, i: int) -> tuple[Array, Array]:
    """dz (rows, units) and the inputs (rows, features) of layer i: its weights' gradient is dz^T inputs."""
    rows = x.shape[0]
    dz = block(work, places.deltas[i], rows, places.units[i])
    if i == 0:
        return dz, x
    return dz, block(work, places.outputs[i - 1], rows, places.units[i - 1])


# The weights' gradient is computed for so many units at a time that it stays in a near cache until it is
# used, in the nearest one where few rows make a product of a part as fast as one of the whole.
FEW_ROWS, MORE_ROWS = 32, 128
PART_BYTES, LARGER_PART_BYTES = 48 * 1024, 208 * 1024


@jit
def units_at_once(rows: int, units: int, features: int) -> int:
    """Into how large parts the product of a weights' gradient is cut. Part of the numerics, as the shape of a
    product may decide its last bits."""
    if rows <= FEW_ROWS:
        return min(units, max(8, PART_BYTES // (4 * features)))
    if rows <= MORE_ROWS:
        parts = -(-4 * units * features // LARGER_PART_BYTES)
        return min(units, -(-units // (parts * LINE)) * LINE)
    return units


@jit
def weight_gradients(places: Plan, gradient: Array, work: Array, x: Array) -> None:
    """Writes the weights' gradients of all layers."""
    for i in range(places.units.size):
        dz, inputs = factors(places, work, x, i)
        units, features = dz.shape[1], inputs.shape[1]
        out = block(gradient, places.weights[i], units, features)
        many = units_at_once(x.shape[0], units, features)
        for start in range(0, units, many):
            stop = min(start + many, units)
            product(places.gemm, TRANSPOSED, PLAIN, dz[:, start:stop], inputs, out[start:stop])


@jit
def factors_are_fewer(rows: int, features: int, units: int, size: int) -> bool:
    """Whether inputs and errors of a slice, and the outputs between, are fewer numbers than the gradient.
    `units`: of all layers."""
    return rows * (features + 2 * units) < size


@jit
def bound_by_factors(places: Plan, work: Array, x: Array) -> float:
    """No gradient is larger: each is a sum over the rows of dz times an input (of a bias, times 1). NaN or
    infinity where a factor is."""
    rows, bound = x.shape[0], 0.0
    for i in range(places.units.size):
        dz, inputs = factors(places, work, x, i)
        bound += rows * compiled.largest(dz) * (1.0 + compiled.largest(inputs))  # sums keep NaN, max does not
    return bound


@jit
def bound_of(places: Plan, gradient: Array, work: Array, x: Array) -> float:
    """The same from whatever is fewer values, the factors or the gradient itself."""
    if factors_are_fewer(x.shape[0], places.features, places.units.sum(), gradient.size):
        return bound_by_factors(places, work, x)  # type: ignore[no-any-return]
    return compiled.largest(gradient)  # type: ignore[no-any-return]


@jit
def _sums(
    places: Plan,
    vector: Array,
    gradient: Array,
    work: Array,
    x: Array,
    labels: Array,
    weights: Array | None,
    losses: Array,
    totals: Array,
) -> tuple[float, float]:
    loss = backward_to_biases(places, vector, gradient, work, x, labels, weights, losses, totals)
    weight_gradients(places, gradient, work, x)
    return loss, bound_of(places, gradient, work, x)


class DenseStack:
    """The stack bound to slices of `rows` rows and to two flat vectors.

    `sums(x, labels, weights)`: writes the gradient sums; returns the loss sum, and a bound of the gradient's
    absolute values (see `distbp.totals`). `live`: as of a `Program`."""

    def __init__(self, network: Network, rows: int, vector: Array, gradient: Array, gemm: Gemm) -> None:
        self.places, self.work = plan(network, rows, gemm)
        losses, totals = np.empty(rows), np.empty(rows, network.dtype)
        places, work = self.places, self.work

        def sums(x: Array, labels: Array, weights: Array | None) -> tuple[float, float]:
            return _sums(  # type: ignore[no-any-return]
                places, vector, gradient, work, x, labels, weights, losses, totals
            )

        self.sums = sums
        self.live = tuple(_live(network, places, work, rows))


def _live(
    network: Network, places: Plan, work: Array, rows: int
) -> Sequence[tuple[int, Callable[[], Array]]]:
    found = []
    for i, layer in enumerate(network.layers):
        assert isinstance(layer, Dense)
        activation = ACTIVATIONS[layer.activation]
        if activation.saturated is not None:
            y = block(work, places.outputs[i], rows, layer.units)
            found.append((i, functools.partial(live_rows, activation, y, y)))
    return found
