"""Many rounds of the server in one compiled call, if its node's workers compute every shard (needs Numba).

Beside the workers' time, a round takes the time to publish a step, to notice that all sums are there, and to
join and apply them. In Python that is some hundred microseconds, mostly because the interpreter's memory has
left the cache while the workers computed. Additions, updates and bits are those of `ParameterServer.apply`.

`rounds` handles all other cases: an answer that is missing or unexpected, a change of the shards' hosts,
gradients that may not be finite, the last step of an epoch. `rounds` publishes a step again that was
published here and not applied. That changes nothing for workers that have answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distbp.core.arrays import Array
from distbp.core.reduction import Block
from distbp.engine.parameter_server import ParameterServer
from distbp.engine.totals import BOUND, LOSS, SURELY_FINITE, WEIGHT
from distbp.machine.compiled_futex import Ways, change, offer, sleep, ways, yields
from distbp.machine.jit import jit
from distbp.machine.pointers import await_number, load, load_int32, store
from distbp.machine.structures import Placed, address, address_of, doubles
from distbp.nn.ops.rows import call_op, compiled
from distbp.optim import Updater
from distbp.optim.compiled import joining_of, part_of, update
from distbp.optim.schedules import PlateauState
from distbp.team.exchange import segment as seg
from distbp.team.exchange.local_workers import LocalWorkers

MOST_STEPS = 64  # in one call; their constants are computed before the first step
OFFERS = 20  # how often a thread yields its processor before it sleeps
HELPERS_OFFERS = 200  # the same for helpers after the bell, which rings before the last worker has answered
# Bytes from the start of a slot's header.
ATTEMPT, STEP, START, STOP = (
    8 * word for word in (seg.SLOT_ATTEMPT, seg.SLOT_STEP, seg.SLOT_START, seg.SLOT_STOP)
)
GO, OVER, DONE = 0, 1, 2  # rows of `Crew.numbers`; from DONE on, one row for each helper


class SegmentAt(NamedTuple):
    """The segment. words: its control block. published, arrived: addresses of its futex words."""

    words: Array
    published: int
    arrived: int


class Blocks(NamedTuple):
    """The places of the sums of all blocks. slots: (blocks, 3), address of the header, start and stop.
    totals_at: (blocks,), addresses. totals: (blocks, values), scratch. order: (n, 2), the joins, in order."""

    slots: Array
    totals_at: Array
    totals: Array
    order: Array


class RuleAt(NamedTuple):
    """The update rule. update: address of `optim.compiled.update`. joining: address of a `Joining`. scaled:
    the number of the rule's op that multiplies by the scale."""

    update: int
    joining: int
    scaled: int


class Crew(NamedTuple):
    """The state that the threads share which join and update; the first thread also gathers. numbers: (rows,
    8) int64, each row a cache line, see GO; column 1 belongs to `yields`. bell: (1,) int32, a futex word.
    scale: (1,) float64."""

    numbers: Array
    bell: Array
    scale: Array


@jit
def _arrivals(attempt: int, step: int, slots: Array) -> int:
    """How many slots hold the sums of their blocks at `step`."""
    count = 0
    for i in range(slots.shape[0]):
        header = slots[i, 0]
        count += (
            load(header + STEP) == step
            and load(header + ATTEMPT) == attempt
            and load(header + START) == slots[i, 1]
            and load(header + STOP) == slots[i, 2]
        )
    return count


@jit
def _await_all(
    attempt: int, step: int, slots: Array, version_at: int, version: int, arrived: int, ways: Ways, team: Crew
) -> bool:
    """Waits until every slot holds the sums of `step`. Returns False if an answer does not come, or if the
    hosts of shards have changed. The first answer frees a processor, so it rings the bell: helpers wake
    up."""
    rests = team.numbers.ctypes.data + 64 * GO + 8
    offers, rung = 0 if yields(rests) else OFFERS, team.numbers.shape[0] == DONE
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
            offers = offers + 1 if offer(rests, ways) else OFFERS
            continue
        if not sleep(arrived, seen, ways):
            return False
        offers = 0 if yields(rests) else OFFERS


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
    numbers[0, 0, 0] = 0  # keeps the array alive until here: it was passed by its address


