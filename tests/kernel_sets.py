"""The kernel sets that this machine can compute with. Tests have no parameters for the others."""

from __future__ import annotations

from distbp.engine.numerics import kernel_set


def _missing(name: str) -> str:
    """Why the set cannot be used here; "" where it can."""
    try:
        kernel_set(name)
    except ImportError as error:
        return str(error)
    return ""


_REASONS = {name: _missing(name) for name in ("numpy", "numba", "fma", "mkl", "amx")}
HERE = [name for name, reason in _REASONS.items() if not reason]
# The definitions, and compiled ones; the other sets differ from these in products alone.
PLAIN = [name for name in HERE if name in ("numpy", "numba")]
MISSING = {name: reason for name, reason in _REASONS.items() if reason}
