"""Numba's start without SciPy and cffi, in a process of its own: what is imported stays imported."""

import subprocess
import sys

import pytest

pytest.importorskip("numba")
pytest.importorskip("scipy")

PROGRAM = """
import sys
import numpy as np
from distbp.machine import lean_numba
{before}
lean_numba.load_numba()
from distbp.machine.jit import jit
from distbp.nn.ops.loops_products import add_up_rows
z = np.zeros(3, np.float32)
jit(lambda ones, z: add_up_rows(ones, z))(np.ones((2, 3), np.float32), z)
assert z.sum() == 6
print("scipy" in sys.modules)
assert "cffi" not in sys.modules
import scipy.linalg
print(scipy.linalg.norm([3.0, 4.0]))
"""


@pytest.mark.parametrize(("before", "imported"), [("", "False"), ("import scipy.linalg", "True")])
def test_compiled_functions_run_and_scipy_can_be_imported_later(before: str, imported: str) -> None:
    program = PROGRAM.format(before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == ([imported, "5.0"], "")


def test_a_missing_numba_is_told_by_who_needs_it() -> None:
    program = """
import sys
sys.modules["numba"] = None
from distbp.machine import lean_numba
from distbp.nn import kernels
lean_numba.load_numba()
print("scipy" in sys.modules)
try:
    kernels.load("numba")
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("False\nimport of numba halted"), done
