"""The cache folder of this machine, for files that can be made or fetched again."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from distbp.core import settings

NEW = ".new-"  # the prefix of a folder's name until it is complete
_ABANDONED_S = 3600.0


def cache_folder() -> Path | None:
    """The cache folder; None if nothing is to be kept (`DISTBP_CACHE=none`)."""
    cache = str(settings.get("DISTBP_CACHE"))
    if cache == "none":
        return None
    below = Path(str(settings.get("XDG_CACHE_HOME")) or Path.home() / ".cache") / "distbp"
    return Path(cache) if cache else below


def make_room(folder: Path, bound: int, spared_s: float = 0.0) -> int:
    """Removes the entries of `folder` that were used longest ago, until the rest takes at most `bound` bytes.
    Spares entries that were used in the last `spared_s` seconds. (Processes that have mapped a removed file
    can go on.) Returns the bytes of the rest."""
    entries, now = [], time.time()
    for place in folder.iterdir():
        with suppress(FileNotFoundError):  # another process removed it
            inside = [file.stat() for file in (place.iterdir() if place.is_dir() else [place])]
            used = place.stat().st_mtime
            if not place.name.startswith(NEW):
                entries.append((used, sum(file.st_size for file in inside), place))
            elif now - max([used, *(file.st_mtime for file in inside)]) > _ABANDONED_S:
                remove(place)
    total = sum(size for _, size, _ in entries)
    for used, size, place in sorted(entries):
        if total > bound and now - used >= spared_s:
            remove(place)
            total -= size
    return total


def remove(place: Path) -> None:
    """Removes a folder with its content, or a file. Does nothing if there is none."""
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:  # a file from another program
        place.unlink(missing_ok=True)
