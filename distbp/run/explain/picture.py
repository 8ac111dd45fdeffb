"""The network of one step as SVG: units and weights, the values going forward, and the deltas coming back.

Each element has a `title` with its formula and numbers, which browsers show at the pointer. Large layers are
drawn in part, and a line says how much is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape

import numpy as np

from distbp.core.arrays import Array
from distbp.run.explain.explanation import Explanation
from distbp.run.explain.formulas import Formulas, kind_of
from distbp.run.explain.numbers import LayerStep
from distbp.run.explain.outputs import OutputStep
from distbp.run.explain.words import MISSING, Place, at, plain

MOST_UNITS, MOST_CHANNELS = 10, 4  # of a layer; of an image
MOST_SIDE, MOST_CELLS = 28, 1200  # of a grid; of all grids of a layer
MOST_LABELS = 6  # the most weights of a layer that are written beside their lines
RADIUS, TOP, ARC = 32, 92, 100  # of a circle; of the first unit; the largest depth of an arc
FITS = 7  # characters that fit in a circle
TARGETS = 130  # width for the targets of an output that other columns follow
PITCH, WIDE_PITCH, FEW = 84, 150, 4  # between units; between few units, with room for labels


def few(value: float) -> str:
    """A number with three or four significant digits."""
    if value in (0, MISSING):
        return plain(value)
    return f"{value:.4f}" if 1e-2 <= abs(value) < 10 else f"{value:.3g}"


@dataclass
class _Column:
    """The drawing of a layer. `spots`: the position of each drawn output, by its flat index, for lines.
    `returns`: whether derivatives come back to the layer."""

    title: str
    note: str
    width: float = 0
    height: float = 0
    marks: list[str] = field(default_factory=list)
    spots: dict[int, tuple[float, float]] = field(default_factory=dict)
    left_out: str = ""
    units: bool = False
    returns: bool = False


def _tip(lines: list[str]) -> str:
    return f"<title>{escape(chr(10).join(lines))}</title>"


def _text(x: float, y: float, words: str, kind: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _inside(x: float, y: float, value: float, kind: str) -> str:
    """A number in a circle, in smaller type if it is long."""
    words = few(value)
    small = f' style="font-size:{13 * FITS / len(words):.1f}px"' if len(words) > FITS else ""
    return f'<text class="{kind}"{small} x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{words}</text>'


def _tips(found: Explanation, layer: LayerStep | None, place: Place) -> list[str]:
    """The formulas of one unit as lines. layer: None for the input."""
    if layer is None:
        return [f"x{at(place)} = {plain(found.input[place])}"]
    told, values = Formulas(found, layer), Formulas(found, layer).drawn[0]
    if values.shape != layer.get(told.tables[0][0][1]).shape:
        return [f"a{at(place)} = {plain(values[place])}"]
    return told.forward(place) + (told.backward(place) if layer.d_a is not None else [])


def _units(
    values: Array, deltas: Array | None, tips: list[list[str]], column: _Column, biases: Array | None = None
) -> None:
    """Draws units as circles, one below the other."""
    shown = min(len(values), MOST_UNITS)
    pitch = WIDE_PITCH if shown <= FEW else PITCH
    for number in range(shown):
        x, y = float(RADIUS), TOP + RADIUS + number * pitch
        column.spots[number] = (x, y)
        delta = None if deltas is None else float(deltas[number])
        row = [f'<circle cx="{x}" cy="{y}" r="{RADIUS}"/>']
        row.append(_inside(x, y + (5 if delta is None else -3), float(values[number]), "a"))
        if delta is not None:
            row.append(_inside(x, y + 16, delta, "d"))
        if biases is not None and shown <= FEW:
            row.append(_text(x, y + RADIUS + 16, f"b = {few(float(biases[number]))}", "note"))
        column.marks.append(f'<g class="unit" tabindex="0">{_tip(tips[number])}{"".join(row)}</g>')
    column.units, column.width = True, 2.0 * RADIUS
    column.height = (shown - 1) * pitch + 2.0 * RADIUS
    if len(values) > shown:
        column.left_out = f"{len(values) - shown:,} more units"


def _shade(value: float, most: float) -> str:
    """The class and opacity of a cell, by its size relative to the largest of its grid."""
    share = 0.0 if most == 0 else min(1.0, abs(value) / most)
    kind = "plus" if value >= 0 else "minus"
    return f'class="cell {kind}" fill-opacity="{0.04 + 0.96 * math.sqrt(share):.2f}"'


def _grids(
    found: Explanation, layer: LayerStep | None, values: Array, deltas: Array | None, column: _Column
) -> None:
    """Draws images with a grid for each channel, or steps as the rows of one grid. Values are on the left,
    deltas on the right."""
    channels, height, width = (1, *values.shape)[-3:]
    shown = min(channels, MOST_CHANNELS)
    most_side = min(MOST_SIDE, int(math.sqrt(MOST_CELLS / shown)))
    tall, wide = min(height, most_side), min(width, most_side)
    top, first = (height - tall) // 2, (width - wide) // 2  # the middle part
    cell = max(6.0, min(22.0, 168 / max(tall, wide)))
    kinds = [("values", values)] + ([] if deltas is None else [("deltas", deltas)])
    for channel in range(shown):
        y = TOP + channel * (tall * cell + 14)
        for side, (kind, numbers) in enumerate(kinds):
            most, left, cells = float(np.abs(numbers).max()), side * (wide * cell + 14), []
            for i, j in np.ndindex(tall, wide):
                place = (channel, top + i, first + j) if values.ndim == 3 else (top + i, first + j)
                where = f'x="{left + j * cell:.1f}" y="{y + i * cell:.1f}" width="{cell}" height="{cell}"'
                square = f"<rect {where} {_shade(float(numbers[place]), most)}/>"
                cells.append(f'<g tabindex="-1">{_tip(_tips(found, layer, place))}{square}</g>')
            frame = f'x="{left:.1f}" y="{y:.1f}" width="{wide * cell:.1f}" height="{tall * cell:.1f}"'
            column.marks.append(f'<g class="{kind}">{"".join(cells)}<rect class="frame" {frame}/></g>')
    column.width = wide * cell * len(kinds) + 14 * (len(kinds) - 1)
    column.height = shown * (tall * cell + 14) - 14
    cut = [f"{channels - shown:,} more channels"] if channels > shown else []
    cut += [f"of {height} x {width} the middle {tall} x {wide}"] if (tall, wide) != (height, width) else []
    column.left_out = "; ".join(cut)


def _column(found: Explanation, layer: LayerStep | None) -> _Column:
    if layer is None:
        values, deltas, column = found.input, None, _Column("input", "x")
    else:
        activation = layer.activation if layer.activation not in (None, layer.type) else ""
        column = _Column(
            f"{layer.words}: {layer.type}".removeprefix("columns: ").removeprefix("layer "), activation or ""
        )
        values, deltas = Formulas(found, layer).drawn
        column.returns = layer.d_a is not None
        notes = [column.note] if column.note else []
        notes += ["a row for each step"] if values.ndim == 2 and layer.has("states") else []
        if layer.sources != (layer.number - 1,):
            taken = [found.named(one).removeprefix("layer ") for one in layer.sources]
            notes.append(f"takes {', '.join(taken)}")
        column.note = ", ".join(notes)
    if values.ndim == 1:
        tips = [_tips(found, layer, (n,)) for n in range(min(len(values), MOST_UNITS))]
        biases = next((p.before for p in layer.parameters if p.name == "bias"), None) if layer else None
        if biases is not None and biases.shape != values.shape:  # those of gates or of one direction
            biases = None
        _units(values, deltas, tips, column, biases)
    else:
        _grids(found, layer, values, deltas, column)
    return column


def _last_states(found: Explanation, layer: LayerStep) -> _Column:
    """The column with a recurrent layer's output: its state after the last step."""
    states, back = layer.get("states"), Formulas(found, layer).drawn[1]
    column, last = _Column("its output", "h after the last step", returns=True), len(states) - 1
    tips = [_tips(found, layer, (last, n)) for n in range(min(states.shape[1], MOST_UNITS))]
    _units(states[-1], None if back is None else back[-1], tips, column)
    return column


