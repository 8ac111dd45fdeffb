"""Faster imports of large packages, a faster end after them, and the message for one that is missing."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Turns off the garbage collector within this block.

    An import makes many objects and leaves almost no garbage. The collector takes an eighth of the time in
    which Ray and Numba are imported."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def without_collections_at_the_end() -> None:
    """Has this process end without the garbage collector: for programs of ours.

    At its end the interpreter collects again and again, through all that was imported. That takes a fifth of
    the time of a short command, and what it finds would end with the process anyway."""
    atexit.register(gc.freeze)


def missing(what: str, package: str, install: str) -> str:
    """The message of an error: `what` needs `package`, which is not installed.

    install: the argument for pip."""
    return f"{what} needs {package}, which is not installed; run: pip install '{install}'"
