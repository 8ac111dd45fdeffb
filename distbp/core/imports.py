"""Faster imports of large packages, and the message for a package that is missing."""

from __future__ import annotations

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


def missing(what: str, package: str, install: str) -> str:
    """The message of an error: `what` needs `package`, which is not installed.

    install: the argument for pip."""
    return f"{what} needs {package}, which is not installed; run: pip install '{install}'"
