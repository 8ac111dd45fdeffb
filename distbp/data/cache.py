"""The folder below which this machine keeps what can be made or fetched again."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from distbp.core import settings

NEW = ".new-"  # what a folder is named by until it is complete
_ABANDONED_S = 3600.0


def cache_folder() -> Path | None:
    """None where nothing is to be kept."""
    cache = str(settings.get("DISTBP_CACHE"))
    if cache == "none":
        return None
    below = Path(str(settings.get("XDG_CACHE_HOME")) or Path.home() / ".cache") / "distbp"
    return Path(cache) if cache else below


def make_room(folder: Path, bound: int, spared_s: float = 0.0) -> int:
    """Removes what was used longest ago until the rest takes up to `bound` bytes, but nothing that was used
    within the last `spared_s` seconds. (Who has mapped it goes on.) Returns how many bytes the rest takes."""
    found, now = [], time.time()
    for place in folder.iterdir():
        with suppress(FileNotFoundError):  # another process removed it
            inside = [file.stat() for file in (place.iterdir() if place.is_dir() else [place])]
            used = place.stat().st_mtime
            if not place.name.startswith(NEW):
                found.append((used, sum(file.st_size for file in inside), place))
            elif now - max([used, *(file.st_mtime for file in inside)]) > _ABANDONED_S:
                remove(place)
    total = sum(size for _, size, _ in found)
    for used, size, place in sorted(found):
        if total > bound and now - used >= spared_s:
            remove(place)
            total -= size
    return total


def remove(place: Path) -> None:
    """A folder with all that is in it, or a file; fine where it is not there."""
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:  # that nobody here has put there
        place.unlink(missing_ok=True)
