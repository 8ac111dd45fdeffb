"""Pooling over images and sequences: the largest number or the average of each window, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import OptionError, option
from distbp.nn.layers.base import Backward, Channels, LayerFacts, Lowering, Shape, Value
from distbp.nn.layers.images import Pair, image_windows, pair, sequence_windows
from distbp.nn.ops.windows import Windows
from distbp.nn.tape import Ref


def _pool(low: Lowering, x: Value, windows: Windows, largest: bool) -> tuple[Ref, Backward]:
    """Emits y (rows, places * channels) <- the largest number, or the average, of each window."""
    tape, images = low.tape, x.ref.reshaped(x.ref.columns * x.ref.times, 1)
    op = "max_pool" if largest else "average_pool"
    share = () if largest else (1.0 / (windows.kernel_height * windows.kernel_width),)
    y = tape.work(windows.channels * windows.places)
    tape.emit(op, images, y, whole=windows, real=share)

    def backward(dy: Ref) -> tuple[Ref | None]:
        if not low.wanted[0]:
            return (None,)
        dx, d = tape.like(images), dy.reshaped(y.columns, 1)
        tape.emit(f"{op}_backward", *([images] if largest else []), d, dx, whole=windows, real=share)
        return (dx,)

    return y, backward


@dataclass(frozen=True, kw_only=True)
class _Pool2d(LayerFacts):
    largest: ClassVar[bool]  # True: the largest number; False: the average
    type: str
    kernel_size: Pair = option(help="of a window; one number, or [height, width]", each=1)
    stride: Pair | None = option(None, help="how far a window moves; left out: by its own size", each=1)
    padding: Pair = option(0, help="on each side, at most half of kernel_size", each=0)

    def __post_init__(self) -> None:
        if any(2 * pad > size for pad, size in zip(pair(self.padding), pair(self.kernel_size), strict=True)):
            raise OptionError("padding", _too_much(self.padding))

    @property
    def channels(self) -> Channels:
        return "last"

    def _windows(self, input_shape: Shape) -> Windows:
        stride = self.kernel_size if self.stride is None else self.stride
        return image_windows(self.type, input_shape, self.kernel_size, stride, self.padding, 1)

    def output_shape(self, input_shape: Shape) -> Shape:
        windows = self._windows(input_shape)
        return (windows.channels, windows.out_height, windows.out_width)

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        y, backward = _pool(low, x, self._windows(x.shape), self.largest)
        return Value(y, self.output_shape(x.shape), channels_last=True), backward


@dataclass(frozen=True, kw_only=True)
class _Pool1d(LayerFacts):
    largest: ClassVar[bool]
    type: str
    kernel_size: int = option(help="steps of a window", gt=0)
    stride: int | None = option(None, help="how many steps a window moves; left out: by its own size", gt=0)
    padding: int = option(0, help="on each side, at most half of kernel_size", ge=0)

    def __post_init__(self) -> None:
        if 2 * self.padding > self.kernel_size:
            raise OptionError("padding", _too_much(self.padding))

    def _windows(self, input_shape: Shape) -> Windows:
        stride = self.kernel_size if self.stride is None else self.stride
        return sequence_windows(self.type, input_shape, self.kernel_size, stride, self.padding, 1)

    def output_shape(self, input_shape: Shape) -> Shape:
        return (self._windows(input_shape).out_width, input_shape[1])

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        y, backward = _pool(low, x, self._windows(x.shape), self.largest)
        return Value(y, self.output_shape(x.shape)), backward


def _too_much(padding: Pair) -> str:
    return f"must be at most half of kernel_size, not {padding}, else a window holds nothing"


@dataclass(frozen=True, kw_only=True)
class MaxPool2d(_Pool2d):
    """The largest number of each window, as `torch.nn.MaxPool2d`; of equal ones the first takes the
    derivative."""

    keeps_values: ClassVar[bool] = True

    largest: ClassVar[bool] = True
    type: Literal["max_pool2d"] = "max_pool2d"


@dataclass(frozen=True, kw_only=True)
class AveragePool2d(_Pool2d):
    """The average of each window, as `torch.nn.AvgPool2d`: what lies in the padding counts as 0."""

    largest: ClassVar[bool] = False
    type: Literal["average_pool2d"] = "average_pool2d"


@dataclass(frozen=True, kw_only=True)
class GlobalAveragePool2d(LayerFacts):
    """The average of each channel: (channels, height, width) -> (channels)."""

    type: Literal["global_average_pool2d"] = "global_average_pool2d"

    @property
    def channels(self) -> Channels:
        return "last"

    def _windows(self, input_shape: Shape) -> Windows:
        return image_windows(self.type, input_shape, input_shape[1:] if len(input_shape) == 3 else 1, 1, 0, 1)

    def output_shape(self, input_shape: Shape) -> Shape:
        return (self._windows(input_shape).channels,)

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        y, backward = _pool(low, x, self._windows(x.shape), largest=False)
        return Value(y, self.output_shape(x.shape)), backward


@dataclass(frozen=True, kw_only=True)
class MaxPool1d(_Pool1d):
    """The largest number of each window of (steps, features), feature by feature; of equal ones the first
    takes the derivative."""

    keeps_values: ClassVar[bool] = True

    largest: ClassVar[bool] = True
    type: Literal["max_pool1d"] = "max_pool1d"


@dataclass(frozen=True, kw_only=True)
class AveragePool1d(_Pool1d):
    """The average of each window of (steps, features), feature by feature: what lies in the padding counts as
    0."""

    largest: ClassVar[bool] = False
    type: Literal["average_pool1d"] = "average_pool1d"
