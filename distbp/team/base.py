"""What the trainer drives: a team, that is a parameter server and its workers behind one exchange.

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


SLOTS = "slots."  # what their names begin with in a snapshot


@dataclass(frozen=True)
class Snapshot:
    """The state of the server before `step`: all that a checkpoint needs, and what an epoch reports.

    `arrays`: "vector" (size,), "epoch_totals" float64, and the optimizer's "slots.*". Copies. `verdict`: why
    further steps would change nothing, for people; "" where they may.
    """

    step: int
    arrays: Mapping[str, Array]
    health: tuple[TensorHealth, ...] = field(default=())
    verdict: str = ""

    @property
    def slots(self) -> dict[str, Array] | None:
        """The optimizer's state by name; None where there is none (yet)."""
        return slots_in(self.arrays) or None


def slots_in(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The slots of an optimizer among the arrays of a snapshot, by name."""
    return {k.removeprefix(SLOTS): v for k, v in arrays.items() if k.startswith(SLOTS)}


def server_after(
    snapshot: Snapshot, blueprint: Blueprint, vector: Array, *, attempt: int, threads: int, first: int = 0
) -> ParameterServer:
    """A server that goes on from a snapshot. vector: the snapshot's, in the server's memory. first: where it
    begins in the whole vector."""
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
    """`exchange`: its name for people ("inline", "shared memory", "ray objects"). `workers`: how many now."""

    @property
    def exchange(self) -> str: ...

    @property
    def workers(self) -> int: ...

    def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
        """Trains steps `first` to `stop - 1`; waits. Returns the next step: `stop`, or an earlier one if
        `stopping()` became true, which is asked often and never in the middle of a step.

        Raises NotFiniteError (the step was not applied), ServerLostError (go on from a checkpoint), or of Ray
        alone WorkerLostError (no shard can be computed) and CorruptionError (two workers differ).
        """
        ...

    def evaluate(self, split: str) -> Evaluation:
        """Loss and metric sums of a whole split with the current parameters; waits."""
        ...

    def snapshot(self, whole: bool = True) -> Snapshot:
        """The server's state between two steps; waits. Not `whole`: what an epoch reports, without what grows
        with the number of parameters."""
        ...

    def adopt(self, vector: Array) -> bool:
        """Takes other parameters, to evaluate with before it is closed; waits. False where it cannot, and a
        new team is needed."""
        ...

    def scale(self, workers: int) -> str | None:
        """Asks for another number of workers, which come and go while steps run; does not wait. Returns why
        that cannot be, in words that go on after "because", or None."""
        ...

    def close(self) -> None:
        """Ends all that the team started. May be called twice."""
        ...
