"""The compiled kernels with matrix products by Intel's MKL (optional; see `distbp.nn.blas`), which are called
from compiled code, where a call costs half of what one through NumPy does. Importing raises ImportError where
MKL cannot be used."""

from __future__ import annotations

from dataclasses import replace

from distbp.nn.blas import load_mkl, mkl
from distbp.nn.compiled import NUMBA
from distbp.nn.gemm import products_by

load_mkl()
MKL = replace(NUMBA, name="mkl", products=lambda dtype: products_by(mkl(dtype)), gemm=mkl)
