"""The numerics fingerprint: the facts that must be equal in two processes for them to compute the same bits.

The fingerprint names the parts that choose machine code: NumPy, its SIMD level, the BLAS build and the
kernels that BLAS picked for this processor, the kernel set of `distbp.nn.kernels`. A probe, the digest of a
small fixed computation, catches differences that the names do not show.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import math
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import threadpoolctl

from distbp.core import settings
from distbp.core.errors import FingerprintError
from distbp.machine import blas


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within this block BLAS computes on the calling thread only: a product split over threads may add in
    another order. Parallelism comes from shards. The former limit is restored at the end."""
    with threadpoolctl.threadpool_limits(limits=1):
        yield


def quiet() -> np.errstate:
    """Within this block, or in a function that this decorates, NumPy neither warns nor raises for numbers
    that overflow, underflow or are not finite, whatever the caller has set. Each step is checked by other
    means. And the warnings may be wrong: some kernels of OpenBLAS also load numbers beside their operands.
    These do not enter the product, but set the processor's flags."""
    return np.errstate(all="ignore")


def kernel_set(wanted: str) -> str:
    """The name of the kernel set to compute with: `wanted`, or for "auto" the first of "amx", "mkl", "fma",
    "numba" and "numpy" that can be used here. Raises ImportError if the wanted set cannot be used.

    Does not import Numba, which takes a third of a second: the trainer's process may never need it.
    """
    if wanted == "auto":
        for name in ("amx", "mkl", "fma", "numba"):
            with suppress(ImportError):
                return kernel_set(name)
        return "numpy"
    if wanted != "numpy":
        _find_numba()
    if wanted == "mkl":
        blas.load_mkl()
    if wanted == "fma":
        blas.products_beside_vectors()
    if wanted == "amx":
        blas.allow_tiles()
        blas.products_beside_tiles()
    return wanted


def why_not_compiled(kernels: str) -> str:
    """The reason, as text, that a job computes with NumPy's kernels although no setting asks for them; else
    ""."""
    if kernels != "numpy" or settings.get("DISTBP_KERNELS") != "auto":
        return ""
    try:
        _find_numba()
    except ImportError as error:
        return str(error)
    return ""


def _find_numba() -> None:
    """Raises ImportError if Numba is missing, switched off, or needs other versions of its dependencies."""
    loaded: Any = sys.modules.get("numba")
    asked = settings.get("NUMBA_DISABLE_JIT") not in ("", "0")
    if asked or (loaded is not None and loaded.config.DISABLE_JIT):
        raise ImportError("NUMBA_DISABLE_JIT is set, so Numba compiles nothing: unset it")
    if loaded is not None:  # Numba checked the versions when it was imported
        return
    from packaging.requirements import Requirement  # which most processes never need

    if importlib.util.find_spec("numba") is None:
        raise ImportError("the package numba is not installed: pip install 'distbp[fast]'")
    for text in importlib.metadata.requires("numba") or ():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        version = importlib.metadata.version(needed.name)
        if not needed.specifier.contains(version, prereleases=True):
            raise ImportError(
                f"numba {importlib.metadata.version('numba')} needs {needed}, but {needed.name} {version} is"
                " installed: pip install 'distbp[fast]'"
            )


def fingerprint(kernels: str) -> dict[str, str]:
    """The facts that decide the bits in this process, as short texts by name. `kernels`: the kernel set's
    name.

    Call it within `one_blas_thread`. Takes a few milliseconds the first time.
    """
    facts = {
        "numpy": np.__version__,
        "simd": _simd_level(),
        "blas": _blas(),
        "kernels": _kernel_set(kernels),
        "byte_order": sys.byteorder,
        "machine": platform.machine(),
    }
    facts["probe"] = _probe()
    return facts


