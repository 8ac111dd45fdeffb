"""Large products on vector registers: as exact as float32 can be expected to be, and the same bits wherever
an element stands, and however wide the registers are."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("distbp.nn.fma", reason="no vector registers here", exc_type=ImportError)

from distbp.errors import FingerprintError
from distbp.nn.blas import Gemm, products_beside_vectors
from distbp.nn.fma import FMA, fma
from distbp.nn.gemm import SMALL, products_by
from distbp.nn.products import NUMPY_PRODUCTS
from distbp.nn.strips import LANES, NARROW, WIDE
from distbp.nn.vector_product import FEW, KEPT_BYTES, LEAST, TERMS, vector_sgemm
from distbp.numerics import check_same, fingerprint

Array = np.ndarray
# By our own function alone, whatever the sizes: it is called as a library is.
VECTORS = products_by(Gemm(vector_sgemm(), vector_sgemm()))
KINDS = ["nt", "nn", "tn"]


NOTHING = ctypes.CFUNCTYPE(None)(lambda: None)  # whatever it is called with


def _nothing() -> int:
    """The address of a function that does nothing."""
    return ctypes.cast(NOTHING, ctypes.c_void_p).value or 0


def operands(kind: str, m: int, n: int, k: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(k, m) if kind == "tn" else (m, k)).astype(np.float32)
    b = rng.normal(size=(n, k) if kind == "nt" else (k, n)).astype(np.float32)
    return a, b


def product(kind: str, a: Array, b: Array) -> Array:
    m = a.shape[1] if kind == "tn" else a.shape[0]
    out = np.full((m, b.shape[0] if kind == "nt" else b.shape[1]), np.nan, np.float32)
    getattr(VECTORS, kind)(a, b, out)
    return out


def exact(kind: str, a: Array, b: Array) -> Array:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a.T if kind == "tn" else a) @ (b.T if kind == "nt" else b)


# Around the sizes of strips, panels, vectors, parts, and where another shape of strips is taken.
LINES = [1, 2, NARROW[0], NARROW[0] + 1, LANES, LANES + 1, LANES * WIDE[1] + 1, 3 * LANES * WIDE[1], FEW + 9]
TERM_COUNTS = [1, 2, LANES - 1, LANES + 1, FEW + 1, TERMS, TERMS + 1, 3 * TERMS + 40]


@pytest.mark.parametrize("kind", KINDS)
@given(st.sampled_from(LINES), st.sampled_from(LINES), st.sampled_from(TERM_COUNTS))
@settings(max_examples=60, deadline=None)
def test_products_of_every_size(kind: str, m: int, n: int, k: int) -> None:
    a, b = operands(kind, m, n, k)
    error = np.abs(product(kind, a, b) - exact(kind, a, b))
    # Of a sum of n terms: n halves of a unit in the last place (Higham, Accuracy and Stability, section 4.2).
    assert (error <= (min(k, TERMS) + k // TERMS + 1) * 2.0**-24 * exact(kind, np.abs(a), np.abs(b))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_more_lines_than_are_packed_at_a_time(kind: str) -> None:
    m, k = KEPT_BYTES // (4 * TERMS) + 50, TERMS + 30
    a, b = operands(kind, m, 70, k)
    right = exact(kind, a, b)
    mine, other = product(kind, a, b), np.empty(right.shape, np.float32)
    getattr(NUMPY_PRODUCTS, kind)(a, b, other)
    assert np.std(mine - right) < 1.2 * np.std(other - right)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_beside_the_result_is_written(kind: str) -> None:
    m, n, k = 61, 77, 130
    a, b = operands(kind, m, n, k)
    room = np.full((m + 2, n + 2), 7, np.float32)
    getattr(VECTORS, kind)(a, b, room[1:-1, 1:-1])
    assert room[1:-1, 1:-1].tobytes() == product(kind, a, b).tobytes()
    room[1:-1, 1:-1] = 7
    assert (room == 7).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_element_has_the_same_bits_wherever_it_stands(kind: str) -> None:
    m, n, k = 260, 700, 300
    a, b = operands(kind, m, n, k)
    whole = product(kind, a, b)
    for begin, end in pairwise([0, 1, 33, 64, m]):
        some = a[:, begin:end] if kind == "tn" else a[begin:end]
        assert product(kind, some, b).tobytes() == whole[begin:end].tobytes()
    for begin, end in pairwise([0, 16, 47, 650, n]):
        some = b[begin:end] if kind == "nt" else b[:, begin:end]
        assert product(kind, a, some).tobytes() == np.ascontiguousarray(whole[:, begin:end]).tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [1, 5])
def test_nor_do_they_depend_on_where_the_operands_lie(kind: str, offset: int) -> None:
    a, b = operands(kind, 70, 90, 130)
    moved = []
    for one in (a, b):
        room = np.empty(one.size + offset, np.float32)
        moved.append(room[offset:].reshape(one.shape))
        moved[-1][:] = one
    assert product(kind, *moved).tobytes() == product(kind, a, b).tobytes()


# Of products in a process that takes the registers of this processor for half as wide as they are.
DIGEST = """
import sys
sys.path[:0] = [{folder!r}]
import distbp.nn.blas as blas
blas.processor_flags = lambda: frozenset({{"avx2", "fma"}})
import test_vector_product as there
print(there.digest())
"""


def digest() -> str:
    found = hashlib.sha256()
    for kind in KINDS:
        for shape in ((300, 130, 700), (40, 100, 64)):
            found.update(product(kind, *operands(kind, *shape)).tobytes())
    return found.hexdigest()


@pytest.mark.skipif(LANES == 8, reason="this processor has no wider registers than these")
def test_nor_on_how_wide_the_registers_are(tmp_path: Path) -> None:
    code = DIGEST.format(folder=str(Path(__file__).parent))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=300
    )
    assert ran.stdout.strip() == digest()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row(kind: str, value: float) -> None:
    a, b = operands(kind, 40, 50, 200)
    a[3, 4] = value
    result = product(kind, a, b)
    row = 4 if kind == "tn" else 3
    assert not np.isfinite(result[row]).any()
    assert np.isfinite(np.delete(result, row, axis=0)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "ours"),
    [((LEAST, 1024, LEAST), True), ((LEAST - 1, 2048, LEAST), False), ((256, 256, LEAST - 1), False)],
)
def test_the_kernel_set_uses_it_for_large_products(
    kind: str, shape: tuple[int, int, int], ours: bool
) -> None:
    assert np.prod(shape) > SMALL
    a, b = operands(kind, *shape)
    found = fma(np.dtype(np.float32))
    results = []
    for products in (FMA.products(np.dtype(np.float32)), products_by(found._replace(own=vector_sgemm()))):
        results.append(np.empty(shape[:2], np.float32))
        getattr(products, kind)(a, b, results[-1])
    assert found.own == vector_sgemm()
    assert results[0].tobytes() == results[1].tobytes()
    # A function that writes nothing in place of ours: who computes shows in the result.
    untouched = np.full(shape[:2], 7, np.float32)
    getattr(products_by(found._replace(own=_nothing())), kind)(a, b, untouched)
    assert (untouched == 7).all() == ours


def test_the_fingerprint_says_how() -> None:
    assert f"products by FMA, {TERMS} terms" in fingerprint("fma")["kernels"]
    with pytest.raises(FingerprintError, match="or set DISTBP_KERNELS there and here"):
        check_same(fingerprint("fma"), fingerprint("numba"), "worker 1")


def test_not_for_float64() -> None:
    assert fma(np.dtype(np.float64)).own == 0


def test_where_there_are_no_such_registers_an_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distbp.nn.blas.VECTOR_FLAGS", ({"avx_of_tomorrow"},))
    with pytest.raises(ImportError, match=r"has neither AVX-512 nor AVX2 with FMA; use DISTBP_KERNELS=numba"):
        products_beside_vectors()
