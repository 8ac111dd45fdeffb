"""Fewer points, the same curve."""

from __future__ import annotations

import math

from distbp_service.api.downsample import choose_rows, largest_triangles
from hypothesis import given
from hypothesis import strategies as st


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=200),
    st.integers(2, 50),
)
def test_rising_within_the_budget_with_both_ends(y: list[float], points: int) -> None:
    kept = largest_triangles([float(i) for i in range(len(y))], y, points)
    assert len(kept) == min(points, len(y))
    assert kept == sorted(set(kept))
    assert kept[0] == 0 and kept[-1] == len(y) - 1


def test_by_hand() -> None:
    # Two buckets for points 1..4: {1, 2} and {3, 4}. From (0, 0) with the mean (3.5, 0) of the second, the
    # spike at 2 spans more than the point at 1. From (2, 5) with the end (5, 0): at 3 the triangle is
    # |(2-5)*(0-5) - (2-3)*(0-5)| = 10, at 4 |(2-5)*(1-5) - (2-4)*(0-5)| = 2.
    assert largest_triangles([0, 1, 2, 3, 4, 5], [0, 0, 5, 0, 1, 0], 4) == [0, 2, 3, 5]


def test_a_spike_is_kept() -> None:
    y = [math.sin(i / 500) for i in range(10_000)]
    y[4321] = 50.0
    assert 4321 in largest_triangles([float(i) for i in range(10_000)], y, 100)


def test_rows_show_every_curve() -> None:
    rows = [{"step": i, "epoch": i, "a": 1.0, "b": 2.0, "note": "x", "c": None} for i in range(5000)]
    rows[77]["a"], rows[2345]["b"] = 9.0, -9.0
    chosen = choose_rows(range(5000), rows, 60)
    assert {0, 77, 2345, 4999} <= set(chosen)
    assert len(chosen) <= 60
    assert chosen == sorted(chosen)


@given(st.integers(0, 300), st.integers(2, 40), st.integers(0, 30))
def test_never_more_rows_than_asked_for(count: int, points: int, curves: int) -> None:
    rows = [{f"curve{c}": float((i * c) % 7) for c in range(curves)} for i in range(count)]
    chosen = choose_rows(range(count), rows, points)
    assert len(chosen) <= max(points, 2)
    assert not count or {0, count - 1} <= set(chosen)
