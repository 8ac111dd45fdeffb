"""Numba for processes that only train, without the packages that they do not use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Numba imports SciPy's linear algebra for products in compiled code, which takes a third of a second. Our
# products come from elsewhere (`distbp.machine.gemm`). Numba imports cffi for functions that are declared
# with it; we have none.
_UNUSED = ("scipy", "cffi")


def load_numba() -> None:
    """Imports Numba with SciPy and cffi hidden from it; waits for the import.

    For processes of our own only: other code that is compiled there has no `np.dot`. Both packages can be
    imported afterward. Modules that are imported already stay as they are. Raises nothing if Numba is
    missing; the first caller that needs it will."""
    hidden = [name for name in _UNUSED if name not in sys.modules]
    # An entry of None makes Python raise ImportError for the module.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        with suppress(ImportError):
            import numba.core.typing.cffi_utils
            import numba.np.arraymath  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def told(first: Callable[[], None]) -> Iterator[None]:
    """Within this block, calls `first` once, before Numba compiles a function of which no earlier process has
    kept the code."""
    from numba.core import event

    class Once(event.Listener):
        waits = True

        def on_start(self, _: Any) -> None:
            if self.waits:
                self.waits = False
                first()

        def on_end(self, _: Any) -> None:
            pass

    with event.install_listener("numba:run_pass", Once()):
        yield
