"""Server, relays of other nodes, and workers, as threads of one process: the same bits whoever hosts what.

Everything is real but the way between desk and relays: where Ray would carry a call, a thread does, and some
calls come twice. Workers end and shards move in the middle of steps.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import Rig, classes, make_job, make_rig

from distbp.core.arrays import Array
from distbp.core.reduction import Block
from distbp.engine.parameter_server import Contribution
from distbp.engine.totals import totals_size
from distbp.engine.worker import Worker
from distbp.optim.schedules import PlateauState
from distbp.team import membership
from distbp.team.exchange import segment as seg
from distbp.team.exchange.desk import Desk, Packed, packed
from distbp.team.exchange.gathering import Gathering, runs
from distbp.team.exchange.local_workers import LocalWorkers
from distbp.team.exchange.relay import Publication, Relay
from distbp.team.exchange.rounds import Rounds
from distbp.team.exchange.segment import MAX_RANGES, Range, Slot
from distbp.team.exchange.sparse_sums import SparseSums, SparseTable, tables_within
from distbp.team.exchange.worker_port import WorkerPort

STEPS = 6
PATIENCE_S = 60.0


HIDDEN = [
    {"type": "dense", "units": 6, "activation": "tanh"},
    {"type": "dropout", "rate": 0.2},
    {"type": "dense", "units": 3},
]
TABLE = [{"type": "embedding", "entries": 40, "size": 3}, {"type": "flatten"}]


@cache
def rig(shards: int, ids: bool = False) -> Rig:
    """`ids`: with a table, of which few rows travel."""
    job = make_job(
        [*TABLE, *HIDDEN] if ids else HIDDEN,
        shards=shards,
        batch_size=20,
        max_steps=STEPS,
        optimizer={"type": "adam"},
        clip={"norm": 0.5},
    )
    if ids:
        x = np.random.default_rng(3).integers(0, 9, (50, 2)) * 4
        return make_rig(job, (x, x[:, 0] % 3))
    return make_rig(job, classes(50))


@cache
def undisturbed(shards: int, ids: bool = False) -> bytes:
    made = rig(shards, ids)
    vector = made.start()
    server, worker = made.server(vector), made.worker(vector)
    whole = made.contribution(server.gradient, Block(0, shards))
    for step in range(STEPS):
        worker.compute(step, *whole)
        server.apply(step, [whole])
    return vector.tobytes()


class Killed(Exception):  # noqa: N818 - what happened to a worker
    pass


class Wire:
    """A `Link` that is a thread; every third push comes twice. tables: as of `packed`."""

    def __init__(
        self, desk: Desk, pool: ThreadPoolExecutor, attempt: int = 1, tables: Sequence[SparseTable] = ()
    ) -> None:
        self.desk, self.pool, self.attempt, self.tables = desk, pool, attempt, tables
        self.pushes: list[tuple[int, list[Block]]] = []
        self.bytes: list[int] = []

    def push_pull(self, phase: int, contributions: Sequence[Contribution]) -> Answer:
        sent = [_as_out_of_ray(one) for one in packed(contributions, self.tables)]
        self.pushes.append((phase, [c.block for c in contributions]))
        self.bytes += [sums.nbytes for _, _, sums, _ in sent]
        if len(self.pushes) % 3 == 0:
            self.pool.submit(self.desk.push_pull, self.attempt, phase, sent)
        return Answer(self.pool.submit(self.desk.push_pull, self.attempt, phase, sent))


def _as_out_of_ray(one: Packed) -> Packed:
    """A copy whose arrays are read-only."""
    start, stop, sums, totals = one
    if isinstance(sums, SparseSums):
        return start, stop, sums._replace(rows=_fixed(sums.rows), values=_fixed(sums.values)), _fixed(totals)
    return start, stop, _fixed(sums), _fixed(totals)


def _fixed(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


class Answer:
    def __init__(self, future: Future[Publication]) -> None:
        self.future = future

    def wait(self, timeout_s: float) -> Publication | None:
        try:
            return self.future.result(timeout_s)
        except TimeoutError:
            return None


@dataclass
class Cluster:
    """`nodes`: workers of each; the first is the server's. `events`: step -> what happens within it."""

    shards: int
    nodes: Sequence[int]
    events: dict[int, list[Event]] = field(default_factory=dict)
    ids: bool = False

    def __post_init__(self) -> None:
        made = self.rig = rig(self.shards, self.ids)
        size, totals = made.blueprint.network().size, totals_size(made.blueprint)
        self.segments = [seg.create(size, made.blueprint.dtype, totals, 1) for _ in self.nodes]
        self.segments[0].vector[:] = made.start()
        self.server = made.server(self.segments[0].vector)
        self.ends = [LocalWorkers(segment) for segment in self.segments]
        self.desk = Desk(1, self.ends[0].nudge, pack=np.copy)
        self.rounds = Rounds(self.server, self.ends[0], remote=self.desk, late_factor=0)
        self.rounds.rest()
        self.living = [(n, w) for n, count in enumerate(self.nodes) for w in range(count)]
        self.lock = threading.Lock()
        self.wires: list[Wire] = []
        self.ports: dict[tuple[int, int], WorkerPort] = {}

    def train(self) -> bytes:
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(64))
            network = self.rig.blueprint.network()
            tables = tables_within(network.sparse, 0, network.size)
            self.wires = [Wire(self.desk, pool, tables=tables) for _ in self.nodes[1:]]
            relays = [
                Relay(end, self.shards, wire) for end, wire in zip(self.ends[1:], self.wires, strict=True)
            ]
            self.assigns = [self.ends[0].assign, *(relay.assign for relay in relays)]
            threads = [threading.Thread(target=relay.run) for relay in relays]
            threads += [threading.Thread(target=self.work, args=one) for one in self.living]
            self.assign(None)
            for thread in threads:
                thread.start()
            stack.callback(self.join, threads)
            step = 0
            while step < STEPS:  # in stretches, as the trainer does
                step = self.rounds.run(step + 1, step, min(step + 4, STEPS), PlateauState())
            self.vectors_arrive()
        assert (self.server.step, self.server.applied) == (STEPS, STEPS)
        return self.server.vector.tobytes()

    def join(self, threads: Sequence[threading.Thread]) -> None:
        self.desk.close()
        self.ends[0].close()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def work(self, node: int, me: int) -> None:
        segment = self.segments[node]

        def announce(slot: Slot, attempt: int, step: int, block: Block) -> None:
            with self.lock:
                events = self.events.pop(step, [])
                for event in events:
                    self.happen(event)
                if (node, me) not in self.living:
                    raise Killed  # before anybody heard of its sums
            slot.post(attempt, step, block)

        port = self.ports[node, me] = WorkerPort(segment, me, self.shards, announce)
        with suppress(Killed):
            port.serve(Worker(self.rig.blueprint, segment.vector, self.rig.data))

    def happen(self, event: Event) -> None:
        if event.dies and len(self.living) > 1:
            self.living.pop(event.number % len(self.living))
        self.assign(event)

    def assign(self, event: Event | None) -> None:
        if event is None or event.seed is None:
            numbered = dict(enumerate(self.living))
            given = membership.spread(self.shards, [(str(n), k) for k, (n, _) in numbered.items()])
            ranges = {numbered[k]: r for k, r in given.items()}
        else:
            dealt = np.random.default_rng(event.seed).integers(len(self.living), size=self.shards)
            ranges = {
                one: [Range(*r) for r in runs(np.flatnonzero(dealt == k).tolist())]
                for k, one in enumerate(self.living)
            }
            if max(map(len, ranges.values())) > MAX_RANGES:
                return
        for node, assign in enumerate(self.assigns):
            assign({me: given for (n, me), given in ranges.items() if n == node})

    def vectors_arrive(self) -> None:
        for node, me in self.living:
            self.ports[node, me].await_vector(STEPS)
            assert self.segments[node].vector.tobytes() == self.server.vector.tobytes()


