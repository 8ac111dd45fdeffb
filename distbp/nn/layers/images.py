"""What layers over images share: sizes in pairs, padding, and the number of windows."""

from __future__ import annotations

from typing import Literal

from distbp.core.options import OptionError
from distbp.nn.layers.base import Shape
from distbp.nn.ops.windows import Windows

Pair = int | tuple[int, int]
Padding = int | tuple[int, int] | Literal["same", "valid"]


def pair(value: Pair) -> tuple[int, int]:
    """(vertical, horizontal); one number means both."""
    return (value, value) if isinstance(value, int) else value


def check_pair(field: str, value: Pair, least: int) -> None:
    """Raises OptionError where a size is too small."""
    if min(pair(value)) < least:
        shown = value if isinstance(value, int) else list(value)
        raise OptionError(
            field, f"must be a whole number or a pair of them, each at least {least}, not {shown}"
        )


def image_windows(
    kind: str,
    input_shape: Shape,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    channels: int | None = None,
) -> Windows:
    """The windows over images of a shape, of `channels` channels at a time (None: all). Raises ValueError
    where none fits."""
    if len(input_shape) != 3:
        raise ValueError(
            f"{kind} takes images, a shape of (channels, height, width), but is given shape"
            f" {list(input_shape)}; put a {{type: reshape, shape: [channels, height, width]}} layer before it"
        )
    kernel_size, strides, dilations = pair(kernel), pair(stride), pair(dilation)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel_size, dilations, strict=True)]
    before: tuple[int, ...]
    if (
        padding == "same"
    ):  # with stride 1 the output is as large as the input; an odd rest stands behind, as in PyTorch
        before, both = tuple((span - 1) // 2 for span in spans), [span - 1 for span in spans]
    else:
        before = (0, 0) if isinstance(padding, str) else pair(padding)
        both = [2 * size for size in before]
    sizes = input_shape[1:]
    places = [
        (size + more - span) // by + 1
        for size, more, span, by in zip(sizes, both, spans, strides, strict=True)
    ]
    if min(places) < 1:
        raise ValueError(
            f"a window of {spans[0]} x {spans[1]} does not fit into images of {sizes[0]} x {sizes[1]}"
            f" with {both[0]} and {both[1]} of padding; make kernel_size smaller, or padding larger"
        )
    every, height, width = input_shape
    looked_at = every if channels is None else channels
    (down, right), (out_height, out_width) = before, places
    return Windows(
        every,
        height,
        width,
        looked_at,
        *kernel_size,
        *strides,
        down,
        right,
        *dilations,
        out_height,
        out_width,
    )
