"""What the tests of the network's mathematics share: one run for every kernel set that this machine
offers."""

from __future__ import annotations

import pytest

from distbp.nn.kernels import Kernels, load


@pytest.fixture(params=["numpy", "numba", "fma", "mkl", "amx"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    try:
        return load(request.param)
    except ImportError as error:
        pytest.skip(f"the kernel set {request.param} cannot be used here: {error}")
