"""Inverted dropout (Srivastava et al., JMLR 15, 2014): training scales up the values that it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import option
from distbp.nn.layers.base import Backward, Channels, LayerFacts, Lengths, Lowering, Shape, Value
from distbp.nn.ops.elements import DROPOUT_LEVELS, flat_cosine
from distbp.nn.tape import POSITION, Ref


@dataclass(frozen=True, kw_only=True)
class Dropout(LayerFacts):
    """While training, each value is set to 0 with probability `rate`, else multiplied by 1 / (1 - rate).

    `rate` is the share DROPPED, as in PyTorch and Keras. It is rounded to a multiple of 1 / 65536, and the
    factor is exact for the rounded rate. The mask is a pure function of the job's seed, the step, the shard
    and the layer's number, and the same for both dtypes. In evaluation the output is the input.
    """

    keeps_values: ClassVar[bool] = True
    random: ClassVar[bool] = True

    type: Literal["dropout"] = "dropout"
    rate: float = option(0.5, help="share of the values that is dropped", ge=0, lt=1)
    schedule: Literal["flat_cosine"] | None = option(
        None,
        help="flat_cosine: the rate stays for half of the job, and falls to 0 along a cosine at its end; left"
        " out: it stays",
    )

    def rate_at(self, step: int, steps: int) -> float:
        """The rate at a step (0-based) of a job with `steps` steps, before rounding."""
        return self.rate if self.schedule is None else self.rate * flat_cosine(step, steps, 0.5)

    @property
    def lengths(self) -> Lengths:
        return "keep"

    @property
    def channels(self) -> Channels:
        return "either"

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        dropped = min(round(self.rate * DROPOUT_LEVELS), DROPOUT_LEVELS - 1)
        if not low.training or dropped == 0:
            return x, lambda dy: (dy,)
        y, factors = low.tape.like(x.ref), low.tape.like(x.ref)
        factor = DROPOUT_LEVELS / (DROPOUT_LEVELS - dropped)
        whole = (dropped, low.index, int(self.schedule is not None))
        low.tape.emit("dropout", POSITION, x.ref, factors, y, whole=whole, real=(factor,))

        def backward(dy: Ref) -> tuple[Ref | None]:
            if low.wanted[0]:
                low.tape.emit("multiply", dy, factors, dy)
            return (dy if low.wanted[0] else None,)

        return x._replace(ref=y), backward
