"""Digests of what is computed with vectors, in this process or by `python lanes_told.py` with vectors of the
other width."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from llvmlite import binding

import distbp.machine.pointers  # noqa: F401 - which loads Numba; it asks for the features, too

WINDOWS = ((1, 6, 5), (1, 20, 3), (3, 40, 1), (17, 40, 2), (2, 9, 4))  # channels, filters, width


def told() -> list[str]:
    from operands import KINDS as PRODUCT_KINDS
    from operands import operands, product, products_at
    from tapes import run_op

    from distbp.machine.lanes import LANES
    from distbp.machine.own_products.direct import direct_sgemm
    from distbp.nn.ops import OPS

    lines: list[str] = []

    def tell(name: str, array: Any) -> None:
        lines.append(f"{name}: {hashlib.sha256(array).hexdigest()}")

    for kind in PRODUCT_KINDS:
        tell(kind, product(products_at(direct_sgemm()), kind, *operands(kind, 37, 45, 300)))
    draw = np.random.default_rng(3)

    def normal(*shape: int) -> np.ndarray:
        return draw.normal(size=shape).astype(np.float32)

    def out(*shape: int) -> np.ndarray:
        return np.full(shape, np.nan, np.float32)

    for channels, filters, width in WINDOWS:
        windows = (channels, 8, 19, channels, 3, width, 1, 1, 0, 0, 1, 1, 6, 20 - width)
        terms, places, image = 3 * width * channels, 2 * 6 * (20 - width), 8 * 19 * channels
        x, weight, bias, dz = (
            normal(2, image), normal(filters, terms), normal(1, filters), normal(places, filters)
        )  # fmt: skip
        for name, given, written in (
            ("convolve", [x, weight, bias, out(places, filters)], 3),
            ("convolve_backward", [dz, weight, out(2, image)], 2),
            ("convolve_weights", [x, dz, out(filters, terms), out(1, filters)], 2),
        ):
            results = run_op(OPS[name], given, windows, compiled=True)
            tell(f"{name} {channels} {filters} {width}", results[written])
    return [f"LANES: {LANES}", *lines]


def _of_other_width() -> None:
    ask = binding.get_host_cpu_features
    wide = not ask().get("avx512f")
    binding.get_host_cpu_features = lambda: {"avx512f": wide}
    from distbp.machine import lanes  # noqa: F401 - it asks once

    binding.get_host_cpu_features = ask
    print("\n".join(told()))


if __name__ == "__main__":
    _of_other_width()
