"""Convolution over images (LeCun et al., "Gradient-based learning applied to document recognition", 1998).

The windows of the images are copied side by side, one in a row: X of (places of all samples, terms). Then it
is a dense layer over windows: Y = f(X W^T + b), with dW = dZ^T X, db = the sum of dZ over the places, dX = dZ
W. Each number of an image stands in several windows, so its derivative is the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from distbp.core.options import OptionError, option
from distbp.nn.activations import lower_activation
from distbp.nn.initializers import GlorotUniform, Initializer, Zeros
from distbp.nn.layers.base import Backward, Facts, Lowering, ParameterSpec, Shape, Value
from distbp.nn.layers.images import Padding, Pair, check_pair, image_windows, pair
from distbp.nn.ops.windows import Windows
from distbp.nn.tape import Ref


class _Group(NamedTuple):
    """Some channels of the input and the filters that look at them. `weight`, `d_weight`: (filters,
    terms)."""

    windows: Windows
    first: int
    filters: int
    weight: Ref
    d_weight: Ref


@dataclass(frozen=True, kw_only=True)
class Conv2d(Facts):
    """A convolution (in truth a cross-correlation) over images: inputs (channels, height, width).

    The conventions are those of `torch.nn.Conv2d`: zeros around the image, weights (filters, channels /
    groups, height, width).
    """

    trains: ClassVar[bool] = True
    activation_option: ClassVar[str] = "activation"

    type: Literal["conv2d"] = "conv2d"
    filters: int = option(help="number of output channels", gt=0)
    kernel_size: Pair = option(help="of a filter; one number, or [height, width]")
    stride: Pair = option(1, help="how far a filter moves; one number, or [down, right]")
    padding: Padding = option(
        0,
        help="zeros on each side; one number, [above and below, left and right], `same` or `valid`",
    )
    dilation: Pair = option(
        1, help="distance between the numbers that a filter looks at; one number, or [down, right]"
    )
    groups: int = option(1, help="into how many parts channels and filters are cut, each for itself", gt=0)
    activation: str = option("linear", help="applied to the outputs", choices="activations")
    initializer: Initializer = option(GlorotUniform(), help="of the weights", choices="initializers")
    bias_initializer: Initializer = option(Zeros(), help="of the biases", choices="initializers")

    def __post_init__(self) -> None:
        for field in ("kernel_size", "stride", "dilation"):
            check_pair(field, getattr(self, field), 1)
        if not isinstance(self.padding, str):
            check_pair("padding", self.padding, 0)
        if self.padding == "same" and pair(self.stride) != (1, 1):
            raise OptionError(
                "padding",
                "may be 'same' with stride 1 only; give numbers",
            )
        if self.filters % self.groups:
            raise OptionError("groups", f"must divide filters ({self.filters}), but is {self.groups}")

    def _windows(self, input_shape: Shape) -> Windows:
        channels = input_shape[0] // self.groups if input_shape else 0
        windows = image_windows(
            self.type, input_shape, self.kernel_size, self.stride, self.padding, self.dilation, channels
        )
        if windows.channels % self.groups:
            raise ValueError(
                f"groups is {self.groups}, which does not divide the {windows.channels} channels of the input"
            )
        return windows

    def output_shape(self, input_shape: Shape) -> Shape:
        windows = self._windows(input_shape)
        return (self.filters, windows.out_height, windows.out_width)

    def parameters(self, input_shape: Shape) -> tuple[ParameterSpec, ...]:
        windows = self._windows(input_shape)
        shape = (self.filters, windows.looked_at, windows.kernel_height, windows.kernel_width)
        fan_out = self.filters * windows.kernel_height * windows.kernel_width
        return (
            ParameterSpec("weight", shape, self.initializer, windows.terms, fan_out),
            ParameterSpec(
                "bias", (self.filters,), self.bias_initializer, windows.terms, fan_out, decays=False
            ),
        )

    def flops(self, input_shape: Shape) -> float:
        windows = self._windows(input_shape)
        return 6.0 * windows.places * self.filters * (windows.terms + 1)

    def _groups(self, low: Lowering, windows: Windows) -> Iterator[_Group]:
        many, terms = self.filters // self.groups, windows.terms
        for group in range(self.groups):
            weight, d_weight = (
                ref._replace(start=ref.start + group * many * terms, columns=terms, plus=many)
                for ref in (low.parameters["weight"], low.gradients["weight"])
            )
            yield _Group(
                windows._replace(first=group * windows.looked_at), group * many, many, weight, d_weight
            )

    def lower(self, low: Lowering, x: Value) -> tuple[Value, Backward]:
        tape, windows = low.tape, self._windows(x.shape)
        groups, places = list(self._groups(low, windows)), windows.places
        images = x.ref.reshaped(x.ref.columns * x.ref.times, 1)
        seen = []  # by each group
        z = tape.work(self.filters, places)
        for group in groups:
            seen.append(tape.work(windows.terms, places))
            tape.emit("windows", images, seen[-1], whole=group.windows)
            part = z if len(groups) == 1 else tape.work(group.filters, places)
            low.product(seen[-1], group.weight, part)
            if len(groups) > 1:
                tape.emit("put_columns", part, z, whole=(group.first,))
        a, activate_backward = lower_activation(
            tape, self.activation, z, low.parameters["bias"], y=z, shared=True
        )
        y = tape.work(self.filters * places)
        tape.emit("put_channels", a, y, whole=(0,))

        def backward(dy: Ref) -> tuple[Ref | None]:
            dz = tape.like(z)
            tape.emit("take_channels", dy.reshaped(y.columns, 1), dz, whole=(0,))
            activate_backward(dz, low.gradients["bias"])
            dx = tape.like(images) if low.wanted[0] else None
            for group, inputs in zip(groups, seen, strict=True):
                part = dz if len(groups) == 1 else tape.work(group.filters, places)
                if len(groups) > 1:
                    tape.emit("take_columns", dz, part, whole=(group.first,))
                low.weight_gradient(group.d_weight, part, inputs)
                if dx is not None:
                    d = tape.like(inputs)
                    tape.emit("product_nn", part, group.weight, d, whole=(0,))
                    tape.emit("windows_backward", d, dx, whole=group.windows)
            return (dx,)

        return Value(y, (self.filters, windows.out_height, windows.out_width)), backward
