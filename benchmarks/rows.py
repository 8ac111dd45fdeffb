"""The rows of the benchmark, as data: which net, which batch, how many samples.

Every peer trains the same thing: a stack of dense layers with bias, plain SGD on the mean softmax
cross-entropy, float32, every batch gathered from a shuffled order over a table that is already in
memory. The rows of any job (`ANY_ROWS`) differ from that in one thing or two, each named by a field.
Nothing here imports NumPy, so that a peer can pin its threads before NumPy loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from benchmarks.networks import NETWORK_ROWS, NetworkRow


@dataclass(frozen=True, slots=True)
class Row:
    """One benchmark: a net, a batch size and a table of synthetic samples.

    `sizes` counts units, from the inputs to the classes; `samples` are the rows of the table, and an epoch
    is `samples // batch` full batches (the few left over wait for the next shuffle). `learning_rate`
    multiplies the gradient of the mean loss. `shards`: into how many parts distbp's job cuts a batch where
    there are two cores; one where a batch is not worth cutting, as `shards: auto` finds.
    `shards_of_one_core`: the same on one core. `optimizer` and `loss` are names of distbp's. `class_weights`:
    class k weighs 1 + k / classes; `l1`: of the weights, not of the biases.
    """

    name: str
    sizes: tuple[int, ...]
    batch: int
    activation: str
    samples: int
    learning_rate: float = 0.1
    shards: int = 2
    shards_of_one_core: int = 1
    loss: str = "softmax_cross_entropy"
    optimizer: str = "sgd"
    normalized: bool = False
    dropout: float = 0.0
    clip_norm: float = 0.0
    class_weights: bool = False
    l1: float = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the table."""
        return self.samples // self.batch

    @property
    def parameters(self) -> int:
        """Weights and biases of all layers."""
        return sum((a + 1) * b for a, b in pairwise(self.sizes))

    @property
    def label(self) -> str:
        """The row as the tables print it: `784-30-10, 10`, then what sets it apart from the plain rows."""
        apart = [
            {"mse": "MSE", "sigmoid_cross_entropy": "sigmoid cross-entropy"}.get(self.loss, ""),
            {"adam": "Adam", "adagrad": "Adagrad", "momentum": "momentum"}.get(self.optimizer, ""),
            "batch normalization" if self.normalized else "",
            "GELU" if self.activation == "gelu" else "",
            f"dropout {self.dropout:g}" if self.dropout else "",
            "clip by norm" if self.clip_norm else "",
            "class weights" if self.class_weights else "",
            "L1" if self.l1 else "",
            f"{self.shards_of_one_core} shards" if self.shards_of_one_core > 1 else "",
        ]
        return ", ".join(["-".join(map(str, self.sizes)), str(self.batch), *filter(None, apart)])


# Sizes follow real tables: MNIST has 50,000 training images of 784 pixels; the 54 columns and 7 classes are
# Covertype's (its 581,012 rows are cut so that a peer starts in a second). The fourth row has no such
# model: few samples, because one step takes a fifth of a second.
_TABLE = (
    Row("mnist-30", (784, 30, 10), 10, "sigmoid", 50_000, shards=1),
    Row("mnist-100", (784, 100, 10), 10, "sigmoid", 50_000, shards=1),
    Row("mnist-256-256", (784, 256, 256, 10), 128, "relu", 50_000),
    Row("wide-2048", (1024, 2048, 2048, 10), 512, "relu", 4_096, learning_rate=0.02),
    Row("covertype-256", (54, 128, 64, 7), 256, "relu", 200_000),
    Row("covertype-2048", (54, 128, 64, 7), 2048, "relu", 200_000),
)

_MNIST, _COVERTYPE, _NUMBERS = (784, 256, 256, 10), (54, 128, 64, 7), (20, 64, 64, 1)
_ANY_TABLE = (
    Row("any-mnist", _MNIST, 128, "relu", 50_000),
    Row("any-covertype", _COVERTYPE, 256, "relu", 200_000),
    Row("mse-sgd", _NUMBERS, 64, "relu", 100_000, 0.01, loss="mse"),
    Row("mse-adam", _NUMBERS, 64, "relu", 100_000, 0.001, loss="mse", optimizer="adam"),
    Row("mse-adam-1024", _NUMBERS, 1024, "relu", 100_000, 0.001, loss="mse", optimizer="adam"),
    Row(
        "binary",
        (54, 128, 64, 1),
        256,
        "relu",
        200_000,
        0.001,
        loss="sigmoid_cross_entropy",
        optimizer="adam",
    ),
    Row("normalized", _MNIST, 128, "relu", 50_000, normalized=True),
    Row("gelu", _MNIST, 128, "gelu", 50_000, 0.001, optimizer="adam"),
    Row("dropout", _MNIST, 128, "relu", 50_000, 0.001, optimizer="adam", dropout=0.2),
    Row("clip-norm", _COVERTYPE, 256, "relu", 200_000, 0.02, optimizer="momentum", clip_norm=1.0),
    Row("class-weights", _COVERTYPE, 256, "relu", 200_000, class_weights=True),
    Row("adagrad-l1", _COVERTYPE, 256, "relu", 200_000, 0.01, optimizer="adagrad", l1=1e-5),
    Row("odd-batch", _COVERTYPE, 251, "relu", 200_000, shards_of_one_core=2),
)

AnyRow: TypeAlias = Row | NetworkRow  # both have a name, a label, a batch, samples

ROWS: dict[str, Row] = {row.name: row for row in _TABLE}
ANY_ROWS: dict[str, Row] = {row.name: row for row in _ANY_TABLE}
ALL_ROWS: dict[str, AnyRow] = {**ROWS, **ANY_ROWS, **NETWORK_ROWS}
MOMENTUM = 0.9  # of the optimizer of that name
