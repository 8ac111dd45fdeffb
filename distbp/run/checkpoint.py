"""Checkpoints: saved whole or not at all, and believed only after their hashes are checked.

    step-00000120/
        state.safetensors   the arrays: parameters, optimizer state, whatever the trainer hands over
        manifest.json       written last: SHA-256 and size of the file above, and the trainer's state

A folder without a manifest is not a checkpoint. The manifest carries a digest of itself and has one exact
spelling, so that a flipped bit anywhere shows. Everything else in the folder is left over from a save or a
removal that was interrupted. The next save clears it away:

    .new-step-...    being written
    .old-step-...    the former checkpoint of a step that is being saved again; valid until the new one is
    .gone-step-...   being removed
    damaged-step-... set aside by `load_latest`, kept for people to look at

Only the process that holds the run directory's lock may call `save`, `prune` and `load_latest`; `load` and
`list_steps` change nothing.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distbp.core.arrays import Array
from distbp.core.errors import CheckpointError
from distbp.core.sealed import decode_arrays, encode_arrays, sealed_json, unseal_json
from distbp.core.storage import (
    DISK,
    Disk,
    commit_file,
    explained,
    make_folder,
    read_file,
    remove_folder,
    sync_folder,
    write_durable,
)

STATE, MANIFEST = "state.safetensors", "manifest.json"
FORMAT, VERSION = "distbp checkpoint", 2
_MAX_MANIFEST_BYTES = 1 << 26
_NEW, _OLD, _GONE, _DAMAGED = ".new-", ".old-", ".gone-", "damaged-"
_STEP = re.compile(r"step-([0-9]{8,18})")


@dataclass(frozen=True)
class SetAside:
    """A damaged checkpoint: its step, where it lies now, and what is wrong with it."""

    step: int
    path: Path
    reason: str


@dataclass(frozen=True)
class Checkpoint:
    """`arrays`: by name, little-endian; copy them before writing to them. `state`: the JSON data saved with
    them. `set_aside`: newer checkpoints that were damaged, so that `load_latest` passed over them."""

    step: int
    path: Path
    arrays: Mapping[str, Array]
    state: dict[str, Any]
    set_aside: tuple[SetAside, ...] = field(default=())


class _DamagedError(Exception):
    """The message says what is wrong."""


def save(
    folder: Path, step: int, arrays: Mapping[str, Array], state: Mapping[str, Any], *, disk: Disk = DISK
) -> Path:
    """Saves a checkpoint as `folder/step-NNNNNNNN` and returns that path once it would survive a power cut.

    `folder` is the run's `checkpoints` folder; it is made if absent. `state` is plain JSON data: string keys;
    tuples come back as lists. The arrays are not copied. An existing checkpoint of the same step is replaced,
    and stays valid until the new one is.

    Raises StorageError if the disk refuses (full, read-only, not permitted). The earlier checkpoints are then
    intact, and nothing is left of the new one.
    """
    pieces = encode_arrays(arrays)
    manifest = _manifest_text(step, pieces, state)
    name = _name(step)
    new, final, old = folder / (_NEW + name), folder / name, folder / (_OLD + name)
    placed = False
    with explained(final):
        make_folder(folder, disk)
        _tidy(folder, disk)
        replaces = name in disk.listdir(folder)
        try:
            disk.mkdir(new)
            write_durable(new / STATE, pieces, disk)
            sync_folder(new, disk)
            if replaces:
                disk.rename(final, old)
            disk.rename(new, final)
            placed = True
            sync_folder(folder, disk)
            commit_file(final / MANIFEST, manifest, disk)
        except BaseException:
            with suppress(OSError):
                if placed:
                    with suppress(FileNotFoundError):
                        disk.unlink(final / MANIFEST)
                _tidy(folder, disk)
            raise
    if replaces:
        with suppress(OSError):  # the new checkpoint is in place; the next save removes the old one
            _discard(folder, [old.name], disk)
    return final


def load(folder: Path, step: int, *, disk: Disk = DISK) -> Checkpoint:
    """The checkpoint of one step, verified. Changes nothing. Raises CheckpointError."""
    paths = [path for number, path in _candidates(folder, disk) if number == step]
    if not paths:
        there = ", ".join(map(str, list_steps(folder, disk=disk))) or "none"
        raise CheckpointError(f"{folder} holds no checkpoint of step {step}; it holds: {there}")
    reasons = []
    for path in paths:
        try:
            return _read(path, step, disk)
        except _DamagedError as error:
            reasons.append(f"{path} is damaged: {error}")
    raise CheckpointError("; ".join(reasons))


def load_latest(folder: Path, *, disk: Disk = DISK) -> Checkpoint | None:
    """The newest checkpoint whose hashes are right; None if none was ever finished.

    Damaged checkpoints that are newer are renamed to `damaged-step-...` and reported in `set_aside`. Raises
    CheckpointError if all checkpoints are damaged, or if the newest was written by another version of distbp;
    StorageError if one cannot be read (no permission).
    """
    set_aside: list[SetAside] = []
    for step, path in _candidates(folder, disk):
        try:
            checkpoint = _read(path, step, disk)
        except _DamagedError as error:
            set_aside.append(SetAside(step, _set_aside(folder, path, disk), str(error)))
        else:
            return replace(checkpoint, set_aside=tuple(set_aside))
    if set_aside:
        lines = "\n".join(f"  {aside.path}: {aside.reason}" for aside in set_aside)
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged; train again from the start."
            f" They were set aside:\n{lines}"
        )
    return None


def list_steps(folder: Path, *, disk: Disk = DISK) -> list[int]:
    """The steps of the finished checkpoints, ascending. Their hashes are not checked."""
    return sorted({step for step, _ in _candidates(folder, disk)})


def prune(folder: Path, *, keep_last: int, disk: Disk = DISK) -> list[int]:
    """Removes all checkpoints but the last `keep_last` (at least 1); returns the steps removed.

    Raises StorageError; the checkpoints to keep are then intact.
    """
    if keep_last < 1:
        raise ValueError(f"keep_last is {keep_last}, but at least one checkpoint must stay")
    with explained(folder):
        steps = list_steps(folder, disk=disk)
        removed = steps[:-keep_last]
        if removed:
            _tidy(folder, disk)
            # A process that was killed may have left the newest one complete but not yet durable.
            for step in steps[-keep_last:]:
                sync_folder(folder / _name(step), disk)
            _discard(folder, [_name(step) for step in removed], disk)
    return removed


def _name(step: int) -> str:
    if step < 0:
        raise ValueError(f"step is {step}, but steps count from 0")
    return f"step-{step:08d}"


def _manifest_text(step: int, pieces: Sequence[memoryview], state: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    files = {STATE: {"bytes": sum(piece.nbytes for piece in pieces), "sha256": digest.hexdigest()}}
    return sealed_json(
        {"format": FORMAT, "version": VERSION, "step": step, "files": files, "state": dict(state)}
    )


def _candidates(folder: Path, disk: Disk) -> list[tuple[int, Path]]:
    """(step, path) of every folder with a manifest, newest first; an `.old-` folder follows the new one."""
    finished = []
    try:
        names = disk.listdir(folder)
    except FileNotFoundError:
        return []
    for name in names:
        match = _STEP.fullmatch(name.removeprefix(_OLD))
        if match and _finished(folder / name, disk):
            finished.append((int(match[1]), not name.startswith(_OLD), folder / name))
    return [(step, path) for step, _, path in sorted(finished, reverse=True)]


def _finished(path: Path, disk: Disk) -> bool:
    try:
        return MANIFEST in disk.listdir(path)
    except (NotADirectoryError, FileNotFoundError):
        return False


def _read(path: Path, step: int, disk: Disk) -> Checkpoint:
    if path.is_symlink():
        raise _DamagedError("it is a link, not a folder of its own")
    try:
        manifest = unseal_json(_read_or_damaged(path / MANIFEST, disk, _MAX_MANIFEST_BYTES))
    except ValueError as error:
        raise _DamagedError(f"{MANIFEST} {error}") from None
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise CheckpointError(
            f"{path} was written as {manifest.get('format')!r} version {manifest.get('version')!r};"
            f" this distbp reads {FORMAT!r} version {VERSION}. Use the distbp that wrote it"
        )
    if manifest.get("step") != step or set(manifest.get("files", {})) != {STATE}:
        raise _DamagedError(f"{MANIFEST} belongs to step {manifest.get('step')}, not {step}")
    entry = manifest["files"][STATE]
    data = _read_or_damaged(path / STATE, disk, entry["bytes"])
    if len(data) != entry["bytes"]:
        raise _DamagedError(f"{STATE} has {len(data)} bytes; {MANIFEST} says {entry['bytes']}")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise _DamagedError(f"{STATE} does not have the SHA-256 that {MANIFEST} says")
    return Checkpoint(step, path, decode_arrays(data), manifest["state"])


def _read_or_damaged(path: Path, disk: Disk, most: int) -> bytes:
    with explained(path):
        try:
            return read_file(path, disk, most=most)
        except OSError as error:
            if error.errno not in (
                errno.ENOENT, errno.EIO, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EOVERFLOW
            ):  # fmt: skip
                raise
            raise _DamagedError(f"{path.name} cannot be read ({error.strerror})") from None


def _set_aside(folder: Path, path: Path, disk: Disk) -> Path:
    """Renames a damaged checkpoint and returns its new path. If the disk refuses, the checkpoint stays."""
    base = _DAMAGED + path.name.removeprefix(_OLD)
    with suppress(OSError):
        taken = set(disk.listdir(folder))
        name = next(n for n in (base, *(f"{base}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)
        disk.rename(path, folder / name)
        sync_folder(folder, disk)
        return folder / name
    return path


def _tidy(folder: Path, disk: Disk) -> None:
    """Finishes or undoes what an earlier save or removal left half done."""
    names = set(disk.listdir(folder))
    for name in sorted(names):
        if name.startswith(_OLD) and _STEP.fullmatch(name.removeprefix(_OLD)):
            final = name.removeprefix(_OLD)
            if _finished(folder / final, disk):
                sync_folder(folder / final, disk)  # the process that wrote the manifest may have died before
                _discard(folder, [name], disk)
            else:
                if final in names:
                    remove_folder(folder / final, disk)
                disk.rename(folder / name, folder / final)
                sync_folder(folder, disk)
            names.discard(final)
        elif name.startswith((_NEW, _GONE)):
            remove_folder(folder / name, disk)
    for name in sorted(names):
        if _STEP.fullmatch(name) and not _finished(folder / name, disk):
            remove_folder(folder / name, disk)


def _discard(folder: Path, names: Collection[str], disk: Disk) -> None:
    """Removes checkpoints. First they lose their names, durably: half a checkpoint is never found."""
    for name in names:
        disk.rename(folder / name, folder / (_GONE + name))
    sync_folder(folder, disk)
    for name in names:
        remove_folder(folder / (_GONE + name), disk)
