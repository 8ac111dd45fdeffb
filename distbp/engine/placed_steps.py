"""The memory that compiled steps work in, and the structures that hold its addresses.

The number of threads that share a step may change. All numbers use the same memory of the shards; each has
structures that say which thread computes which shards and parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distbp.core.arrays import Array, aligned_vector
from distbp.core.reduction import PIECE, Block, assign, joins
from distbp.data.batches import Sources
from distbp.engine.blueprint import Blueprint
from distbp.engine.compiled_parts import Carrying, Clipping, Computing, Deferred, Steps
from distbp.engine.compiled_steps import LINE, carry, compute, find_squares, update_deferred
from distbp.engine.parameter_server import ParameterServer
from distbp.engine.thread_shares import ThreadShare, thread_shares
from distbp.machine.blas import Dots, dots
from distbp.machine.pointers import CLOCK, WAYS
from distbp.machine.structures import address, placed
from distbp.nn.kernels import Kernels
from distbp.nn.lowered import Lowered
from distbp.nn.ops.rows import compiled
from distbp.nn.run_compiled import ops_of, products_of, run_rows, space_table
from distbp.nn.tape import Space, merged, position
from distbp.optim import Updater
from distbp.optim.compiled import joining_of, part_of, update
from distbp.optim.parts import CONSTANTS


class Sharing(NamedTuple):
    """The structures for one number of threads. steps: the address of the `Steps` of each thread. counters:
    of `pointers.meet`. done: (threads, 8), a row for each thread, see `Steps`."""

    threads: int
    steps: list[int]
    counters: Array
    done: Array


class PlacedSteps:
    """`sharings`: a Sharing for each number in `counts`. The caller fills `sources`, (shards, 3), and
    `orders`, (shards, rows), before steps, see `Computing`. Steps fill `found` and `live`, see `Steps`."""

    def __init__(
        self,
        blueprint: Blueprint,
        lowered: Lowered,
        kernels: Kernels,
        server: ParameterServer,
        updater: Updater,
        widths: Sequence[Sources],
        counts: Sequence[int],
        most: int,
    ) -> None:
        """`lowered`: the network, lowered for the slices of the shards. widths: the sources of each shard's
        rows. counts: numbers of threads, the largest first. most: the largest number of steps in a call."""
        self._kept: list[Any] = [lowered]
        self._shards, self._server, self._updater = blueprint.shards, server, updater
        self._network, sharding = blueprint.network(), blueprint.sharding()
        rows = sharding.slice_rows(0, 0)
        shares = [
            thread_shares(
                lowered, self._network.parameter_count, rows * self._shards, updater.groups.stretches,
                threads, updater.rule.clip is None,
            )
            for threads in counts
        ]  # fmt: skip
        # The shards of a thread share their work memory, unless other threads read deferred factors in it.
        apart = any(len(share.parts) for each in shares for share in each)
        threads, dtype = counts[0], server.vector.dtype
        places = range(self._shards) if apart else _places(self._shards, counts)
        works = _lines(max(places) + 1, lowered.work, dtype)
        self._gradients = (
            server.gradient.reshape(1, -1)
            if self._shards == 1
            else _lines(self._shards, self._network.size, dtype)
        )
        drawn = blueprint.job.seed, blueprint.total_steps, blueprint.past.steps
        self._positions = np.array([position(0, shard, *drawn) for shard in range(self._shards)])
        self._totals = np.zeros((self._shards, lowered.totals))
        assert kernels.gemm is not None
        products = products_of(lowered.rows, rows, kernels, self._network.dtype)
        tables: list[Array] = []
        for shard, place in enumerate(places):
            slices = {
                space: aligned_vector(rows * width, np.float32)
                for space, width in zip(
                    (Space.INPUTS, Space.TARGETS, Space.WEIGHTS), widths[shard].widths, strict=True
                )
            }
            spaces = {
                Space.PARAMETERS: server.vector,
                Space.GRADIENT: self._gradients[shard],
                Space.WORK: works[place],
                Space.TOTALS: self._totals[shard],
                Space.POSITION: self._positions[shard],
                Space.CONSTANTS: lowered.constants,
                Space.LABELS: np.zeros(lowered.labels, np.int64),
                **slices,
            }
            self._kept += spaces.values()
            tables.append(space_table(spaces, products))
        # All slices but those of an epoch's last step are as long as the first one.
        sizes = [sharding.slice_rows(0, shard) for shard in range(self._shards)]
        self._counts = np.full((most, self._shards), sizes)
        self.sources = np.zeros((self._shards, 3), np.int64)
        self.orders = np.zeros((self._shards, most * max(sizes)), np.int64)
        self._net = ops_of(lowered.rows, bool(widths[0].widths[2]))
        self._later = [row.deferred for row in lowered.rows]
        order = joins(Block(0, self._shards), [Block(shard, shard + 1) for shard in range(self._shards)])
        self._order, self._additions, self._tables = order, _pairs(order), np.array(tables)
        self._widths = np.array(widths[0].widths)
        self._pieces = -(-self._network.parameter_count // PIECE)
        self._squares = np.zeros(self._pieces)
        self.found, self.live = np.zeros((most, 3)), np.zeros((threads, lowered.live))
        self.sharings = [self._sharing(threads, each) for threads, each in zip(counts, shares, strict=True)]

    def _sharing(self, threads: int, shares: Sequence[ThreadShare]) -> Sharing:
        updater, network, server = self._updater, self._network, self._server
        gradients, additions, counts, tables = self._gradients, self._additions, self._counts, self._tables
        rule, net = updater.rule, self._net
        if any(len(share.parts) for share in shares):
            net = net._replace(ops=np.where(self._later, 0, net.ops))
        computing = Computing(
            compiled(run_rows).address, self._at(net), tables, self._totals, self.sources, self._widths,
            self.orders, counts, np.arange(len(counts))[:, None] * counts,
        )  # fmt: skip
        places = np.array([address(one) for one in gradients])
        statistics = network.statistics
        carrying = Carrying(
            places, additions, address(server.vector), _pairs([(t.start, t.stop) for t in statistics]),
            np.array([t.rate for t in statistics], np.float64),
            _pairs(merged((t.start, t.stop) for t in network.states)),
        )  # fmt: skip
        order = self._order if rule.clip is None else ()
        joining = joining_of(updater.program, list(gradients), order, threads > 1)
        self._kept.append(joining)
        sharing = Sharing(threads, [], np.zeros((threads + 1, 8), np.int64), np.zeros((threads, 8), np.int64))
        for me, (share, own) in enumerate(zip(shares, assign(self._shards, threads), strict=True)):
            pieces = range(self._pieces * me // threads, self._pieces * (me + 1) // threads)
            squared = [(PIECE * n, min(PIECE * (n + 1), network.parameter_count), n) for n in pieces]
            deferred = Deferred(
                self._net.words, self._net.starts, joining.at, address(server.vector), additions,
                share.parts, _lines(self._shards, share.room + LINE, server.vector.dtype),
                8 * CONSTANTS * len(rule.rows), threads > 1, tables, counts,
            )  # fmt: skip
            clipping = Clipping(
                places, additions, np.array(squared, np.int64).reshape(-1, 3), self._squares,
                *(dots() or Dots(0, 0)),
            )  # fmt: skip
            self._kept.append(stretches := part_of(share.stretches))
            steps = Steps(
                *self._piece(compute, computing),
                compiled(update).address, joining.at, stretches.at,
                *self._piece(update_deferred, deferred if len(share.parts) else None),
                *self._piece(find_squares, None if rule.clip is None else clipping),
                *self._piece(carry, carrying if me == 0 and (statistics or network.states) else None),
                self._positions, self._totals, counts, additions, self._squares, bool(statistics),
                rule.scaled, 0.0 if rule.clip is None else float(rule.clip.maximum),
                np.zeros((self._shards, 2)), self.found, self.live, sharing.done[me], sharing.counters, me,
                *own, *WAYS, CLOCK,
            )  # fmt: skip
            sharing.steps.append(self._at(steps))
        return sharing

    def _at(self, structure: Any) -> int:
        """Places a structure in memory, keeps it there, and returns its address."""
        self._kept.append(structured := placed(structure))
        return structured.at

    def _piece(self, function: Callable[..., None], structure: Any) -> tuple[int, int]:
        """The addresses of a compiled piece and of its structure; (0, 0) without a structure."""
        return (compiled(function).address, self._at(structure)) if structure else (0, 0)


def _places(shards: int, counts: Sequence[int]) -> list[int]:
    """The work memory of each shard. Shards share one if each of the `counts` gives them to one thread."""
    firsts = {start for threads in counts for start, _ in assign(shards, threads)}
    return [sum(first <= shard for first in firsts) - 1 for shard in range(shards)]


def _pairs(pairs: Iterable[tuple[int, int]]) -> Array:
    return np.array(list(pairs), np.int64).reshape(-1, 2)


def _lines(count: int, size: int, dtype: Any) -> Array:
    """(count, width) zeros. Each row begins at a multiple of 64 bytes, so `width` is `size` or a little
    more."""
    width = -(-size // LINE) * LINE
    return aligned_vector(count * width, dtype).reshape(count, width)
