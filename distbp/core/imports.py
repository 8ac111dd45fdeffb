"""Faster imports of large packages, a faster exit after them, and the message about a missing package."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Turns off the garbage collector within this block.

    An import makes many objects and leaves almost no garbage. While Ray and Numba are imported, the collector
    would take an eighth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def without_collections_at_the_end() -> None:
    """Makes this process exit without garbage collection. Only distbp's own programs call this.

    At exit the interpreter collects several times and visits every imported object. That takes a fifth of the
    time of a short command, and frees only memory that the system takes back anyway."""
    atexit.register(gc.freeze)


def missing(what: str, package: str, install: str) -> str:
    """The message of an error: `what` needs `package`, which is not installed.

    install: the argument for pip."""
    return f"{what} needs {package}, which is not installed; run: pip install '{install}'"
