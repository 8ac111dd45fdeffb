"""What the rest of distbp reads of every optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from distbp.optim.schedules import Constant, Schedule

if TYPE_CHECKING:
    from distbp.optim.parts import Part


class OptimizerFacts:
    """The defaults are those of a method without a learning rate, given the gradient of a batch.

    `whole_batch`: every step takes the whole training set, and the method finds by itself how far to go.
    `copies`: how many perturbed copies of the parameters workers evaluate in place of the gradient; 0: they
    give the gradient. `passes`: how much more a step computes than one with a gradient, in times.
    `decay_schedule`: how the weight decay changes during training; None: it stays.
    """

    whole_batch: ClassVar[bool] = False
    learning_rate: float = 1.0
    schedule: Schedule = Constant()
    decay_schedule: Schedule | None = None

    @property
    def copies(self) -> int:
        return 0

    @property
    def passes(self) -> float:
        return 1.0

    def parts(self) -> tuple[Part, ...]:
        return ()
