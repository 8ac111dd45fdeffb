"""Prepared tables that are kept on disk for the next start of the same job.

A large table is prepared into a folder below `DISTBP_CACHE`, named by what decides its content: the files
with their marks (`distbp.data.safety.DataFile`), what the job says of its columns, and this code. Processes
that write the same one do not meet: each has a folder of its own, which gets its name when it is complete.
What was written before the system was started last is not believed, for it is not synced to the disk.
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
    """The splits of a job, ready for the network, the plan that made them, and what to tell. `windows`: by
    split, where the samples are windows of the rows of the tables."""

    tables: Mapping[str, Table]
    plan: Plan
    notes: tuple[str, ...]
    windows: Mapping[str, Windows] = field(default_factory=dict)


def place_of(wanted: Wanted, sources: Mapping[str, Any], folder: Path, confined: bool) -> Path | None:
    """Where the prepared table is kept, or would be; None where it is not, as it is not in files, or they
    changed just now, or it is a series, in another order than its files. Raises DataError."""
    cache = cache_folder()
    if (
        cache is None
        or wanted.window is not None
        or not all(isinstance(source, TableFiles) for source in sources.values())
    ):
        return None
    arrow()  # says where it is not installed
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
    """What is kept there; None where it is nothing that can be used."""
    try:
        facts = unseal_json((place / _FACTS).read_bytes())
        if facts["boot"] != _boot():
            return None
        tables = {split: _table(place, split, of) for split, of in facts["tables"].items()}
        os.utime(place)  # it was used now
        return Opened(tables, Plan.from_json(facts["plan"]), tuple(facts["notes"]))
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return None


class Pending:
    """A table that is prepared to be kept at `place`; None: nothing is kept. Use it in `with`: what is not
    finished leaves nothing behind."""

    def __init__(self, place: Path | None) -> None:
        self._place = place
        self._folder: Path | None = None

    def __enter__(self) -> Pending:
        return self

    def __exit__(self, *error: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def cells(self, split: str, size: int) -> Path | None:
        """The file for the cells of a split, where all splits take `size` bytes; None where they are not
        kept."""
        if self._folder is None and self._place is not None:
            with suppress(OSError):
                self._folder = _new_folder(self._place.parent, size)
        return None if self._folder is None else self._folder / f"{split}{_CELLS}"

    def finish(self, opened: Opened) -> None:
        """Keeps the table, where its cells were written to files."""
        if self._folder is None or self._place is None:
            return
        with suppress(OSError):  # the disk is full, or another process was faster
            facts = {split: _written(self._folder, split, table) for split, table in opened.tables.items()}
            words = {"boot": _boot(), "plan": opened.plan.to_json(), "notes": list(opened.notes)}
            (self._folder / _FACTS).write_bytes(sealed_json({**words, "tables": facts}))
            if self._place.exists():  # it was not believed
                shutil.rmtree(self._place)
            self._folder.rename(self._place)


def _new_folder(parent: Path, size: int) -> Path | None:
    """For a table of so many bytes; None where there is no room for it."""
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
    """Piece by piece, so that little of a mapped array is resident."""
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
