"""The rows of networks beside dense ones, as data: images, sequences, ids.

Every peer trains the same layers on the mean softmax cross-entropy over ten classes, in float32, from a
table of random samples in memory. Nothing here imports NumPy, so that a peer can pin its threads before
NumPy loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLASSES = 10
STEPS, FEATURES = 50, 8  # of a sequence
WORDS, SENTENCE, VECTOR = 10_000, 32, 32  # ids, ids in a sample, numbers in the vector of an id
SYMBOLS, LENGTH, MODEL, HEADS, INNER = 256, 64, 64, 4, 256  # of the transformer

Layers = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One benchmark. `shape`: of a sample; `below`: its numbers are ids from 0 to below - 1; 0: normal
    numbers. `label`, `batch`, `samples`, `learning_rate`, `shards`: as of `rows.Row`."""

    name: str
    net: str
    shape: tuple[int, ...]
    layers: Layers
    batch: int
    samples: int
    optimizer: str
    learning_rate: float
    below: int = 0
    shards: int = 2
    shards_of_one_core: int = 1
    loss: str = "softmax_cross_entropy"

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the table."""
        return self.samples // self.batch

    @property
    def label(self) -> str:
        """The row as the tables print it."""
        return f"{self.net}, {self.batch}"


def _dense(units: int, activation: str = "linear") -> dict[str, Any]:
    return {"type": "dense", "units": units, "activation": activation}


def _convolution(filters: int, size: int, padding: int, stride: int = 1, **more: Any) -> dict[str, Any]:
    sizes = {"filters": filters, "kernel_size": size, "padding": padding, "stride": stride}
    return {"type": "conv2d", **sizes, **more}


_POOL = {"type": "max_pool2d", "kernel_size": 2}
_LENET: Layers = [
    _convolution(6, 5, 2, activation="relu"),
    _POOL,
    _convolution(16, 5, 0, activation="relu"),
    _POOL,
    {"type": "flatten"},
    _dense(120, "relu"),
    _dense(84, "relu"),
    _dense(CLASSES),
]


_NORMAL: dict[str, Any] = {"type": "batch_normalization", "axis": 0}  # each channel over all places


def _residual(number: int, filters: int, stride: int) -> Layers:
    """Two normalized convolutions beside what skips them (He et al., CVPR 2016, figure 2)."""
    before, after, skipped = f"x{number - 1}", f"x{number}", f"x{number - 1}"
    block: Layers = [
        _convolution(filters, 3, 1, stride, inputs=[before]),
        _NORMAL,
        {"type": "relu"},
        _convolution(filters, 3, 1),
        {**_NORMAL, "name": f"deep{number}"},
    ]
    if stride > 1:
        skipped = f"short{number}"
        block.append(_convolution(filters, 1, 0, stride, inputs=[before]))
        block.append({**_NORMAL, "name": skipped})
    block.append({"type": "add", "inputs": [f"deep{number}", skipped]})
    return [*block, {"type": "relu", "name": after}]


_RESNET: Layers = [
    _convolution(16, 3, 1),
    _NORMAL,
    {"type": "relu", "name": "x0"},
    *_residual(1, 16, 1),
    *_residual(2, 32, 2),
    *_residual(3, 64, 2),
    {"type": "global_average_pool2d"},
    _dense(CLASSES),
]


def _encoder(number: int) -> Layers:
    """A block that normalizes after each sum (Vaswani et al., NeurIPS 2017, section 3.1)."""
    before, half, after = f"x{number - 1}", f"half{number}", f"x{number}"
    return [
        {"type": "attention", "heads": HEADS, "name": f"found{number}", "inputs": [before]},
        {"type": "add", "inputs": [before, f"found{number}"]},
        {"type": "layer_normalization", "name": half},
        {"type": "dense_steps", "units": INNER, "activation": "relu"},
        {"type": "dense_steps", "units": MODEL, "name": f"made{number}"},
        {"type": "add", "inputs": [half, f"made{number}"]},
        {"type": "layer_normalization", "name": after},
    ]


_TRANSFORMER: Layers = [
    {"type": "embedding", "entries": SYMBOLS, "size": MODEL},
    {"type": "positional_embedding", "name": "x0"},
    *_encoder(1),
    *_encoder(2),
    {"type": "average_steps"},
    _dense(CLASSES),
]
_WORDS: Layers = [
    {"type": "embedding", "entries": WORDS, "size": VECTOR},
    {"type": "average_steps"},
    _dense(CLASSES),
]


def _recurrent(kind: str) -> Layers:
    return [{"type": kind, "units": 64}, _dense(CLASSES)]


_IMAGE, _SEQUENCE = (1, 28, 28), (STEPS, FEATURES)
_TABLE = (
    NetworkRow("lenet", "LeNet-5", _IMAGE, _LENET, 64, 4096, "sgd", 0.01),
    NetworkRow("resnet8", "ResNet-8 on 28x28", _IMAGE, _RESNET, 64, 512, "sgd", 0.01),
    NetworkRow("lstm", "LSTM(64), 50 x 8", _SEQUENCE, _recurrent("lstm"), 64, 4096, "adam", 1e-3),
    NetworkRow("elman", "Elman(64), 50 x 8", _SEQUENCE, _recurrent("elman"), 64, 4096, "adam", 1e-3),
    NetworkRow(
        "embedding",
        "embedding 10k x 32, 32 ids",
        (SENTENCE,),
        _WORDS,
        256,
        16_384,
        "sgd",
        0.01,
        WORDS,
        shards=1,
    ),
    NetworkRow(
        "transformer", "transformer 2 x d64, 64 ids", (LENGTH,), _TRANSFORMER, 32, 512, "adam", 1e-3, SYMBOLS
    ),
)
NETWORK_ROWS: Mapping[str, NetworkRow] = {row.name: row for row in _TABLE}
