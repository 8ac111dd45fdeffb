"""Numba as processes need it that train and do nothing else: what they do not use is not loaded with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# SciPy: Numba imports its linear algebra with the first function that it loads, to offer products in compiled
# code, which is a third of a second; ours come from elsewhere (`distbp.nn.gemm`). cffi: for functions that
# were declared with it; there are none here.
_UNUSED = ("scipy", "cffi")


def load_numba() -> None:
    """Loads what Numba needs for compiled functions while it finds neither SciPy nor cffi; waits for that.

    Only for a process of our own: what else is compiled there has no `np.dot`. Both can be imported
    afterward. Does nothing to what has been imported already. Raises nothing where Numba is missing: whoever
    needs it says so.
    """
    hidden = [name for name in _UNUSED if name not in sys.modules]
    # None is how Python is told that a module is not there.
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
    """Within this block `first` is called, once, before something is compiled that no process has kept."""
    from numba.core import event

    class Once(event.Listener):
        waits = True

        def on_start(self, _: Any) -> None:
            if self.waits:
                self.waits = False
                first()

        def on_end(self, _: Any) -> None:
            pass

    with event.install_listener("numba:compile", Once()):
        yield
