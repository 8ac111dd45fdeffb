"""Large products on vector registers: as exact as float32 can be expected to be.
See `test_own_products`, too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operands import KINDS, exact, nothing, numpy_products, operands, product, products_at
from tapes import tape_product

pytest.importorskip("numba")

from distbp.core.errors import FingerprintError
from distbp.engine.numerics import check_same, fingerprint
from distbp.machine.blas import SMALL, products_beside_vectors
from distbp.machine.own_products.strips import LANES, NARROW, WIDE
from distbp.machine.own_products.vector_product import FEW, KEPT_BYTES, LEAST, TERMS, vector_sgemm
from distbp.nn.kernels import Kernels, load

Array = np.ndarray
try:
    FMA = load("fma")
except ImportError as error:
    pytest.skip(f"no vector registers here: {error}", allow_module_level=True)
# By our own function alone, whatever the sizes: it is called as a library is.
VECTORS = products_at(vector_sgemm())


# Around the sizes of strips, panels, vectors, parts, and where another shape of strips is taken.
LINES = [1, 2, NARROW[0], NARROW[0] + 1, LANES, LANES + 1, LANES * WIDE[1] + 1, 3 * LANES * WIDE[1], FEW + 9]
TERM_COUNTS = [1, 2, LANES - 1, LANES + 1, FEW + 1, TERMS, TERMS + 1, 3 * TERMS + 40]


@pytest.mark.parametrize("kind", KINDS)
@given(st.sampled_from(LINES), st.sampled_from(LINES), st.sampled_from(TERM_COUNTS))
@settings(max_examples=60, deadline=None)
def test_products_of_every_size(kind: str, m: int, n: int, k: int) -> None:
    a, b = operands(kind, m, n, k)
    error = np.abs(product(VECTORS, kind, a, b) - exact(kind, a, b))
    # Of a sum of n terms: n halves of a unit in the last place (Higham, Accuracy and Stability, section 4.2).
    assert (error <= (min(k, TERMS) + k // TERMS + 1) * 2.0**-24 * exact(kind, np.abs(a), np.abs(b))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_more_lines_than_are_packed_at_a_time(kind: str) -> None:
    m, k = KEPT_BYTES // (4 * TERMS) + 50, TERMS + 30
    a, b = operands(kind, m, 70, k)
    right = exact(kind, a, b)
    mine, other = product(VECTORS, kind, a, b), np.empty(right.shape, np.float32)
    numpy_products(kind, a, b, other)
    assert np.std(mine - right) < 1.2 * np.std(other - right)


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
    assert FMA.gemm is not None
    found = FMA.gemm(np.dtype(np.float32))
    assert found.own == vector_sgemm()
    if ours:
        assert tape_product(FMA, kind, a, b).tobytes() == product(VECTORS, kind, a, b).tobytes()
    # A function that writes nothing in place of ours: who computes shows in the result.
    idle = Kernels("idle", lambda *_: found._replace(own=nothing()))
    assert np.isnan(tape_product(idle, kind, a, b)).all() == ours


def test_the_fingerprint_says_how() -> None:
    assert f"products by FMA, {TERMS} terms" in fingerprint("fma")["kernels"]
    with pytest.raises(FingerprintError, match="or set DISTBP_KERNELS there and here"):
        check_same(fingerprint("fma"), fingerprint("numba"), "worker 1")


def test_not_for_float64() -> None:
    assert FMA.gemm is not None and FMA.gemm(np.dtype(np.float64)).own == 0


def test_where_there_are_no_such_registers_an_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distbp.machine.blas.VECTOR_FLAGS", {"avx_of_tomorrow"})
    with pytest.raises(ImportError, match=r"has no avx_of_tomorrow; use DISTBP_KERNELS=numba"):
        products_beside_vectors()
