"""An Elman network over three steps."""

from __future__ import annotations

from tools.learn_pictures.shapes import box, circle, line, sub, svg, word

STEPS, STRIDE, LEFT = 3, 170, 60


def draw() -> str:
    title = "An Elman network over three steps: solid arrows forward, dashed arrows backward"
    parts = [part for number in range(STEPS) for part in _step(number)]
    return svg(2 * LEFT + STRIDE * (STEPS - 1), 280, title, parts)


def _step(number: int) -> list[str]:
    """What step `number` has: x below, the state, the loss above, and the arrows to the next step."""
    x = LEFT + STRIDE * number
    parts = [
        circle(x, 150, 26) + word(x, 155, sub("h", number)),
        box(x - 24, 22, 48, 34) + word(x, 44, sub("E", number)),
        word(x, 262, sub("x", number)),
        line(x, 244, x, 179) + word(x + 14, 217, "W"),
        line(x - 8, 123, x - 8, 60),
        line(x + 8, 60, x + 8, 123, "back"),
    ]
    if number + 1 < STEPS:
        parts += [
            line(x + 27, 142, x + STRIDE - 29, 142) + word(x + STRIDE / 2, 133, "R"),
            line(x + STRIDE - 27, 158, x + 29, 158, "back"),
            word(x + STRIDE / 2, 180, f"R {sub('δ', number + 1)}", "of-back"),
        ]
    return parts
