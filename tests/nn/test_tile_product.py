"""Large products on the matrix unit: as exact as float32 can be expected to be.
See `test_own_products`, too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operands import KINDS, exact, numpy_products, operands, product, products_at
from tapes import tape_product

pytest.importorskip("numba")

from distbp.core.errors import FingerprintError
from distbp.engine.numerics import check_same, fingerprint
from distbp.machine.blas import SMALL, allow_tiles
from distbp.machine.own_products.tile_product import KEPT, LEAST, PANELS, SIDE, TERMS, tile_sgemm
from distbp.machine.own_products.tiles import PARTS
from distbp.nn.kernels import load

Array = np.ndarray
try:
    AMX = load("amx")
except ImportError as error:
    pytest.skip(f"no matrix unit here: {error}", allow_module_level=True)
# By the matrix unit alone, whatever the sizes: it is called as a library is.
TILES = products_at(tile_sgemm())


EDGES = [1, 2, 15, 16, 17, SIDE - 1, SIDE, SIDE + 1, TERMS, TERMS + 1]


@pytest.mark.parametrize("kind", KINDS)
@given(st.sampled_from(EDGES), st.sampled_from(EDGES), st.sampled_from([*EDGES, 3 * TERMS + 40]))
@settings(max_examples=40, deadline=None)
def test_products_of_every_size(kind: str, m: int, n: int, k: int) -> None:
    a, b = operands(kind, m, n, k)
    error = np.abs(product(TILES, kind, a, b) - exact(kind, a, b))
    assert (error <= 2.0**-22 * exact(kind, np.abs(a), np.abs(b))).all()  # two ulps of all that is added


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(SIDE * KEPT + 40, SIDE * PANELS + 7, 2048), (300, 2 * SIDE * KEPT, 5000)])
def test_it_is_more_exact_than_numpy(kind: str, shape: tuple[int, int, int]) -> None:
    a, b = operands(kind, *shape)
    right = exact(kind, a, b)
    mine, other = product(TILES, kind, a, b), np.empty(right.shape, np.float32)
    numpy_products(kind, a, b, other)
    assert np.std(mine - right) < 0.6 * np.std(other - right)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_it_is_as_exact_for_small_and_for_large_values(scale: float) -> None:
    a, b = operands("nn", 64, 64, 256)
    a, b = a * np.float32(scale), b / np.float32(scale)
    right = exact("nn", a, b)
    assert np.std(product(TILES, "nn", a, b) - right) < 1e-7 * np.std(right)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "tiles"),
    [
        ((LEAST, LEAST, LEAST), True),
        ((LEAST - 1, 256, 256), False),
        ((256, 256, LEAST - 1), False),
    ],
)
def test_the_kernel_set_uses_it_for_large_products(
    kind: str, shape: tuple[int, int, int], tiles: bool
) -> None:
    assert np.prod(shape) > SMALL
    a, b = operands(kind, *shape)
    out = tape_product(AMX, kind, a, b)
    assert (out.tobytes() == product(TILES, kind, a, b).tobytes()) is tiles


def test_the_fingerprint_says_how() -> None:
    assert f"{PARTS} parts, {TERMS} terms, {SIDE} at a time" in fingerprint("amx")["kernels"]
    with pytest.raises(FingerprintError, match="or set DISTBP_KERNELS there and here"):
        check_same(fingerprint("amx"), fingerprint("numba"), "worker 1")


def test_not_for_float64() -> None:
    assert AMX.gemm is not None and AMX.gemm(np.dtype(np.float64)).own == 0


def test_where_there_is_no_unit_an_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distbp.machine.blas.TILE_FLAGS", {"amx_tile", "amx_of_tomorrow"})
    message = r"this processor has no amx_of_tomorrow; use DISTBP_KERNELS=mkl or numba"
    with pytest.raises(ImportError, match=message):
        allow_tiles.__wrapped__()
