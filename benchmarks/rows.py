"""The six rows of the benchmark, as data: which net, which batch, how many samples.

Every peer trains the same thing: a stack of dense layers with bias, plain SGD on the mean softmax
cross-entropy, float32, every batch gathered from a shuffled order over a table that is already in
memory. Nothing here imports NumPy, so that a peer can pin its threads before NumPy loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Row:
    """One benchmark: a net, a batch size and a table of synthetic samples.

    `sizes` counts units, from the inputs to the classes; `samples` are the rows of the table, and an epoch
    is `samples // batch` full batches (the few left over wait for the next shuffle). `learning_rate`
    multiplies the gradient of the mean loss. `shards`: into how many parts distbp's job cuts a batch where
    there are two cores; a batch of ten small samples is not worth cutting.
    """

    name: str
    sizes: tuple[int, ...]
    batch: int
    activation: str
    samples: int
    learning_rate: float = 0.1
    shards: int = 2

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
        """The row as the tables print it: `784-30-10, 10`."""
        return "-".join(map(str, self.sizes)) + f", {self.batch}"


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

ROWS: dict[str, Row] = {row.name: row for row in _TABLE}
