"""Large products on the matrix unit: as exact as float32 can be expected to be, and the same bits wherever an
element stands."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("distbp.nn.amx", reason="no matrix unit here", exc_type=ImportError)

from distbp.errors import FingerprintError
from distbp.nn.amx import AMX, amx
from distbp.nn.blas import Gemm, allow_tiles
from distbp.nn.gemm import SMALL, products_by
from distbp.nn.products import NUMPY_PRODUCTS
from distbp.nn.tile_product import KEPT, LEAST, PANELS, SIDE, TERMS, tile_sgemm
from distbp.nn.tiles import PARTS
from distbp.numerics import check_same, fingerprint

Array = np.ndarray
# By the matrix unit alone, whatever the sizes: it is called as a library is.
TILES = products_by(Gemm(tile_sgemm(), tile_sgemm()))
KINDS = ["nt", "nn", "tn"]


def operands(kind: str, m: int, n: int, k: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(k, m) if kind == "tn" else (m, k)).astype(np.float32)
    b = rng.normal(size=(n, k) if kind == "nt" else (k, n)).astype(np.float32)
    return a, b


def product(kind: str, a: Array, b: Array) -> Array:
    m = a.shape[1] if kind == "tn" else a.shape[0]
    out = np.full((m, b.shape[0] if kind == "nt" else b.shape[1]), np.nan, np.float32)
    getattr(TILES, kind)(a, b, out)
    return out


def exact(kind: str, a: Array, b: Array) -> Array:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a.T if kind == "tn" else a) @ (b.T if kind == "nt" else b)


EDGES = [1, 2, 15, 16, 17, SIDE - 1, SIDE, SIDE + 1, TERMS, TERMS + 1]


@pytest.mark.parametrize("kind", KINDS)
@given(st.sampled_from(EDGES), st.sampled_from(EDGES), st.sampled_from([*EDGES, 3 * TERMS + 40]))
@settings(max_examples=40, deadline=None)
def test_products_of_every_size(kind: str, m: int, n: int, k: int) -> None:
    a, b = operands(kind, m, n, k)
    error = np.abs(product(kind, a, b) - exact(kind, a, b))
    assert (error <= 2.0**-22 * exact(kind, np.abs(a), np.abs(b))).all()  # two ulps of all that is added


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(SIDE * KEPT + 40, SIDE * PANELS + 7, 2048), (300, 2 * SIDE * KEPT, 5000)])
def test_it_is_more_exact_than_numpy(kind: str, shape: tuple[int, int, int]) -> None:
    a, b = operands(kind, *shape)
    right = exact(kind, a, b)
    mine, other = product(kind, a, b), np.empty(right.shape, np.float32)
    getattr(NUMPY_PRODUCTS, kind)(a, b, other)
    assert np.std(mine - right) < 0.6 * np.std(other - right)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_it_is_as_exact_for_small_and_for_large_values(scale: float) -> None:
    a, b = operands("nn", 64, 64, 256)
    a, b = a * np.float32(scale), b / np.float32(scale)
    right = exact("nn", a, b)
    assert np.std(product("nn", a, b) - right) < 1e-7 * np.std(right)


@pytest.mark.parametrize("kind", KINDS)
def test_an_element_has_the_same_bits_wherever_it_stands(kind: str) -> None:
    m, n, k = 200, 700, 300
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_become_finite(kind: str, value: float) -> None:
    a, b = operands(kind, 40, 50, 200)
    a[3, 4] = value
    result = product(kind, a, b)
    row = 4 if kind == "tn" else 3
    assert not np.isfinite(result[row]).any()
    assert np.isfinite(np.delete(result, row, axis=0)).all()


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
    out = np.empty(shape[:2], np.float32)
    getattr(AMX.products(np.dtype(np.float32)), kind)(a, b, out)
    assert (out.tobytes() == product(kind, a, b).tobytes()) is tiles


def test_the_fingerprint_says_how() -> None:
    assert f"{PARTS} parts, {TERMS} terms, {SIDE} at a time" in fingerprint("amx")["kernels"]
    with pytest.raises(FingerprintError, match="or set DISTBP_KERNELS there and here"):
        check_same(fingerprint("amx"), fingerprint("numba"), "worker 1")


def test_not_for_float64() -> None:
    assert amx(np.dtype(np.float64)).own == 0


def test_where_there_is_no_unit_an_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distbp.nn.blas.TILE_FLAGS", {"amx_tile", "amx_of_tomorrow"})
    message = r"this processor has no amx_of_tomorrow; use DISTBP_KERNELS=mkl or numba"
    with pytest.raises(ImportError, match=message):
        allow_tiles.__wrapped__()
