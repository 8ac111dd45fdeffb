"""One step as an HTML page: a drawing of the network, then its numbers in tables. The page loads no files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from distbp.core.words import counted
from distbp.run.explain import mazur
from distbp.run.explain.explanation import Explanation
from distbp.run.explain.formulas import Formulas, kind_of
from distbp.run.explain.numbers import Columns, LayerStep, Parameter
from distbp.run.explain.outputs import OutputStep
from distbp.run.explain.page_style import SCRIPT, STYLE
from distbp.run.explain.picture import draw
from distbp.run.explain.update_words import of_tensor, rule_of
from distbp.run.explain.words import at, number, places, plain

MOST_ROWS = 24  # of a table

_SIGNS = '<i class="{}">above 0</i> or <i class="{}">below 0</i>'
_WEIGHTS, _DELTAS = _SIGNS.format("plus", "minus"), _SIGNS.format("up", "down")
_KEYS = (
    '<div class="keys"><span><b>a</b> goes forward</span><span><b class="d">δ = ∂E/∂z</b> comes back</span>'
)
_LINE_KEYS = (
    f'<span>lines: weights, {_WEIGHTS}; where they are few, their value and <b class="d">∂E/∂w</b></span>'
)
_GRID_KEYS = (
    f'<span>grids: <b>a</b> on the left, {_WEIGHTS}; <b class="d">δ</b> on the right, {_DELTAS}</span>'
)


def page(found: Explanation) -> str:
    """The page as HTML."""
    return "\n".join(_page(found)) + "\n"


def _page(found: Explanation) -> Iterator[str]:
    title = f"{found.name}: one step in numbers"
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
    yield f"<h1>{escape(title)}</h1>"
    yield f'<p class="faint">Sample {found.sample}, {found.when}, in float64, by the engine. Loss'
    yield f"<b>{escape(found.loss_words)}</b>; update <code>{escape(',  '.join(rule_of(found)))}</code>"
    yield f"{' (biases held)' if found.hold_biases else ''}.</p>"
    if found.window is not None:
        window = f"window {found.window} of the training set"
        yield f'<p class="faint">The sample is {window}, row {found.sample} of this step\'s batch.</p>'
    if found.length is not None:
        length = counted(found.length, "step")
        yield f'<p class="faint">The row has {length}; what lies past its end is left out.</p>'
    yield f'<div class="card picture">{draw(found)}</div>'
    yield _KEYS
    if any(layer.type == "dense" for layer in found.layers):
        yield _LINE_KEYS
    if any(x.ndim > 1 for layer in found.layers for x in layer.inputs):
        yield _GRID_KEYS
    yield "<span>point at anything for its formula</span></div>"
    yield from _equations()
    for layer in found.layers:
        if not kind_of(layer).passes:
            yield from _layer(found, layer)
    yield "<h2>The loss</h2>"
    for one in found.outputs:
        yield from _output(one)
    if len(found.outputs) > 1:
        yield f'<p class="formula"><code>E = {found.loss_sum} = {plain(found.error)}</code></p>'
    rows = [("before the step", [found.error]), ("after it", [found.error_after])]
    if not found.hold_biases:
        rows.append(("after it, had the biases stayed", [found.error_biases_held]))
    yield from _table(("E of this sample", ""), rows)
    if mazur.is_the_example(found):
        yield from _published(found)
    yield f'<div id="tip"></div><script>{SCRIPT}</script></body></html>'


def _equations() -> Iterator[str]:
    yield "<h2>The four equations</h2>"
    yield '<table class="words">'
    for name, formula, words in (
        ("BP1", "δ = ∂E/∂a · f′(z)", "of an output"),
        ("BP2", "∂E/∂a = Wᵀ δ of the layer after", "of every other layer; then δ as in BP1"),
        ("BP3", "∂E/∂b = δ", ""),
        ("BP4", "∂E/∂w = ∂E/∂a · ∂a/∂z · ∂z/∂w = δ · (what the weight is multiplied by)", ""),
    ):
        yield f'<tr><td><b>{name}</b></td><td>{formula}</td><td class="faint">{words}</td></tr>'
    yield "</table>"


def _table(
    heads: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]], left_out: int = 0
) -> Iterator[str]:
    yield '<div class="wide"><table><tr>' + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"
    for name, values in rows:
        cells = "".join(f"<td>{number(float(value))}</td>" for value in values)
        yield f"<tr><td>{escape(name)}</td>{cells}</tr>"
    yield "</table></div>"
    if left_out > 0:
        yield f'<p class="faint">{left_out:,} more are left out; --format json has them all.</p>'


def _layer(found: Explanation, layer: LayerStep) -> Iterator[str]:
    told, back = Formulas(found, layer), layer.d_a is not None
    named = "" if layer.name is None else f" {layer.name!r}"
    words = "The columns" if layer.number < 0 else f"Layer {layer.number}: {layer.type}"
    yield f"<h2>{words}{escape(named)}</h2>"
    yield f'<div class="card"><p><code>{escape(told.forward_rule)}</code></p>'
    for rule in told.backward_rules if back else ():
        yield f"<p><code>{escape(rule)}</code></p>"
    for columns in _merged([*told.tables, *(told.back_tables if back else ())], layer):
        values = [layer.get(name) for _, name in columns]
        chosen = list(places(values[0].shape, MOST_ROWS))
        rows = [(told.unit(p), [float(one[p]) for one in values]) for p in chosen]
        heads = [_HEADS.get(head, head) for head, _ in columns]
        yield from _table(("unit", *heads), rows, values[0].size - len(chosen))
    place = next(places(layer.get(told.tables[0][0][1]).shape, 1))
    for line in [*told.forward(place), *(told.backward(place) if back else [])]:
        yield f'<p class="formula"><code>{escape(line)}</code></p>'
    for one in layer.parameters:
        yield from _parameter(found, layer, told, one)
    yield "</div>"


# The page has characters that a terminal may lack.
_HEADS = {"f'(z)": "f′(z)", "dE/da": "∂E/∂a", "dE/dh": "∂E/∂h", "delta": "δ"}


def _merged(tables: Sequence[Columns], layer: LayerStep) -> list[Columns]:
    """Joins tables of the same shape. Each number appears once."""
    merged: dict[tuple[int, ...], dict[str, str]] = {}
    for columns in tables:
        for head, name in columns:
            merged.setdefault(layer.get(name).shape, {}).setdefault(name, head)
    return [tuple((head, name) for name, head in one.items()) for one in merged.values()]


def _parameter(found: Explanation, layer: LayerStep, told: Formulas, one: Parameter) -> Iterator[str]:
    yield f"<h3>{escape(f'{one.name} {of_tensor(found, one)}'.rstrip())}</h3>"
    yield f"<p><code>{escape(told.weights[one.name].rule)}</code></p>"
    if one.part is not None:
        yield f"<p>{escape(told.shared(one.name))}. The table has the sum.</p>"
    chosen = told.weights[one.name].places(one.before.shape, MOST_ROWS)
    columns = [("before", one.before), ("∂E/∂w", one.gradient)]
    columns += [("change", one.after - one.before), ("after", one.after)]
    rows = [(str(list(p)), [float(v[p]) for _, v in columns]) for p in chosen]
    heads: tuple[str, ...] = ("", *(name for name, _ in columns))
    if layer.type == "dense" and one.name == "weight" and layer.has("f_prime"):
        heads = ("", "∂E/∂a ·", "∂a/∂z ·", "∂z/∂w =", "∂E/∂w", "before", "change", "after")
        factors = layer.get("dE_da"), layer.get("f_prime")
        rows = [
            (
                name,
                [*(float(v[p[0]]) for v in factors), float(layer.x[p[1]]), values[1], values[0], *values[2:]],
            )
            for p, (name, values) in zip(chosen, rows, strict=True)
        ]
    yield from _table(heads, rows, one.before.size - len(chosen))
    yield f'<p class="formula"><code>{escape(told.weight(one.name, chosen[0]))}</code></p>'


def _output(one: OutputStep) -> Iterator[str]:
    if one.name is not None:
        yield f"<h3>{escape(one.name)}, of layer {one.layer}: {one.loss['type']} = {number(one.error)}</h3>"
    rows = [(at(place), values) for place, values in one.rows(MOST_ROWS)]
    heads = ("output", *(_HEADS.get(head, head) for head in one.heads))
    yield from _table(heads, rows, one.a.size - len(rows))


def _published(found: Explanation) -> Iterator[str]:
    yield "<h2>The published page</h2>"
    yield "<p>M. Mazur, <i>A Step by Step Backpropagation Example</i> (2015), which holds the biases.</p>"
    yield '<div class="wide"><table><tr><th></th><th>published</th><th>here</th><th></th></tr>'
    for one in mazur.page(found):
        mark = "the page is wrong" if one.differs else ""
        cells = "".join(f"<td>{cell}</td>" for cell in (one.published, f"{one.ours:.12f}", mark))
        yield f"<tr><td>{escape(one.name)}</td>{cells}</tr>"
    yield f"</table></div><p>{escape(mazur.WHERE)} The same mistake made here gives"
    yield f"{next(mazur.mistaken())[0]:.9f}; right is {found.error_biases_held:.9f}.</p>"
