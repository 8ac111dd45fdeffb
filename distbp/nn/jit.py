"""Compiling functions with Numba (optional), and keeping the result for the next process."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.ccallback import CFunc

# Whatever is compiled: modules with compiled functions, and those whose constants such functions use.
SOURCES = (
    "data.compiled_rows",
    "exchange.*",
    "nn.*",
    "nn.ops.*",
    "optimizers.*",
    "totals",
)


@functools.cache
def stamp() -> str:
    """A digest of the sources. (Their times will not do: an image that is built changes them.)"""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for name in SOURCES:
        for file in sorted(folder.glob(name.replace(".", "/") + ".py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """`function` compiled when it is first called, for the types that it is called with. It runs without the
    GIL, and a division by zero gives inf as in NumPy: Python's check would keep loops scalar.

    What was compiled is kept beside the sources, or in the user's cache, as long as the sources stay as they
    are. Numba itself looks at the function's own file only, but what a function calls is compiled into it: it
    would go on with yesterday's.
    """
    options = {"nogil": True, "error_model": "numpy", **options}
    try:
        compiled: Any = njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that a cache could be written to: compile in every process
        return njit(**options)(function)
    compiled._cache._cache_file._source_stamp = stamp()
    return compiled


def inner(function: Callable[..., Any]) -> Any:
    """As `jit`, for a function that only compiled code calls. What Python needs to call it is left out: for
    the types of the engine's arguments that takes longer to compile than the function."""
    return jit(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def callback(signature: Any, function: Callable[..., Any]) -> Any:
    """`function` compiled at once, to be called by its `address` as C functions are. Kept as by `jit`."""
    wanted, options = (signature.args, signature.return_type), {"nogil": True, "error_model": "numpy"}
    compiled: Any = CFunc(function, wanted, {}, options)
    try:
        compiled.enable_caching()
        compiled._cache._cache_file._source_stamp = stamp()
    except RuntimeError:
        compiled = CFunc(function, wanted, {}, options)
    compiled.compile()
    return compiled