def _columns(found: Explanation) -> tuple[list[tuple[LayerStep | None, _Column]], dict[int, int]]:
    """Returns the columns from left to right, each with the layer whose weights are drawn before it, and for
    each layer (-1: the input) the number of the column with its output."""
    columns: list[tuple[LayerStep | None, _Column]] = [(None, _column(found, None))]
    shown = {found.layers[0].number - 1: 0}
    for layer in found.layers:
        if kind_of(layer).passes and (layer.a.ndim > 1 or layer.x.ndim == 1):
            shown[layer.number] = shown[layer.sources[0]]
            continue
        columns.append((layer, _column(found, layer)))
        if layer.a.ndim == 1 and Formulas(found, layer).drawn[0].ndim == 2:
            columns.append((None, _last_states(found, layer)))
        shown[layer.number] = len(columns) - 1
    return columns, shown


def _arc(begin: tuple[float, float], end: tuple[float, float], low: float, back: bool) -> str:
    """An arrow from the foot of one column to that of another, below the columns between them."""
    (x1, y1), (x2, y2) = begin, end
    depth = low + min(ARC, 40 + (x2 - x1) / 12)

    def way(kind: str, a: float, top: float, b: float, bottom: float, deep: float) -> str:
        bend = f"C{a:.1f} {deep:.1f} {b:.1f} {deep:.1f} {b:.1f} {low:.1f}"
        return f'<path class="flow {kind}" d="M{a:.1f} {top:.1f}V{low:.1f}{bend}V{bottom:.1f}"/>'

    forth = way("forward", x1, y1, x2, y2, depth)
    return forth + (way("backward", x2 - 14, y2, x1 + 14, y1, depth - 16) if back else "")


