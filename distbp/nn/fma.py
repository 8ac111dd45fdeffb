"""The compiled kernels with large float32 products on vector registers (see `vector_product`), and the others
by NumPy's OpenBLAS. Importing raises ImportError where that cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from distbp.nn.blas import Gemm, products_beside_vectors
from distbp.nn.compiled import NUMBA
from distbp.nn.gemm import products_by
from distbp.nn.vector_product import LEAST, vector_sgemm

_others = products_beside_vectors()


def fma(dtype: np.dtype[Any]) -> Gemm:
    """The products of the kernel set."""
    found = _others(dtype)
    return found._replace(own=vector_sgemm(), least=LEAST) if dtype == np.float32 else found


FMA = replace(NUMBA, name="fma", products=lambda dtype: products_by(fma(dtype)), gemm=fma)
