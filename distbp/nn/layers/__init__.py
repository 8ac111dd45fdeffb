"""All layers, by the `type` that names them in a job. The contract is in `distbp.nn.layers.base`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distbp.nn.layers.activation import NAMED, ActivationLayer
from distbp.nn.layers.dense import Dense
from distbp.nn.layers.dropout import Dropout
from distbp.nn.layers.normalization import BatchNormalization, LayerNormalization
from distbp.nn.layers.shapes import Flatten, Reshape
from distbp.options import registry

LAYERS: Mapping[str, Any] = registry(
    Dense, ActivationLayer, Flatten, Reshape, Dropout, BatchNormalization, LayerNormalization, *NAMED
)