def _lines(found: Explanation, layer: LayerStep, column: _Column, below: _Column) -> str:
    """The weights of a dense layer as lines. Thick lines are large, blue ones above 0, red ones below."""
    one = next(one for one in layer.parameters if one.name == "weight")
    told, most = Formulas(found, layer), float(np.abs(one.before).max()) or 1.0
    pairs = [(j, k) for j in column.spots for k in below.spots]
    drawn = []
    for j, k in pairs:
        (x1, y1), (x2, y2) = below.spots[k], column.spots[j]
        slope = math.atan2(y2 - y1, x2 - x1)
        across, down = RADIUS * math.cos(slope), RADIUS * math.sin(slope)
        x1, y1, x2, y2 = x1 + across, y1 + down, x2 - across, y2 - down
        w, g, after = (float(v[j, k]) for v in (one.before, one.given, one.after))
        tip = [f"w[{j}, {k}] = {plain(w)}", told.weight("weight", (j, k)), f"after the step: {plain(after)}"]
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        kind, thick = "plus" if w >= 0 else "minus", 0.6 + 3.4 * abs(w) / most
        marks = [
            f'<line class="near" {ends}/>',
            f'<line class="weight {kind}" {ends} stroke-width="{thick:.1f}"/>',
        ]
        if len(pairs) <= MOST_LABELS:
            share = 0.3
            x, y = x1 + share * (x2 - x1), y1 + share * (y2 - y1) + 4
            words = f'<tspan>{few(w)}</tspan><tspan class="g" dx="8">{few(g)}</tspan>'
            marks.append(f'<text class="w" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{words}</text>')
        drawn.append(f'<g class="edge" tabindex="0">{_tip(tip)}{"".join(marks)}</g>')
    return "".join(drawn)


