"""Many rounds of the server in one compiled call, where the workers of its node compute every shard (Numba,
optional).

Beside the workers' time, a round costs the time to publish, to see that all sums are there, and to join and
apply them. In Python that takes some hundred microseconds, most of them because the interpreter's memory has
left the cache while the workers computed. Additions and updates are those of `ParameterServer.apply`, and so
are the bits.

Everything out of the ordinary is left to `rounds`: an answer that stays away or is another than expected, a
change of who hosts what, gradients that are not known to be finite, the last step of an epoch. A step that
was published here and not applied is published again there, which changes nothing for workers that have
answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.core.reduction import Block
from distbp.engine.parameter_server import ParameterServer
from distbp.engine.totals import BOUND, LOSS, SURELY_FINITE, WEIGHT
from distbp.machine.compiled_futex import Ways, change, sleep, ways
from distbp.machine.jit import jit
from distbp.machine.pointers import await_number, call, load, load_int32, store
from distbp.machine.structures import Placed, address, address_of, doubles
from distbp.nn.ops.rows import call_op, compiled
from distbp.optim import Updater
from distbp.optim.compiled import joining_of, part_of, update
from distbp.optim.schedules import PlateauState
from distbp.team.exchange import segment as seg
from distbp.team.exchange.local_workers import LocalWorkers

MOST_STEPS = 64  # in one call, whose constants are made ready before the first of them
OFFERS = 20  # of the processor to others, before sleeping
HELPERS_OFFERS = 200  # after a bell: what it announces comes when the last worker is through
# Bytes from the start of a slot's header.
ATTEMPT, STEP, START, STOP = (
    8 * word for word in (seg.SLOT_ATTEMPT, seg.SLOT_STEP, seg.SLOT_START, seg.SLOT_STOP)
)
GO, OVER, DONE = 0, 1, 2  # rows of `Crew.numbers`; from DONE on one for each helper


class SegmentAt(NamedTuple):
    """The segment. words: of its control block; published, arrived: addresses of its futex words."""

    words: Array
    published: int
    arrived: int


class Blocks(NamedTuple):
    """The sums of each block. slots: (address of the header, start, stop); totals_at: addresses; totals:
    (blocks, values) scratch; order: the additions."""

    slots: Array
    totals_at: Array
    totals: Array
    order: Array


class RuleAt(NamedTuple):
    """Addresses of `update`, and of a rule and its sums for it; the op whose factor the scale belongs to."""

    update: int
    joining: int
    scaled: int


class Crew(NamedTuple):
    """The threads that join and update; the first one gathers, too. numbers: (rows, 8) int64, each row a
    cache line, see GO; bell: (1,) int32, a futex word; scale: (1,)."""

    numbers: Array
    bell: Array
    scale: Array


@jit
def _arrivals(attempt: int, step: int, slots: Array) -> int:
    """How many slots hold their blocks' sums of `step`."""
    there = 0
    for i in range(slots.shape[0]):
        header = slots[i, 0]
        there += (
            load(header + STEP) == step
            and load(header + ATTEMPT) == attempt
            and load(header + START) == slots[i, 1]
            and load(header + STOP) == slots[i, 2]
        )
    return there


@jit
def _await_all(
    attempt: int, step: int, slots: Array, version_at: int, version: int, arrived: int, ways: Ways, team: Crew
) -> bool:
    """Waits until every slot holds the sums of `step`. Returns False if one stays away, or if who hosts what
    has changed. When the first answer is there, a processor is free; then the helpers are told to get
    ready."""
    offers, rung = 0, team.numbers.shape[0] == DONE
    while True:
        seen = load_int32(arrived)
        there = _arrivals(attempt, step, slots)
        if there == slots.shape[0]:
            return True
        if load(version_at) != version:
            return False
        if there and not rung:
            rung = True
            change(team.bell.ctypes.data, ways)
        if offers < OFFERS:
            offers += 1
            call(ways.offer, 0)
            continue
        if not sleep(arrived, seen, ways):
            return False
        offers = 0


