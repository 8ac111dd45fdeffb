from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import threadpoolctl

from distbp.core.errors import FingerprintError
from distbp.engine.numerics import check_same, fingerprint, kernel_set, one_blas_thread
from distbp.machine import blas


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
    assert first["kernels"] == "numpy, small weights transposed"
    assert len(first["probe"]) == 16


def test_another_process_has_the_same_one() -> None:
    code = "from distbp.engine.numerics import *\nwith one_blas_thread(): print(fingerprint('numpy'))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    with one_blas_thread():
        assert answer.stdout.strip() == str(fingerprint("numpy"))


def test_compiled_kernels_are_another_fingerprint() -> None:
    numba = pytest.importorskip("numba", reason="Numba is not installed")
    products = blas.openblas()
    assert products is not None
    strips = ", products with a small matrix in strips" if products(np.dtype(np.float32)).strips else ""
    ours = ", small products by FMA, 128 terms" if blas.small_are_ours() else ""
    expected = f"numba {numba.__version__}, small weights transposed{strips}{ours}"
    assert fingerprint("numba")["kernels"] == expected


def test_who_computes_small_products_depends_on_the_kernels_that_the_library_has_chosen() -> None:
    """So nodes with and without AVX-512 agree where the library is told the same."""
    pytest.importorskip("numba", reason="Numba is not installed")
    program = "from distbp.engine.numerics import fingerprint; print(fingerprint('numba')['kernels'])"
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Haswell"}
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=environment, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    ours = blas.processor_flags() >= blas.DIRECT_FLAGS
    assert ("in strips, small products by FMA, 128 terms" in found) == ours


def alone(program: str) -> str:
    """What a program of its own prints: what is imported here already would stay imported."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_the_kernels_of_a_job_are_named_without_loading_them() -> None:
    """It would take a third of a second of the trainer's start, whose workers load them again."""
    pytest.importorskip("numba", reason="Numba is not installed")
    program = """
import sys
from distbp.engine.numerics import fingerprint, kernel_set, one_blas_thread
name = kernel_set("auto")
with one_blas_thread():
    fingerprint(name)
print(name, "numba" in sys.modules)
"""
    name, imported = alone(program).split()
    assert name in ("numba", "fma", "mkl", "amx")
    assert imported == "False"


def test_without_numba_numpy_computes() -> None:
    program = """
import sys
sys.modules["numba"] = None
from distbp.engine.numerics import kernel_set
print(kernel_set("auto"))
for wanted in ("numba", "fma", "mkl", "amx"):
    try:
        kernel_set(wanted)
    except ImportError as error:
        print(error)
"""
    missing = "the package numba is not installed: pip install 'distbp[fast]'"
    assert alone(program).splitlines() == ["numpy", *[missing] * 4]


def test_a_numba_that_would_refuse_this_numpy_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba", reason="Numba is not installed")
    needs = ["numpy<1.22,>=1", "llvmlite; extra == 'other'"]
    monkeypatch.delitem(sys.modules, "numba")  # a process that has loaded it need not ask
    monkeypatch.setattr("importlib.metadata.requires", lambda name: needs)
    assert kernel_set("auto") == "numpy"
    refused = (
        rf"numba {numba.__version__} needs numpy<1\.22,>=1, but numpy {np.__version__} is installed:"
        r" pip install 'distbp\[fast\]'"
    )
    with pytest.raises(ImportError, match=refused):
        kernel_set("numba")


MINE = {"numpy": "2.1", "simd": "AVX2", "blas": "OpenBLAS 0.3", "kernels": "numpy", "probe": "aa"}


def test_equal_fingerprints_pass() -> None:
    check_same(MINE, dict(MINE), "worker 1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"numpy": "2.2", "kernels": "numba 0.61"},
            "worker 3 would compute other bits (numpy: 2.1 here, 2.2 there; kernels: numpy here, numba 0.61"
            " there); it is refused. To mend: install the same versions on every machine, or set"
            " DISTBP_KERNELS there and here to what all of them have (mkl, fma, numba or numpy).",
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
