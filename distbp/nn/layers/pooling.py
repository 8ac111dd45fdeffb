"""Pooling over images: the largest number or the average of each window, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import OptionError, option
from distbp.nn.layers.base import Backward, Channels, Facts, Lowering, Shape, Value
from distbp.nn.layers.images import Pair, check_pair, image_windows, pair
from distbp.nn.ops.windows import Windows
from distbp.nn.tape import Ref


@dataclass(frozen=True, kw_only=True)
class _Pool2d(Facts):
    type: str
    kernel_size: Pair = option(help="of a window; one number, or [height, width]")
    stride: Pair | None = option(None, help="how far a window moves; left out: by its own size")
    padding: Pair = option(0, help="on each side, at most half of kernel_size")

    def __post_init__(self) -> None:
        check_pair("kernel_size", self.kernel_size, 1)
        if self.stride is not None:
            check_pair("stride", self.stride, 1)
        check_pair("padding", self.padding, 0)
        if any(2 * pad > size for pad, size in zip(pair(self.padding), pair(self.kernel_size), strict=True)):
            raise OptionError(
                "padding",
                f"must be at most half of kernel_size, not {self.padding}, else a window holds nothing",
            )

    def _windows(self, input_shape: Shape) -> Windows:
        stride = self.kernel_size if self.stride is None else self.stride
        return image_windows(self.type, input_shape, self.kernel_size, stride, self.padding, 1)

    @property
    def channels(self) -> Channels:
        return "last"

    def output_shape(self, input_shape: Shape) -> Shape:
        windows = self._windows(input_shape)
        return (windows.channels, windows.out_height, windows.out_width)


@dataclass(frozen=True, kw_only=True)
class MaxPool2d(_Pool2d):
    """The largest number of each window, as `torch.nn.MaxPool2d`; of equal ones the first takes the
    derivative."""

    keeps_values: ClassVar[bool] = True

    type: Literal["max_pool2d"] = "max_pool2d"

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        tape, windows = low.tape, self._windows(x.shape)
        images = x.ref.reshaped(x.ref.columns * x.ref.times, 1)
        y = tape.work(windows.channels * windows.places)
        tape.emit("max_pool", images, y, whole=windows)

        def backward(dy: Ref) -> tuple[Ref | None]:
            if not low.wanted[0]:
                return (None,)
            dx = tape.like(images)
            tape.emit("max_pool_backward", images, dy.reshaped(y.columns, 1), dx, whole=windows)
            return (dx,)

        return Value(y, self.output_shape(x.shape), channels_last=True), backward


@dataclass(frozen=True, kw_only=True)
class AveragePool2d(_Pool2d):
    """The average of each window, as `torch.nn.AvgPool2d`: what lies in the padding counts as 0."""

    type: Literal["average_pool2d"] = "average_pool2d"

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        tape, windows = low.tape, self._windows(x.shape)
        share = (1.0 / (windows.kernel_height * windows.kernel_width),)
        images = x.ref.reshaped(x.ref.columns * x.ref.times, 1)
        y = tape.work(windows.channels * windows.places)
        tape.emit("average_pool", images, y, whole=windows, real=share)

        def backward(dy: Ref) -> tuple[Ref | None]:
            if not low.wanted[0]:
                return (None,)
            dx = tape.like(images)
            tape.emit("average_pool_backward", dy.reshaped(y.columns, 1), dx, whole=windows, real=share)
            return (dx,)

        return Value(y, self.output_shape(x.shape), channels_last=True), backward