@jit
def _join_totals(places: Blocks) -> Array:
    totals, order = places.totals, places.order
    for block in range(totals.shape[0]):
        totals[block, :] = doubles(places.totals_at[block], totals.shape[1])
    for j in range(order.shape[0]):
        totals[order[j, 0], :] += totals[order[j, 1], :]
    last: Array = totals[order[order.shape[0] - 1, 0] if order.shape[0] else 0]
    return last


@jit
def _apply(rule: RuleAt, stretches: int, scale: float, constants: Array) -> None:
    numbers = constants.copy()
    for group in range(numbers.shape[0]):
        numbers[group, rule.scaled, 0] *= scale
    call_op(rule.update, rule.joining, stretches, address_of(numbers))
    numbers[0, 0, 0] = 0  # it is used by its address until here


@jit
def _lead(
    node: SegmentAt, ways: Ways, version: int, stop_asked: Array, stretch: int, places: Blocks, rule: RuleAt,
    team: Crew, stretches: int, constants: Array, epoch_totals: Array, per_epoch: int, begin: int,
) -> int:  # fmt: skip
    """Steps from `begin` on, one for each line of `constants`; returns how many were applied. `stretches`: of
    this thread."""
    words, numbers = node.words, team.numbers.ctypes.data
    version_at = words.ctypes.data + 8 * seg.VERSION
    helpers = team.numbers.shape[0] - DONE
    for i in range(constants.shape[0]):
        step = begin + i
        if load(stop_asked.ctypes.data) == stretch or load(version_at) != version:
            return i
        words[seg.STEP] = step
        words[seg.STATE] = seg.RUNNING
        change(node.published, ways)
        if not _await_all(
            words[seg.ATTEMPT], step, places.slots, version_at, version, node.arrived, ways, team
        ):
            return i
        joined = _join_totals(places)
        if not (np.isfinite(joined[LOSS]) and joined[BOUND] < SURELY_FINITE):
            return i
        scale = 1.0 / joined[WEIGHT] if joined[WEIGHT] > 0 else 0.0
        if helpers:
            team.scale[0] = scale
            store(numbers + 64 * GO, i + 1)
            change(team.bell.ctypes.data, ways)
        _apply(rule, stretches, scale, constants[i])
        for helper in range(helpers):
            await_number(numbers + 64 * (DONE + helper), i + 1, numbers + 64 * OVER, (ways.offer, ways.nap))
        if step % per_epoch == 0:
            epoch_totals[:] = 0
        epoch_totals += joined[:-1]
    return len(constants)


@jit
def _rounds(
    node: SegmentAt, ways: Ways, version: int, stop_asked: Array, stretch: int, places: Blocks, rule: RuleAt,
    team: Crew, stretches: int, constants: Array, epoch_totals: Array, per_epoch: int, begin: int,
) -> int:  # fmt: skip
    """`_lead`, and the helpers' leave."""
    done = _lead(
        node, ways, version, stop_asked, stretch, places, rule, team, stretches, constants, epoch_totals,
        per_epoch, begin,
    )  # fmt: skip
    store(team.numbers.ctypes.data + 64 * OVER, 1)
    if team.numbers.shape[0] > DONE:
        change(team.bell.ctypes.data, ways)
    return done  # type: ignore[no-any-return]


@jit
def _help(me: int, ways: Ways, rule: RuleAt, team: Crew, stretches: int, constants: Array) -> None:
    """A helper's part of every step, until it is over."""
    numbers, bell = team.numbers.ctypes.data, team.bell.ctypes.data
    for i in range(constants.shape[0]):
        offers = HELPERS_OFFERS
        while True:
            seen = load_int32(bell)
            if load(numbers + 64 * GO) > i:
                break
            if load(numbers + 64 * OVER):
                return
            if offers < HELPERS_OFFERS:
                offers += 1
                call(ways.offer, 0)
                continue
            offers = 0 if sleep(bell, seen, ways) else HELPERS_OFFERS
        _apply(rule, stretches, team.scale[0], constants[i])
        store(numbers + 64 * (DONE + me), i + 1)


