"""The facts about an optimizer that the rest of distbp reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from distbp.optim.schedules import Constant, Schedule

if TYPE_CHECKING:
    from distbp.optim.parts import Part


class OptimizerFacts:
    """The base of all optimizers. The defaults are those of a method that takes the gradient of a batch and
    has no learning rate.

    `whole_batch`: whether every step takes the whole training set; the method then finds its own step sizes.
    `copies`: the number of perturbed copies whose losses workers compute in place of the gradient; 0: they
    compute the gradient. `passes`: the work of a step, in multiples of a step with a gradient.
    `decay_schedule`: the schedule of the weight decay; None: it is constant.
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