def check_same(mine: Mapping[str, str], theirs: Mapping[str, str], who: str) -> None:
    """Raises FingerprintError, naming every difference, unless the two fingerprints are equal.

    `who` names the other process in the message, for example "worker 3 on 10.0.0.7".
    """
    names = [name for name in mine if mine[name] != theirs.get(name)]
    if not names:
        return
    differences = "; ".join(
        f"{name}: {mine[name]} here, {theirs.get(name, 'unknown')} there" for name in names
    )
    advice = "install the same versions on every machine"
    if "kernels" in names:
        advice += ", or set DISTBP_KERNELS there and here to what all of them have (mkl, fma, numba or numpy)"
    if "blas" in names or "simd" in names or names == ["probe"]:
        advice = (
            "on mixed processors set OPENBLAS_CORETYPE (for example Haswell) and NPY_DISABLE_CPU_FEATURES"
            " to the same values on every machine"
        )
    raise FingerprintError(
        f"{who} would compute other bits ({differences}); it is refused. To mend: {advice}."
    )


def _simd_level() -> str:
    """The widest instruction sets that NumPy may dispatch to on this processor."""
    umath: Any = importlib.import_module("numpy._core._multiarray_umath")
    present: dict[str, bool] = umath.__cpu_features__
    targets = [*umath.__cpu_baseline__, *umath.__cpu_dispatch__]
    found = [name for name in targets if present.get(name)]
    return "+".join(found[-3:]) or "baseline"


@functools.cache
def _blas() -> str:
    libraries = [
        f"{info['internal_api']} {info.get('version')} {info.get('architecture', '')}".strip()
        for info in threadpoolctl.threadpool_info()
        if info["user_api"] == "blas" and "numpy" in info["filepath"]
    ]
    return ", ".join(sorted(set(libraries))) or "unknown"


# The ways in which products are computed, each with other bits. They are texts of the fingerprint.

# See `distbp.nn.layers.lowering` and `distbp.machine.gemm`.
TURNED = ", small weights transposed"
STRIPS = ", products with a small matrix in strips"
# An element is the sum of partial sums of 128 terms each. See `distbp.machine.own_products.direct`.
DIRECT = ", small products by FMA, 128 terms"
# A float32 is split into 3 parts. A sum is rounded after 128 terms. For each 32 terms, the products of small
# parts are added before the product of the largest parts. See `distbp.machine.own_products.tile_product`,
# `.tiles`.
TILES = ", large products by AMX in 3 parts, 128 terms, 32 at a time"
# Partial sums of 256 terms each. See `distbp.machine.own_products.vector_product`.
VECTORS = ", large products by FMA, 256 terms"


def _kernel_set(name: str) -> str:
    if name == "numpy":
        return name + TURNED
    compiled = f"numba {importlib.metadata.version('numba')}"
    if name == "amx" and blas.products_beside_tiles() is not blas.mkl:
        return compiled + TURNED + TILES
    if name in ("amx", "mkl"):
        version, instructions = blas.load_mkl()
        small = ", small products by OpenBLAS" if blas.small_products_beside_mkl() else ""
        return f"{compiled}, mkl {version} ({instructions}){small}{TURNED}" + (TILES if name == "amx" else "")
    products = blas.openblas()
    if products is None:
        return f"{compiled}{TURNED}, products by NumPy"
    strips = STRIPS if products(np.dtype(np.float32)).strips else ""
    direct = DIRECT if blas.small_are_ours() else ""
    return compiled + TURNED + strips + direct + (VECTORS if name == "fma" else "")


@functools.cache
def _probe() -> str:
    digest = hashlib.sha256()
    for dtype in (np.float32, np.float64):
        ramp: Any = np.linspace(-3, 3, 54 * 96).astype(dtype)
        a, b = ramp.reshape(96, 54), ramp.reshape(54, 96)
        for result in (a @ b, a[:10] @ b, a.T @ a[::-1], np.exp(ramp), np.tanh(ramp), np.log1p(ramp**2)):
            digest.update(np.ascontiguousarray(result).tobytes())
        digest.update(np.add.reduce(a, axis=0).tobytes() + np.float64(np.dot(ramp, ramp)).tobytes())
        digest.update(np.sin(ramp).tobytes() + np.cos(ramp).tobytes() + np.power(10_000, -ramp).tobytes())
    # The compiled op `waves` calls these functions of the C library.
    few = np.linspace(-60, 60, 997).tolist()
    libm = [(math.sin(x), math.cos(x), math.pow(10_000.0, x / 60)) for x in few]
    digest.update(np.array(libm).tobytes())
    return digest.hexdigest()[:16]
