"""Two charts of slow learning."""

from __future__ import annotations

import math

from tools.learn_pictures.shapes import BLUE, GRAY, ORANGE, bar, curve, line, svg, word

EPOCHS, RATE = 300, 0.15
# What examples/vanishing_gradients.py prints.
NORMS = {
    "sigmoid": (0.00324, 0.00872, 0.04739, 0.19928, 0.64733),
    "tanh": (0.82936, 0.50178, 0.44126, 0.45417, 0.44031),
    "relu": (0.36364, 0.38844, 0.38308, 0.39546, 0.30975),
}


def outputs(cross_entropy: bool) -> list[float]:
    """Of one sigmoid unit that begins far out, at w = b = 2, and should give 0 for x = 1."""
    w = b = 2.0
    found = []
    for _ in range(EPOCHS + 1):
        y = 1 / (1 + math.exp(-(w + b)))
        found.append(y)
        delta = y if cross_entropy else y * y * (1 - y)
        w, b = w - RATE * delta, b - RATE * delta
    return found


def slow_unit() -> str:
    left, top, wide, high = 60, 30, 480, 200
    parts = [
        line(left, top, left, top + high, "thin"),
        line(left, top + high, left + wide, top + high, "thin"),
    ]
    for value in (0, 0.5, 1):
        y = top + high * (1 - value)
        parts += [
            line(left, y, left + wide, y, "thin"),
            word(left - 8, y + 5, f"{value:g}", "right small gray"),
        ]
    for epoch in (0, 100, 200, 300):
        parts.append(word(left + wide * epoch / EPOCHS, top + high + 20, str(epoch), "small gray"))
    for cross_entropy, color in ((False, BLUE), (True, ORANGE)):
        points = [
            (left + wide * epoch / EPOCHS, top + high * (1 - y))
            for epoch, y in enumerate(outputs(cross_entropy))
            if epoch % 2 == 0
        ]
        parts.append(curve(points, color))
    parts += [
        word(left + 110, top + 48, "half the squared error", "left small").replace(
            "<text", f'<text style="fill:{BLUE}"'
        ),
        word(left + 60, top + 130, "cross-entropy", "left small").replace(
            "<text", f'<text style="fill:{ORANGE}"'
        ),
        word(left + wide / 2, top + high + 40, "steps", "small gray"),
        word(left, 18, "output of the unit; it should be 0", "left small gray"),
    ]
    return svg(
        580, 282, "A unit that begins far out: with the squared error it hardly moves for 150 steps", parts
    )


def vanishing() -> str:
    left, base, high, lowest = 70, 220, 170, -3.0
    parts = []
    for power in (-3, -2, -1, 0):
        y = base - high * (power - lowest) / -lowest
        parts += [
            line(left, y, 560, y, "thin"),
            word(left - 8, y + 5, f"{10.0**power:g}", "right small gray"),
        ]
    colors = {"sigmoid": BLUE, "tanh": ORANGE, "relu": GRAY}
    for place, (name, norms) in enumerate(NORMS.items()):
        x = left + 20 + 162 * place
        for layer, norm in enumerate(norms):
            size = high * (math.log10(norm) - lowest) / -lowest
            parts.append(bar(x + 26 * layer, round(base - size, 1), 20, round(size, 1), colors[name]))
            parts.append(word(x + 26 * layer + 10, base + 16, str(layer), "small gray"))
        parts.append(word(x + 62, base + 38, name))
    parts.append(
        word(left, 26, "norm of the gradient of each layer's weights, after one epoch", "left small gray")
    )
    return svg(
        580,
        270,
        "Gradients of five layers: with sigmoids they shrink from the last layer to the first",
        parts,
    )
