"""Compiles functions with Numba (optional) and keeps the result for the next process."""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.ccallback import CFunc
from numba.core.compiler import Compiler, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager

from distbp.core.imports import without_collections

# Modules with compiled functions, and modules whose constants such functions use.
SOURCES = (
    "data.compiled_rows",
    "engine.*",
    "machine.*",
    "machine.own_products.*",
    "nn.*",
    "nn.ops.*",
    "optim.*",
    "team.exchange.*",
)


# Passes of Numba that look for closures, expressions of whole arrays, and overloads to inline. Our functions
# have none of these, and the search takes a twentieth of the time.
UNUSED = {"InlineClosureLikes", "InlineOverloads", "NopythonRewrites"}
PATIENCE = 60.0  # seconds; our largest function compiles in a few


_default: Any = DefaultPassBuilder
_manager: Any = PassManager


class _Passes(Compiler):
    """Numba's compiler without the passes in UNUSED."""

    def define_pipelines(self) -> list[Any]:
        lean = _manager("nopython")
        for one, what in _default.define_nopython_pipeline(self.state).passes:
            if one.__name__ not in UNUSED:
                lean.add_pass(one, what)
        lean.finalize()
        return [lean]


@functools.cache
def stamp() -> str:
    """The SHA-256 of all sources. Their modification times are no use: building an image changes them."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for name in SOURCES:
        for file in sorted(folder.glob(name.replace(".", "/") + ".py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _keep(compiled: Any) -> None:
    """Keeps the compiled code until any of the sources changes. Code kept by another version may name classes
    that no longer exist; it is ignored."""
    file = compiled._cache._cache_file
    file._source_stamp, known = stamp(), file._load_index

    def load_index() -> Any:
        try:
            return known()
        except (AttributeError, ImportError, TypeError):
            return {}

    file._load_index = load_index
    known_compile = compiled.compile

    @functools.wraps(known_compile)
    def compile(*signature: Any) -> Any:
        with global_compiler_lock, _alone(f"{file._index_path}.lock"):
            return known_compile(*signature)

    compiled.compile = compile


def _locked(file: int) -> bool:
    """Whether the lock was taken, or this file system has no locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Holds the lock `path` within the block. So of several processes that start together, one compiles a
    function, and the others find its code. Two that keep code at the same time could also overwrite each
    other's entry in Numba's index.

    Waits while another process holds the lock, for PATIENCE seconds at most, because that process may be
    stopped. Where no lock file can be written, or the file system has no locks, the block runs without one. A
    lock ends with its process."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        yield
        return
    try:
        end = time.monotonic() + PATIENCE
        while not _locked(lock) and time.monotonic() < end:
            time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """Returns `function`, to be compiled at its first call for the types of the arguments.

    The compiled function runs without the GIL. A division by zero gives inf as in NumPy, because Python's
    check would keep loops scalar.

    The result is kept beside the sources, or in the user's cache, until any of the sources changes. Numba
    itself looks at the function's own file only. But the functions that it calls are compiled into it, so
    Numba would keep an outdated result."""
    options = {"nogil": True, "error_model": "numpy", "pipeline_class": _Passes, **options}
    try:
        compiled: Any = njit(cache=True, **options)(function)
    except RuntimeError:  # no folder can be written: compile in every process
        return njit(**options)(function)
    _keep(compiled)
    return compiled


def inner(function: Callable[..., Any]) -> Any:
    """Does what `jit` does, for a function that only compiled code calls. It leaves out what Python needs for
    a call, which takes longer to compile than the function."""
    return jit(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def callback(signature: Any, function: Callable[..., Any]) -> Any:
    """Compiles `function` at once for a signature; waits. C code calls the result by its `address`. The
    compiled code is kept as `jit` does."""
    wanted, options = (signature.args, signature.return_type), {"nogil": True, "error_model": "numpy"}
    compiled: Any = CFunc(function, wanted, {}, options, pipeline_class=_Passes)
    try:
        compiled.enable_caching()
        _keep(compiled)
    except RuntimeError:
        compiled = CFunc(function, wanted, {}, options, pipeline_class=_Passes)
    with without_collections():  # collections would take a tenth of the time
        compiled.compile()
    return compiled
