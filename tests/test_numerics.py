from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import threadpoolctl

from distbp.errors import FingerprintError
from distbp.numerics import check_same, fingerprint, one_blas_thread


def blas_threads() -> set[int]:
    return {info["num_threads"] for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"}


def test_one_thread_within_and_the_former_limit_after() -> None:
    before = blas_threads()
    with one_blas_thread():
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_the_fingerprint_is_text_and_stays() -> None:
    with one_blas_thread():
        first, again = fingerprint("numpy"), fingerprint("numpy")
    assert first == again
    assert list(first) == ["numpy", "simd", "blas", "kernels", "byte_order", "machine", "probe"]
    assert all(isinstance(value, str) and value for value in first.values())
    assert first["numpy"] == np.__version__
    assert first["kernels"] == "numpy"
    assert len(first["probe"]) == 16


def test_another_process_has_the_same_one() -> None:
    code = "from distbp.numerics import *\nwith one_blas_thread(): print(fingerprint('numpy'))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    with one_blas_thread():
        assert answer.stdout.strip() == str(fingerprint("numpy"))


def test_compiled_kernels_are_another_fingerprint() -> None:
    numba = pytest.importorskip("numba", reason="Numba is not installed")
    assert fingerprint("numba")["kernels"] == f"numba {numba.__version__}, narrow products transposed"


MINE = {"numpy": "2.1", "simd": "AVX2", "blas": "OpenBLAS 0.3", "kernels": "numpy", "probe": "aa"}


def test_equal_fingerprints_pass() -> None:
    check_same(MINE, dict(MINE), "worker 1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"numpy": "2.2", "kernels": "numba 0.61"},
            "worker 3 would compute other bits (numpy: 2.1 here, 2.2 there; kernels: numpy here, numba 0.61"
            " there); it is refused. To mend: install the same versions on every machine.",
        ),
        (
            {"blas": "OpenBLAS 0.2", "probe": "bb"},
            "worker 3 would compute other bits (blas: OpenBLAS 0.3 here, OpenBLAS 0.2 there; probe: aa here,"
            " bb there); it is refused. To mend: on mixed processors set OPENBLAS_CORETYPE (for example"
            " Haswell) and NPY_DISABLE_CPU_FEATURES to the same values on every machine.",
        ),
        (
            {"probe": "bb"},
            "worker 3 would compute other bits (probe: aa here, bb there); it is refused. To mend: on mixed"
            " processors set OPENBLAS_CORETYPE (for example Haswell) and NPY_DISABLE_CPU_FEATURES to the same"
            " values on every machine.",
        ),
    ],
)
def test_every_difference_is_named(change: dict[str, str], message: str) -> None:
    with pytest.raises(FingerprintError) as caught:
        check_same(MINE, {**MINE, **change}, "worker 3")
    assert str(caught.value) == message


def test_a_fact_that_the_other_does_not_know() -> None:
    theirs = {name: value for name, value in MINE.items() if name != "simd"}
    with pytest.raises(FingerprintError, match="simd: AVX2 here, unknown there"):
        check_same(MINE, theirs, "worker 3")
