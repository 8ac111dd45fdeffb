"""Prepares a process of a team on Ray. Slow imports are inside the functions."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from distbp.core.imports import without_collections

_PR_SET_PDEATHSIG = 1  # see prctl(2)
PATIENT = 10  # the niceness of a patient process; see nice(2)


def settle(kernels: str, *modules: str, patient: bool = False) -> ExitStack:
    """Prepares this process for computing gradients; waits until all is loaded.

    It loads the kernel set, limits BLAS to one thread, and silences NumPy's warnings, each for the life of
    the process. The system kills the process together with the raylet that started it, even if it is frozen.
    kernels: see `numerics.kernel_set`. modules: to import, too. patient: loads with a lower priority than
    other programs. Returns a stack that the process must keep."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    loading = threading.Thread(target=_load, args=(kernels, modules, patient), name="distbp-load")
    loading.start()
    loading.join()
    from distbp.engine import numerics

    stack = ExitStack()
    stack.enter_context(numerics.one_blas_thread())
    stack.enter_context(numerics.quiet())
    return stack


def _load(kernels: str, modules: Sequence[str], patient: bool) -> None:
    """Loads modules and kernels. Runs in its own thread, since on Linux each thread has its own priority."""
    if patient and sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, 0, PATIENT)
    with without_collections():
        for name in modules:
            importlib.import_module(name)
        from distbp.engine import numerics
        from distbp.machine import lean_numba
        from distbp.nn import kernels as kernel_sets

        if kernels != kernel_sets.NUMPY.name:
            lean_numba.load_numba()
        with suppress(ImportError):  # if the set is missing, the first computation says so
            name = numerics.kernel_set(kernels)
            if kernel_sets.load(name).gemm is not None:
                from distbp.nn.ops.rows import compiled
                from distbp.nn.run_compiled import run_rows

                compiled(run_rows)  # the first function takes long, because Numba initializes itself
