"""The contract of a team: a parameter server and its workers behind one exchange, driven by the trainer.

The trainer is not on the path of a step. It asks for *stretches* of steps, for evaluations and for snapshots,
and the team runs the steps among its members. Every team gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from distbp.core.arrays import Array
from distbp.engine.evaluation import Evaluation
from distbp.engine.health import TensorHealth
from distbp.optim.schedules import PlateauState

if TYPE_CHECKING:
    from distbp.engine.blueprint import Blueprint
    from distbp.engine.parameter_server import ParameterServer


SLOTS = "slots."  # the prefix of the names of slots in a snapshot


@dataclass(frozen=True)
class Snapshot:
    """The state of the server before `step`, for a checkpoint and for the report of an epoch.

    `arrays`: copies of "vector" (size,), "epoch_totals" float64, and the optimizer's "slots.*". `health`: of
    each tensor at the last step of an epoch; else empty. `verdict`: the reason, for people, that further
    steps would change nothing; "" if they may change something.
    """

    step: int
    arrays: Mapping[str, Array]
    health: tuple[TensorHealth, ...] = field(default=())
    verdict: str = ""

    @property
    def slots(self) -> dict[str, Array] | None:
        """The optimizer's state by name; None if there is none yet."""
        return slots_in(self.arrays) or None


def slots_in(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The optimizer's slots among the arrays of a snapshot, by name without the prefix."""
    return {k.removeprefix(SLOTS): v for k, v in arrays.items() if k.startswith(SLOTS)}


def server_after(
    snapshot: Snapshot, blueprint: Blueprint, vector: Array, *, attempt: int, threads: int, first: int = 0
) -> ParameterServer:
    """A server that goes on from a snapshot. vector: the snapshot's, in the server's memory. first: where the
    server's range begins in the whole vector."""
    from distbp.engine.parameter_server import ParameterServer

    return ParameterServer(
        blueprint,
        vector,
        step=snapshot.step,
        attempt=attempt,
        slots=snapshot.slots,
        epoch_totals=snapshot.arrays.get("epoch_totals"),
        threads=threads,
        first=first,
    )


def outcome_of(steps: Callable[[], int]) -> tuple[str, int]:
    """How steps ended, for another process: ("trained", next step) or ("not finite", the step that was not
    applied)."""
    from distbp.engine.parameter_server import NotFiniteError

    try:
        return "trained", steps()
    except NotFiniteError as error:
        return "not finite", error.step


def snapshot_of(server: ParameterServer, whole: bool = True) -> Snapshot:
    """The state of a server of the whole vector; see `Team.snapshot`."""
    return Snapshot(server.step, server.snapshot(whole), tuple(server.health), server.verdict)


class Team(Protocol):
    """`exchange`: its name for people ("inline", "shared memory", "ray objects"). `workers`: their number
    now."""

    @property
    def exchange(self) -> str: ...

    @property
    def workers(self) -> int: ...

    def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
        """Trains steps `first` to `stop - 1`; waits. Returns the next step: `stop`, or an earlier step if
        `stopping()` returned True. It is called often, and ends the stretch after the step in progress.

        Raises NotFiniteError (the step was not applied) and ServerLostError (go on from a checkpoint). Teams
        on Ray also raise WorkerLostError (workers die without a completed step) and CorruptionError (the
        answers of two workers differ).
        """
        ...

    def evaluate(self, split: str) -> Evaluation:
        """Loss and metric sums of a whole split with the current parameters; waits."""
        ...

    def snapshot(self, whole: bool = True) -> Snapshot:
        """The server's state between two steps; waits. Not `whole`: without the vector and the slots, which
        the report of an epoch does not need."""
        ...

    def adopt(self, vector: Array) -> bool:
        """Takes another vector, for evaluations before `close`; waits. Returns False if this team cannot: a
        new team is then needed."""
        ...

    def scale(self, workers: int) -> str | None:
        """Asks for another number of workers; does not wait. They come and go while steps run. Returns None,
        or the reason that this is not possible, as a clause."""
        ...

    def close(self) -> None:
        """Ends all processes and threads of the team. May be called twice."""
        ...
