"""`shards: auto`: a function of the job alone, so that the result is the same on every machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distbp.nn.network import Network

MAX_SHARDS = 1024
_MAX_AUTOMATIC = 8
# A product of fewer rows is slower a row. Samples that use a weight at many places bring as many rows.
_MIN_PRODUCT_ROWS = 32
_MIN_SLICE_ROWS = 4
# A recurrence takes one step of all rows at a time. Elman(64) and LSTM(64) with batch 64 take as long a step
# with slices of 16 rows as with all 64, and a quarter longer with slices of 8.
_MIN_RECURRENT_ROWS = 16
# A slice of less work than this is done before two processes could agree on it (about 0.05 ms at 80 GFLOP/s).
_MIN_SLICE_FLOPS = 4e6


def automatic_shards(batch_size: int, flops: float, slice_rows: int = _MIN_PRODUCT_ROWS) -> int:
    """The largest power of two, at most 8, whose slices have `slice_rows` rows and 4 million operations.

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
    """The rows that every slice of `shards: auto` has: 32, or fewer where a sample uses each weight twice or
    more, as in convolutions, over steps and in attention. Batch normalization keeps 32, as the statistics of
    fewer rows are rough."""
    if network.uses < 2 or any(layer.rows_needed > 1 for layer in network.layers):
        return _MIN_PRODUCT_ROWS
    if any(layer.carries for layer in network.layers):
        return _MIN_RECURRENT_ROWS
    return max(_MIN_SLICE_ROWS, math.ceil(_MIN_PRODUCT_ROWS / network.uses))
