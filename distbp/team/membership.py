"""Pure decisions about a team: how many workers, on which nodes, and which shards each hosts."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from distbp.core.reduction import assign
from distbp.team.exchange.faults import FaultPlan
from distbp.team.exchange.segment import Range


@dataclass(frozen=True)
class Options:
    """Options of a team. None of them changes the result.

    workers: how many to begin with. least, most: limits for growing into free CPUs; if they are equal, the
    team does not grow. late_factor: see `Rounds`. frozen_s: seconds without a sign of life after which a
    process counts as frozen, and is ended. servers: how many share the flat vector. faults: injected, for
    tests of recovery.
    """

    workers: int
    least: int = 0
    most: int = 0
    late_factor: float = 4.0
    frozen_s: float = 5.0
    servers: int = 1
    faults: FaultPlan | None = None


def spread(shards: int, members: Sequence[tuple[str, int]]) -> dict[int, list[Range]]:
    """Returns member -> its ranges of shards, as equal as possible. Members of one node host neighbors, so
    that the node can join their sums before it sends them. `members`: (node, member), in any order. If there
    are more members than shards, the last members host nothing.
    """
    ordered = sorted(members)
    used = min(len(ordered), shards)
    ranges: dict[int, list[Range]] = {member: [] for _, member in ordered}
    for (_, member), (start, stop) in zip(ordered[:used], assign(shards, used), strict=True):
        ranges[member] = [Range(start, stop)]
    return ranges


def frozen(beat_ages_s: Mapping[int, float], limit_s: float) -> list[int]:
    """The members that gave no sign of life for longer than `limit_s`."""
    return [member for member, age in beat_ages_s.items() if age > limit_s]


def target(
    current: int, wanted: int, least: int, most: int, free_cpus: float, awaited_cpus: float = 0.0
) -> int:
    """The number of workers to aim for: `wanted`, or if least < most, the number that the CPUs allow.

    `current`: members and workers that are starting. `awaited_cpus`: CPUs for which programs of the cluster
    wait, starting workers included. If that is more than is free, workers make room for other programs.
    """
    if least == most:
        return wanted
    return max(least, min(most, current + math.floor(free_cpus - awaited_cpus)))


def places(
    home: str, cpus: Mapping[str, float], taken: Sequence[str], doubtful: Collection[str] = ()
) -> list[str]:
    """The nodes with room for workers, one entry for each worker: the server's node `home` first, then the
    node with the most room, and so on, so that few nodes are used. `cpus`: of each node. `taken`: the nodes
    of the running workers, one entry for each. `doubtful`: nodes to leave out."""
    rooms = {name: int(count) - taken.count(name) for name, count in cpus.items() if name not in doubtful}
    order = sorted(rooms, key=lambda name: (name != home, -rooms[name], name))
    return [name for name in order for _ in range(rooms[name])]


def cpus_each(cpus: Sequence[float], networks: int, workers: int) -> int:
    """The number of CPUs for each of several networks that train in one process each.

    With more workers than networks, each network gets the CPUs of several workers, if the nodes have room for
    all networks. `cpus`: of each node."""
    each = workers // networks
    while each > 1 and sum(int(count // each) for count in cpus) < networks:
        each -= 1
    return max(1, each)
