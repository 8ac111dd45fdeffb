"""The Ray-objects exchange between the server and the relays of other nodes: one actor call a step.

A relay's call pushes its sums, and waits in a thread of the server's actor until a later phase is published.
The vector comes back as a reference to one object, which is sent to each node once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from distbp.core.arrays import Array
from distbp.engine.parameter_server import Contribution
from distbp.team.exchange.desk import packed
from distbp.team.exchange.relay import Publication
from distbp.team.exchange.sparse_sums import Scan, SparseTable, live_rows

# Ray carries values up to 100 KB within its messages; larger ones are worth an object of their own.
INLINE_BYTES = 100 * 1024


def as_object(vector: Array) -> Any:
    """A copy of the vector, to be sent. Slow relays may still read it while the next update writes the
    vector."""
    return vector.copy() if vector.nbytes <= INLINE_BYTES else ray.put(vector)


class RayReply:
    """A `Reply` that is a Ray reference."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def wait(self, timeout_s: float) -> Publication | None:
        ready, _ = ray.wait([self._reference], timeout=timeout_s)
        if not ready:
            return None
        publication: Publication = ray.get(self._reference)
        if isinstance(publication.vector, ray.ObjectRef):
            return publication._replace(vector=ray.get(publication.vector))
        return publication


class RayLink:
    """A `Link` to the server's actor. `calls`: how often it was used. `bytes`: of gradient sums sent by it.

    tables, scan: see `encode`."""

    def __init__(
        self, server: Any, attempt: int, tables: Sequence[SparseTable] = (), scan: Scan = live_rows
    ) -> None:
        self._server = server
        self._attempt = attempt
        self._tables = tables
        self._scan = scan
        self.calls = 0
        self.bytes = 0

    def push_pull(self, phase: int, contributions: Sequence[Contribution]) -> RayReply:
        # Ray has copied the arrays when this returns.
        pushed = packed(contributions, self._tables, self._scan)
        self.calls += 1
        self.bytes += sum(sums.nbytes for _, _, sums, _ in pushed)
        return RayReply(self._server.push_pull.remote(self._attempt, phase, pushed))
