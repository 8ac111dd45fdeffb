"""A filter of 2 x 2 on an image of 3 x 3: forward one window, backward the four that hold the middle."""

from __future__ import annotations

from collections.abc import Sequence

from tools.learn_pictures.shapes import box, line, svg, word

IMAGE = ((1, 2, 0), (0, 1, 3), (2, 1, 1))
FILTER = ((0.5, -0.2), (0.1, 0.4))
DELTA = ((0.1, 0.4), (-0.5, 0.2))
CELL = 44


def draw() -> str:
    forward = [
        *_grid(30, 60, IMAGE, "x", {(0, 0), (0, 1), (1, 0), (1, 1)}, "unit"),
        *_grid(212, 60, FILTER, "w", set(), "unit"),
        word(185, 110, "·"),
        word(325, 110, "+ b ="),
        *_grid(360, 60, _outputs(), "z", {(0, 0)}, "unit"),
        word(30, 26, "forward: one window, one output", "left gray small"),
    ]
    backward = [
        *_grid(560, 60, IMAGE, "∂E/∂x", {(1, 1)}, "warm", numbers=False),
        word(560 + 1.5 * CELL, 60 + 1.5 * CELL + 5, ".28", "of-back bold"),
        *_grid(790, 82, DELTA, "δ", {(0, 0), (0, 1), (1, 0), (1, 1)}, "warm"),
        word(560, 26, "backward: the middle stands in four windows", "left gray small"),
    ]
    backward.append(line(786, 126, 562 + 2 * CELL, 126, "back"))
    backward.append(word(735, 226, "each δ times the weight that met the middle:", "of-back small"))
    backward.append(word(735, 246, ".1 · .4 + .4 · .1 − .5 · (−.2) + .2 · .5", "of-back small"))
    title = "Convolution: a window times the filter is one output; backward all four windows count"
    return svg(930, 264, title, [*forward, *backward])


def _outputs() -> list[list[float]]:
    return [
        [0.1 + sum(FILTER[u][v] * IMAGE[i + u][j + v] for u in (0, 1) for v in (0, 1)) for j in (0, 1)]
        for i in (0, 1)
    ]


def _grid(
    x: float,
    y: float,
    rows: Sequence[Sequence[float]],
    name: str,
    marked: set[tuple[int, int]],
    kind: str,
    numbers: bool = True,
) -> list[str]:
    parts = [word(x + CELL * len(rows[0]) / 2, y - 12, name)]
    for i, row in enumerate(rows):
        for j, number in enumerate(row):
            parts.append(box(x + CELL * j, y + CELL * i, CELL, CELL, kind if (i, j) in marked else "box", 0))
            if numbers:
                told = f"{number:.3g}".replace("0.", ".").replace("-", "−")
                parts.append(word(x + CELL * (j + 0.5), y + CELL * (i + 0.5) + 5, told))
    return parts
