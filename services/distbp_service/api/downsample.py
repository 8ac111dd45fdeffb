"""Thins the points of a curve without changing its look: Largest-Triangle-Three-Buckets.

Source: S. Steinarsson, Downsampling Time Series for Visual Representation, University of Iceland, 2013.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distbp.run.measured import is_number


def largest_triangles(x: Sequence[float], y: Sequence[float], points: int) -> list[int]:
    """Rising indices of at most `points` (at least 2) of the points (x, y), including the first and the last.

    The other points are split into points - 2 buckets. Each bucket keeps the point that spans the largest
    triangle with the point kept before it and the mean of the next bucket.
    """
    n = len(x)
    if n <= points:
        return list(range(n))
    if points < 3:
        return [0, n - 1]
    kept = [0]
    width = (n - 2) / (points - 2)
    for bucket in range(points - 2):
        start, stop = int(bucket * width) + 1, int((bucket + 1) * width) + 1
        after = min(int((bucket + 2) * width) + 1, n)
        mean_x = math.fsum(x[stop:after]) / (after - stop)
        mean_y = math.fsum(y[stop:after]) / (after - stop)
        a_x, a_y = x[kept[-1]], y[kept[-1]]
        kept.append(
            max(
                range(start, stop),
                key=lambda i: abs((a_x - mean_x) * (y[i] - a_y) - (a_x - x[i]) * (mean_y - a_y)),
            )
        )
    return [*kept, n - 1]


def choose_rows(steps: Sequence[int], rows: Sequence[Mapping[str, Any]], points: int) -> list[int]:
    """Rising indices of at most `points` rows, including the first and the last. Every name with finite
    numbers is a curve; all curves share the points equally."""
    if len(rows) <= points:
        return list(range(len(rows)))
    curves: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        for name, value in row.items():
            if name not in ("step", "epoch") and is_number(value) and math.isfinite(value):
                curves.setdefault(name, []).append(index)
    chosen = {0, len(rows) - 1}
    share = (points - 2) // len(curves) if curves else 0
    for name, places in curves.items():
        if share >= 2:
            x, y = [float(steps[i]) for i in places], [float(rows[i][name]) for i in places]
            chosen.update(places[i] for i in largest_triangles(x, y, share))
    if share < 2:  # too many curves for the points: rows are chosen evenly
        chosen.update(round(i * (len(rows) - 1) / max(points - 1, 1)) for i in range(1, points - 1))
    return sorted(chosen)
