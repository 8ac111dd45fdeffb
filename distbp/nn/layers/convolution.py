"""Convolution over images and sequences.

A convolution is a dense layer over the windows of the images. With X (places of all samples, terms of a
window), Y = f(X W^T + b), dW = dZ^T X, db = the sum of dZ over the places, dX = dZ W. A number of an image
stands in several windows, so its gradient is the sum of their gradients (LeCun et al., "Gradient-based
learning applied to document recognition", 1998). The ops read windows in place; X is never built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from distbp.core.options import OptionError, option
from distbp.nn.activations import lower_activation
from distbp.nn.initializers import GlorotUniform, Initializer, Zeros
from distbp.nn.layers.base import (
    ABSENT,
    Backward,
    Channels,
    LayerFacts,
    Lowering,
    ParameterSpec,
    Shape,
    Value,
)
from distbp.nn.layers.images import Padding, Pair, image_windows, pair, sequence_windows
from distbp.nn.ops.windows import Windows
from distbp.nn.tape import Ref


@dataclass(frozen=True, kw_only=True)
class _Convolution(LayerFacts):
    """The common part of both convolutions. `_windows` raises ValueError if no window fits."""

    trains: ClassVar[bool] = True
    activation_option: ClassVar[str] = "activation"

    type: str
    filters: int = option(help="number of output channels", gt=0)
    kernel_size: Pair = option(help="of a filter; one number, or [height, width]", each=1)
    stride: Pair = option(1, help="how far a filter moves; one number, or [down, right]", each=1)
    padding: Padding = option(
        0,
        help="zeros on each side; one number, [above and below, left and right], `same` or `valid`",
        each=0,
    )
    dilation: Pair = option(
        1, help="distance between the numbers that a filter looks at; one number, or [down, right]", each=1
    )
    groups: int = option(1, help="into how many parts channels and filters are cut, each for itself", gt=0)
    activation: str = option("linear", help="applied to the outputs", choices="activations")
    initializer: Initializer = option(GlorotUniform(), help="of the weights", choices="initializers")
    bias_initializer: Initializer = option(Zeros(), help="of the biases", choices="initializers")

    def __post_init__(self) -> None:
        if self.padding == "same" and pair(self.stride) != (1, 1):
            raise OptionError("padding", "may be 'same' with stride 1 only; give numbers")
        if self.filters % self.groups:
            raise OptionError("groups", f"must divide filters ({self.filters}), but is {self.groups}")

    def _windows(self, input_shape: Shape) -> Windows:
        raise NotImplementedError

    def _grouped(self, windows: Windows) -> Windows:
        if windows.channels % self.groups:
            raise ValueError(
                f"groups is {self.groups}, which does not divide the {windows.channels} channels of the input"
            )
        return windows._replace(looked_at=windows.channels // self.groups)

    def _parameters(self, windows: Windows, shape: Shape) -> tuple[ParameterSpec, ...]:
        """The weights and biases. shape: the shape of the weights of one filter."""
        fan_in, fan_out = windows.terms, self.filters * windows.kernel_height * windows.kernel_width
        biases = (self.filters,)
        return (
            ParameterSpec("weight", (self.filters, *shape), self.initializer, fan_in, fan_out),
            ParameterSpec("bias", biases, self.bias_initializer, fan_in, fan_out, decays=False),
        )

    def flops(self, input_shape: Shape) -> float:
        windows = self._windows(input_shape)
        return 6.0 * windows.places * self.filters * (windows.terms + 1)

    def _lower(self, low: Lowering, x: Value) -> tuple[Ref, Backward]:
        """Emits the forward pass. Returns the output (rows, places * filters) and the backward pass."""
        tape, windows = low.tape, self._windows(x.shape)
        images = x.ref.reshaped(x.ref.columns * x.ref.times, 1)
        z = tape.work(self.filters, windows.places)
        weight, d_weight = (
            part["weight"]._replace(columns=windows.terms, plus=self.filters)
            for part in (low.parameters, low.gradients)
        )
        tape.emit("convolve", images, weight, low.parameters["bias"], z, whole=windows)
        a, activate_backward = lower_activation(tape, self.activation, z, ABSENT, y=z, shared=True)

        def backward(dy: Ref) -> tuple[Ref | None]:
            dz = dy.reshaped(z.columns, z.times)
            activate_backward(dz, ABSENT)
            tape.emit("convolve_weights", images, dz, d_weight, low.gradients["bias"], whole=windows)
            if not low.wanted[0]:
                return (None,)
            dx = tape.like(images)
            tape.emit("convolve_backward", dz, weight, dx, whole=windows)
            return (dx,)

        return a.reshaped(self.filters * windows.places, 1), backward


@dataclass(frozen=True, kw_only=True)
class Conv2d(_Convolution):
    """A convolution (in truth a cross-correlation) over images: inputs (channels, height, width).

    The conventions are those of `torch.nn.Conv2d`: zeros around the image, weights (filters, channels /
    groups, height, width).
    """

    type: Literal["conv2d"] = "conv2d"

    @property
    def channels(self) -> Channels:
        return "last"

    def _windows(self, input_shape: Shape) -> Windows:
        return self._grouped(
            image_windows(self.type, input_shape, self.kernel_size, self.stride, self.padding, self.dilation)
        )

    def output_shape(self, input_shape: Shape) -> Shape:
        windows = self._windows(input_shape)
        return (self.filters, windows.out_height, windows.out_width)

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        windows = self._windows(input_shape)
        kernel = windows.kernel_height, windows.kernel_width
        return self._parameters(windows, (windows.looked_at, *kernel))

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        y, backward = self._lower(low, x)
        return Value(y, self.output_shape(x.shape), channels_last=True), backward


@dataclass(frozen=True, kw_only=True)
class Conv1d(_Convolution):
    """A convolution (in truth a cross-correlation) over sequences: inputs (steps, features), as of all layers
    over steps; the features are the channels.

    The other conventions are those of `torch.nn.Conv1d`, whose inputs are (channels, steps): zeros before
    the first and after the last step, weights (filters, features / groups, steps).
    """

    type: Literal["conv1d"] = "conv1d"
    kernel_size: int = option(help="steps that a filter looks at", gt=0)
    stride: int = option(1, help="how many steps a filter moves", gt=0)
    padding: int | Literal["same", "valid"] = option(
        0, help="steps of zeros on each side; a number, `same` or `valid`"
    )
    dilation: int = option(1, help="distance between the steps that a filter looks at", gt=0)

    def __post_init__(self) -> None:
        if isinstance(self.padding, int) and self.padding < 0:
            raise OptionError("padding", f"must be at least 0, 'same' or 'valid', not {self.padding}")
        super().__post_init__()

    def _windows(self, input_shape: Shape) -> Windows:
        return self._grouped(
            sequence_windows(
                self.type, input_shape, self.kernel_size, self.stride, self.padding, self.dilation
            )
        )

    def output_shape(self, input_shape: Shape) -> Shape:
        return (self._windows(input_shape).out_width, self.filters)

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        windows = self._windows(input_shape)
        return self._parameters(windows, (windows.looked_at, windows.kernel_width))

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        y, backward = self._lower(low, x)
        return Value(y, self.output_shape(x.shape)), backward
