from __future__ import annotations

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed (it is in the extra 'tables')")
pytest.importorskip("pandas", reason="pandas is not installed (it is in the extra 'dev')")


@pytest.fixture(autouse=True)
def _numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about kernels, and compiling takes time."""
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
