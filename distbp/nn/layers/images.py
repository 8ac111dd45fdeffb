"""The windows of layers over images and sequences: pairs of sizes, padding, and the number of windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from distbp.nn.layers.base import Shape
from distbp.nn.layers.steps import steps_of
from distbp.nn.ops.windows import Windows

Pair = int | tuple[int, int]
Padding = int | tuple[int, int] | Literal["same", "valid"]


def pair(value: Pair) -> tuple[int, int]:
    """The pair (vertical, horizontal); one number stands for both."""
    return (value, value) if isinstance(value, int) else value


def image_windows(
    kind: str, input_shape: Shape, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Windows:
    """The windows over images of the shape `input_shape`, over all channels. kind: the layer's type, for
    messages. Raises ValueError if the shape is not that of images or no window fits."""
    if len(input_shape) != 3:
        raise ValueError(
            f"{kind} takes images, a shape of (channels, height, width), but is given shape"
            f" {list(input_shape)}; put a {{type: reshape, shape: [channels, height, width]}} layer before it"
        )
    channels, *sizes = input_shape
    spans, both, windows = _fitted(channels, sizes, pair(kernel), pair(stride), padding, pair(dilation))
    if windows is None:
        raise ValueError(
            f"a window of {spans[0]} x {spans[1]} does not fit into images of {sizes[0]} x {sizes[1]}"
            f" with {both[0]} and {both[1]} of padding; make kernel_size smaller, or padding larger"
        )
    return windows


def sequence_windows(
    kind: str, input_shape: Shape, kernel: int, stride: int, padding: int | str, dilation: int
) -> Windows:
    """The windows over (steps, features), taken as an image of one row whose channels are the features. kind,
    ValueError: as in `image_windows`."""
    steps, features = steps_of(kind, input_shape)
    pads: Any = padding if isinstance(padding, str) else (0, padding)
    spans, both, windows = _fitted(features, (1, steps), (1, kernel), (1, stride), pads, (1, dilation))
    if windows is None:
        raise ValueError(
            f"a window of {spans[1]} steps does not fit into {steps} steps with {both[1]} of padding; make"
            " kernel_size smaller, or padding larger"
        )
    return windows


def _fitted(
    channels: int,
    sizes: Sequence[int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: Padding,
    dilations: tuple[int, int],
) -> tuple[list[int], list[int], Windows | None]:
    """Returns the size of a window with its gaps, the padding on both sides together, each as [vertical,
    horizontal], and the windows; None if no window fits."""
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if padding == "same":
        # With stride 1 the output is as large as the input. As in PyTorch, the odd zero is at the end.
        before, both = [(span - 1) // 2 for span in spans], [span - 1 for span in spans]
    else:
        before = [0, 0] if isinstance(padding, str) else list(pair(padding))
        both = [2 * size for size in before]
    places = [
        (size + more - span) // by + 1
        for size, more, span, by in zip(sizes, both, spans, strides, strict=True)
    ]
    if min(places) < 1:
        return spans, both, None
    (height, width), (top, left), (out_height, out_width) = sizes, before, places
    windows = Windows(
        channels, height, width, channels, *kernel, *strides, top, left, *dilations, out_height, out_width
    )
    return spans, both, windows
