"""Counter-based random numbers: every draw is a pure function of (seed, purpose, position).

NumPy's Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) maps a 128-bit key
and a 256-bit counter to random bits. The key is (seed, purpose); the position (epoch or step, shard,
layer) fills the upper words of the counter. So it does not matter who draws, in which order, or how often.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of the numerics: never reuse or renumber one."""

    INITIALIZE = 1
    DEAL = 2  # rows -> shards, once for a job
    ORDER = 3  # the order of a shard's rows in one epoch
    DROPOUT = 4
    SYNTHETIC = 5
    AUGMENT = 6
    AUDIT = 7  # which answers are computed twice; not a bit of the result depends on it
    SPLIT = 8  # rows of a table -> training, validation, test
    MEMBER = 9  # the seeds of the members of a job
    COPIES = 10  # by what copies of the parameters are perturbed, for evolution
    BUCKETS = 11  # the order of slices of similar lengths in one epoch
    START = 12  # first weights by the data


class Stream:
    """A generator that can be moved to any position; `at` costs about 3 us and draws nothing."""

    def __init__(self, seed: int, purpose: Purpose) -> None:
        self._bits = np.random.Philox(key=np.array([seed, int(purpose)], dtype=np.uint64))
        self._state = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, *position: int) -> np.random.Generator:
        """The generator at `position`, up to three whole numbers from 0 to 2**64 - 1.

        Streams at different positions do not overlap before 2**64 draws. The returned generator is shared:
        draw from it before the next call of `at`.
        """
        counter = self._state["state"]["counter"]
        counter[:] = 0
        for word, value in enumerate(position):
            counter[3 - word] = value
        self._state["buffer_pos"] = 4  # nothing buffered
        self._state["has_uint32"] = 0
        self._bits.state = self._state
        return self._generator


def generator(seed: int, purpose: Purpose, *position: int) -> np.random.Generator:
    """A fresh generator at `position` (see `Stream.at`), for draws outside the hot loop."""
    return Stream(seed, purpose).at(*position)
