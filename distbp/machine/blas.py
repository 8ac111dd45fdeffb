"""The BLAS libraries that compute matrix products, and the addresses of their functions.

There are two libraries. OpenBLAS comes with NumPy's wheels. Intel's MKL (optional, the package `mkl`) is up
to 1.4 times as fast on Intel processors for the shapes of small batches. MKL runs on the calling thread only,
in the mode in which its bits depend on the instruction set alone (Conditional Numerical Reproducibility;
Intel oneMKL Developer Guide). On processors with AVX-512, OpenBLAS has special kernels for small products,
which are faster than MKL's; there OpenBLAS computes the small products. With other kernels of OpenBLAS, on
processors with AVX2, code of our own does: it packs nothing.

Large float32 products may come from code of our own beside either library: from the processor's matrix unit
(Intel AMX), or, beside OpenBLAS alone, from its vector registers.

This module does not load Numba: the trainer's process names the products of its workers, and compiles
nothing.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# arch_prctl(2), and "Dynamic features" in the kernel's Documentation/arch/x86/xstate.rst: a process asks for
# the registers of the matrix unit once, and then all its threads may use them.
_ARCH_PRCTL, _ASK, _TILE_DATA = 158, 0x1023, 18
TILE_FLAGS = {"amx_tile", "amx_bf16", "avx512_bf16"}  # in /proc/cpuinfo
VECTOR_FLAGS = {"avx512f"}  # with AVX2, OpenBLAS is as fast as our own large products or faster
DIRECT_FLAGS = {"avx2", "fma"}  # of our own small products
# The kernels of OpenBLAS that have special functions for small products.
_FAST_WITH_SMALL = {b"SkylakeX", b"Cooperlake", b"SapphireRapids"}
SMALL = 1_000_000  # multiplications; the special functions are for products up to this size
TINY = 1 << 12  # multiplications; below it our own small products gain little, and cost time to compile
# With a transposed right operand, our own small products gain with at most FEW_ROWS rows and at least
# MANY_TERMS terms.
FEW_ROWS, MANY_TERMS = 16, 256
# A product with a small or narrow matrix is faster in strips, by the functions for small products, than
# whole. The fewest rows of a strip; the columns of a narrow matrix.
STRIP, NARROW = 40, 32
_SEQUENTIAL = 1  # mkl_service.h: MKL_THREADING_SEQUENTIAL
_REPRODUCIBLE = {"avx512": 12, "avx2": 10}  # MKL_CBWR_AVX512, MKL_CBWR_AVX2
# Names of functions in NumPy's own OpenBLAS; they depend on the build. 64: whole numbers have 64 bits.
_NAMES = ("scipy_cblas_{}64_", "cblas_{}64_", "scipy_cblas_{}", "cblas_{}")
_LETTERS: dict[np.dtype[Any], str] = {np.dtype(np.float32): "s", np.dtype(np.float64): "d"}


class Gemm(NamedTuple):
    """Addresses of functions with the arguments of cblas_sgemm or cblas_dgemm.

    `small`: for products of at most `SMALL` multiplications. `large`: for the others.
    `own`: our function, for large products with at least `least` rows, columns and terms; 0: none. `strips`:
    1 if small products are so fast that large products with a small matrix are cut into strips for them.
    `direct`: our function for small products (see `distbp.machine.gemm.is_direct`); 0: none."""

    large: int
    small: int
    own: int = 0
    least: int = 0
    strips: int = 0
    direct: int = 0


class Dots(NamedTuple):
    """The addresses of cblas_sdot and cblas_ddot."""

    single: int
    double: int


def _address_in(library: ctypes.CDLL, name: str) -> int | None:
    function = getattr(library, name, None)
    return None if function is None else ctypes.cast(function, ctypes.c_void_p).value


def _libraries() -> Iterator[ctypes.CDLL]:
    """The OpenBLAS of NumPy's wheels."""
    folder = Path(np.__file__).parent.parent / "numpy.libs"
    for path in sorted(folder.glob("*openblas*")):
        yield ctypes.CDLL(str(path))


def _openblas_core() -> bytes | None:
    """The name of the kernels that OpenBLAS has chosen, which is part of the fingerprint; None: unknown."""
    for library in _libraries():
        for name in ("scipy_openblas_{}64_", "openblas_{}64_", "scipy_openblas_{}", "openblas_{}"):
            function = getattr(library, name.format("get_corename"), None)
            if function is not None:
                function.restype = ctypes.c_char_p
                return function()  # type: ignore[no-any-return]
    return None


