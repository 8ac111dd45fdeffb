"""A model of the time of one training step: workers, parameters, batch, bandwidth, latency.

    t(W) = compute + wake-ups + joins + update + network          (all in seconds; W workers on K nodes)

    compute   the ceil(S / W) shards of the busiest worker, times the number of workers that share a core
    wake-ups  one round trip over the futex, and a little of the server's time for each answer
    joins     every answer but the first is added to another: `bytes * join_s_per_byte`, at the server (by R
              servers at once) and on the nodes, if they combine first
    update    the optimizer over the whole vector, by R servers at once
    network   0 on one node; else the vector to each of the K - 1 others and their sums back, through the
    server's link: twice the latency, 2 max((K - 1) / R, 1) bytes / bandwidth, and K - 1 calls to be served

The form follows from how a step runs (see `distbp.team.exchange`); the constants are measured
(`distbp.run.plan.calibrate`). `distbp.run.plan.simulate` simulates the same step event by event, and tests
compare the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Work:
    """One step of a job. `shard_s`: forward and backward pass of one shard alone on a core. `update_s`: the
    whole update by one server. `bytes`: of the gradient vector. `jitter`: the relative standard deviation of
    a shard's time. `inline_s`: the measured time of a whole step in one process, whose threads may share the
    shards; None: shards one after the other."""

    shards: int
    shard_s: float
    bytes: int
    update_s: float
    jitter: float = 0.0
    inline_s: float | None = None


@dataclass(frozen=True)
class Machine:
    """The speeds of nodes and network.

    wake_s: from publishing to a worker and back, without work. answer_s: the server's time for an answer.
    join_s_per_byte: to add one vector to another. call_s: a call between nodes and back, without the network.
    serve_s: the server's time for such a call. bandwidth: of a node's link, bytes/s each way. latency_s: of
    the network, one way.
    """

    cores: int
    wake_s: float = 60e-6
    answer_s: float = 8e-6
    join_s_per_byte: float = 7e-11
    call_s: float = 1.1e-3
    serve_s: float = 3.5e-4
    bandwidth: float = 1.25e9
    latency_s: float = 100e-6


@dataclass(frozen=True)
class Layout:
    """`per_node`: workers on each node; 0: one for each core. `servers`: each has a range of the vector and
    a node of its own. `combine`: sums are joined on each node before they cross the network."""

    per_node: int = 0
    servers: int = 1
    combine: bool = True


@dataclass(frozen=True)
class StepTime:
    """The seconds of each part of a step."""

    workers: int
    compute_s: float
    wake_s: float
    join_s: float
    update_s: float
    network_s: float

    @property
    def total_s(self) -> float:
        return self.compute_s + self.wake_s + self.join_s + self.update_s + self.network_s

    @property
    def limit(self) -> str:
        """The part that takes the most time, in words."""
        parts = {
            "compute": self.compute_s,
            "wake-ups": self.wake_s,
            "joining sums at the server": self.join_s,
            "the update": self.update_s,
            "the network": self.network_s,
        }
        return max(parts, key=lambda name: parts[name])


SIMPLE = Layout()


def node_counts(work: Work, machine: Machine, workers: int, layout: Layout) -> list[int]:
    """The number of workers with work on each node; the server's node comes first."""
    per_node = layout.per_node or machine.cores
    busy = min(workers, work.shards)
    return [min(per_node, busy - first) for first in range(0, busy, per_node)]


def step_time(work: Work, machine: Machine, workers: int, layout: Layout = SIMPLE) -> StepTime:
    """The time of one step. `workers`: 0: inline, in one process without an exchange."""
    if workers == 0 and work.inline_s is not None:
        return StepTime(0, work.inline_s, 0.0, 0.0, 0.0, 0.0)
    if workers == 0:
        return StepTime(0, work.shards * work.shard_s, 0.0, 0.0, work.update_s, 0.0)
    counts = node_counts(work, machine, workers, layout)
    busy, servers = sum(counts), layout.servers
    hosted = math.ceil(work.shards / busy)
    crowded = max(1.0, counts[0] / machine.cores)
    # All wait for the slowest of `busy` workers (Blom's approximation of a normal maximum).
    slowest = NormalDist().inv_cdf((busy - 0.375) / (busy + 0.25)) if busy > 1 else 0.0
    compute = work.shard_s * crowded * (hosted + work.jitter * math.sqrt(hosted) * slowest)
    senders = len(counts) - 1 if layout.combine else busy - counts[0]
    join = work.bytes * machine.join_s_per_byte
    joins = (counts[0] + senders - 1) * join / servers
    if layout.combine and senders:
        joins += (max(counts[1:]) - 1) * join
    network = 0.0
    if senders:
        vector_s = work.bytes / machine.bandwidth
        there = max((len(counts) - 1) / servers, 1.0) * vector_s
        back = max(senders / servers, 1.0 if layout.combine else max(counts[1:])) * vector_s
        network = 2 * machine.latency_s + there + back + machine.call_s + senders * machine.serve_s
    wake = machine.wake_s + counts[0] * machine.answer_s
    return StepTime(workers, compute, wake, joins, work.update_s / servers, network)


def node_limit(work: Work, machine: Machine, layout: Layout = SIMPLE) -> int:
    """The number of nodes with the shortest step."""
    per_node = layout.per_node or machine.cores
    most = math.ceil(work.shards / per_node)
    times = [step_time(work, machine, nodes * per_node, layout).total_s for nodes in range(1, most + 1)]
    return 1 + times.index(min(times))
