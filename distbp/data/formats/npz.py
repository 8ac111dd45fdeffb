"""NumPy's .npz archives: a zip of .npy files, stored or deflated, read into memory through limits.

Only the named arrays are read. The sizes in the archive's table of contents are not trusted. The size in the
array's own header is checked against the limits, and at most that many bytes are unpacked.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from distbp.core import settings
from distbp.core.arrays import Array
from distbp.core.errors import DataError, HostileFileError
from distbp.core.options import option
from distbp.data.formats.npy import Header, read_header
from distbp.data.named_inputs import joined
from distbp.data.safety import DataFile, check_claim, find
from distbp.data.table import ColumnNames, Table, build
from distbp.data.unpack import read_window
from distbp.data.zipped import Entries, opened_zip
from distbp.nn.named_inputs import NamedInput

KIND, AGAIN = ".npz archive", "write it again with numpy.savez"


def read_arrays(file: DataFile, names: Sequence[str | None]) -> list[Array | None]:
    """The named arrays of an archive (None for a name None). Raises DataError or HostileFileError."""
    with opened_zip(file, KIND, AGAIN) as (archive, entries):
        room = settings.get("DISTBP_MAX_UNPACKED_BYTES")
        arrays: list[Array | None] = []
        for name in names:
            arrays.append(None if name is None else _read(archive, entries, name, file, room))
            room -= 0 if arrays[-1] is None else arrays[-1].nbytes
        return arrays


def describe(file: DataFile) -> dict[str, Header]:
    """The header of every array in an archive, by name. Unpacks each array once, through the limits, without
    keeping it. Raises DataError or HostileFileError, also for an entry that is not an array."""
    with opened_zip(file, KIND, AGAIN) as (archive, entries):
        room = settings.get("DISTBP_MAX_UNPACKED_BYTES")
        found: dict[str, Header] = {}
        for entry in entries:
            name = entry.removesuffix(".npy")
            if name == entry:
                raise DataError(
                    f"{file.name}: the entry {entry!r} is not an array; write the archive again with"
                    " numpy.savez"
                )
            found[name], _ = _unpack(archive, entries, name, file, room, keep=False)
            room -= found[name].nbytes
        return found


def _read(archive: zipfile.ZipFile, entries: Entries, name: str, file: DataFile, room: int) -> Array:
    header, flat = _unpack(archive, entries, name, file, room, keep=True)
    return flat.view(header.dtype).reshape(header.shape, order="F" if header.fortran else "C")


def _unpack(
    archive: zipfile.ZipFile,
    entries: Entries,
    name: str,
    file: DataFile,
    room: int,
    *,
    keep: bool,
) -> tuple[Header, Array]:
    """The array's header and its bytes, (nbytes,) uint8; none of them unless `keep`."""
    info = entries.get(f"{name}.npy")
    if info is None:
        known = ", ".join(sorted(entry.removesuffix(".npy") for entry in entries)[:20]) or "no arrays"
        raise DataError(
            f"{file.name}: there is no array {name!r}; the archive has: {known}. Name one of them, or null"
            " for none"
        )
    shown = f"{file.name}[{name}]"
    if info.flag_bits & 1:
        raise DataError(f"{shown}: the entry is encrypted; write the archive again with numpy.savez")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise HostileFileError(
            f"{shown}: packed in a way that numpy never uses (zip method {info.compress_type}); write the"
            " archive again with numpy.savez or savez_compressed"
        )
    with archive.open(info) as entry:
        header = read_header(entry.read, shown)
        total = header.nbytes
        check_claim(shown, total, min(info.compress_size, file.size))
        if total > room:
            raise HostileFileError(
                f"{shown}: the arrays claim to unpack to more than DISTBP_MAX_UNPACKED_BYTES together; raise"
                " it, or save each array with numpy.save: plain .npy files are memory-mapped"
            )
        return header, read_window(entry.read, 0, total if keep else 0, total, shown)


@dataclass(frozen=True, kw_only=True)
class Npz:
    """Arrays in one .npz archive, as `numpy.savez(path, inputs=x, targets=y)` writes it."""

    type: Literal["npz"] = "npz"
    path: str = option(help="path of the archive", path=True, min_length=1)
    inputs: str | Mapping[str, str] = option(
        "inputs",
        help="name of the array of inputs (rows, features...), or a mapping from each input of the network to"
        " the name of its array",
    )
    targets: str | Mapping[str, str] | None = option(
        "targets",
        help="name of the labels or values, or a mapping from each output to the name of its array; null for"
        " none",
    )
    weights: str | None = option(None, help="name of the sample weights (rows,)")
    lengths: str | Mapping[str, str] | None = option(
        None,
        help="name of the array of lengths (rows,): how many steps of each row are not padding; or a mapping"
        " from inputs to such names",
    )
    columns: str | None = option(None, help="name of the array of the inputs' column names (features,), text")
    rows: tuple[int, int] | None = option(None, help="[first, one past the last] row to use, counted from 0")

    def open(self, folder: Path, confined: bool = False) -> Table:
        file = find(folder, self.path, confined)
        inputs, lengths, targets = map(_by_name, (self.inputs, self.lengths, self.targets))
        if self.lengths is not None and isinstance(self.lengths, str) != isinstance(self.inputs, str):
            raise DataError(
                f"{self.path}: of inputs and lengths one is a mapping and the other is not; write both as"
                " names of arrays, or both as mappings from inputs to such names"
            )
        wanted = [*inputs.values(), *lengths.values(), *targets.values(), self.weights, self.columns]
        *found, weights, columns = read_arrays(file, wanted)
        parts = (array for array in found if array is not None)  # all have names, so no array is None
        own, ends, each = (dict(zip(names, parts, strict=False)) for names in (inputs, lengths, targets))
        name, several = f"{self.path}[{self.inputs}]", isinstance(self.targets, Mapping)
        x, named = own.get(""), tuple[NamedInput, ...]()
        if isinstance(self.inputs, Mapping):
            if columns is not None:
                raise DataError(f"{self.path}: columns are those of one array of inputs; leave them out")
            name = self.path
            named, x = joined(own, ends, name)
        assert x is not None
        table = build(
            x,
            each if several else each.get(""),
            weights,
            ends.get(""),
            rows=self.rows,
            name=name,
            targets_name=self.path if several else f"{self.path}[{self.targets}]",
            weights_name=f"{self.path}[{self.weights}]",
            columns=None if columns is None else self._column_names(columns, x),
            marks=(file.mark,),
        )
        return replace(table, named_inputs=named)

    def _column_names(self, columns: Array, inputs: Array) -> ColumnNames:
        names = tuple(columns.ravel().tolist()) if columns.dtype.kind in "iU" else ()
        if columns.shape != inputs.shape[1:] or len(set(names)) != len(columns):
            raise DataError(
                f"{self.path}[{self.columns}]: an array of {columns.dtype}, shape {columns.shape}; give a"
                f" name of its own for each of the columns of {self.inputs}, shape {inputs.shape[1:]}"
            )
        return names


def _by_name(said: str | Mapping[str, str] | None) -> dict[str, str]:
    """The names of arrays by input or output; by "" for a single array."""
    return {} if said is None else {"": said} if isinstance(said, str) else dict(said)
