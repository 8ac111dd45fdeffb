"""The data formats. The contract is in `base.py`; a new format is one file and one row here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distbp.core.options import registry
from distbp.data.checks import ANY, Allowed, BadRows
from distbp.data.formats.arrays import Arrays, from_arrays
from distbp.data.formats.base import Source
from distbp.data.formats.digits import Digits
from distbp.data.formats.idx import Idx
from distbp.data.formats.images import Images
from distbp.data.formats.npy import Npy
from distbp.data.formats.npz import Npz
from distbp.data.formats.synthetic import Blobs, Moons, Spirals, Teacher
from distbp.data.formats.tables import TableFiles
from distbp.data.named_inputs import checked
from distbp.data.table import Table
from distbp.nn.named_inputs import NamedInput

FORMATS = registry(Idx, Images, Npy, Npz, Arrays, Digits, Blobs, Moons, Spirals, TableFiles, Teacher)


def load(
    source: Source,
    folder: Path,
    *,
    confined: bool = False,
    bad_rows: BadRows | None = "refuse",
    allowed: Allowed = ANY,
    named: Sequence[NamedInput] = (),
) -> Table:
    """Opens a source and checks its content (see `check_rows`). named: the inputs of a network with several,
    or (). Raises DataError or HostileFileError."""
    return checked(source.open(folder, confined), named, bad_rows, allowed)


__all__ = [
    "FORMATS",
    "Arrays",
    "Blobs",
    "Digits",
    "Idx",
    "Images",
    "Moons",
    "Npy",
    "Npz",
    "Source",
    "Spirals",
    "TableFiles",
    "Teacher",
    "from_arrays",
    "load",
]
