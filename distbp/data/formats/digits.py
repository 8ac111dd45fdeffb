"""Handwritten digits: 1,797 real images of 8 x 8 pixels (0 to 16) that come with scikit-learn.

(E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from distbp.data.table import Table, build
from distbp.errors import DataError
from distbp.options import option
from distbp.streams import Purpose, generator

SPLITS = {"train": (0, 1257), "validation": (1257, 1527), "test": (1527, 1797), "all": (0, 1797)}


@dataclass(frozen=True, kw_only=True)
class Digits:
    """The images are shuffled once, always the same way, so that writers and classes mix; then cut into
    train (1,257), validation (270) and test (270). `rows` counts within the split."""

    type: Literal["digits"] = "digits"
    split: Literal["train", "validation", "test", "all"] = option("all", help="which part of the images")
    rows: tuple[int, int] | None = option(
        None, help="[first, one past the last] row of the split, counted from 0"
    )

    def open(self, folder: Path, confined: bool = False) -> Table:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise DataError(
                "the digits come with scikit-learn, which is not installed; pip install distbp[digits]"
            ) from None
        pixels, labels = load_digits(return_X_y=True)
        # Sorting raw words, not Generator.permutation: NumPy may change that one between versions.
        words = generator(0, Purpose.SYNTHETIC).bit_generator.random_raw(len(labels))
        start, stop = SPLITS[self.split]
        order = np.argsort(words, kind="stable")[start:stop]
        return build(
            pixels[order].astype(np.uint8),
            labels[order],
            rows=self.rows,
            row_numbers=order,
            name=f"the {self.split} digits" if self.split != "all" else "the digits",
        )
