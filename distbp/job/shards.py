"""`shards: auto`: a function of the job alone, so that the result is the same on every machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distbp.nn.network import Network

MAX_SHARDS = 1024
_MAX_AUTOMATIC = 8
# Products with fewer rows take longer per row. A sample that uses a weight at many places gives as many rows.
_MIN_PRODUCT_ROWS = 32
_MIN_SLICE_ROWS = 4
# A recurrence computes one step of all rows at a time. A training step of Elman(64) or LSTM(64) with batch 64
# takes as long with slices of 16 rows as with all 64, and a quarter longer with slices of 8.
_MIN_RECURRENT_ROWS = 16
# A slice with less work is computed faster (about 0.05 ms at 80 GFLOP/s) than two processes can share it.
_MIN_SLICE_FLOPS = 4e6


def automatic_shards(batch_size: int, flops: float, slice_rows: int = _MIN_PRODUCT_ROWS) -> int:
    """The largest power of two, at most 8, whose slices have at least `slice_rows` rows and 4 million
    operations.

    flops: floating-point operations of one sample in a step (`Network.flops`)."""
    shards = 1
    while (
        shards < _MAX_AUTOMATIC
        and batch_size // (2 * shards) >= slice_rows
        and batch_size * flops / (2 * shards) >= _MIN_SLICE_FLOPS
    ):
        shards *= 2
    return shards


def least_slice_rows(network: Network) -> int:
    """The least number of rows in a slice for `shards: auto`: 32, or fewer if a sample uses each weight twice
    or more, as in convolutions, over steps and in attention. With batch normalization it is 32, because the
    statistics of fewer rows are rough."""
    if network.uses < 2 or any(layer.rows_needed > 1 for layer in network.layers):
        return _MIN_PRODUCT_ROWS
    if any(layer.carries for layer in network.layers):
        return _MIN_RECURRENT_ROWS
    return max(_MIN_SLICE_ROWS, math.ceil(_MIN_PRODUCT_ROWS / network.uses))