@dataclass(frozen=True)
class Event:
    """A worker dies (number: which of the living) or not; shards are dealt, evenly or (seed) at random."""

    number: int
    dies: bool
    seed: int | None


EVENTS = st.builds(Event, st.integers(0, 9), st.booleans(), st.none() | st.integers(0, 99))


@settings(max_examples=25)
@given(
    st.integers(1, 9),
    st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(any),
    st.dictionaries(st.integers(0, STEPS - 1), st.lists(EVENTS, min_size=1, max_size=2), max_size=4),
    st.booleans(),
)
def test_the_bits_do_not_depend_on_nodes_deaths_and_moves(
    shards: int, nodes: list[int], events: dict[int, list[Event]], ids: bool
) -> None:
    assert Cluster(shards, nodes, events, ids).train() == undisturbed(shards, ids)


def test_rows_that_no_sample_names_do_not_travel() -> None:
    cluster = Cluster(8, [1, 1], ids=True)
    assert cluster.train() == undisturbed(8, ids=True)
    sent = max(cluster.wires[0].bytes)
    named = 4 * 3 * 9 + 9  # at most nine rows of three float32 numbers, and a byte for each row's number
    assert sent <= 4 * (cluster.rig.blueprint.network().size - 40 * 3) + named


def test_workers_of_a_node_send_one_vector() -> None:
    cluster = Cluster(8, [2, 2])
    assert cluster.train() == undisturbed(8)
    pushes = [blocks for phase, blocks in cluster.wires[0].pushes if phase > 0 and phase % 2]
    assert pushes == [[Block(4, 8)]] * STEPS


