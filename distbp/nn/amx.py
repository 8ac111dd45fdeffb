"""The compiled kernels with large float32 products on the processor's matrix unit (see `tile_product`), and
the others by MKL where it can be used. Importing raises ImportError where the unit cannot be used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from distbp.nn.blas import Gemm, allow_tiles, products_beside_tiles
from distbp.nn.compiled import NUMBA
from distbp.nn.gemm import products_by
from distbp.nn.tile_product import LEAST, tile_sgemm

allow_tiles()
_others = products_beside_tiles()


def amx(dtype: np.dtype[Any]) -> Gemm:
    """The products of the kernel set."""
    found = _others(dtype)
    return found._replace(own=tile_sgemm(), least=LEAST) if dtype == np.float32 else found


AMX = replace(NUMBA, name="amx", products=lambda dtype: products_by(amx(dtype)), gemm=amx)
