"""Draws the house from the imports: an SVG with a box for each room of `distbp/` and arrows for the imports.

    python tools/draw_house.py > docs/images/house.svg

A room is a package or a file directly under `distbp/`. It stands one floor below the lowest room that it
imports from. An arrow points to what is imported; one that follows from two others is left out. Imports for
type checking do not count. The same files give the same bytes.

The floors are drawn by the method of Sugiyama, Tagawa and Toda ("Methods for Visual Understanding of
Hierarchical System Structures", 1981): an arrow over several floors gets a place on each of them, and the
places on a floor are ordered by the mean position of their neighbors.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

HIGH, FLOOR, GAP, MARGIN = 46, 96, 18, 24  # pixels: a box, between floors, beside a box, around the picture
BEND = 14  # pixels that an arrow needs on a floor it passes
LETTER = 8.2  # pixels
SWEEPS = 12  # over the floors, down and up in turn
ROOT = Path(__file__).resolve().parents[1]
STYLE = (
    "text{font-family:system-ui,sans-serif;text-anchor:middle;fill:#1a1d21}"
    ".name{font-size:14px;font-weight:600}.size{font-size:11px;fill:#5a6069}"
    ".room{fill:#fff;stroke:#8a919c}.package{fill:#e9efff;stroke:#2a5bd7}"
    ".arrow{fill:none;stroke:#8a919c;stroke-width:1.2;marker-end:url(#head)}"
)
HEAD = (
    '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#8a919c"/></marker>'
)


class Room(NamedTuple):
    name: str
    package: bool
    files: int
    lines: int
    imports: frozenset[str]  # names of other rooms


class Place(NamedTuple):
    """Where something stands on its floor, in pixels: its left edge and its width."""

    left: float
    width: float

    @property
    def middle(self) -> float:
        return self.left + self.width / 2


Node = tuple[str, ...]  # (room,), or (room, imported room, floor) where an arrow passes a floor
Floors = list[list[Node]]


def find_rooms(package: Path) -> dict[str, Room]:
    """The rooms of a package by name. Files without code, such as an empty `__init__.py`, do not count."""
    found: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        first = path.relative_to(package).parts[0].removesuffix(".py")
        if first != "__init__":
            found.setdefault(first, []).append(path)
    rooms = {}
    for name, paths in sorted(found.items()):
        texts = [path.read_text("utf-8") for path in paths]
        targets = {target for text in texts for target in _targets(ast.parse(text), package.name)}
        counted = [text for text in texts if len(text.splitlines()) > 1]
        rooms[name] = Room(
            name,
            (package / name).is_dir(),
            len(counted),
            sum(len(text.splitlines()) for text in counted),
            frozenset((targets & found.keys()) - {name}),
        )
    return rooms


def _targets(node: ast.AST, package: str) -> Iterator[str]:
    """The first names below `package` that a file imports when it runs, within functions too."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for statement in node.orelse:
            yield from _targets(statement, package)
        return
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for parts in (name.split(".") for name in names):
        if parts[0] == package and len(parts) > 1:
            yield parts[1]
    for child in ast.iter_child_nodes(node):
        yield from _targets(child, package)


