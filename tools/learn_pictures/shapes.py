"""What the pictures of docs/learn.md are made of: SVG, blue forward, orange backward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

DARK, GRAY, BLUE, ORANGE = "#1a1d21", "#6b7280", "#2a5bd7", "#c2410c"
STYLE = (
    f"text{{font-family:system-ui,sans-serif;font-size:15px;text-anchor:middle;fill:{DARK}}}"
    f".unit{{fill:#e9efff;stroke:{BLUE};stroke-width:1.5}}.box{{fill:#fff;stroke:#8a919c;stroke-width:1.5}}"
    f".warm{{fill:#fff1e6;stroke:{ORANGE};stroke-width:1.5}}"
    f"line{{stroke:{DARK};stroke-width:1.4}}.to{{marker-end:url(#head)}}.thin{{stroke:#c9ced6;stroke-width:1}}"
    f".back{{stroke:{ORANGE};stroke-dasharray:5 3;marker-end:url(#back)}}.strong{{stroke-width:2.6}}"
    f".of-back{{fill:{ORANGE}}}.small{{font-size:12.5px}}.gray{{fill:{GRAY}}}.left{{text-anchor:start}}"
    ".number{font-size:14px}path{fill:none;stroke-width:2}.right{text-anchor:end}.bold{font-weight:600}"
)


def svg(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """The whole picture. title: what it shows, for those who do not see it."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        f"<defs>{_head('head', DARK)}{_head('back', ORANGE)}</defs>",
        f'<rect width="{width}" height="{height}" fill="#fafaf8"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def word(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text{_of(kind)} x="{x:g}" y="{y:g}">{text}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "to") -> str:
    return f'<line{_of(kind)} x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def circle(x: float, y: float, radius: float, kind: str = "unit") -> str:
    return f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="{radius:g}"/>'


def box(x: float, y: float, width: float, height: float, kind: str = "box", round_: float = 6) -> str:
    """x, y: of the upper left corner."""
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round_:g}"/>'


def bar(x: float, y: float, width: float, height: float, color: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{color}"/>'


def curve(points: Sequence[tuple[float, float]], color: str) -> str:
    told = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<path d="M{told}" stroke="{color}"/>'


def sub(letter: str, index: object) -> str:
    return f'{letter}<tspan dy="4" font-size="11">{index}</tspan>'


def _of(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _head(name: str, color: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9"'
        f' markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 8 4 0 8z" style="fill:{color}"/></marker>'
    )
