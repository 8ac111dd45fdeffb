"""Several servers, each with a range of the vector: the bits of one, clipping by the global norm included."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
from rigs import Rig, classes, make_job, make_rig
from test_relays import PATIENCE_S, Wire

from distbp.core.errors import ExchangeError
from distbp.core.reduction import PIECE, Block
from distbp.engine.health import health
from distbp.engine.parameter_server import NotFiniteError, ParameterServer
from distbp.engine.ranges import RangeSums, joint, ranges
from distbp.engine.worker import Worker, totals_size
from distbp.optim.schedules import PlateauState
from distbp.team.exchange import segment as seg
from distbp.team.exchange.local_workers import LocalWorkers
from distbp.team.exchange.relay import Publication, Relay
from distbp.team.exchange.segment import Range
from distbp.team.exchange.server_ranges import Council, FanLink, FanReply, RangeRounds
from distbp.team.exchange.sparse_sums import tables_within
from distbp.team.exchange.worker_port import WorkerPort

STEPS = 5  # two epochs and a half
SHARDS = 4
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam, clipped by norm": {"optimizer": {"type": "adam"}, "clip": {"norm": 0.01}},
    "momentum, decay": {"optimizer": {"type": "momentum"}, "regularization": {"l2": 0.01}},
    "ids": {"optimizer": {"type": "adam"}},
}


@cache
def rig(name: str) -> Rig:
    if name == "ids":  # a table of three pieces of the vector, whose rows of 7 numbers the cuts go through
        layers = [
            {"type": "embedding", "entries": 10_000, "size": 7},
            {"type": "flatten"},
            {"type": "dense", "units": 3},
        ]
        ids = np.random.default_rng(4).integers(0, 10_000, (40, 2))
        return make_rig(
            make_job(layers, shards=SHARDS, batch_size=20, **OPTIMIZERS[name]), (ids, ids[:, 0] % 3)
        )
    layers = [
        {"type": "dense", "units": 300, "activation": "tanh"},
        {"type": "batch_normalization"},
        {"type": "dense", "units": 300, "activation": "relu"},
        {"type": "dense", "units": 3},
    ]
    return make_rig(make_job(layers, shards=SHARDS, batch_size=20, **OPTIMIZERS[name]), classes(40))


def undisturbed(made: Rig) -> ParameterServer:
    vector = made.start()
    server, worker = made.server(vector), made.worker(vector)
    whole = made.contribution(server.gradient, Block(0, SHARDS))
    for step in range(STEPS):
        worker.compute(step, *whole)
        server.apply(step, [whole])
    return server


def train(made: Rig, servers: int, start: np.ndarray, nodes: int = 2) -> list[RangeRounds]:
    blueprint = made.blueprint
    network = blueprint.network()
    places = ranges(network, servers)
    council = Council(len(places))

    def agree(number: int) -> Any:
        return lambda step, sums: council.agree(number, step, sums)

    all_rounds = [
        RangeRounds(ParameterServer(blueprint, start[a:b].copy(), first=a), 1, agree(number), pack=np.copy)
        for number, (a, b) in enumerate(places)
    ]
    segments = [seg.create(network.size, blueprint.dtype, totals_size(blueprint), 1) for _ in range(nodes)]
    share = SHARDS // nodes
    with ThreadPoolExecutor(64) as pool:
        threads = []
        for node, segment in enumerate(segments):
            links = [
                Wire(rounds.desk, pool, tables=tables_within(network.sparse, *place))
                for rounds, place in zip(all_rounds, places, strict=True)
            ]
            relay = Relay(LocalWorkers(segment), SHARDS, FanLink(links, places, blueprint.dtype))
            relay.assign({0: [Range(node * share, (node + 1) * share)]})
            port = WorkerPort(segment, 0, SHARDS)
            worker = Worker(blueprint, segment.vector, made.data)
            threads += [
                threading.Thread(target=relay.run),
                threading.Thread(target=port.serve, args=[worker]),
            ]
        for thread in threads:
            thread.start()
        try:
            for first, stop in ((0, 2), (2, STEPS)):
                running = [pool.submit(r.run, first, stop, PlateauState()) for r in all_rounds]
                assert [r.result(PATIENCE_S) for r in running] == [stop] * len(places)
        finally:
            council.close()
            for rounds in all_rounds:
                rounds.close()
            for thread in threads:
                thread.join(PATIENCE_S)
                assert not thread.is_alive()
            if network.sparse:  # all that travels in a step is less than the stretch of one server
                assert all(sum(link.bytes) < STEPS * 4 * PIECE for link in links)
    return all_rounds


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("servers", [1, 2, 3, 9])
def test_the_bits_are_those_of_one_server(name: str, servers: int) -> None:
    made = rig(name)
    expected = undisturbed(made)
    found = [rounds.server for rounds in train(made, servers, made.start())]
    assert len(found) == min(servers, 3)
    parts = [server.snapshot() for server in found]
    for key, array in expected.snapshot().items():
        if key == "epoch_totals":
            assert all(part[key].tobytes() == array.tobytes() for part in parts)
        else:
            assert np.concatenate([part[key] for part in parts]).tobytes() == array.tobytes(), key
    norms = [one for server in found for one in server.norms]
    assert health(made.blueprint.network(), norms) == expected.health


def test_no_server_updates_where_one_finds_nan() -> None:
    made = rig("adam, clipped by norm")
    start = made.start()
    start[-1000] = np.nan  # in the last range; its gradients reach every layer
    with pytest.raises(NotFiniteError):
        train(made, 3, start)


def test_ranges_begin_where_pieces_begin() -> None:
    network = rig("momentum, decay").blueprint.network()
    assert ranges(network, 1) == [(0, network.size)]
    assert ranges(network, 2) == [(0, PIECE), (PIECE, network.size)]
    assert len(ranges(network, 50)) == 3


# Agreeing --------------------------------------------------------------------------------------------------


def test_sums_are_added_in_the_order_of_the_vector() -> None:
    values = np.random.default_rng(1).normal(size=9) * 10.0 ** np.arange(9)
    total = 0.0
    for value in values.tolist():
        total += value
    for cut in range(10):
        halves = [
            RangeSums(tuple(values[:cut].tolist()), True),
            RangeSums(tuple(values[cut:].tolist()), True),
        ]
        assert joint(halves) == RangeSums((total,), True)
    assert not joint([RangeSums((1.0,), True), RangeSums((1.0,), False)]).finite
    assert not joint([RangeSums((1.0,), True), RangeSums((float("inf"),), True)]).finite


def test_all_hear_the_same_and_wait_for_the_last() -> None:
    council = Council(2, stopping=lambda: True)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(council.agree, 1, 7, RangeSums((2.0,), True))
        assert council.agree(0, 7, RangeSums((1.0, 4.0), True)) == (7.0, True, True)
        assert first.result(PATIENCE_S) == (7.0, True, True)


def test_who_waits_is_told_when_it_is_closed() -> None:
    council = Council(2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(council.agree, 0, 3, RangeSums((1.0,), True))
        council.close()
        with pytest.raises(ExchangeError, match="closed before they agreed on step 3"):
            waiting.result(PATIENCE_S)


# Servers that answer at different moments -------------------------------------------------------------------


class Ready:
    """A reply that is there, or (None) not yet."""

    def __init__(self, publication: Publication | None) -> None:
        self.publication = publication

    def wait(self, timeout_s: float) -> Publication | None:
        return self.publication


def fan(publications: Sequence[Publication | None]) -> tuple[list[Ready], FanReply]:
    vector = np.zeros(len(publications))
    replies = [Ready(p) for p in publications]
    return replies, FanReply([(r, vector[k : k + 1]) for k, r in enumerate(replies)], vector)


def test_a_relay_waits_for_every_server_and_hears_the_last() -> None:
    one, two = np.ones(1), np.full(1, 2.0)
    replies, reply = fan([Publication(4, True, one), None])
    assert reply.wait(0) is None
    replies[1].publication = Publication(4, False, two)
    found = reply.wait(0)
    assert found is not None
    assert (found.step, found.running, found.vector.tolist()) == (4, False, [1, 2])
    assert fan([Publication(4, True, None)] * 2)[1].wait(0) == Publication(4, True, None)


def test_it_is_over_when_one_says_so() -> None:
    found = fan([Publication(4, True, None), Publication(-1, False, None)])[1].wait(0)
    assert found is not None and found.step < 0
