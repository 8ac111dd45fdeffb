"""All layers, by the `type` that names them in a job. The contract is in `distbp.nn.layers.base`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distbp.core.options import registry
from distbp.nn.layers.activation import NAMED, ActivationLayer
from distbp.nn.layers.attention import Attention
from distbp.nn.layers.convolution import Conv1d, Conv2d
from distbp.nn.layers.dense import Dense, DenseSteps
from distbp.nn.layers.dropout import Dropout
from distbp.nn.layers.embedding import Embedding
from distbp.nn.layers.inputs import Input
from distbp.nn.layers.joins import Add, Concatenate, Multiply
from distbp.nn.layers.normalization import BatchNormalization, LayerNormalization
from distbp.nn.layers.periodic import PeriodicEmbedding
from distbp.nn.layers.pooling import (
    AveragePool1d,
    AveragePool2d,
    GlobalAveragePool2d,
    MaxPool1d,
    MaxPool2d,
)
from distbp.nn.layers.recurrent import Elman, Gru, Lstm
from distbp.nn.layers.shapes import Flatten, Reshape, Slice
from distbp.nn.layers.steps import AverageSteps, LastStep, PositionalEmbedding, PositionalEncoding
from distbp.nn.layers.units import ParametricActivation, Scale

LAYERS: Mapping[str, Any] = registry(
    Dense,
    ActivationLayer,
    Flatten,
    Reshape,
    Dropout,
    BatchNormalization,
    LayerNormalization,
    Add,
    Multiply,
    Concatenate,
    Conv2d,
    MaxPool2d,
    AveragePool2d,
    GlobalAveragePool2d,
    Conv1d,
    MaxPool1d,
    AveragePool1d,
    Elman,
    Lstm,
    Gru,
    Embedding,
    DenseSteps,
    Attention,
    PositionalEncoding,
    PositionalEmbedding,
    AverageSteps,
    LastStep,
    Slice,
    Input,
    Scale,
    ParametricActivation,
    PeriodicEmbedding,
    *NAMED,
)