def _in_openblas(function: str) -> dict[np.dtype[Any], int] | None:
    """dtype -> the address of a function, for example "gemm", in the OpenBLAS of NumPy's wheels; None without
    it."""
    for library in _libraries():
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
    """A function dtype -> products, for NumPy's own OpenBLAS; None without it."""
    found = _in_openblas("gemm")
    strips = int(_openblas_core() in _FAST_WITH_SMALL or small_are_ours())
    return None if found is None else lambda dtype: Gemm(found[dtype], found[dtype], strips=strips)


@functools.cache
def small_are_ours() -> bool:
    """Whether code of our own computes small products beside OpenBLAS."""
    return _openblas_core() not in _FAST_WITH_SMALL and processor_flags() >= DIRECT_FLAGS


@functools.cache
def dots() -> Dots | None:
    """The inner products of NumPy's own OpenBLAS, the functions that `np.vdot` calls; None without it."""
    found = _in_openblas("dot")
    return None if found is None else Dots(found[np.dtype(np.float32)], found[np.dtype(np.float64)])


def _mkl_path() -> str:
    """The path of MKL's single dynamic library. Raises ImportError without the package `mkl`."""
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
    """Loads MKL, once for a process. Returns (its version, the instruction set that fixes its bits).

    Raises ImportError if the package is missing, or if MKL cannot be fixed to an instruction set here."""
    runtime = ctypes.CDLL(_mkl_path(), mode=ctypes.RTLD_GLOBAL)
    runtime.MKL_Set_Threading_Layer(_SEQUENTIAL)
    for name, mode in _REPRODUCIBLE.items():
        if runtime.MKL_CBWR_Set(mode) == 0:
            return importlib.metadata.version("mkl"), name
    raise ImportError("MKL cannot be held to AVX-512 or AVX2 on this processor; use DISTBP_KERNELS=numba")


def mkl(dtype: np.dtype[Any]) -> Gemm:
    """MKL's products for a dtype, with OpenBLAS's small products if these are faster. Raises ImportError as
    `load_mkl` does."""
    load_mkl()
    found = _address_in(ctypes.CDLL(_mkl_path()), "cblas_sgemm" if dtype == np.float32 else "cblas_dgemm")
    assert found is not None
    small = small_products_beside_mkl()
    return Gemm(found, found) if small is None else small(dtype)._replace(large=found, strips=0)


@functools.cache
def processor_flags() -> frozenset[str]:
    """The flags of the processor, as Linux names them; empty if the system does not tell them."""
    info = Path("/proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return frozenset(flags[1].split() if flags else ())


@functools.cache
def allow_tiles() -> None:
    """Asks the system, once for a process, for permission to use the matrix unit (Intel AMX).

    Raises ImportError if the processor has none, or if the system refuses."""
    missing = TILE_FLAGS - processor_flags()
    if missing:
        names = ", ".join(sorted(missing))
        raise ImportError(f"this processor has no {names}; use DISTBP_KERNELS=mkl or numba")
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(_ARCH_PRCTL, _ASK, _TILE_DATA) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise ImportError(f"the system does not allow AMX ({reason}); use DISTBP_KERNELS=mkl or numba")


def products_beside_vectors() -> Callable[[np.dtype[Any]], Gemm]:
    """The library for the products that our code on vector registers does not compute: OpenBLAS.

    Raises ImportError if the build of OpenBLAS is unknown, or if the processor has no AVX-512."""
    missing = VECTOR_FLAGS - processor_flags()
    if missing:
        raise ImportError(f"this processor has no {', '.join(sorted(missing))}; use DISTBP_KERNELS=numba")
    found = openblas()
    if found is None:
        raise ImportError("no library for small products is known in this build of NumPy")
    return found


def products_beside_tiles() -> Callable[[np.dtype[Any]], Gemm]:
    """The library for the products that the matrix unit does not compute: MKL, or OpenBLAS without MKL.

    Raises ImportError if there is neither."""
    with suppress(ImportError):
        load_mkl()
        return mkl
    found = openblas()
    if found is None:
        raise ImportError("no library for small products beside AMX is known in this build of NumPy")
    return lambda dtype: found(dtype)._replace(strips=0)


def small_products_beside_mkl() -> Callable[[np.dtype[Any]], Gemm] | None:
    """The library for small products instead of MKL; None: MKL computes them. Raises ImportError as
    `load_mkl` does."""
    _, instructions = load_mkl()
    return openblas() if instructions == "avx512" else None
