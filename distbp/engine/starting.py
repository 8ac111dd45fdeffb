"""Initial weights that depend on the training rows (initializers with `by_data`), layer after layer.

The rows pass through the layers before a dense layer with such an initializer. The weighted sums z of this
layer then decide its weights. The computation is in float64 with NumPy's definitions, over at most ROWS
training rows, before the first step. So the number of workers does not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distbp.core.arrays import Array, aligned_vector
from distbp.core.streams import Purpose, generator
from distbp.data.batches import Rows
from distbp.engine.numerics import one_blas_thread
from distbp.nn.kernels import NUMPY
from distbp.nn.network import Network, Tensor
from distbp.nn.program import Program

ROWS = 1024  # at most; drawn at random from a larger training set


def looks_at_data(layers: Sequence[Any]) -> bool:
    """Whether the initial weights of these layers depend on the data."""
    return any(getattr(layer, option).by_data for layer in layers for option in layer.by_data)


def start_by_data(network: Network, vector: Array, seed: int, rows: Callable[[], tuple[Rows, int]]) -> None:
    """Rewrites the tensors of `vector` (size,) whose initializers look at the data; the others stay as they
    were drawn. rows: returns the training rows and their number; called only if there is such a tensor."""
    if not looks_at_data(network.layers):
        return
    training, count = rows()
    chosen = np.arange(count)
    if count > ROWS:
        chosen = np.sort(generator(seed, Purpose.START, 0).choice(count, ROWS, replace=False))
    x = np.empty((len(chosen), *network.row_shape), network.input_dtype)
    training.gather(chosen, x)
    with one_blas_thread(), np.errstate(all="ignore"):
        for index, layer in enumerate(network.layers):
            if looks_at_data([layer]):
                _start(network, index, vector, seed, x)


def _start(network: Network, index: int, vector: Array, seed: int, x: Array) -> None:
    layer: Any = network.layers[index]
    tensors = {tensor.name: tensor for tensor in network.tensors if tensor.layer == index}
    inputs = _before(network, network.wiring[index][0], vector, x)
    weight = _values(tensors["weight"], vector)
    if layer.parametrization == "ntk":
        inputs = inputs / np.sqrt(inputs.shape[1])
    z, draw = inputs @ weight.T, generator(seed, Purpose.START, 1 + index)
    if layer.initializer.by_data:
        factor = layer.initializer.factors(z)
        weight, z = weight * factor[:, None], z * factor
        _put(tensors["weight"], weight, vector)
    if layer.bias_initializer.by_data:
        _put(tensors["bias"], layer.bias_initializer.values(z, draw), vector)


def _before(network: Network, source: int, vector: Array, x: Array) -> Array:
    """The outputs of layer `source` for the rows `x`, (rows, numbers), float64; -1: the data."""
    part = Network(
        network.layers[: source + 1],
        network.input_shape,
        np.float64,
        wiring=network.wiring[: source + 1],
        entry=network.entry,
        lengths=network.lengths,
    )
    own = aligned_vector(part.size, np.float64)
    places = {tensor.path: tensor for tensor in (*network.tensors, *network.statistics)}
    for tensor in (*part.tensors, *part.statistics):
        own[tensor.start : tensor.stop] = vector[places[tensor.path].start : places[tensor.path].stop]
    program = Program(part, len(x), own, kernels=NUMPY)
    program.run(np.ascontiguousarray(x.astype(part.input_dtype)))
    return program.outputs(len(x)).reshape(len(x), -1).copy()


def _values(tensor: Tensor, vector: Array) -> Array:
    values: Array = vector[tensor.start : tensor.stop].astype(np.float64).reshape(tensor.shape)
    return values


def _put(tensor: Tensor, values: Array, vector: Array) -> None:
    vector[tensor.start : tensor.stop] = values.ravel()