def reduced(graph: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    """The arrows of an acyclic graph that do not follow from others. Raises graphlib.CycleError."""
    TopologicalSorter(graph).prepare()

    @functools.cache
    def reached(name: str) -> frozenset[str]:
        return graph[name].union(*(reached(other) for other in graph[name]))

    return {
        name: sorted(one for one in others if not any(one in reached(o) for o in others if o != one))
        for name, others in sorted(graph.items())
    }


def floors_of(arrows: Mapping[str, Sequence[str]]) -> tuple[Floors, dict[Node, list[Node]]]:
    """The nodes of each floor from the top, in a good order, and what each points to on the floor above."""

    @functools.cache
    def floor(name: str) -> int:
        return 1 + max((floor(other) for other in arrows[name]), default=-1)

    floors: Floors = [[] for _ in range(1 + max(map(floor, arrows), default=-1))]
    above: dict[Node, list[Node]] = {}
    for name, others in arrows.items():
        floors[floor(name)].append((name,))
        above.setdefault((name,), [])
        for other in others:
            between = range(floor(name) - 1, floor(other), -1)
            passed: list[Node] = [(name, other, str(number)) for number in between]
            for number, node in zip(between, passed, strict=True):
                floors[number].append(node)
            for node, target in pairwise([(name,), *passed, (other,)]):
                above.setdefault(node, []).append(target)
    below: dict[Node, list[Node]] = {node: [] for nodes in floors for node in nodes}
    for node, targets in above.items():
        for target in targets:
            below[target].append(node)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        numbers = range(1, len(floors)) if down else range(len(floors) - 2, -1, -1)
        for number in numbers:
            beside = floors[number - 1 if down else number + 1]
            position = {node: (i + 0.5) / len(beside) for i, node in enumerate(beside)}
            own = {node: (i + 0.5) / len(floors[number]) for i, node in enumerate(floors[number])}
            near = above if down else below
            mean = {
                node: sum(position[n] for n in near[node]) / len(near[node]) if near[node] else own[node]
                for node in floors[number]
            }
            floors[number].sort(key=lambda node, mean=mean: (mean[node], node))  # type: ignore[misc]
    return floors, above


def size_of(room: Room) -> str:
    """Files and lines in words; lines with two digits, so that a small change leaves the picture as it is."""
    digits = max(0, len(str(room.lines)) - 2)
    lines = f"{round(room.lines, -digits):,} lines"
    return f"{room.files} file{'s' * (room.files != 1)}, {lines}" if room.package else lines


def draw(package: Path) -> str:
    """The SVG of the house of a package. Raises graphlib.CycleError where rooms import in a circle."""
    rooms = find_rooms(package)
    floors, above = floors_of(reduced({room.name: room.imports for room in rooms.values()}))

    def label(node: Node) -> tuple[str, str]:
        room = rooms[node[0]]
        return f"{room.name}/" if room.package else f"{room.name}.py", size_of(room)

    def width(node: Node) -> float:
        return BEND if len(node) > 1 else max(LETTER * len(label(node)[0]), 6.2 * len(label(node)[1])) + 24

    wide = [sum(width(node) + GAP for node in nodes) - GAP for nodes in floors]
    full = max(wide, default=0) + 2 * MARGIN
    places: dict[Node, tuple[Place, int]] = {}
    for number, nodes in enumerate(floors):
        left = (full - wide[number]) / 2
        for node in nodes:
            places[node] = Place(left, width(node)), MARGIN + number * FLOOR
            left += width(node) + GAP
    arrows, boxes = [], []
    for node, (place, top) in places.items():
        if len(node) > 1:
            continue
        for target in above[node]:
            x, y, path = place.middle, float(top), f"M{place.middle:.1f} {top}"
            at = target
            while True:
                there, high = places[at]
                end = high + HIGH
                half = (y - end) / 2
                path += (
                    f"C{x:.1f} {y - half:.1f} {there.middle:.1f} {end + half:.1f} {there.middle:.1f} {end}"
                )
                if len(at) == 1:
                    break
                path += f"V{high}"
                x, y, at = there.middle, float(high), above[at][0]
            arrows.append(f'<path class="arrow" d="{path}"/>')
        kind, (name, size) = "package" if rooms[node[0]].package else "room", label(node)
        boxes.append(
            f'<rect class="{kind}" x="{place.left:.1f}" y="{top}" width="{place.width:.1f}"'
            f' height="{HIGH}" rx="7"/>'
            f'<text class="name" x="{place.middle:.1f}" y="{top + 20}">{escape(name)}</text>'
            f'<text class="size" x="{place.middle:.1f}" y="{top + 37}">{size}</text>'
        )
    tall = 2 * MARGIN + (len(floors) - 1) * FLOOR + HIGH
    title = f"The rooms of {package.name}: an arrow points to what is imported"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full:.0f} {tall}" role="img">',
            f"<title>{title}</title><style>{STYLE}</style><defs>{HEAD}</defs>",
            f'<rect width="{full:.0f}" height="{tall}" fill="#fafaf8"/>',
            *arrows,
            *boxes,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(draw(ROOT / "distbp"))
