"""Operands for tests of matrix products, and what these should be."""

from __future__ import annotations

import numpy as np
from distbp.nn.products import Products

Array = np.ndarray
KINDS = ["nt", "nn", "tn"]


def operands(kind: str, m: int, n: int, k: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(k, m) if kind == "tn" else (m, k)).astype(np.float32)
    b = rng.normal(size=(n, k) if kind == "nt" else (k, n)).astype(np.float32)
    return a, b


def product(products: Products, kind: str, a: Array, b: Array) -> Array:
    m = a.shape[1] if kind == "tn" else a.shape[0]
    out = np.full((m, b.shape[0] if kind == "nt" else b.shape[1]), np.nan, np.float32)
    getattr(products, kind)(a, b, out)
    return out


def exact(kind: str, a: Array, b: Array) -> Array:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a.T if kind == "tn" else a) @ (b.T if kind == "nt" else b)