def draw(found: Explanation) -> str:
    """The picture as an `svg` element."""
    columns, shown = _columns(found)
    feet: list[tuple[float, float]] = []  # of the columns
    around: list[str] = []
    height = max(column.height for _, column in columns)
    marks: list[str] = []
    right = 0.0  # where the last column ends
    # The columns to which derivatives come back: not the data, nor outputs that no parameter changes.
    returning = {at for at, (_, column) in enumerate(columns) if column.returns}
    for index, (layer, column) in enumerate(columns):
        taken = {index - 1} if layer is None else {shown[source] for source in layer.sources}
        weights = layer is not None and layer.type == "dense" and index - 1 in taken
        weights = weights and columns[index - 1][1].units
        few_pairs = weights and len(column.spots) * len(columns[index - 1][1].spots) <= MOST_LABELS
        room = max(column.width, 120.0)
        begin = 24.0 if index == 0 else right + (170 if few_pairs else 120 if weights else 66)
        left, shift = begin + (room - column.width) / 2, (height - column.height) / 2
        column.spots = {n: (a + left, b + shift) for n, (a, b) in column.spots.items()}
        if weights and layer is not None:
            marks.append(_lines(found, layer, column, columns[index - 1][1]))
        elif index and index - 1 in taken:
            middle, start, end = TOP + height / 2, right + 8, left - 8
            marks.append(f'<path class="flow forward" d="M{start:.1f} {middle - 8:.1f}H{end:.1f}"/>')
            if index - 1 in returning:
                marks.append(f'<path class="flow backward" d="M{end:.1f} {middle + 8:.1f}H{start:.1f}"/>')
        center = left + column.width / 2
        feet.append((center, TOP + shift + column.height + 46))
        if layer is not None:
            low = TOP + height + 52
            others = sorted(taken - {index - 1})
            around += [_arc(feet[one], feet[index], low, one in returning) for one in others]
        marks.append(_text(center, 34, column.title, "head") + _text(center, 54, column.note, "note"))
        marks.append(_text(center, TOP + shift + column.height + 38, column.left_out, "note"))
        moved = "".join(column.marks)
        marks.append(f'<g transform="translate({left:.1f} {shift:.1f})">{moved}</g>')
        right = left + column.width
        own = [one for one in found.outputs if shown[one.layer] == index]
        marks += [_targets(one, column, right + 24) for one in own]
        right += TARGETS if own and index + 1 < len(columns) else 0
    marks.append(_text(right + 24, 34, f"E = {few(found.error)}", "head", "start"))
    marks.append(_text(right + 24, 54, f"after the step {few(found.error_after)}", "note", "start"))
    width, tall = right + 190, TOP + height + 58 + (0.75 * ARC if around else 0)
    arrows = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        f' orient="auto"><path class="{name}" d="M0 0L8 4L0 8z"/></marker>'
        for name in ("forth", "back")
    )
    size = f'viewBox="0 0 {width:.0f} {tall:.0f}" style="width:{width:.0f}px;min-width:{0.6 * width:.0f}px"'
    inside = "".join([f"<defs>{arrows}</defs>", *marks, *around])
    return f'<svg {size} role="img" aria-label="The network">{inside}</svg>'


def _targets(one: OutputStep, column: _Column, x: float) -> str:
    """The targets beside an output, and the derivatives of the loss."""
    marks = [] if one.name is None else [_text(x, 72, f"output {one.name}", "note", "start")]
    for number, (_, y) in column.spots.items():
        marks.append(_text(x, y - 8, f"target {plain(one.wanted((number,)))}", "note", "start"))
        marks.append(_text(x, y + 18, f"∂E/∂a {few(float(one.d_a[number]))}", "d", "start"))
    return "".join(marks)
