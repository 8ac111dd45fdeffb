"""Imports, for whoever waits for them, or has not installed what they need."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Within this block no garbage is looked for: imports make many objects and leave next to none. For Ray
    and Numba that is an eighth of their time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def missing(what: str, package: str, install: str) -> str:
    """The message where `what` needs a package that is not there. install: what pip is to install."""
    return f"{what} needs {package}, which is not installed; run: pip install '{install}'"
