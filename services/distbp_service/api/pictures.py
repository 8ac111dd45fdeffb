"""Reads a picture as a row of inputs, with the code that reads folders of images for training."""

from __future__ import annotations

import tempfile
from pathlib import Path

from distbp.core.arrays import Array, Shape
from distbp.data.formats import Images
from distbp_service.errors import BadValueError

TYPES = ("image/png", "image/jpeg")
_NAME = "the picture"


def picture_row(body: bytes, shape: Shape) -> Array:
    """The picture as an array (1, channels, height, width), resized to the `shape` of a model's inputs.
    Raises DataError for a bad picture, BadValueError if the model does not take pictures."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        what = " x ".join(map(str, shape))
        raise BadValueError(
            f"the model takes {what} numbers a row, and no picture (1 or 3 channels x height x width); send"
            " the numbers as JSON",
            "body",
        )
    with tempfile.TemporaryDirectory(prefix="distbp-picture-") as folder:
        (Path(folder) / _NAME).write_bytes(body)
        source = Images(path=_NAME, resize=(shape[1], shape[2]), color=shape[0] == 3)
        return source.open(Path(folder), confined=True).inputs
