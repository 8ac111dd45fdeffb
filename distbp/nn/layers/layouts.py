"""The two layouts of images: channels first (channel by channel), as in the data and the parameters, and
channels last (the channels of a place side by side), as convolution and pooling take them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distbp.nn.layers.base import Layer, Value
from distbp.nn.tape import Tape


def turned(tape: Tape, value: Value, last: bool) -> Value:
    """The value with channels last, or first. Emits a copy of images if the layouts differ in memory."""
    if value.channels_last == last or len(value.shape) != 3:
        return value
    channels, places = value.shape[0], math.prod(value.shape[1:])
    images = value.ref.reshaped(channels * places, 1)
    if channels > 1 and places > 1:
        out = tape.like(images)
        by_place = (images if value.channels_last else out).reshaped(channels, places)
        if last:
            tape.emit("channels_last", images, by_place)
        else:
            tape.emit("channels_first", by_place, out)
        images = out
    return value._replace(ref=images, channels_last=last)


def arranged(tape: Tape, layer: Layer, inputs: Sequence[Value]) -> list[Value]:
    """The inputs of a layer in the layout that it takes."""
    last = layer.channels == "last"
    if layer.channels == "either":
        last = any(value.channels_last for value in inputs)
    return [turned(tape, value, last) for value in inputs]
