"""One step as text in lines of at most 80 characters."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import numpy as np

from distbp.core.arrays import Array
from distbp.core.words import counted
from distbp.run.explain import mazur
from distbp.run.explain.explanation import Explanation
from distbp.run.explain.figures import table
from distbp.run.explain.formulas import Formulas, kind_of
from distbp.run.explain.numbers import Columns, LayerStep, Parameter
from distbp.run.explain.update_words import of_tensor, rule_of
from distbp.run.explain.words import Place, at, number, places, plain

MOST_UNITS, MOST_WEIGHTS = 8, 8  # of a layer, and of a tensor
WIDTH = 80


def lines(found: Explanation) -> Iterator[str]:
    """Yields the lines about the whole step. Large layers are shown by their first numbers and the count of
    the rest."""
    yield from _title(found)
    yield ""
    yield "FORWARD"
    for layer in found.layers:
        yield ""
        yield from _forward(found, layer)
    yield ""
    yield from _loss(found)
    yield ""
    yield "BACKWARD   delta = dE/dz of a unit"
    for layer in reversed(found.layers):
        if layer.d_a is not None:
            yield ""
            yield from _backward(found, layer)
    yield ""
    yield from _update(found)
    if mazur.is_the_example(found):
        yield ""
        yield from _page(found)


def _title(found: Explanation) -> Iterator[str]:
    yield f"{found.name}: one step for sample {found.sample}, {found.when}, in float64"
    rate = f"{found.optimizer['type']}, learning rate {found.learning_rate:g}"
    held = "; biases held" if found.hold_biases else ""
    yield from textwrap.wrap(f"loss {found.loss_words}; {rate}{held}", WIDTH, subsequent_indent=" " * 5)
    yield f"input   {_some(found.input)}"
    if found.window is not None:
        yield f"window  {found.window} of the training set, row {found.sample} of this step's batch"
    if found.length is not None:
        yield f"length  {counted(found.length, 'step')}; what lies past the end of the row is left out"
    for one in found.outputs:
        yield f"{one.target_words:<6}  {_some(one.target)}"


def _some(values: Array) -> str:
    flat = np.asarray(values).ravel()
    shown = ", ".join(plain(v) for v in flat[: 4 if flat.size <= 4 else 3])
    shape = f" ({' x '.join(map(str, np.shape(values)))})" if np.ndim(values) > 1 else ""
    return shown + (f", ... {flat.size - 3:,} more" if flat.size > 4 else "") + shape


def _name(found: Explanation, layer: LayerStep) -> str:
    shape = " x ".join(map(str, layer.a.shape))
    called = f", {layer.activation}" if layer.activation and layer.activation != layer.type else ""
    named = "" if layer.name is None else f" {layer.name!r}"
    sources = " and ".join(found.named(source) for source in layer.sources)
    taken = "" if layer.sources == (layer.number - 1,) else f", takes {sources}"
    what = layer.type if layer.number < 0 else f"{layer.words}: {layer.type}"
    return f"{what}{named}{called}{taken}, output {shape}"


def _left_out(shown: int, of: int, what: str) -> Iterator[str]:
    if of > shown:
        yield f"  ... {of - shown:,} more {what}; --format json has them all"


def _columns(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[float | None]]]) -> Iterator[str]:
    wide = max(12, *(len(name) for name, _ in rows))
    yield f"  {heads[0]:<{wide}}" + "".join(f"{head:>16}" for head in heads[1:])
    for name, values in rows:
        shown = "".join(f"{'' if value is None else number(value):>16}" for value in values)
        yield f"  {name:<{wide}}{shown}"


def _wrapped(text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text, WIDTH, initial_indent="  ", subsequent_indent="      ", break_long_words=False
    )


def _at(values: Array | None, place: Place) -> float | None:
    return None if values is None else float(values[place])


def _numbers(layer: LayerStep, told: Formulas, tables: Sequence[Columns]) -> Iterator[str]:
    """Yields tables of the first numbers, with the names of their places."""
    for columns in tables:
        values = [layer.get(name) for _, name in columns]
        chosen = list(places(values[0].shape, MOST_UNITS))
        rows = [(told.unit(p), [_at(one, p) for one in values]) for p in chosen]
        yield from _columns(("unit", *(head for head, _ in columns)), rows)
        yield from _left_out(len(chosen), values[0].size, "units")


def _first(layer: LayerStep, tables: Sequence[Columns]) -> Place:
    return next(places(layer.get(tables[0][0][1]).shape, 1))


def _forward(found: Explanation, layer: LayerStep) -> Iterator[str]:
    yield from textwrap.wrap(_name(found, layer), WIDTH, subsequent_indent="    ")
    told = Formulas(found, layer)
    yield from _wrapped(told.forward_rule)
    if kind_of(layer).passes:
        return
    yield from _numbers(layer, told, told.tables)
    for text in told.forward(_first(layer, told.tables)):
        yield from _wrapped(text)


def _loss(found: Explanation) -> Iterator[str]:
    parts = f" = {found.loss_sum}" if len(found.outputs) > 1 else ""
    yield from textwrap.wrap(f"LOSS   E{parts} = {number(found.error)}   ({found.loss_words})", WIDTH)
    for one in found.outputs:
        if one.name is not None:
            yield ""
            yield f"output {one.name} of layer {one.layer}: {one.loss['type']} = {number(one.error)}"
        rows = [(at(place), values) for place, values in one.rows(MOST_UNITS)]
        yield from _columns(("output", *one.heads), rows)
        yield from _left_out(len(rows), one.a.size, "outputs")


def _backward(found: Explanation, layer: LayerStep) -> Iterator[str]:
    yield from textwrap.wrap(_name(found, layer), WIDTH, subsequent_indent="    ")
    told = Formulas(found, layer)
    if kind_of(layer).passes:
        yield f"  {told.forward_rule}"
        return
    for what in told.backward_rules:
        yield from _wrapped(what)
    yield from _numbers(layer, told, told.back_tables)
    for text in told.backward(_first(layer, told.back_tables)):
        yield from _wrapped(text)
    for one in sorted(layer.parameters, key=lambda one: told.weights[one.name].equation):
        rule = told.weights[one.name]
        yield from _wrapped(told.shared(one.name))
        if rule.equation == "BP3":
            yield f"  BP3  {rule.rule}"
        else:
            yield from _chain(layer, told, one)


def _chain(layer: LayerStep, told: Formulas, one: Parameter) -> Iterator[str]:
    """Yields the derivatives of weights by the chain rule, with their factors."""
    weight = told.weights[one.name]
    chosen = weight.places(one.given.shape, MOST_WEIGHTS)
    yield from _wrapped(f"BP4  {weight.rule}")
    if layer.type == "dense" and layer.has("f_prime"):
        rows = []
        for j, k in chosen:
            factors = [_at(layer.d_a, (j,)), _at(layer.get("f_prime"), (j,)), float(layer.x[k])]
            rows.append((f"w[{j}, {k}]", [*factors, float(one.given[j, k])]))
        yield from _columns(("weight", "dE/da  *", "da/dz  *", "dz/dw  =", "dE/dw"), rows)
    else:
        rows = [(f"{weight.letter}{list(p)}", [float(one.given[p])]) for p in chosen]
        yield from _columns(("weight", "dE/dw"), rows)
        yield from _wrapped(told.weight(one.name, chosen[0]))
    yield from _left_out(len(chosen), one.given.size, "weights")


def _update(found: Explanation) -> Iterator[str]:
    first, *others = rule_of(found)
    words = [f"UPDATE   {found.optimizer['type']}: {first}", *(" " * 9 + line for line in others)]
    for line in words:
        yield from textwrap.wrap(line, WIDTH, subsequent_indent=" " * 13)
    for layer in found.layers:
        told = Formulas(found, layer)
        for one in layer.parameters:
            if one.owner not in (None, layer.number):
                continue  # shown with its owner
            chosen = told.weights[one.name].places(one.before.shape, MOST_WEIGHTS)
            yield ""
            yield f"{layer.words}, {one.name}  {of_tensor(found, one)}".rstrip()
            rows = [
                (
                    str(list(p)),
                    [float(v[p]) for v in (one.before, one.gradient, one.after - one.before, one.after)],
                )
                for p in chosen
            ]
            yield from _columns(("", "before", "dE/dw", "change", "after"), rows)
            yield from _left_out(len(chosen), one.before.size, "numbers")
    yield ""
    yield f"E of this sample before the step      {number(found.error):>16}"
    yield f"E after it                            {number(found.error_after):>16}"
    if not found.hold_biases:
        yield f"E after it, had the biases stayed     {number(found.error_biases_held):>16}"


def _page(found: Explanation) -> Iterator[str]:
    yield "THE PUBLISHED PAGE   M. Mazur, A Step by Step Backpropagation Example (2015)"
    figures = mazur.page(found)
    yield from table(figures)
    yield from textwrap.wrap(
        f"The page holds the biases, and prints E = {figures[-1].published} after the step. {mazur.WHERE}"
        f" The same mistake made here gives {next(mazur.mistaken())[0]:.9f}; right is"
        f" {found.error_biases_held:.9f}.",
        WIDTH,
    )
