"""The parts of a job about updates, besides the optimizer: penalties, groups of parameters, clipping."""

from __future__ import annotations

from pydantic import Field, model_validator

from distbp.job.faults import JobPart, line, raised
from distbp.job.kinds import Flag, Number


class Regularization(JobPart):
    """Penalties on the weights, added to the averaged gradient before the optimizer."""

    l1: Number = Field(default=0.0, ge=0, description="adds l1 * sign(w): the penalty l1 * sum of |w|")
    l2: Number = Field(default=0.0, ge=0, description="adds l2 * w: the penalty l2 / 2 * sum of w^2")
    biases: Flag = Field(
        default=False, description="apply penalties and weight decay to biases, shifts and scales, too"
    )


class ParameterGroup(JobPart):
    """How the tensors of a group are updated."""

    rate: Number = Field(
        default=1.0,
        ge=0,
        description="a factor on the learning rate; 0: the tensors do not change. Running statistics of batch"
        " normalization still follow the rows",
    )
    decays: Flag | None = Field(
        default=None,
        description="whether penalties and weight decay apply; left out: to weights, and to biases if"
        " regularization.biases is true",
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
