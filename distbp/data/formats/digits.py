"""Handwritten digits: 1,797 real images of 8 x 8 pixels (0 to 16) that come with scikit-learn.

(E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.)
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.core.imports import missing
from distbp.core.options import option
from distbp.core.streams import Purpose, generator
from distbp.data.table import Table, build

SPLITS = {"train": (0, 1257), "validation": (1257, 1527), "test": (1527, 1797), "all": (0, 1797)}


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Handwritten digits. The images are shuffled in a fixed order, so that writers and classes mix, and
    split into train (1,257), validation (270) and test (270). `rows` counts within the split."""

    type: Literal["digits"] = "digits"
    split: Literal["train", "validation", "test", "all"] = option("all", help="which part of the images")
    rows: tuple[int, int] | None = option(
        None, help="[first, one past the last] row of the split, counted from 0"
    )

    def open(self, folder: Path, confined: bool = False) -> Table:
        pixels, labels = _read()
        # Raw words are sorted, because NumPy may change Generator.permutation between versions.
        words = generator(0, Purpose.SYNTHETIC).bit_generator.random_raw(len(labels))
        start, stop = SPLITS[self.split]
        order = np.argsort(words, kind="stable")[start:stop]
        return build(
            pixels[order],
            labels[order],
            rows=self.rows,
            row_numbers=order,
            name=f"the {self.split} digits" if self.split != "all" else "the digits",
        )


def _read() -> tuple[Array, Array]:
    """The pixels (1797, 64) uint8 and labels (1797,) intp. They are read from scikit-learn's file, because
    importing scikit-learn would take seconds."""
    package = importlib.util.find_spec("sklearn")
    folders = package.submodule_search_locations if package else None
    path = Path(folders[0], "datasets", "data", "digits.csv.gz") if folders else None
    if path is None or not path.is_file():
        raise DataError(missing("the format digits", "scikit-learn", "distbp[digits]"))
    table = np.loadtxt(path, dtype=np.uint8, delimiter=",")
    return table[:, :-1], table[:, -1].astype(np.intp)
