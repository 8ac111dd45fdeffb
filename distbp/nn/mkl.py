"""Matrix products by Intel's MKL (optional; the package `mkl`), which on Intel processors is up to 1.4 times
as fast as NumPy's OpenBLAS on the shapes of small batches.

It runs on the calling thread only, and in the mode in which its bits depend on the instruction set alone
(Conditional Numerical Reproducibility; Intel oneMKL Developer Guide). It is called from compiled code,
where a call costs half of what one through NumPy does. On processors with AVX-512 OpenBLAS has kernels of
their own for small products, which are faster than MKL's; there they compute those.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np

from distbp.nn.compiled import NUMBA
from distbp.nn.gemm import Gemm, address_in, openblas, products_by
from distbp.nn.kernels import Kernels

_SEQUENTIAL = 1  # mkl_service.h: MKL_THREADING_SEQUENTIAL
_REPRODUCIBLE = {"avx512": 12, "avx2": 10}  # MKL_CBWR_AVX512, MKL_CBWR_AVX2


def _path() -> str:
    """Of MKL's single library. Raises ImportError."""
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        raise ImportError("the package mkl is not installed: pip install 'distbp[mkl]'") from None
    found = next((f for f in files if f.name.startswith("libmkl_rt.so")), None)
    if found is None:
        raise ImportError("the package mkl holds no libmkl_rt.so: pip install --force-reinstall mkl")
    return str(found.locate().resolve())  # type: ignore[attr-defined]


@functools.cache
def library() -> tuple[str, str]:
    """Loads MKL, once for a process: (its version, the instruction set that fixes its bits).

    Raises ImportError where the package or an instruction set it can be held to is missing.
    """
    runtime = ctypes.CDLL(_path(), mode=ctypes.RTLD_GLOBAL)
    runtime.MKL_Set_Threading_Layer(_SEQUENTIAL)
    for name, mode in _REPRODUCIBLE.items():
        if runtime.MKL_CBWR_Set(mode) == 0:
            return importlib.metadata.version("mkl"), name
    raise ImportError("MKL cannot be held to AVX-512 or AVX2 on this processor; use DISTBP_KERNELS=numba")


def _gemm(dtype: np.dtype[Any]) -> Gemm:
    runtime = ctypes.CDLL(_path())
    found = address_in(runtime, "cblas_sgemm" if dtype == np.float32 else "cblas_dgemm")
    assert found is not None
    small = small_products()
    return Gemm(found, found) if small is None else small(dtype)._replace(large=found)


def small_products() -> Callable[[np.dtype[Any]], Gemm] | None:
    """Who computes small products instead of MKL; None: nobody."""
    _, instructions = library()
    return openblas() if instructions == "avx512" else None


library()
MKL = Kernels(
    "mkl",
    NUMBA.activate,
    NUMBA.activate_backward,
    NUMBA.softmax_cross_entropy,
    products=lambda dtype: products_by(_gemm(dtype)),
    updates="numba",
    gemm=_gemm,
    largest=NUMBA.largest,
)
