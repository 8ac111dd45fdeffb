"""All kinds of layers that can be explained, by their `type` in a job. Their contract is `Kind`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from distbp.run.explain.kinds.attention import ATTENTION
from distbp.run.explain.kinds.columns import COLUMNS
from distbp.run.explain.kinds.dense import ACTIVATION, DENSE
from distbp.run.explain.kinds.elements import ADD, CONCATENATE, DROPOUT, INPUT, MULTIPLY, RESHAPE, SLICE
from distbp.run.explain.kinds.images import AVERAGE_POOL, CONVOLUTION, GLOBAL_AVERAGE_POOL, MAX_POOL
from distbp.run.explain.kinds.normalization import NORMALIZATION
from distbp.run.explain.kinds.recurrent import RECURRENT
from distbp.run.explain.kinds.sequences import AVERAGE_POOL_1D, CONVOLUTION_1D, MAX_POOL_1D
from distbp.run.explain.kinds.steps import AVERAGE, EMBEDDING, ENCODING, LAST, PLACES
from distbp.run.explain.kinds.units import PARAMETRIC, PERIODIC, SCALE
from distbp.run.explain.loops import FUNCTIONS
from distbp.run.explain.numbers import Kind

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "columns": COLUMNS,
        "dense": DENSE,
        "dense_steps": DENSE,
        "activation": ACTIVATION,
        "conv2d": CONVOLUTION,
        "max_pool2d": MAX_POOL,
        "average_pool2d": AVERAGE_POOL,
        "global_average_pool2d": GLOBAL_AVERAGE_POOL,
        "conv1d": CONVOLUTION_1D,
        "max_pool1d": MAX_POOL_1D,
        "average_pool1d": AVERAGE_POOL_1D,
        "elman": RECURRENT,
        "lstm": RECURRENT,
        "gru": RECURRENT,
        "attention": ATTENTION,
        "batch_normalization": NORMALIZATION,
        "layer_normalization": NORMALIZATION,
        "dropout": DROPOUT,
        "add": ADD,
        "multiply": MULTIPLY,
        "concatenate": CONCATENATE,
        "embedding": EMBEDDING,
        "positional_encoding": ENCODING,
        "positional_embedding": PLACES,
        "average_steps": AVERAGE,
        "last_step": LAST,
        "scale": SCALE,
        "parametric_activation": PARAMETRIC,
        "periodic_embedding": PERIODIC,
        "slice": SLICE,
        "input": INPUT,
        "flatten": RESHAPE,
        "reshape": RESHAPE,
        **dict.fromkeys((*FUNCTIONS, "softmax"), ACTIVATION),
    }
)