def test_a_node_whose_workers_hold_no_block_sends_few() -> None:
    """Shards 3 to 5 of 6 are the tree's nodes 3 and [4, 6)."""
    cluster = Cluster(6, [1, 1])
    assert cluster.train() == undisturbed(6)
    pushes = [blocks for phase, blocks in cluster.wires[0].pushes if phase > 0 and phase % 2]
    assert pushes == [[Block(3, 4), Block(4, 6)]] * STEPS


# The desk --------------------------------------------------------------------------------------------------


@dataclass
class Counter:
    nudges: int = 0
    packed: int = 0

    def nudge(self) -> None:
        self.nudges += 1

    def pack(self, vector: Array) -> Array:
        self.packed += 1
        return vector.copy()


def desk() -> tuple[Desk, Counter]:
    counter = Counter()
    return Desk(2, counter.nudge, counter.pack), counter


VECTOR = np.arange(3.0)


def sums(start: int, stop: int) -> Packed:
    return start, stop, np.full(3, float(start)), np.zeros(3)


def taken(made: Desk, step: int, shards: int = 4) -> list[Block]:
    gathering: Gathering[Contribution] = Gathering(shards)
    made.take(step, gathering)
    return [block for block, _ in gathering.answers()]


def waiting(pool: ThreadPoolExecutor, made: Desk, phase: int, *pushed: Packed) -> Future[Publication]:
    return pool.submit(made.push_pull, 2, phase, pushed)


def test_a_newcomer_gets_the_vector_at_once() -> None:
    made, counter = desk()
    made.rest(5, VECTOR)
    assert counter.packed == 0  # nobody was there
    step, running, vector = made.push_pull(2, -1, [])
    assert (step, running, vector.tolist()) == (5, False, [0, 1, 2])
    made.publish(5, VECTOR)
    assert made.push_pull(2, 10, []) == Publication(5, True, None)  # it has that vector
    step, running, vector = made.push_pull(2, -1, [])
    assert (step, running, vector.tolist()) == (5, True, [0, 1, 2])
    assert counter.packed == 1


def test_a_push_for_a_step_that_is_over_has_no_effect() -> None:
    made, counter = desk()
    made.publish(3, VECTOR)
    made.publish(4, VECTOR)
    assert made.push_pull(2, 7, [sums(0, 2)]).step == 4
    assert taken(made, 4) == []
    assert counter.nudges == 0


def test_a_push_of_an_older_attempt_is_refused() -> None:
    made, counter = desk()
    made.publish(3, VECTOR)
    assert made.push_pull(1, 7, [sums(0, 2)]).step < 0
    assert taken(made, 3) == []
    assert counter.nudges == 0


def test_pushes_may_come_twice_and_wait_for_the_next_step() -> None:
    made, _ = desk()
    made.publish(3, VECTOR)
    with ThreadPoolExecutor(2) as pool:
        replies = [waiting(pool, made, 7, sums(0, 2)) for _ in range(2)]
        gathering: Gathering[Contribution] = Gathering(4)
        for _ in until(lambda: gathering.has([0, 1])):
            made.take(3, gathering)
        changing = VECTOR.copy()
        made.publish(4, changing)
        changing[:] = -1  # the update of step 4
        assert [r.result(PATIENCE_S).vector.tolist() for r in replies] == [[0, 1, 2]] * 2


def test_closing_answers_all_that_wait() -> None:
    made, _ = desk()
    made.publish(3, VECTOR)
    with ThreadPoolExecutor(2) as pool:
        replies = [waiting(pool, made, 7), waiting(pool, made, 7, sums(0, 4))]
        made.close()
        assert [r.result(PATIENCE_S).step for r in replies] == [-1, -1]
    assert made.push_pull(2, -1, []).step == -1


def until(condition: object) -> Iterator[None]:
    """Goes on until the condition holds."""
    done = threading.Event()
    assert callable(condition)
    while not condition():
        yield
        done.wait(0.001)
