"""Simulates training steps event by event, to check the closed form in `distbp.run.plan.speed_model`.

Each worker's shards take random times. Simultaneous transfers share a link fairly. The server handles answers
one after the other. The simulation includes effects that the closed form leaves out: transfers during others'
computing, nodes that are not full, and a slow worker that only waits for a slower one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np

from distbp.core.arrays import Array
from distbp.core.reduction import assign
from distbp.run.plan.speed_model import SIMPLE, Layout, Machine, Work, node_counts


def simulate(
    work: Work, machine: Machine, workers: int, layout: Layout = SIMPLE, *, steps: int = 20, seed: int = 0
) -> float:
    """The mean seconds of a step, over `steps` steps. The same seed gives the same result."""
    random = np.random.default_rng(seed)
    if workers == 0:
        return work.shards * work.shard_s + work.update_s
    return float(np.mean([_step(work, machine, workers, layout, random) for _ in range(steps)]))


def _step(work: Work, machine: Machine, workers: int, layout: Layout, random: np.random.Generator) -> float:
    counts = node_counts(work, machine, workers, layout)
    servers, join = layout.servers, work.bytes * machine.join_s_per_byte
    times = _compute_times(work, machine, sum(counts), counts[0], random)
    here, elsewhere = times[: counts[0]], times[counts[0] :]
    # Events: (time, seconds of the server's work). Local answers first, then those over the network.
    events = [(machine.wake_s + t, machine.answer_s) for t in here]
    senders = 0
    if len(counts) > 1:
        size, link = work.bytes / servers, machine.bandwidth
        arrived = shared_link([machine.latency_s] * (len(counts) - 1), size, link, link / servers)
        ready: list[float] = []
        first = 0
        for start, count in zip(arrived, counts[1:], strict=True):
            done = [start + t for t in elsewhere[first : first + count]]
            first += count
            ready += [_joined(done, join)] if layout.combine else done
        senders = len(ready)
        own = link / servers if layout.combine else link / servers / max(counts[1:])
        back = shared_link([t + machine.latency_s for t in ready], size, link, own)
        events += [(t + machine.call_s, machine.serve_s) for t in back]
    heapq.heapify(events)
    now = 0.0
    while events:
        at, cost = heapq.heappop(events)
        now = max(now, at) + cost
    return now + (counts[0] + senders - 1) * join / servers + work.update_s / servers


def _compute_times(
    work: Work, machine: Machine, busy: int, on_first: int, random: np.random.Generator
) -> Array:
    """The seconds of each worker for its shards, at least a fifth of the usual time."""
    hosted = np.array([stop - start for start, stop in assign(work.shards, busy)])
    usual = work.shard_s * max(1.0, on_first / machine.cores) * hosted
    spread = work.jitter * random.standard_normal(busy) / np.sqrt(hosted)
    return np.asarray(usual * np.maximum(1 + spread, 0.2))


def _joined(done: Sequence[float], join: float) -> float:
    """The time when a node has joined its workers' sums, if it begins once all are there."""
    return max(done) + (len(done) - 1) * join


def shared_link(starts: Sequence[float], size: float, capacity: float, most: float) -> list[float]:
    """The end times of transfers of `size` bytes, in the order of `starts`, their start times. They share a
    link of `capacity` bytes/s fairly, each with at most `most` bytes/s.

    All have the same size, so they end in the order in which they began. The virtual time is the number of
    bytes that one transfer would have got so far; a transfer ends when it has grown by `size`.
    """
    waiting = sorted(range(len(starts)), key=lambda i: starts[i])
    ends = [0.0] * len(starts)
    flowing: list[tuple[float, int]] = []  # (virtual time of its end, which)
    now = virtual = 0.0
    place = 0
    while place < len(waiting) or flowing:
        rate = min(capacity / len(flowing), most) if flowing else 0.0
        next_end = now + (flowing[0][0] - virtual) / rate if flowing else math.inf
        next_start = starts[waiting[place]] if place < len(waiting) else math.inf
        moment = min(next_end, next_start)
        virtual += (moment - now) * rate
        now = moment
        if next_start <= next_end:
            heapq.heappush(flowing, (virtual + size, waiting[place]))
            place += 1
        else:
            ends[heapq.heappop(flowing)[1]] = now
    return ends
