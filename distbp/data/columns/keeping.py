"""Keeps prepared tables on disk for the next start of the same job.

A large table is prepared into a folder below `DISTBP_CACHE`. The folder's name is a digest of all that
decides its content: the files with their marks (`distbp.data.safety.DataFile`), the job's options for
columns, and this code. Each process writes into a folder of its own, which gets its final name when it is
complete. Folders are not synced to the disk, so those from before the last boot of the system are not used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from distbp.core import settings
from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.core.sealed import canonical_json, sealed_json, unseal_json
from distbp.data.cache import NEW, cache_folder, make_room
from distbp.data.columns.arrow import arrow
from distbp.data.columns.choosing import Wanted
from distbp.data.columns.files import find_files
from distbp.data.columns.plan import Plan
from distbp.data.digest import settled
from distbp.data.formats.tables import TableFiles
from distbp.data.table import Table, chunks
from distbp.data.windows import Windows

_FACTS = "table.json"
_CELLS = ".cells"
_ARRAYS = ("targets", "weights", "row_numbers")


@dataclass(frozen=True)
class Opened:
    """The splits of a job, ready for the network, with their plan and notes. `windows`: by split, if the
    samples are windows of the tables' rows."""

    tables: Mapping[str, Table]
    plan: Plan
    notes: tuple[str, ...]
    windows: Mapping[str, Windows] = field(default_factory=dict)


def place_of(wanted: Wanted, sources: Mapping[str, Any], folder: Path, confined: bool) -> Path | None:
    """The folder in which the prepared table is or will be kept. None if it cannot be kept: there is no
    cache, the table is not in files, they have just changed, or the table is a series, which is sorted.
    Raises DataError."""
    cache = cache_folder()
    if (
        cache is None
        or wanted.window is not None
        or not all(isinstance(source, TableFiles) for source in sources.values())
    ):
        return None
    arrow()  # raises DataError if pyarrow is not installed
    marks: dict[str, Any] = {}
    for split, source in sources.items():
        files = find_files(source, folder, confined)
        marks[split] = [[file.name, *file.mark] for file in files], dataclasses.asdict(source)
        if not settled(file.mark for file in files):
            return None
    code = [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(__file__).parent.glob("*.py"))]
    columns = {name: [kind.type, dataclasses.asdict(kind)] for name, kind in wanted.columns.items()}
    targets = {name: dataclasses.asdict(target) for name, target in wanted.targets.items()}
    plan = None if wanted.plan is None else wanted.plan.to_json()
    said = {"columns": columns, "shares": dict(wanted.shares), "targets": targets, "plan": plan}
    fields = {**vars(wanted), **said}
    name = hashlib.sha256(canonical_json({"wanted": fields, "files": marks, "code": code})).hexdigest()
    return cache / "tables" / name


def load(place: Path) -> Opened | None:
    """The prepared table in a folder; None if there is none that can be used."""
    try:
        facts = unseal_json((place / _FACTS).read_bytes())
        if facts["boot"] != _boot():
            return None
        tables = {split: _table(place, split, of) for split, of in facts["tables"].items()}
        os.utime(place)  # marks it as used now
        return Opened(tables, Plan.from_json(facts["plan"]), tuple(facts["notes"]))
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return None


class Pending:
    """A table that is being prepared to be kept at `place`; None: nothing is kept. Use it in `with`: an
    unfinished table is removed at the end."""

    def __init__(self, place: Path | None) -> None:
        self._place = place
        self._folder: Path | None = None

    def __enter__(self) -> Pending:
        return self

    def __exit__(self, *error: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def cells(self, split: str, size: int) -> Path | None:
        """The file for the cells of a split; None if cells are not kept. size: the bytes of all splits."""
        if self._folder is None and self._place is not None:
            with suppress(OSError):
                self._folder = _new_folder(self._place.parent, size)
        return None if self._folder is None else self._folder / f"{split}{_CELLS}"

    def finish(self, opened: Opened) -> None:
        """Gives the folder its final name, if the cells were written to files."""
        if self._folder is None or self._place is None:
            return
        with suppress(OSError):  # the disk is full, or another process was faster
            facts = {split: _written(self._folder, split, table) for split, table in opened.tables.items()}
            words = {"boot": _boot(), "plan": opened.plan.to_json(), "notes": list(opened.notes)}
            (self._folder / _FACTS).write_bytes(sealed_json({**words, "tables": facts}))
            if self._place.exists():  # `load` did not use it
                shutil.rmtree(self._place)
            self._folder.rename(self._place)


def _new_folder(parent: Path, size: int) -> Path | None:
    """Makes a folder for a table of `size` bytes; None if there is no room for it."""
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    bound = settings.get("DISTBP_CACHE_BYTES")
    if size > min(bound, shutil.disk_usage(parent).free // 2):
        return None
    make_room(parent, bound - size)
    return Path(tempfile.mkdtemp(prefix=NEW, dir=parent))


def _written(pending: Path, split: str, table: Table) -> dict[str, Any]:
    path = pending / f"{split}{_CELLS}"
    if not path.exists():  # a split with files of its own
        with path.open("wb") as file:
            _write(file, table.inputs)
    for name in _ARRAYS:
        if getattr(table, name) is not None:
            array = np.asarray(getattr(table, name))
            with (pending / f"{split}.{name}.npy").open("wb") as file:
                descr = np.lib.format.dtype_to_descr(array.dtype)
                header = {"descr": descr, "fortran_order": False, "shape": array.shape}
                np.lib.format.write_array_header_1_0(file, header)
                _write(file, array)
    held = {name: getattr(table, name) is not None for name in _ARRAYS}
    words = {"name": table.name, "targets_name": table.targets_name, "skipped": dict(table.skipped)}
    marks = [list(mark) for mark in table.marks]
    cells = {"shape": list(table.inputs.shape), "dtype": table.inputs.dtype.name}
    return {**words, **cells, "marks": marks, "held": held}


def _write(file: IO[bytes], array: Array) -> None:
    """Writes an array in pieces, so that only a small part of a mapped array is resident."""
    for _, part in chunks(array):
        file.write(np.ascontiguousarray(part).tobytes())


def _table(place: Path, split: str, of: Mapping[str, Any]) -> Table:
    path, shape = place / f"{split}{_CELLS}", tuple(of["shape"])
    cells: Array = np.memmap(path, of["dtype"], "r", shape=shape)
    if path.stat().st_size != cells.nbytes:
        raise ValueError(f"{path} has another size")
    if cells.nbytes <= settings.get("DISTBP_PREPARE_BYTES"):
        cells = np.asarray(cells)
    arrays = {name: np.load(place / f"{split}.{name}.npy", "r") for name in _ARRAYS if of["held"][name]}
    return Table(
        cells,
        name=of["name"],
        targets_name=of["targets_name"],
        marks=tuple(tuple(mark) for mark in of["marks"]),
        skipped=of["skipped"],
        **arrays,
    )


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
