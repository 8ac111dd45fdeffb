"""A whole team in the process of one worker, for a network that trains apart from others.

Nothing is sent in a step. The trainer's calls are those of the contract of a team (see `distbp.team.base`).
"""

from __future__ import annotations

from collections.abc import Mapping

from distbp.core.arrays import Array, aligned_vector
from distbp.data.batches import WholeData
from distbp.data.prepared import PreparedRows
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.engine.evaluation import Evaluation
from distbp.optim.schedules import PlateauState
from distbp.team.base import Snapshot, outcome_of
from distbp.team.exchange.shared_data import SharedRows
from distbp.team.inline import InlineTeam

HostedRows = Mapping[str, SharedRows] | Mapping[str, PreparedRows]


class Hosting:
    """An inline team for calls from another process. data: all rows of all splits, by name: in shared memory
    on the trainer's node, else as they were sent. threads: how many threads of this process share a step."""

    def __init__(
        self, blueprint: Blueprint, snapshot: Snapshot, attempt: int, data: HostedRows, threads: int
    ) -> None:
        given = snapshot.arrays["vector"]  # read-only, because it came from another process
        vector = aligned_vector(len(given), given.dtype)
        vector[:] = given
        start = Snapshot(snapshot.step, {**snapshot.arrays, "vector": vector})
        rows = {name: one.attach() if isinstance(one, SharedRows) else one for name, one in data.items()}
        holdings = WholeData(rows, blueprint.rows, blueprint.sharding())
        self._stop_asked = 0
        with numerics.quiet():
            self._team = InlineTeam(blueprint, holdings, start, attempt, threads)

    def run(self, stretch: int, first: int, stop: int, plateau: PlateauState) -> tuple[str, int]:
        """Trains; waits. Returns the result of `outcome_of`."""
        with numerics.quiet():  # for this thread only, and calls come in different threads
            return outcome_of(
                lambda: self._team.run(first, stop, plateau, lambda: self._stop_asked == stretch)
            )

    def stop_soon(self, stretch: int) -> None:
        """Ends a stretch between two steps. Stretches are numbered from 1 on. The call may come late, after
        the call of `run` for the next stretch."""
        self._stop_asked = max(self._stop_asked, stretch)

    def evaluate(self, split: str) -> Evaluation:
        with numerics.quiet():
            return self._team.evaluate(split)

    def snapshot(self, whole: bool) -> Snapshot:
        return self._team.snapshot(whole)

    def adopt(self, vector: Array) -> None:
        self._team.adopt(vector)

    def close(self) -> None:
        self._team.close()