@jit
def _lead(
    node: SegmentAt, ways: Ways, version: int, stop_asked: Array, stretch: int, places: Blocks, rule: RuleAt,
    team: Crew, stretches: int, constants: Array, epoch_totals: Array, per_epoch: int, begin: int,
) -> int:  # fmt: skip
    """Trains steps from `begin` on, one for each row of `constants`. Returns how many were applied.
    `stretches`: address of this thread's `Stretches`."""
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
    """Calls `_lead`, then lets the helpers return."""
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
    """Updates a helper's part of the parameters in every step, until the call is over."""
    numbers, bell = team.numbers.ctypes.data, team.bell.ctypes.data
    rests = numbers + 64 * (DONE + me) + 8
    for i in range(constants.shape[0]):
        offers = HELPERS_OFFERS
        while True:
            seen = load_int32(bell)
            if load(numbers + 64 * GO) > i:
                break
            if load(numbers + 64 * OVER):
                return
            if offers < HELPERS_OFFERS:
                offers = offers + 1 if offer(rests, ways) else HELPERS_OFFERS
                continue
            offers = 0 if sleep(bell, seen, ways) and yields(rests) else HELPERS_OFFERS
        _apply(rule, stretches, team.scale[0], constants[i])
        store(numbers + 64 * (DONE + me), i + 1)


class CompiledRounds:
    """Compiled rounds of a server with the workers of its segment.

    stop_asked: (1,) int64, the stretch that is to end soon; written by other threads."""

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
        """Trains steps from `step` on, at most up to `stop`; waits. Returns how many; 0 if `rounds` must
        train the next step."""
        steps = min(stop - step, self._per_epoch - 1 - step % self._per_epoch, MOST_STEPS)
        places = self._current_places()
        if steps <= 0 or places is None or self._joining is None:
            return 0
        rule = RuleAt(self._update, self._joining.at, self._updater.rule.scaled)
        server, updater, team = self._server, self._updater, self._team
        constants = updater.rule.constants(server.steps_of(range(step, step + steps), plateau))
        self._workers.segment.beat()
        team.numbers[:, 0] = 0
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

    def _current_places(self) -> Blocks | None:
        """The places of all blocks' sums; None if workers of other nodes host some shards."""
        if self._workers.segment.version != self._version:
            self._version, hosted = self._workers.hosted(self._server.blueprint.shards)
            whole = sum(block.size for _, _, block in hosted) == self._server.blueprint.shards
            self._places = self._places_of(hosted) if whole else None
        return self._places

    def _places_of(self, hosted: Sequence[tuple[int, int, Block]]) -> Blocks:
        slots = [self._workers.segment.slot(worker, number) for worker, number, _ in hosted]
        blocks = tuple(block for _, _, block in hosted)
        order = self._server.order_of(blocks)
        self._joining = joining_of(
            self._updater.program, [slot.gradient for slot in slots], order, len(self._shares) > 1
        )
        return Blocks(
            np.array([(slot.address, *block) for slot, block in zip(slots, blocks, strict=True)], np.int64),
            np.array([address(slot.totals) for slot in slots], np.int64),
            np.zeros((len(slots), len(slots[0].totals))),
            np.array(order, np.int64).reshape(-1, 2),
        )


def compiled_rounds(
    server: ParameterServer, workers: LocalWorkers, stop_asked: Array
) -> CompiledRounds | None:
    """The compiled rounds of a server. None if an update is not one compiled pass, if the vector has running
    statistics or states, or if an audit compares answers."""
    updater = server.updater
    if not (isinstance(updater, Updater) and updater.compiled and server.one_pass):
        return None
    if server.has_untrained or workers.audited:
        return None
    return CompiledRounds(server, updater, workers, stop_asked)
