"""The folders of a service, and the lock of its dispatcher."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distbp.core.errors import SettingsError

log = logging.getLogger("distbp.serve")


def make_folders(*folders: Path) -> None:
    """Makes the folders, private to this user. Raises SettingsError."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise SettingsError(
                f"the folder {folder} cannot be made: {reason}. Name another with --data"
            ) from None


@contextmanager
def only_dispatcher(work: Path) -> Iterator[None]:
    """Within this block no other dispatcher uses this work folder. Two dispatchers would each hand out all
    slots, and the end of one would stop the runners of the other. A process that is killed releases the lock.
    Raises SettingsError."""
    descriptor = os.open(work / "dispatcher.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"another dispatcher works in {work} already, perhaps of another `distbp serve`; stop that"
                " one, or give this one a folder of its own with --data"
            ) from None
        except OSError as error:  # a file system without locks
            log.warning("%s has no locks (%s): start no second dispatcher", work, error.strerror)
        yield
    finally:
        os.close(descriptor)
