"""What a user gives a model to predict from, where rows have lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError, ModelError
from distbp.data.formats.arrays import as_array
from distbp.data.sequences import Samples, blanked, checked_lengths, padded, with_lengths
from distbp.nn.network import Network

_NAME = "the inputs"


def rows_with_lengths(network: Network, x: Any, lengths: Any) -> Samples:
    """Rows padded to the steps of a network whose rows have lengths. x: a list of arrays (steps, ...) of
    different lengths, a mapping of `inputs` and `lengths`, or with `lengths` an array. Raises ModelError."""
    try:
        if lengths is None:
            x, lengths = with_lengths(x, _NAME)
        if lengths is None and not isinstance(x, list | tuple):
            raise ModelError(
                "this model was trained on rows with lengths; give lengths=..., or a list of arrays"
                " (steps, ...)"
            )
        if lengths is None:
            x, lengths = padded(x, _NAME)
        return _fitted(network, as_array(x, _NAME), as_array(lengths, "the lengths"))
    except DataError as error:
        raise ModelError(str(error)) from None


def _fitted(network: Network, x: Array, lengths: Array) -> Samples:
    steps, *features = network.input_shape
    if x.ndim < 2 and lengths.any():
        raise ModelError(f"expected inputs of shape (rows, {steps} or fewer, ...), got {x.shape}")
    lengths = checked_lengths(lengths, len(x), x.shape[1] if x.ndim > 1 else 0, "the lengths")
    if not lengths.any():
        return Samples(np.zeros((len(x), steps, *features), network.input_dtype), lengths)
    if x.shape[2:] != tuple(features):
        raise ModelError(
            f"expected steps of shape {tuple(features)}, got {x.shape[2:]}; give them as in training"
        )
    if lengths.max() > steps:
        raise ModelError(
            f"row {int(lengths.argmax())} has {int(lengths.max())} steps, but the model takes at most"
            f" {steps}, the most that training had; cut it off"
        )
    out = np.zeros((len(x), steps, *features), x.dtype)
    most = min(steps, x.shape[1])
    out[:, :most] = blanked(x[:, :most], lengths)
    return Samples(out, lengths)
