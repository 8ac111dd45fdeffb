"""Which BLAS libraries there are to compute matrix products, and where their functions are.

Two: the OpenBLAS that NumPy's wheels bring, and Intel's MKL (optional; the package `mkl`), which on Intel
processors is up to 1.4 times as fast on the shapes of small batches. MKL runs on the calling thread only,
and in the mode in which its bits depend on the instruction set alone (Conditional Numerical Reproducibility;
Intel oneMKL Developer Guide). On processors with AVX-512 OpenBLAS has kernels of its own for small products,
which are faster than MKL's; there they compute those.

Beside either, large products in float32 may be computed by our own code: on the processor's matrix unit
(Intel AMX) where there is one, or, beside OpenBLAS alone, on its vector registers.

Nothing here loads Numba: the trainer's process names what its workers compute with, and compiles nothing.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# arch_prctl(2) and the kernel's Documentation/arch/x86/xstate.rst, "Dynamic features": a process has to ask
# for the registers of the matrix unit once, which lets all its threads use them.
_ARCH_PRCTL, _ASK, _TILE_DATA = 158, 0x1023, 18
TILE_FLAGS = {"amx_tile", "amx_bf16", "avx512_bf16"}  # in /proc/cpuinfo
VECTOR_FLAGS = {"avx512f"}  # with AVX2, OpenBLAS is as fast as our own products or faster
_SEQUENTIAL = 1  # mkl_service.h: MKL_THREADING_SEQUENTIAL
_REPRODUCIBLE = {"avx512": 12, "avx2": 10}  # MKL_CBWR_AVX512, MKL_CBWR_AVX2
# How NumPy's own OpenBLAS names its functions, by the build of NumPy. 64: of the bits of whole numbers.
_NAMES = ("scipy_cblas_{}64_", "cblas_{}64_", "scipy_cblas_{}", "cblas_{}")
_LETTERS: dict[np.dtype[Any], str] = {np.dtype(np.float32): "s", np.dtype(np.float64): "d"}


class Gemm(NamedTuple):
    """The addresses of cblas_sgemm or cblas_dgemm: the one for large products, and the one for those of at
    most `distbp.nn.gemm.SMALL` multiplications. `own`: of a function of ours with their arguments, for large
    ones with at least so many rows, columns and terms as `least`; 0: there is none."""

    large: int
    small: int
    own: int = 0
    least: int = 0


class Dots(NamedTuple):
    """The addresses of cblas_sdot and cblas_ddot."""

    single: int
    double: int


def _address_in(library: ctypes.CDLL, name: str) -> int | None:
    function = getattr(library, name, None)
    return None if function is None else ctypes.cast(function, ctypes.c_void_p).value


def _in_openblas(function: str) -> dict[np.dtype[Any], int] | None:
    """dtype -> the address of a function, say "gemm", in the OpenBLAS that NumPy's wheels bring and use."""
    folder = Path(np.__file__).parent.parent / "numpy.libs"
    for path in sorted(folder.glob("*openblas*")):
        library = ctypes.CDLL(str(path))
        for name in _NAMES:
            found = {
                dtype: address
                for dtype, letter in _LETTERS.items()
                if (address := _address_in(library, name.format(letter + function))) is not None
            }
            if len(found) == len(_LETTERS):
                return found
    return None


@functools.cache
def openblas() -> Callable[[np.dtype[Any]], Gemm] | None:
    """dtype -> the products of NumPy's own OpenBLAS; None without it."""
    found = _in_openblas("gemm")
    return None if found is None else lambda dtype: Gemm(found[dtype], found[dtype])


@functools.cache
def dots() -> Dots | None:
    """The inner products of NumPy's own OpenBLAS, which `np.vdot` calls; None without it."""
    found = _in_openblas("dot")
    return None if found is None else Dots(found[np.dtype(np.float32)], found[np.dtype(np.float64)])


def _mkl_path() -> str:
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
def load_mkl() -> tuple[str, str]:
    """Loads MKL, once for a process: (its version, the instruction set that fixes its bits).

    Raises ImportError where the package or an instruction set it can be held to is missing.
    """
    runtime = ctypes.CDLL(_mkl_path(), mode=ctypes.RTLD_GLOBAL)
    runtime.MKL_Set_Threading_Layer(_SEQUENTIAL)
    for name, mode in _REPRODUCIBLE.items():
        if runtime.MKL_CBWR_Set(mode) == 0:
            return importlib.metadata.version("mkl"), name
    raise ImportError("MKL cannot be held to AVX-512 or AVX2 on this processor; use DISTBP_KERNELS=numba")


def mkl(dtype: np.dtype[Any]) -> Gemm:
    """The products of MKL, and of OpenBLAS where its small ones are faster. Raises ImportError."""
    load_mkl()
    found = _address_in(ctypes.CDLL(_mkl_path()), "cblas_sgemm" if dtype == np.float32 else "cblas_dgemm")
    assert found is not None
    small = small_products_beside_mkl()
    return Gemm(found, found) if small is None else small(dtype)._replace(large=found)


@functools.cache
def processor_flags() -> frozenset[str]:
    """What the processor can do, in Linux's words; nothing where the system does not say."""
    info = Path("/proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return frozenset(flags[1].split() if flags else ())


@functools.cache
def allow_tiles() -> None:
    """Asks the operating system, once for a process, for the processor's matrix unit (Intel AMX). Raises
    ImportError where there is none, or it may not be used."""
    missing = TILE_FLAGS - processor_flags()
    if missing:
        names = ", ".join(sorted(missing))
        raise ImportError(f"this processor has no {names}; use DISTBP_KERNELS=mkl or numba")
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(_ARCH_PRCTL, _ASK, _TILE_DATA) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise ImportError(f"the system does not allow AMX ({reason}); use DISTBP_KERNELS=mkl or numba")


def products_beside_vectors() -> Callable[[np.dtype[Any]], Gemm]:
    """Who computes what our own products on vector registers are not used for: OpenBLAS. Raises ImportError
    where its build is not known, or the processor has no AVX-512."""
    missing = VECTOR_FLAGS - processor_flags()
    if missing:
        raise ImportError(f"this processor has no {', '.join(sorted(missing))}; use DISTBP_KERNELS=numba")
    found = openblas()
    if found is None:
        raise ImportError("no library for small products is known in this build of NumPy")
    return found


def products_beside_tiles() -> Callable[[np.dtype[Any]], Gemm]:
    """Who computes what the matrix unit is not used for: MKL, or OpenBLAS where that cannot be used. Raises
    ImportError where there is neither."""
    with suppress(ImportError):
        load_mkl()
        return mkl
    found = openblas()
    if found is None:
        raise ImportError("no library for small products beside AMX is known in this build of NumPy")
    return found


def small_products_beside_mkl() -> Callable[[np.dtype[Any]], Gemm] | None:
    """Who computes small products instead of MKL; None: nobody. Raises ImportError."""
    _, instructions = load_mkl()
    return openblas() if instructions == "avx512" else None
