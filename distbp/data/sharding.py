"""Which rows belong to which shard, and which of them a step uses. Pure functions of the job and the data.

A batch of `b` rows is cut into `shards` consecutive slices; the first `b % shards` slices are one row longer.
Rows are dealt to shards once. The deal is a random permutation or, without shuffling, the order of the file,
so that step t trains on rows [t b, (t+1) b). In each epoch a shard shuffles its own rows. So a shard needs
only its own rows, on any worker.

Rows of different lengths are put into buckets. The shuffled rows of POOL slices form a pool: its shortest
rows make up one slice, the next rows another, and so on. The slices of a pool are then taken in a random
order, the same in every shard. So the rows of a batch have similar lengths, in all shards, and steps that
none of them has are left out.

If rows are windows of series, whole series are shuffled, never windows (see `distbp.data.series`). The deal
is all series in a random order, cut into one stretch for each shard. A series that a cut divides goes on in
the next shard as a series of its own, which comes first in every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distbp.core.arrays import Array
from distbp.core.streams import Purpose, generator
from distbp.data.series import in_lanes, in_series, next_begin

POOL = 50  # slices among which rows are put into buckets by their lengths


def slice_bounds(batch_rows: int, shards: int, shard: int) -> tuple[int, int]:
    """[start, stop) of a shard's slice within a batch of `batch_rows` rows; may be empty."""
    size, longer = divmod(batch_rows, shards)
    start = shard * size + min(shard, longer)
    return start, start + size + (shard < longer)


def evaluated_rows(rows: int, shards: int, shard: int, begins: Array | None = None) -> tuple[int, int]:
    """The rows [start, stop) of a split that a shard evaluates, in the order of the file. begins: for windows
    of series, whether a series begins in each row; series stay whole."""
    start, stop = rows * shard // shards, rows * (shard + 1) // shards
    return (start, stop) if begins is None else (next_begin(begins, start), next_begin(begins, stop))


@dataclass(frozen=True)
class Sharding:
    """`rows`: of the training set. `drop_last`: whether to leave out the last, smaller batch of an epoch;
    with shuffling other rows are left out in each epoch. `buckets`: the places of the lengths in a row, if
    the lengths in a slice are to be similar; the largest length counts. `series`: whether rows are windows of
    series; `dealt` and `order` then need `begins`. `past`: the number of epochs before the job, which count
    for the draws."""

    rows: int
    batch_size: int
    shards: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = False
    buckets: tuple[int, ...] = ()
    series: bool = False
    past: int = 0

    @property
    def steps_per_epoch(self) -> int:
        full, rest = divmod(self.rows, self.batch_size)
        return full if self.drop_last and full else full + (rest > 0)

    def batch_rows(self, index: int) -> int:
        """Rows in the batch at `index` within its epoch."""
        return min(self.batch_size, self.rows - index * self.batch_size)

    def rows_before(self, step: int) -> int:
        """The number of rows that steps 0 to `step - 1` of the job train on."""
        epochs, index = divmod(step, self.steps_per_epoch)
        whole = min(self.rows, self.steps_per_epoch * self.batch_size)
        return epochs * whole + index * self.batch_size

    def slice_rows(self, index: int, shard: int) -> int:
        """Rows of a shard's slice in the batch at `index` within its epoch."""
        start, stop = slice_bounds(self.batch_rows(index), self.shards, shard)
        return stop - start

    def dealt(self, shard: int, begins: Array | None = None) -> Array:
        """The shard's rows, int64, in the order of an epoch without shuffling; of series, window after
        window. begins: of all rows, if they are windows of series."""
        if begins is not None:
            sizes = [self._rows_of(number) for number in range(shard + 1)]
            stop = sum(sizes)
            return in_series(begins, self._dealer)[stop - sizes[-1] : stop]
        deal = self._deal()
        full = self.rows // self.batch_size
        start, stop = slice_bounds(self.batch_size, self.shards, shard)
        whole = deal[: full * self.batch_size].reshape(full, self.batch_size)[:, start:stop].ravel()
        rest = deal[full * self.batch_size :]
        start, stop = slice_bounds(len(rest), self.shards, shard)
        return np.concatenate([whole, rest[start:stop]])

    def order(
        self,
        shard: int,
        dealt: Array,
        epoch: int,
        lengths: Array | None = None,
        begins: Array | None = None,
    ) -> Array:
        """The shard's rows in the order of `epoch`; its slices are consecutive parts. lengths: of `dealt`, if
        there are buckets. begins: of `dealt`, if they are windows of series."""
        epoch += self.past
        if begins is not None:
            lanes, kept = self.slice_rows(0, shard), int(len(begins) > 0 and not begins[0])
            starts = begins | (np.arange(len(begins)) == 0)
            draw = generator(self.seed, Purpose.ORDER, epoch, shard) if self.shuffle else None
            return in_lanes(dealt[in_series(starts, draw, kept)], lanes)
        if not self.shuffle:
            return dealt
        places = generator(self.seed, Purpose.ORDER, epoch, shard).permutation(len(dealt))
        if self.buckets and lengths is not None:
            places = places[self._by_length(lengths[places], self.slice_rows(0, shard), epoch)]
        return dealt[places]

    def _by_length(self, lengths: Array, size: int, epoch: int) -> Array:
        """The places of rows in the order of their buckets. size: of a slice. A last, smaller slice stays
        last."""
        order = np.arange(len(lengths))
        whole = self.rows // self.batch_size * size
        for start in range(0, whole, max(1, POOL * size)):
            stop = min(start + POOL * size, whole)
            slices = start + np.argsort(lengths[start:stop], kind="stable").reshape(-1, size)
            draw = generator(self.seed, Purpose.BUCKETS, epoch, start // (POOL * size))
            order[start:stop] = draw.permutation(slices).ravel()
        return order

    def _rows_of(self, shard: int) -> int:
        """The number of rows that a shard is dealt."""
        full, rest = divmod(self.rows, self.batch_size)
        slices = [slice_bounds(size, self.shards, shard) for size in (self.batch_size, rest)]
        whole, last = (stop - start for start, stop in slices)
        return full * whole + last

    def _deal(self) -> Array:
        dealer = self._dealer
        if dealer is None:
            return np.arange(self.rows, dtype=np.int64)
        return dealer.permutation(self.rows).astype(np.int64, copy=False)

    @property
    def _dealer(self) -> np.random.Generator | None:
        return generator(self.seed, Purpose.DEAL) if self.shuffle else None
