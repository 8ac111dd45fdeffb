"""The worked example of M. Mazur, with the numbers of its first step."""

from __future__ import annotations

import math

from tools.learn_pictures.shapes import box, circle, line, sub, svg, word

X, TARGETS = (0.05, 0.10), (0.01, 0.99)
WEIGHTS = (((0.15, 0.20), (0.25, 0.30)), ((0.40, 0.45), (0.50, 0.55)))
BIASES = (0.35, 0.60)
COLUMNS, ROWS, RADIUS = (60, 260, 470, 640), (80, 230), 38


def numbers() -> tuple[list[float], list[float], list[float], list[float]]:
    """Outputs of the hidden and the last units, then their deltas."""
    values: list[list[float]] = [list(X)]
    for weights, bias in zip(WEIGHTS, BIASES, strict=True):
        z = [sum(w * x for w, x in zip(row, values[-1], strict=True)) + bias for row in weights]
        values.append([1 / (1 + math.exp(-one)) for one in z])
    _, hidden, last = values
    late = [(y - t) * y * (1 - y) for y, t in zip(last, TARGETS, strict=True)]
    early = [sum(late[k] * WEIGHTS[1][k][j] for k in (0, 1)) * y * (1 - y) for j, y in enumerate(hidden)]
    return hidden, last, early, late


def draw() -> str:
    hidden, last, early, late = numbers()
    parts: list[str] = []
    for left, (weights, x) in enumerate(zip(WEIGHTS, COLUMNS, strict=False)):
        end = COLUMNS[left + 1]
        for to in (0, 1):
            for origin in (0, 1):
                parts.append(_edge(x, end, origin, to, f"{weights[to][origin]:.2f}"[1:]))
    for place, y in enumerate(ROWS):
        parts += [
            circle(COLUMNS[0], y, RADIUS, "box") + word(COLUMNS[0], y + 5, f"{X[place]:.2f}"[1:]),
            *_unit(COLUMNS[1], y, hidden[place], early[place], 0, place),
            *_unit(COLUMNS[2], y, last[place], late[place], 1, place),
            line(COLUMNS[2] + RADIUS, y - 7, COLUMNS[3] - 36, y - 7),
            line(COLUMNS[3] - 36, y + 7, COLUMNS[2] + RADIUS + 2, y + 7, "back"),
            box(COLUMNS[3] - 34, y - 24, 78, 48)
            + word(COLUMNS[3] + 5, y - 4, f"{(last[place] - TARGETS[place]) ** 2 / 2:.6f}"[1:])
            + word(COLUMNS[3] + 5, y + 15, f"t = {TARGETS[place]:.2f}".replace("0.", "."), "small gray"),
        ]
    for x, text in zip(COLUMNS, ("x", "hidden units", "outputs", "E"), strict=True):
        parts.append(word(x + (5 if text == "E" else 0), 28, text, "gray"))
    return svg(720, 306, "A network of two inputs, two hidden units and two outputs, with its numbers", parts)


def _unit(x: float, y: float, value: float, delta: float, layer: int, place: int) -> list[str]:
    told = f"{delta:.6f}".replace("0.", ".", 1).replace("-", "−")
    return [
        circle(x, y, RADIUS) + word(x, y + 5, f"{value:.6f}"[1:], "number"),
        word(x, y + RADIUS + 17, f"{sub('δ', place)}<tspan dy='-4'> = {told}</tspan>", "of-back small"),
    ]


def _edge(x: float, end: float, origin: int, to: int, weight: str) -> str:
    """An arrow with its weight near its beginning. Those that cross keep their words apart."""
    y1, y2 = ROWS[origin], ROWS[to]
    length = math.hypot(end - x, y2 - y1)
    dx, dy = (end - x) / length, (y2 - y1) / length
    where = 0.5 if origin == to else 0.3
    above = -8 if to <= origin else 18
    if origin == to:
        above = -8 if to == 0 else 18
    return line(
        round(x + RADIUS * dx, 1), round(y1 + RADIUS * dy, 1),
        round(end - (RADIUS + 2) * dx, 1), round(y2 - (RADIUS + 2) * dy, 1),
    ) + word(
        round(x + where * (end - x)), round(y1 + where * (y2 - y1)) + above, weight, "small"
    )  # fmt: skip
