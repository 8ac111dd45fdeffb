"""Numba without SciPy, for processes that train and do nothing else."""

from __future__ import annotations

import sys
from contextlib import suppress


def load_numba() -> None:
    """Loads what Numba needs for compiled functions while it finds no SciPy; waits for that.

    Where SciPy is installed, Numba imports its linear algebra with the first function that it loads, to offer
    products in compiled code. Ours come from elsewhere (`distbp.nn.gemm`), and the import is a third of a
    second of every worker's start. Only for a process of our own: what else is compiled there has no
    `np.dot`. SciPy itself can be imported afterward. Does nothing where it has been already. Raises nothing
    where Numba is missing: whoever needs it says so.
    """
    if "scipy" in sys.modules:
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]  # how Python is told that a module is not there
    try:
        with suppress(ImportError):
            import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules["scipy"]
