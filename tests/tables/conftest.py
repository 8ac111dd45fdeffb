from __future__ import annotations

import importlib.util

import pytest

# `make lowest` installs neither.
_MISSING = [name for name in ("pyarrow", "pandas") if importlib.util.find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if _MISSING else []


@pytest.fixture(autouse=True)
def _numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about kernels, and compiling takes time."""
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
