"""The parts of a job that say how parameters are updated, beside the optimizer."""

from __future__ import annotations

from pydantic import Field, model_validator

from distbp.job.faults import JobPart, line, raised
from distbp.job.kinds import Flag, Number


class Regularization(JobPart):
    """Penalties on the weights, added to the averaged gradient before the optimizer."""

    l1: Number = Field(default=0.0, ge=0, description="adds l1 * sign(w): the penalty l1 * sum of |w|")
    l2: Number = Field(default=0.0, ge=0, description="adds l2 * w: the penalty l2 / 2 * sum of w^2")
    biases: Flag = Field(
        default=False, description="apply them, and weight decay, to biases, shifts and scales as well"
    )


class ParameterGroup(JobPart):
    """How the tensors of a group are updated."""

    rate: Number = Field(
        default=1.0,
        ge=0,
        description="a factor on the learning rate; 0: they stay. Running statistics of batch normalization"
        " still follow the rows",
    )
    decays: Flag | None = Field(
        default=None,
        description="whether penalties and weight decay apply; left out: to weights, and as regularization"
        " says",
    )


class Clip(JobPart):
    """Limits on the averaged gradient of the whole batch; `norm` is applied first."""

    value: Number | None = Field(default=None, gt=0, description="limit every element to [-value, value]")
    norm: Number | None = Field(
        default=None, gt=0, description="scale the gradient down to this Euclidean norm"
    )

    @model_validator(mode="after")
    def _something(self) -> Clip:
        if self.value is None and self.norm is None:
            raise raised("Clip", [line((), "give value, norm or both, or leave clip out")])
        return self
