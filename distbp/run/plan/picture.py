"""The network of a job as SVG: a box for each layer, and arrows with the shapes of their outputs.

A layer's row is the length of its longest path from the data. The output of a layer runs down in a lane of
its own to all layers that take it (`distbp.job.graph.lanes`), so no line crosses a box.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from distbp.core.arrays import Shape
from distbp.core.errors import cut
from distbp.core.words import counted
from distbp.job.graph import GraphNode, lanes, size
from distbp.nn.wiring import DATA

WIDE, GAP, MARGIN = 248, 44, 24  # pixels: width of a box, gap between lanes, margin of the picture
BETWEEN, STRAIGHT, HEAD = 56, 26, 8  # pixels: gap between rows, its straight part, head of an arrow
LINE, PAD = 16, 12  # pixels: height of a line, padding above and below the text of a box
LETTERS, MOST_LINES, MOST_NAME = 34, 8, 18  # of a small line; of a list; of a name

GLUE = "\x00"

STYLE = (
    "svg{--paper:#fbfaf7;--box:#fff;--ink:#26251f;--faint:#6f6b60;--line:#8a8579;--edge:#0b5f85;--wide:#eef5f8}"
    "@media (prefers-color-scheme:dark){svg{--paper:#17181a;--box:#202225;--ink:#e8e6e1;--faint:#a8a499;"
    "--line:#6d7076;--edge:#6fc3e8;--wide:#1c2a31}}"
    ".paper{fill:var(--paper)}text{font:12px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
    "fill:var(--faint)}.title{font-size:14px;font-weight:600;fill:var(--ink)}.name{fill:var(--edge)}"
    ".shape{fill:var(--edge);font-weight:600;paint-order:stroke;stroke:var(--paper);stroke-width:4px}"
    ".layer{fill:var(--box);stroke:var(--line)}.trains{fill:var(--wide);stroke:var(--edge)}"
    ".end{fill:none;stroke:var(--line);stroke-dasharray:4 3}"
    ".flow{fill:none;stroke:var(--edge);stroke-width:1.6}.tip{fill:var(--edge)}"
)


def draw(nodes: Sequence[GraphNode], input_shape: Shape | None, name: str) -> str:
    """The picture as SVG text. name: of the job."""
    outputs = [node for node in nodes if node.loss is not None]
    wiring = [*(node.sources for node in nodes), *((node.number,) for node in outputs)]
    ranks = _ranks(wiring)
    columns = lanes(wiring, ranks)
    texts = {DATA: ["input"]}
    for number, node in enumerate(outputs, len(nodes)):
        called = "outputs" if len(outputs) == 1 else f"output {cut(node.name or '', MOST_NAME)}"
        texts[number] = [called, f"loss: {node.loss}"]
    texts |= {node.number: list(_lines(node)) for node in nodes}
    heights = {number: 2 * PAD + LINE * len(lines) for number, lines in texts.items()}
    tops, top = {}, MARGIN
    for rank in range(max(ranks.values()) + 1):
        tops[rank] = top
        top += max(heights[one] for one, at in ranks.items() if at == rank) + BETWEEN
    tall, wide = top - BETWEEN + MARGIN, MARGIN * 2 + (WIDE + GAP) * (max(columns.values()) + 1) - GAP
    place = {one: (MARGIN + columns[one] * (WIDE + GAP), tops[ranks[one]]) for one in ranks}
    given = {DATA: input_shape, **{node.number: node.shape for node in nodes}}
    marks = list(_arrows(wiring, place, heights, given))
    boxes = {node.number: node for node in nodes}
    for number, (left, upper) in place.items():
        marks.append(_box(boxes.get(number), texts[number], left, upper, heights[number]))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" width="{wide}" height="{tall}"'
    )
    title = f"{escape(name)}: {counted(len(nodes), 'layer')}"
    return (
        f'{head} role="img"><title>{title}</title><style>{STYLE}</style>'
        f'<rect class="paper" width="{wide}" height="{tall}"/>\n' + "\n".join(marks) + "\n</svg>\n"
    )


def _ranks(wiring: Sequence[Sequence[int | None]]) -> dict[int, int]:
    ranks = {DATA: 0}
    for number, sources in enumerate(wiring):
        ranks[number] = 1 + max(ranks[source] for source in sources if source is not None)
    return ranks


def _lines(node: GraphNode) -> Iterator[str]:
    """Yields the title of a box, then its small lines."""
    yield node.title
    yield from textwrap.wrap(node.options, LETTERS, max_lines=MOST_LINES, placeholder=" ...")
    if node.shared:
        yield from textwrap.wrap(f"with the {node.shared}", LETTERS, max_lines=MOST_LINES, placeholder=" ...")
    if node.tensors:
        yield f"{node.parameters:,} parameters:"
        # A line break never splits a tensor's name from its size.
        listed = ", ".join(f"{name} {size(shape)}".replace(" ", GLUE) for name, shape in node.tensors.items())
        for line in textwrap.wrap(listed, LETTERS, max_lines=MOST_LINES, placeholder=" ..."):
            yield line.replace(GLUE, " ")


def _box(node: GraphNode | None, lines: Sequence[str], left: float, top: float, tall: float) -> str:
    """A box. node: None for the input and the outputs."""
    kind = "end" if node is None else "layer trains" if node.tensors or node.shared else "layer"
    radius = tall / 2 if node is None and len(lines) == 1 else 8
    middle = left + WIDE / 2
    words = []
    for number, line in enumerate(lines):
        shown = escape(line)
        if number == 0 and node is not None and node.name is not None:
            name = escape(cut(node.name, MOST_NAME))
            shown = f'{node.number}: {node.type} <tspan class="name">{name}</tspan>'
        y = top + PAD + LINE * (number + 0.75)
        style = ' class="title"' if number == 0 else ""
        words.append(f'<text{style} x="{middle:g}" y="{y:g}" text-anchor="middle">{shown}</text>')
    frame = f'x="{left:g}" y="{top:g}" width="{WIDE}" height="{tall:g}" rx="{radius:g}"'
    return f'<rect class="{kind}" {frame}/>{"".join(words)}'


def _arrows(
    wiring: Sequence[Sequence[int | None]],
    place: Mapping[int, tuple[float, float]],
    heights: Mapping[int, float],
    given: Mapping[int, Shape | None],
) -> Iterator[str]:
    """Yields the arrows. Each runs down the lane of its source, then over to the layer that takes it. The
    shape is written where the bend begins."""
    said = set()
    for number, sources in enumerate(wiring):
        left, top = place[number]
        for at, source in enumerate(sources):
            if source is None:
                continue
            x, begin = place[source][0] + WIDE / 2, place[source][1] + heights[source]
            bend, end = top - BETWEEN + STRAIGHT, left + WIDE * (at + 1) / (len(sources) + 1)
            tip = top - HEAD
            half = (bend + tip) / 2
            curve = f"C{x:g} {half:g} {end:g} {half:g} {end:g} {tip:g}"
            yield f'<path class="flow" d="M{x:g} {begin:g}V{bend:g}{curve}"/>'
            yield f'<path class="tip" d="M{end - 4.5:g} {tip - 1:g}h9L{end:g} {top:g}z"/>'
            if (source, top) not in said:
                said.add((source, top))
                yield f'<text class="shape" x="{x + 8:g}" y="{bend - 6:g}">{size(given[source])}</text>'
