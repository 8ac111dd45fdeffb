"""Signs of life of the processes of a team on Ray. Ray itself notices a frozen node after a minute.

Every worker writes the time to its row of the segment. The trainer asks the server and the relays for the
ages of these times. An answer is their own sign of life.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from distbp.team import membership
from distbp.team.ray.nodes import Node

QUESTIONS = 5  # in the time after which a process counts as frozen
LOOK_S = 0.5  # the most that one look adds to a silence: the trainer itself may have been held up


class Silence(NamedTuple):
    """rows: (node, row in its segment) of each frozen worker. nodes: nodes with a silent server or relay."""

    rows: list[tuple[str, int]]
    nodes: set[str]


_NOBODY = Silence([], set())


class Heartbeats:
    """frozen_s: the silence in seconds after which a process counts as frozen. clock: seconds."""

    def __init__(self, frozen_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._frozen_s = frozen_s
        self._clock = clock
        self._asked: dict[str, Any] = {}  # node -> reference of the answer
        self._heard: set[str] = set()  # nodes that have answered before; the others may still be starting
        self._looked = clock()
        self._waited_s = 0.0

    def look(self, nodes: Mapping[str, Node]) -> Silence:
        """Returns which processes are frozen now, and asks again when it is time. Does not wait."""
        now = self._clock()
        self._waited_s += min(now - self._looked, LOOK_S)
        self._looked = now
        if not self._asked:
            if self._waited_s >= self._frozen_s / QUESTIONS:
                self._waited_s = 0.0
                self._asked = {name: node.actor.beats.remote() for name, node in nodes.items()}
            return _NOBODY
        references = list(self._asked.values())
        _, waiting = ray.wait(references, num_returns=len(references), timeout=0)
        late = {name for name, reference in self._asked.items() if reference in waiting}
        if late and self._waited_s < self._frozen_s:
            return _NOBODY
        self._heard.update(self._asked.keys() - late)
        silence = Silence([], {name for name in late if name in self._heard and name in nodes})
        for name, reference in self._asked.items():
            if reference not in waiting:
                with suppress(RayError):  # the process died, which the team notices by other means
                    silence.rows.extend(
                        (name, me) for me in membership.frozen(ray.get(reference), self._frozen_s)
                    )
        self._asked = {}
        return silence

    def expect(self, node: str) -> None:
        """Notes that a node has answered before, so that its silence counts from now on."""
        self._heard.add(node)

    def forget(self, node: str) -> None:
        """Drops a node that the team has given up."""
        self._asked.pop(node, None)
        self._heard.discard(node)
