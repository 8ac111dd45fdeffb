"""Order statistics by counting: those of NumPy, for any numbers, however they are cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distbp.data.columns import orders
from distbp.data.columns.orders import Counted

DRAW = np.random.default_rng(3)
NUMBERS: dict[str, Callable[[], np.ndarray]] = {
    "normal": lambda: DRAW.normal(size=5000),
    "far from 0": lambda: 1e9 + DRAW.normal(size=3000),
    "whole": lambda: DRAW.integers(-5, 5, 4000).astype(float),
    "heavy": lambda: np.concatenate([np.zeros(900), np.full(500, -2.5), DRAW.normal(size=600)]),
    "wide": lambda: DRAW.choice([-1, 1], 2000) * 10.0 ** DRAW.uniform(-37, 37, 2000),
    "one": lambda: np.array([3.5]),
    "zeros of both signs": lambda: np.array([0.0, -0.0, 1.0, -1.0]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NUMBERS)
def test_quantiles_are_those_of_numpy(name: str, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = NUMBERS[name]().astype(dtype)
    shares = np.linspace(0, 1, 34)
    found = Counted(lambda: [x], dtype).quantiles(shares)
    np.testing.assert_allclose(found, np.quantile(x.astype(np.float64), shares), rtol=1e-14, atol=0)
    monkeypatch.setattr(orders, "_HELD", 300)
    monkeypatch.setattr(orders, "_WAITING", 40)
    again = Counted(lambda: np.array_split(x[::-1], 7), dtype).quantiles(shares)
    assert again.tobytes() == found.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NUMBERS)
def test_heavy_numbers_and_the_rest(name: str, dtype: Any) -> None:
    x = NUMBERS[name]().astype(dtype)
    counted = Counted(lambda: [x], dtype)
    distinct, counts = np.unique(x, return_counts=True)
    many = counts * 8 > len(x)
    heavy = counted.heavy(8)
    assert heavy[0].tolist() == distinct[many].tolist()
    assert heavy[1].tolist() == counts[many].tolist()
    rest = x[~np.isin(x, heavy[0])].astype(np.float64)
    if len(rest):
        shares = np.linspace(0, 1, 9)
        np.testing.assert_allclose(
            counted.quantiles(shares, heavy), np.quantile(rest, shares), rtol=1e-14, atol=0
        )
