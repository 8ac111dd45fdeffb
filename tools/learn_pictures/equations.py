"""One layer between two others, and the four equations on their arrows."""

from __future__ import annotations

from itertools import pairwise

from tools.learn_pictures.shapes import box, line, svg, word

HIGH, TOP = 46, 62
BOXES = (
    ("x", 60, 60),
    ("z = W x + b", 250, 116),
    ("a = f(z)", 440, 86),
    ("z of the next", 640, 116),
    ("E", 820, 60),
)
BELOW = TOP + HIGH


def draw() -> str:
    parts = [
        word(340, 26, "one layer", "gray"),
        '<rect x="180" y="38" width="316" height="178" rx="6" fill="none" stroke="#b6bcc6"'
        ' stroke-dasharray="3 3"/>',
    ]
    for text, x, wide in BOXES:
        parts += [
            box(x - wide / 2, TOP, wide, HIGH, "box" if text in "xE" else "unit", 8),
            word(x, TOP + 28, text),
        ]
    for (_, x, wide), (_, after, wide_after) in pairwise(BOXES):
        begin, end = x + wide / 2, after - wide_after / 2
        parts += [line(begin, TOP + 15, end - 2, TOP + 15), line(end, TOP + 33, begin + 2, TOP + 33, "back")]
    parts += [
        *_equation(744, "BP1", "∂E/∂a, from the loss"),
        *_equation(532, "BP2", "∂E/∂a = Wᵀ δ", "of the next layer"),
        *_equation(352, "δ", "∂E/∂a · f′(z)"),
        line(250, BELOW + 2, 250, BELOW + 38, "back"),
        word(250, BELOW + 58, "BP3   ∂E/∂b = δ", "of-back small"),
        word(250, BELOW + 80, "BP4   ∂E/∂W = δ xᵀ", "of-back small"),
        *_equation(125, "BP2", "∂E/∂x = Wᵀ δ"),
    ]
    title = "A layer: forward from x through z and a to the loss, and the four equations on the way back"
    return svg(870, 232, title, parts)


def _equation(x: float, name: str, *texts: str) -> list[str]:
    lines = [word(x, BELOW + 52 + 18 * number, text, "of-back small") for number, text in enumerate(texts)]
    return [word(x, BELOW + 30, name, "of-back bold"), *lines]
