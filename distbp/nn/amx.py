"""The compiled kernels with large float32 products on the processor's matrix unit (see `tile_product`), and
the others by MKL where it can be used. Importing raises ImportError where the unit cannot be used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from distbp.nn.blas import Gemm, allow_tiles, products_beside_tiles
from distbp.nn.compiled import NUMBA
from distbp.nn.gemm import products_by
from distbp.nn.tile_product import tile_sgemm

allow_tiles()
_others = products_beside_tiles()


def amx(dtype: np.dtype[Any]) -> Gemm:
    """The products of the kernel set."""
    return _others(dtype)._replace(tiles=tile_sgemm() if dtype == np.float32 else 0)


AMX = replace(NUMBA, name="amx", products=lambda dtype: products_by(amx(dtype)), gemm=amx)
