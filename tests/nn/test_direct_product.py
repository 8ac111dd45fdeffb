"""Small products on vector registers, from where their operands lie. See `test_own_products`, too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operands import KINDS, exact, nothing, operands, product, products_at
from tapes import tape_product

pytest.importorskip("numba")

from distbp.engine.numerics import fingerprint
from distbp.machine.blas import DIRECT_FLAGS, SMALL, Gemm, processor_flags, small_are_ours

if not processor_flags() >= DIRECT_FLAGS:
    pytest.skip("no AVX2 with FMA here", allow_module_level=True)

from distbp.machine.lanes import LANES
from distbp.machine.own_products.direct import ROWS, TERMS, direct_sgemm
from distbp.nn.kernels import Kernels, load
from distbp.nn.ops import OPS
from distbp.nn.run_compiled import products_of
from distbp.nn.tape import Ref, Row, Space

DIRECT = products_at(direct_sgemm())
# Around the sizes of tiles, vectors and parts.
ROW_COUNTS = [1, 2, ROWS[2], ROWS[2] + 1, ROWS[1] + 1, 3 * ROWS[2] + 1, 64]
COLUMN_COUNTS = [1, LANES - 1, LANES, LANES + 1, 2 * LANES, 2 * LANES + 1, 3 * LANES + 5, 64]
TERM_COUNTS = [1, 2, 31, TERMS, TERMS + 1, 3 * TERMS + 40]


@pytest.mark.parametrize("kind", KINDS)
@given(st.sampled_from(ROW_COUNTS), st.sampled_from(COLUMN_COUNTS), st.sampled_from(TERM_COUNTS))
@settings(max_examples=60, deadline=None)
def test_products_of_every_size(kind: str, m: int, n: int, k: int) -> None:
    a, b = operands(kind, m, n, k)
    error = np.abs(product(DIRECT, kind, a, b) - exact(kind, a, b))
    # Of a sum of n terms: n halves of a unit in the last place (Higham, Accuracy and Stability, section 4.2).
    assert (error <= (min(k, TERMS) + k // TERMS + 1) * 2.0**-24 * exact(kind, np.abs(a), np.abs(b))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_product_is_added_to_what_is_there(kind: str) -> None:
    a, b = operands(kind, 13, 41, 2 * TERMS)
    before = np.random.default_rng(1).normal(size=(13, 41)).astype(np.float32)
    after = before
    for some in (slice(TERMS), slice(TERMS, None)) if kind != "nt" else (slice(None),):
        part = product(DIRECT, kind, a[some] if kind == "tn" else a[:, some], b if kind == "nt" else b[some])
        after = after + part
    kernels = Kernels("direct", lambda *_: Gemm(0, 0, direct=direct_sgemm()))
    assert tape_product(kernels, kind, a, b, before).tobytes() == after.tobytes()


@pytest.mark.skipif(not small_are_ours(), reason="OpenBLAS has functions of its own for small products here")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(64, 64, 64), (16, 30, 1200), (300, 300, 300), (SMALL // 64, 8, 64)])
def test_the_kernel_set_uses_it_for_small_products_and_for_strips(
    kind: str, shape: tuple[int, int, int]
) -> None:
    a, b = operands(kind, *shape)
    gemm = load("numba").gemm
    assert gemm is not None
    found = gemm(np.dtype(np.float32))
    # A function that writes nothing in place of ours: who computes shows in the result.
    idle = Kernels("idle", lambda *_: found._replace(direct=nothing()))
    ours = shape[0] == 16 if kind == "nt" else shape != (300, 300, 300)
    assert np.isnan(tape_product(idle, kind, a, b)).all() == ours
    assert f"small products by FMA, {TERMS} terms" in fingerprint("numba")["kernels"]


@pytest.mark.skipif(not small_are_ours(), reason="OpenBLAS has functions of its own for small products here")
@pytest.mark.parametrize(
    ("kind", "units", "features"), [("nt", 30, 1200), ("nn", 300, 300), ("tn", 300, 300)]
)
def test_it_is_there_for_short_slices(kind: str, units: int, features: int) -> None:
    """Who computes a slice depends on its shape, not on the longest one of the tape, which is too large."""
    x, out = Ref(Space.WORK, 0, features, times=1), Ref(Space.WORK, 0, units, times=1)
    refs = {
        "nt": (x, Ref(Space.WORK, 0, features, plus=units), out),
        "nn": (x, Ref(Space.WORK, 0, units, plus=features), out),
        "tn": (out, x, Ref(Space.WORK, 0, features, plus=units)),
    }
    ops = [Row(OPS[f"product_{kind}"], refs[kind], (0, units), (), 0)]
    for most_rows in (8, 800):
        found = products_of(ops, most_rows, load("numba"), np.dtype(np.float32))
        assert found.direct == direct_sgemm()
