"""`shards: auto`: a function of the job alone, so that the result is the same on every machine."""

from __future__ import annotations

MAX_SHARDS = 1024
_MAX_AUTOMATIC = 8
_MIN_SLICE_ROWS = 32
# A slice of less work than this is done before two processes could agree on it (about 0.05 ms at 80 GFLOP/s).
_MIN_SLICE_FLOPS = 4e6


def automatic_shards(batch_size: int, flops: float) -> int:
    """The largest power of two, at most 8, whose slices have at least 32 rows and 4 million operations.

    flops: floating-point operations of one sample in a step (`Network.flops`)."""
    shards = 1
    while (
        shards < _MAX_AUTOMATIC
        and batch_size // (2 * shards) >= _MIN_SLICE_ROWS
        and batch_size * flops / (2 * shards) >= _MIN_SLICE_FLOPS
    ):
        shards *= 2
    return shards
