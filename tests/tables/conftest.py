from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about kernels, and compiling takes time."""
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
