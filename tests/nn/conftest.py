"""What the tests of the network's mathematics share: one run for every kernel set that this machine
offers."""

from __future__ import annotations

import pytest
from kernel_sets import HERE

from distbp.nn.kernels import Kernels, load


@pytest.fixture(params=HERE)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return load(request.param)