class CompiledRounds:
    """`run(...)`: trains some steps, and returns how many; 0 if the next one is left to `rounds`.

    stop_asked: (1,) int64, the stretch that shall end soon; written by other threads."""

    def __init__(
        self, server: ParameterServer, updater: Updater, workers: LocalWorkers, stop_asked: Array
    ) -> None:
        self._server, self._workers, self._stop_asked = server, workers, stop_asked
        self._updater, self._update = updater, compiled(update).address
        self._shares = [part_of(share) for share in updater.shares]
        segment = workers.segment
        self._node = SegmentAt(segment.control, segment.published.address, segment.arrived.address)
        self._ways = ways()
        helpers = len(self._shares) - 1
        self._team = Crew(np.zeros((DONE + helpers, 8), np.int64), np.zeros(1, np.int32), np.zeros(1))
        self._per_epoch = server.blueprint.steps_per_epoch
        self._version = -1
        self._places: Blocks | None = None
        self._joining: Placed | None = None

    def run(self, stretch: int, step: int, stop: int, plateau: PlateauState) -> int:
        steps = min(stop - step, self._per_epoch - 1 - step % self._per_epoch, MOST_STEPS)
        places = self._found()
        if steps <= 0 or places is None or self._joining is None:
            return 0
        rule = RuleAt(self._update, self._joining.at, self._updater.rule.scaled)
        server, updater, team = self._server, self._updater, self._team
        constants = updater.rule.constants(server.steps_of(range(step, step + steps), plateau))
        self._workers.segment.beat()
        team.numbers[:] = 0
        helpers = [
            updater.pool.submit(_help, me, self._ways, rule, team, share.at, constants)
            for me, share in enumerate(self._shares[1:])
            if updater.pool is not None
        ]
        done = int(
            _rounds(
                self._node, self._ways, self._version, self._stop_asked, stretch, places, rule, team,
                self._shares[0].at, constants, server.epoch_totals, self._per_epoch, step,
            )
        )  # fmt: skip
        for helper in helpers:
            helper.result()
        server.advance_by(done)
        return done

    def _found(self) -> Blocks | None:
        """Where the sums of every shard will be; None while workers of other nodes host some."""
        if self._workers.segment.version != self._version:
            self._version, hosted = self._workers.hosted(self._server.blueprint.shards)
            whole = sum(block.size for _, _, block in hosted) == self._server.blueprint.shards
            self._places = self._find(hosted) if whole else None
        return self._places

    def _find(self, hosted: Sequence[tuple[int, int, Block]]) -> Blocks:
        slots = [self._workers.segment.slot(worker, number) for worker, number, _ in hosted]
        blocks = tuple(block for _, _, block in hosted)
        order = self._server.order_of(blocks)
        self._joining = joining_of(
            self._updater.program, [one.gradient for one in slots], order, len(self._shares) > 1
        )
        return Blocks(
            np.array([(one.address, *block) for one, block in zip(slots, blocks, strict=True)], np.int64),
            np.array([address(one.totals) for one in slots], np.int64),
            np.zeros((len(slots), len(slots[0].totals))),
            np.array(order, np.int64).reshape(-1, 2),
        )


def compiled_rounds(
    server: ParameterServer, workers: LocalWorkers, stop_asked: Array
) -> CompiledRounds | None:
    """The compiled rounds of a server; None if an update is not one compiled pass, if the vector holds more
    than what is trained, or if an audit compares answers."""
    updater = server.updater
    if not (isinstance(updater, Updater) and updater.compiled and server.one_pass):
        return None
    if server.has_untrained or workers.audited:
        return None
    return CompiledRounds(server, updater, workers, stop_asked)
