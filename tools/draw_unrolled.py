"""Draws an Elman network over three steps, for docs/learn.md:

python tools/draw_unrolled.py > docs/images/unrolled.svg
"""

from __future__ import annotations

STEPS, STRIDE, LEFT = 3, 170, 60
STYLE = (
    "text{font-family:system-ui,sans-serif;font-size:15px;text-anchor:middle;fill:#1a1d21}"
    ".unit{fill:#e9efff;stroke:#2a5bd7;stroke-width:1.5}.loss{fill:#fff;stroke:#8a919c;stroke-width:1.5}"
    "line{stroke:#1a1d21;stroke-width:1.4;marker-end:url(#head)}"
    ".back{stroke:#c2410c;stroke-dasharray:5 3;marker-end:url(#back)}.of-back{fill:#c2410c}"
)


def head(name: str, color: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        f' orient="auto"><path d="M0 0 8 4 0 8z" fill="{color}"/></marker>'
    )


def sub(letter: str, number: int) -> str:
    return f'{letter}<tspan dy="4" font-size="11">{number}</tspan>'


def arrow(x1: float, y1: float, x2: float, y2: float, kind: str = "") -> str:
    of = f' class="{kind}"' if kind else ""
    return f'<line{of} x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def word(x: float, y: float, text: str, kind: str = "") -> str:
    of = f' class="{kind}"' if kind else ""
    return f'<text{of} x="{x}" y="{y}">{text}</text>'


def step(number: int) -> list[str]:
    """What step `number` has: x below, the state, the loss above, and the arrows to the next step."""
    x = LEFT + STRIDE * number
    parts = [
        f'<circle class="unit" cx="{x}" cy="150" r="26"/>' + word(x, 155, sub("h", number)),
        f'<rect class="loss" x="{x - 24}" y="22" width="48" height="34" rx="6"/>'
        + word(x, 44, sub("E", number)),
        word(x, 262, sub("x", number)),
        arrow(x, 244, x, 179) + word(x + 14, 217, "W"),
        arrow(x - 8, 123, x - 8, 60),
        arrow(x + 8, 60, x + 8, 123, "back"),
    ]
    if number + 1 < STEPS:
        parts += [
            arrow(x + 27, 142, x + STRIDE - 29, 142) + word(x + STRIDE / 2, 133, "R"),
            arrow(x + STRIDE - 27, 158, x + 29, 158, "back"),
            word(x + STRIDE / 2, 180, f"R {sub('δ', number + 1)}", "of-back"),
        ]
    return parts


def draw() -> str:
    width = 2 * LEFT + STRIDE * (STEPS - 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 280" width="{width}" role="img">',
        "<title>An Elman network over three steps: solid arrows forward, dashed arrows backward</title>",
        f"<style>{STYLE}</style>",
        f"<defs>{head('head', '#1a1d21')}{head('back', '#c2410c')}</defs>",
        f'<rect width="{width}" height="280" fill="#fafaf8"/>',
        *(part for number in range(STEPS) for part in step(number)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(draw(), end="")
