"""What holds for every product of our own, on vector registers and on the matrix unit: an element's bits
depend on its terms alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from kernel_sets import HERE
from operands import KINDS, Products, operands, product, products_at

pytest.importorskip("numba", reason="Numba is not installed")

from distbp.machine.blas import DIRECT_FLAGS, processor_flags
from distbp.machine.own_products.direct import direct_sgemm
from distbp.nn.kernels import load

DIRECT = ["direct"] if processor_flags() >= DIRECT_FLAGS else []


@pytest.fixture(params=[*DIRECT, *(name for name in HERE if name in ("fma", "amx"))])
def own(request: pytest.FixtureRequest) -> Products:
    """The set's own function alone, whatever the sizes: it is called as a library is. "direct": the function
    for small products."""
    if request.param == "direct":
        return products_at(direct_sgemm())
    kernels = load(request.param)
    assert kernels.gemm is not None
    return products_at(kernels.gemm(np.dtype(np.float32)).own)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_beside_the_result_is_written(own: Products, kind: str) -> None:
    m, n, k = 61, 77, 130
    a, b = operands(kind, m, n, k)
    room = np.full((m + 2, n + 2), 7, np.float32)
    own(kind, a, b, room[1:-1, 1:-1])
    assert room[1:-1, 1:-1].tobytes() == product(own, kind, a, b).tobytes()
    room[1:-1, 1:-1] = 7
    assert (room == 7).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_element_has_the_same_bits_wherever_it_stands(own: Products, kind: str) -> None:
    m, n, k = 260, 700, 300
    a, b = operands(kind, m, n, k)
    whole = product(own, kind, a, b)
    for begin, end in pairwise([0, 1, 33, 64, m]):
        some = a[:, begin:end] if kind == "tn" else a[begin:end]
        assert product(own, kind, some, b).tobytes() == whole[begin:end].tobytes()
    for begin, end in pairwise([0, 16, 47, 650, n]):
        some = b[begin:end] if kind == "nt" else b[:, begin:end]
        assert product(own, kind, a, some).tobytes() == np.ascontiguousarray(whole[:, begin:end]).tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [1, 5])
def test_nor_do_they_depend_on_where_the_operands_lie(own: Products, kind: str, offset: int) -> None:
    a, b = operands(kind, 70, 90, 130)
    moved = []
    for one in (a, b):
        room = np.empty(one.size + offset, np.float32)
        moved.append(room[offset:].reshape(one.shape))
        moved[-1][:] = one
    assert product(own, kind, *moved).tobytes() == product(own, kind, a, b).tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_become_finite(own: Products, kind: str, value: float) -> None:
    a, b = operands(kind, 40, 50, 200)
    a[3, 4] = value
    result = product(own, kind, a, b)
    row = 4 if kind == "tn" else 3
    assert not np.isfinite(result[row]).any()
    assert np.isfinite(np.delete(result, row, axis=0)).all()
