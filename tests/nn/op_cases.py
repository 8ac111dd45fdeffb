"""Operands for every op of both tables: what `test_ops` runs them with. A new op is one row, or a few.

A case makes operands (rows, columns) in float64 for sizes that the test chooses; NaN where the op writes
without reading. `unread`: operands that have no influence on finite results. `sums`: from the operands
afterward, the sums that are promised row after row, (terms, sum) each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from distbp.nn.activations import ACTIVATIONS
from distbp.nn.ops.windows import Windows

Array = np.ndarray


class Call(NamedTuple):
    """A whole number in place of an operand: it is the same as that one."""

    operands: Sequence[Array | int]
    whole: tuple[int, ...] = ()
    real: tuple[float, ...] = ()


class Draw:
    """Random operands of a size."""

    def __init__(self, rows: int, columns: int, seed: int = 0) -> None:
        self.rows, self.columns = rows, columns
        self.rng = np.random.default_rng([seed, rows, columns])

    def normal(self, rows: int | None = None, columns: int | None = None) -> Array:
        """Away from 0, where relu and others have kinks."""
        values = self.rng.normal(scale=1.5, size=self._shape(rows, columns))
        return values + np.sign(values) * 0.05

    def between(self, low: float, high: float, rows: int | None = None, columns: int | None = None) -> Array:
        return self.rng.uniform(low, high, self._shape(rows, columns))

    def labels(self, classes: int) -> Array:
        return self.rng.integers(0, classes, (self.rows, 1))

    def ends(self, steps: int) -> Array:
        """Lengths from 0 to `steps`; the last row is whole."""
        lengths = self.rng.integers(0, steps + 1, (self.rows, 1)).astype(float)
        lengths[-1] = steps
        return lengths

    def out(self, rows: int | None = None, columns: int | None = None) -> Array:
        return np.full(self._shape(rows, columns), np.nan)

    def none(self) -> Array:
        return np.empty((0, self.columns))

    def _shape(self, rows: int | None, columns: int | None) -> tuple[int, int]:
        return self.rows if rows is None else rows, self.columns if columns is None else columns


@dataclass(frozen=True)
class Case:
    op: str
    make: Callable[[Draw], Call]
    about: str = ""
    unread: frozenset[int] = frozenset()
    symmetric: tuple[int, int] | None = None  # operands that may be swapped
    sums: Callable[[list[Array]], list[tuple[Array, Array]]] | None = None
    constants: tuple[int, ...] = ()  # of a rule: those that it reads
    drops: frozenset[int] = frozenset()  # operands whose NaN does not come out: only part of them is read

    def __str__(self) -> str:
        return f"{self.op} {self.about}".strip()


# With a derivative from y there is nothing to keep. y has the sign and the range that the function gives it.
_OUTPUTS: dict[str, Callable[[Draw], Array]] = {
    "sigmoid": lambda d: d.between(0.02, 0.98),
    "tanh": lambda d: d.between(-0.97, 0.97),
    "elu": lambda d: np.maximum(d.normal(), -0.9),
    "selu": lambda d: np.maximum(d.normal(), -1.6),
    "smooth_clip": lambda d: d.between(-2.9, 2.9),
    "softplus": lambda d: d.between(0.02, 4),
    "softmax": lambda d: (lambda e: e / e.sum(axis=1, keepdims=True))(np.exp(d.normal())),
}


def _activation(name: str) -> list[Case]:
    keeps = ACTIVATIONS[name].keeps

    def forward(bias: bool, in_place: bool) -> Callable[[Draw], Call]:
        return lambda d: Call(
            [
                d.normal(),
                d.normal(1) if bias else d.none(),
                0 if in_place else d.out(),
                d.out() if keeps else d.none(),
            ]
        )

    def backward(bias: bool) -> Callable[[Draw], Call]:
        return lambda d: Call(
            [
                d.between(-0.1, 1.1) if keeps else d.none(),
                _OUTPUTS.get(name, Draw.normal)(d),
                d.normal(),
                d.out(1) if bias else d.none(),
            ]
        )

    def in_order(after: list[Array]) -> list[tuple[Array, Array]]:
        return [(after[2], after[3])]

    unread = frozenset({1} if keeps or name in ("linear", "step") else ())
    swapped = (0, 2) if keeps else None
    drops = frozenset(
        {1} if name == "relu" else ()
    )  # relu is flat where y is not above 0; dy has the NaN, too
    return [
        Case(name, forward(True, False), "with a bias"),
        Case(name, forward(False, False), "without a bias"),
        *([] if keeps else [Case(name, forward(True, True), "in place")]),
        Case(f"{name}_backward", backward(True), "with a bias", unread, swapped, in_order, drops=drops),
        Case(f"{name}_backward", backward(False), "without a bias", unread, swapped, drops=drops),
    ]


def _product(name: str, shape: Callable[[Draw, int], tuple[tuple[int, int], ...]], *whole: int) -> list[Case]:
    def make(added: int) -> Callable[[Draw], Call]:
        def call(d: Draw) -> Call:
            a, b, out = shape(d, 6)
            return Call(
                [d.normal(*a), d.normal(*b), d.normal(*out) if added else d.out(*out)], (added, *whole)
            )

        return call

    return [Case(name, make(0)), Case(name, make(1), "added")]


PRODUCT_CASES = [
    *_product("product_nt", lambda d, k: ((d.rows, k), (d.columns, k), (d.rows, d.columns))),
    *_product("product_nn", lambda d, k: ((d.rows, k), (k, d.columns), (d.rows, d.columns))),
    *_product("product_tn", lambda d, k: ((d.rows, d.columns), (d.rows, k), (d.columns, k)), 1000),
    *_product("product_tn", lambda d, k: ((d.rows, d.columns), (d.rows, k), (d.columns, k)), 4),
    Case("transpose", lambda d: Call([d.normal(), d.out(d.columns, d.rows)])),
    Case("sum_rows", lambda d: Call([d.normal(), d.out(1)], (0,)), sums=lambda after: [(after[0], after[1])]),
    Case("sum_rows", lambda d: Call([d.normal(), d.normal(1)], (1,)), "added"),
]

STEPS = 3
ELEMENT_CASES = [
    *(
        Case(name, make, about, symmetric=(0, 1))
        for name in ("add", "multiply")
        for about, make in (
            ("", lambda d: Call([d.normal(), d.normal(), d.out()])),
            ("in place", lambda d: Call([d.normal(), d.normal(), 0])),
        )
    ),
    Case("copy", lambda d: Call([d.normal(), d.out(d.columns, d.rows)])),
    Case(
        "copy_columns",
        lambda d: Call([d.normal(columns=d.columns + 5), d.normal(columns=d.columns + 4)], (5, 2, d.columns)),
        drops=frozenset({0, 1}),
    ),
    Case(
        "steps_first",
        lambda d: Call([d.normal(columns=STEPS * d.columns), d.out(STEPS * d.rows)]),
    ),
    Case(
        "steps_first",
        lambda d: Call([d.normal(columns=STEPS * d.columns), d.out((STEPS - 1) * d.rows)]),
        "the first steps",
        drops=frozenset({0}),
    ),
    Case(
        "samples_first",
        lambda d: Call([d.normal(STEPS * d.rows), d.out(columns=STEPS * d.columns)]),
    ),
    Case(
        "samples_first",
        lambda d: Call([d.normal((STEPS - 1) * d.rows), d.out(columns=STEPS * d.columns)]),
        "the first steps",
    ),
    Case("fill", lambda d: Call([d.out()], (), (1.25,))),
    Case(
        "dropout",
        lambda d: Call(
            [np.array([[3, 1, 9, 40, 5]]), d.normal(), d.out(), d.out()], (20_000, 2, 0), (65_536 / 45_536,)
        ),
        drops=frozenset({1}),
    ),
    Case(
        "dropout",
        lambda d: Call(
            [np.array([[33, 1, 9, 40, 0]]), d.normal(), d.out(), d.out()], (20_000, 2, 1), (65_536 / 45_536,)
        ),
        "less at the end",
        drops=frozenset({1}),
    ),
]


# Two channels of 4 x 6. A row of padding on top; the last window's last number is the last one of the image.
WINDOWS = (2, 4, 6, 2, 3, 3, 2, 1, 1, 0, 1, 2, 2, 2)
IMAGE, POOLED = 2 * 4 * 6, 2 * 2 * 2
GROUPS = (6, 4, 5, 3, 2, 3, 1, 2, 1, 1, 2, 1, 4, 3)
# Many places; numbers of the image that no window holds, and windows in the padding.
STRIDES = (3, 14, 36, 3, 1, 2, 2, 2, 1, 2, 1, 1, 8, 19)


def _convolutions(whole: tuple[int, ...], about: str) -> list[Case]:
    """With d.columns filters in each group."""
    w = Windows(*whole)
    image, every = w.channels * w.height * w.width, w.channels // w.looked_at

    def shapes(d: Draw) -> tuple[tuple[int, int], ...]:
        filters = every * d.columns
        return (d.rows, image), (filters, w.terms), (1, filters), (d.rows * w.places, filters)

    def forward(d: Draw) -> Call:
        x, weight, bias, z = shapes(d)
        return Call([d.normal(*x), d.normal(*weight), d.normal(*bias), d.out(*z)], whole)

    def backward(d: Draw) -> Call:
        x, weight, _, z = shapes(d)
        return Call([d.normal(*z), d.normal(*weight), d.out(*x)], whole)

    def weights(d: Draw) -> Call:
        x, weight, bias, z = shapes(d)
        dz = d.normal(*z) / 8  # sums of many terms, which may cancel each other
        return Call([d.normal(*x), dz, d.out(*weight), d.out(*bias)], whole)

    return [
        Case("convolve", forward, about),
        Case("convolve_backward", backward, about),
        Case("convolve_weights", weights, about),
    ]


WINDOW_CASES = [
    *_convolutions(WINDOWS, ""),
    *_convolutions(GROUPS, "in groups"),
    *_convolutions(STRIDES, "with strides"),
    Case("channels_first", lambda d: Call([d.normal(d.rows * 3, d.columns), d.out(columns=3 * d.columns)])),
    Case("channels_last", lambda d: Call([d.normal(columns=3 * d.columns), d.out(d.rows * 3, d.columns)])),
    Case("max_pool", lambda d: Call([d.normal(columns=IMAGE), d.out(columns=POOLED)], WINDOWS)),
    Case(
        "max_pool_backward",
        lambda d: Call([d.normal(columns=IMAGE), d.normal(columns=POOLED), d.out(columns=IMAGE)], WINDOWS),
        drops=frozenset({0}),  # it only chooses
    ),
    Case(
        "average_pool",
        lambda d: Call([d.normal(columns=IMAGE), d.out(columns=POOLED)], WINDOWS, (1 / 9,)),
    ),
    Case(
        "average_pool_backward",
        lambda d: Call([d.normal(columns=POOLED), d.out(columns=IMAGE)], WINDOWS, (1 / 9,)),
    ),
    Case(
        "gather_rows",
        lambda d: Call([d.labels(7), d.normal(7), d.out()]),
        drops=frozenset({1}),  # a row that nobody names
    ),
    Case("scatter_add_rows", lambda d: Call([d.labels(7), d.normal(), d.out(7)])),
]


def _cells(d: Draw, last: Array) -> Array:
    """Cells of a table, whose last column is looked at."""
    return np.hstack([d.normal(columns=2), last])


def _numbers(d: Draw) -> Array:
    cells = _cells(d, d.between(-3, 3, columns=1))
    cells[::3, 2] = np.finfo(np.float32).min  # missing
    return cells


def _bins(d: Draw) -> Array:
    edges = np.sort(d.between(-2, 2, 1, d.columns + 1))
    return np.vstack([edges[:, :-1], np.diff(edges) + 0.01])


def _periodic(d: Draw) -> Call:
    """Two numbers, with 3 cosines and d.columns numbers beside each, in columns of wider matrices."""
    n, k = 2, 3
    tensors = [d.normal(n, k), d.normal(n, k), d.normal(n * d.columns, k), d.normal(n)]
    return Call(
        [d.normal(columns=n + 3), *tensors, d.normal(columns=n * d.columns + 2), d.out(columns=2 * n * k)],
        (1, 1),
    )


def _periodic_backward(d: Draw, wanted: bool) -> Call:
    n, k = 2, 3
    out = [d.out(n, k), d.out(n, k), d.out(n * d.columns, k), d.out(n)]
    read = [d.normal(n, k), d.normal(n * d.columns, k), d.between(-1, 1, columns=2 * n * k)]
    dx = d.normal(columns=n) if wanted else np.empty((0, n))
    return Call([d.normal(columns=n + 3), *read, d.normal(columns=n * d.columns + 2), *out, dx], (1, 1))


UNIT_CASES = [
    Case("times", lambda d: Call([d.normal(), d.out()], (), (0.3,))),
    Case("times", lambda d: Call([d.normal(), 0], (), (0.3,)), "in place"),
    Case("multiply_row", lambda d: Call([d.normal(), d.normal(1), d.out()])),
    Case("multiply_row", lambda d: Call([d.normal(), d.normal(1), 0]), "in place"),
    Case("sum_products", lambda d: Call([d.normal(), d.normal(), d.out(1)]), symmetric=(0, 1)),
    Case("blend", lambda d: Call([d.normal(), d.normal(), d.normal(1), d.out()])),
    Case(
        "blend_backward",
        lambda d: Call([d.normal(), d.normal(), d.normal(1), d.normal(), d.out(), d.out(1)]),
    ),
    Case("periodic", _periodic, drops=frozenset({0, 5})),
    Case("periodic_backward", lambda d: _periodic_backward(d, True), drops=frozenset({0, 4})),
    Case(
        "periodic_backward",
        lambda d: _periodic_backward(d, False),
        "of the first layer",
        unread=frozenset({1}),
        drops=frozenset({0, 4}),
    ),
]


COLUMN_CASES = [
    Case(
        "enter_number",
        lambda d: Call([_numbers(d), _bins(d), d.normal(columns=d.columns + 3)], (2, 1, 1), (0.3, 0, 1)),
        drops=frozenset({2}),
    ),
    Case(
        "enter_number",
        lambda d: Call([_numbers(d), _bins(d), d.out(columns=d.columns + 1)], (2, 0, 0), (0.3, -0.2, 0.2)),
        "without an indicator, from -0.2 to 0.2",
    ),
    Case(
        "enter_row",
        lambda d: Call([_cells(d, d.labels(7)), d.normal(7), d.normal(columns=d.columns + 2)], (2, 1)),
        drops=frozenset({0, 1, 2}),  # a number that is none; a row that nobody names
    ),
    Case(
        "enter_one_hot",
        lambda d: Call([_cells(d, d.labels(7)), d.normal(columns=d.columns + 2)], (2, 1, d.columns, 1)),
        drops=frozenset({0, 1}),
    ),
    Case(
        "enter_one_hot",
        lambda d: Call([_cells(d, d.labels(7)), d.out()], (2, 0, d.columns, 0)),
        "without a column for others",
        drops=frozenset({0}),
    ),
    Case(
        "scatter_add_cells",
        lambda d: Call([_cells(d, d.labels(7)), d.normal(columns=d.columns + 1), d.out(7)], (2, 1)),
        drops=frozenset({0}),
    ),
]


CELL_CASES = [
    Case(
        "lstm_step",
        lambda d: Call(
            [d.normal(columns=4 * d.columns), d.normal(1, 4 * d.columns), d.normal(), d.out(), d.out()]
        ),
    ),
    Case(
        "lstm_step_backward",
        lambda d: Call([_share(d, 4), d.normal(), d.normal(), d.normal(), d.normal()]),
    ),
    Case(
        "gru_step",
        lambda d: Call(
            [
                *(d.normal(columns=3 * d.columns) for _ in range(2)),
                *(d.normal(1, 3 * d.columns), d.normal(1)),
                *(d.normal(), d.out()),
            ]
        ),
    ),
    Case(
        "gru_step_backward",
        lambda d: Call([_share(d, 3), d.normal(columns=3 * d.columns), d.normal(), d.normal()]),
    ),
]


def _attention(heads: int, ahead: int, ends: bool = False) -> list[Case]:
    """Heads of as many columns as the case has."""
    about = f"of {heads} heads, {ahead} ahead{', with lengths' * ends}"

    def make(backward: bool) -> Callable[[Draw], Call]:
        def call(d: Draw) -> Call:
            rows, units = STEPS * d.rows, heads * d.columns
            qkv, shares = d.normal(rows, 3 * units), (heads * rows, STEPS)
            if not backward:
                lengths = d.ends(STEPS) if ends else d.none()
                return Call([qkv, d.out(*shares), d.out(rows, units), lengths], (heads, STEPS, ahead))
            given = [qkv, d.between(0, 1, *shares), d.normal(rows, units)]
            return Call([*given, d.out(STEPS, STEPS), d.out(rows, 3 * units)], (heads, STEPS, ahead))

        return call

    found = [Case("attention", make(False), about, drops=frozenset({0, 3} if ends else ()))]
    return found if ends else [*found, Case("attention_backward", make(True), about)]


def _mean(ends: bool) -> list[Case]:
    """The average over steps, and its way back; with lengths or without."""

    def lengths(d: Draw) -> Array:
        return d.ends(STEPS) if ends else d.none()

    dropped, about = frozenset({0, 1} if ends else ()), "with lengths" * ends
    return [
        Case(
            "mean_steps",
            lambda d: Call([d.normal(columns=STEPS * d.columns), lengths(d), d.out()]),
            about,
            drops=dropped,
        ),
        Case(
            "mean_steps_backward",
            lambda d: Call([d.normal(), lengths(d), d.out(columns=STEPS * d.columns)]),
            about,
            drops=dropped,
        ),
    ]


_SHARD = np.array([[6]])  # the last of seven


def _load_states(last: int) -> Case:
    """With `last`, a series begins in the last row, and nothing of its state comes in."""

    def make(d: Draw) -> Call:
        begins = d.labels(2).astype(float)
        begins[-1] = last
        return Call([d.normal(7 * d.rows), _SHARD, begins, d.out()], (d.rows,))

    about = "where the last row begins" if last else ""
    return Case("load_states", make, about, unread=frozenset({0 if last else 2}), drops=frozenset({2}))


LENGTH_CASES = [
    Case("last_id", lambda d: Call([d.labels(7), d.out(columns=1)], (0,))),
    Case("last_id", lambda d: Call([d.labels(7).repeat(3, 1), d.out(columns=1)], (2,)), "two before"),
    Case(
        "longest",
        lambda d: Call([np.arange(1.0, d.rows + 1)[:, None], d.labels(7)[:1]], (d.rows, 0)),
        drops=frozenset({0}),
    ),
    Case(
        "longest",
        lambda d: Call([np.arange(1.0, d.rows + 1)[:, None], d.labels(1)[:1] + 3 * d.rows], (d.rows, 1)),
        "of several",
        unread=frozenset({0}),
        drops=frozenset({0}),
    ),
    _load_states(0),
    _load_states(1),
    Case("store_states", lambda d: Call([d.normal(), _SHARD, d.out(7 * d.rows + 7)], (d.rows + 1,))),
    Case("end_rows", lambda d: Call([d.ends(STEPS), d.normal()], (1,)), drops=frozenset({0, 1})),
    Case(
        "take_last",
        lambda d: Call([d.ends(STEPS), d.normal(STEPS * d.rows), d.out()]),
        drops=frozenset({0, 1}),
    ),
    Case(
        "put_last",
        lambda d: Call([d.ends(STEPS), d.normal(), d.out(STEPS * d.rows)]),
        drops=frozenset({0, 1}),
    ),
    *_mean(True),
    *_mean(False),
]


ATTENTION_CASES = [
    *_attention(2, STEPS),
    *_attention(3, 0),
    *_attention(1, -1),  # the first step attends to none
    *_attention(2, 0, ends=True),
    Case("waves", lambda d: Call([d.out()], (), (10_000.0,))),
]


def _normalization(kind: str) -> list[Case]:
    root = (
        (lambda d: d.between(0.5, 2, 1)) if kind == "batch_norm" else (lambda d: d.between(0.5, 2, None, 1))
    )

    def backward(dx: str) -> Callable[[Draw], Call]:
        def call(d: Draw) -> Call:
            into: Array | int = {"apart": d.out(), "absent": d.none(), "in place": 0}[dx]
            return Call([d.normal(), d.normal(), root(d), d.normal(1), d.out(1), d.out(1), into])

        return call

    def in_order(after: list[Array]) -> list[tuple[Array, Array]]:
        return [(after[0] * after[1], after[4]), (after[0], after[5])]

    name = f"{kind}_backward"
    return [
        Case(name, backward("apart"), sums=in_order),
        Case(name, backward("in place"), "in place"),
        Case(name, backward("absent"), "without dx", frozenset({2, 3})),
    ]


def _batch_norm(times: int) -> Callable[[Draw], Call]:
    def make(d: Draw) -> Call:
        rows = times * d.rows
        one = [d.out(1) for _ in range(3)]
        return Call(
            [d.normal(rows), d.normal(1), d.normal(1), d.out(rows), one[0], d.out(rows), one[1], one[2]],
            (times,),
            (1e-3,),
        )

    return make


NORMALIZATION_CASES = [
    Case("batch_norm", _batch_norm(1)),
    Case("batch_norm", _batch_norm(STEPS), "of positions"),
    *_normalization("batch_norm"),
    Case(
        "batch_norm_running",
        lambda d: Call(
            [d.normal(), d.normal(1), d.normal(1), d.normal(1), d.between(0.5, 2, 1), d.out()], (), (1e-3,)
        ),
    ),
    Case(
        "layer_norm",
        lambda d: Call(
            [d.normal(), d.normal(1), d.normal(1), d.out(), d.out(columns=1), d.out()], (), (1e-3,)
        ),
    ),
    *_normalization("layer_norm"),
]


def _values(
    name: str,
    y: Callable[[Draw], Array] = Draw.normal,
    t: Callable[[Draw], Array] = Draw.normal,
    *real: float,
) -> Case:
    return Case(name, lambda d: Call([y(d), t(d), d.out(), d.out()], (), (0.25, 0.75, *real)))


def _labels(name: str, about: str = "", real: tuple[float, ...] = (), whole: tuple[int, ...] = ()) -> Case:
    def make(d: Draw) -> Call:
        classes = d.columns + 1
        y = d.between(0.05, 0.95, columns=classes) if name == "nll" else d.normal(columns=classes)
        return Call(
            [y, d.labels(classes), d.out(columns=classes), d.out(columns=1)],
            whole,
            (0.25, 0.75 if name == "hinge" else 1.0, *real),
        )

    return Case(name, make, about, drops=frozenset({0} if name == "nll" else ()))


def _counts(d: Draw) -> Array:
    return d.rng.poisson(2.0, (d.rows, d.columns)).astype(np.float64)


def _share(d: Draw, times: int = 1) -> Array:
    return d.between(0.05, 0.95, columns=times * d.columns)


HEAD_CASES = [  # of several outputs
    Case("join_loss", lambda d: Call([np.full((1, 1), 0.7), np.ones((1, 1)), d.normal()], (), (0.3,))),
    Case(
        "take_labels",
        lambda d: Call(
            [np.concatenate([d.normal(), d.labels(9)], axis=1), np.zeros((d.rows, 1), np.int64)],
            (d.columns,),
        ),
        drops=frozenset({0}),
    ),
]
LOSS_CASES = [
    Case(
        "add_losses",
        lambda d: Call(
            [d.normal(), d.between(0.5, 2, None, 1), d.normal(), np.ones((1, 1)), np.ones((1, 1))], (), (0.3,)
        ),
        "weighted",
    ),
    Case(
        "add_losses",
        lambda d: Call(
            [d.normal(), np.empty((0, 1)), d.normal(), np.ones((1, 1)), np.ones((1, 1))], (), (0.3,)
        ),
        "without weights",
    ),
    _values("squares"),
    _values("absolute"),
    _values("huber", Draw.normal, Draw.normal, 0.7),
    _values("poisson_log", Draw.normal, _counts),
    _values("poisson", lambda d: d.between(0.1, 4), _counts),
    _values("perceptron", Draw.normal, _share),
    _values("sigmoid_cross_entropy", Draw.normal, _share),
    _values("binary_cross_entropy", _share, _share),
    _labels("softmax_cross_entropy", "", (0.0,)),
    _labels("softmax_cross_entropy", "smoothed", (0.2,)),
    _labels("nll"),
    _labels("hinge", "linear", (0.7,), (1,)),
    _labels("hinge", "squared", (0.7,), (2,)),
]


def _rising(d: Draw, more: int = 0) -> Array:
    """The largest value stands in the last row."""
    return d.between(-1, 1, columns=d.columns + more) * np.linspace(1, 9, d.rows)[:, None]


def _live(kept: bool, *flat: float) -> Callable[[Draw], Call]:
    def make(d: Draw) -> Call:
        y = np.maximum(d.normal(), 0) if flat[0] == 0 else d.normal()
        return Call([y, d.between(-0.2, 0.9) if kept else d.none(), np.ones((1, d.columns))], (), flat)

    return make


_NOWHERE = (np.inf, -np.inf)
CHECK_CASES = [
    Case("live_rows", _live(False, 0.0, 0.0, *_NOWHERE), "as of relu", drops=frozenset({0})),
    Case("live_rows", _live(False, -np.inf, -0.98, 0.98, np.inf), "as of tanh", drops=frozenset({0})),
    Case("live_rows", _live(True, -1.0, 1.0, *_NOWHERE), "with a derivative", drops=frozenset({0, 1})),
    Case("bound_product", lambda d: Call([_rising(d), _rising(d, 2), np.ones((1, 1))])),
    Case("bound", lambda d: Call([_rising(d), np.ones((1, 1))])),
]


def _rule(op: str, operands: Callable[[Draw], list[Any]], *constants: float) -> Case:
    """constants: those of the op; 0 where it reads none at that place."""
    numbers = [*constants, *[0.0] * (4 - len(constants))]
    used = tuple(i for i, number in enumerate(numbers) if number)
    return Case(op, lambda d: Call([*operands(d), np.array([numbers])]), constants=used)


def _positive(d: Draw) -> Array:
    return d.between(0.5, 3)


RULE_CASES = [
    _rule("clip_value", lambda d: [d.normal(), d.out()], 0.7, 0.5),
    _rule("add_l2", lambda d: [d.normal(), d.normal(), d.out()], 0.7, 0.1),
    _rule("add_l2", lambda d: [d.normal(), d.normal(), 0], 0.7, 0.1),
    _rule("add_l1", lambda d: [d.normal(), d.normal(), d.out()], 0.7, 0.1),
    _rule("decay", lambda d: [d.normal()], 0, 0.9),
    _rule("trace", lambda d: [d.normal(), d.normal()], 0.7, 0.9),
    _rule("nesterov", lambda d: [d.normal(), d.normal(), d.out()], 0.7, 0.9),
    _rule("nesterov", lambda d: [d.normal(), d.normal(), 0], 0.7, 0.9),
    _rule("adagrad", lambda d: [d.normal(), _positive(d), d.out()], 0.7, 0.01),
    _rule("rms", lambda d: [d.normal(), _positive(d), d.out()], 0.7, 0.9, 0.1, 0.01),
    _rule("centered_rms", lambda d: [d.normal(), 9 + _positive(d), d.normal(), d.out()], 0.7, 0.9, 0.1, 0.01),
    _rule("adam", lambda d: [d.normal(), d.normal(), _positive(d), d.out()], 0.7, 0.9, 0.99, 0.01),
    _rule("adam", lambda d: [d.normal(), d.normal(), _positive(d), 0], 0.7, 0.9, 0.99, 0.01),
    _rule("descend", lambda d: [d.normal(), d.normal()], 0.01),
]

CASES = [
    *PRODUCT_CASES,
    *ELEMENT_CASES,
    *WINDOW_CASES,
    *CELL_CASES,
    *COLUMN_CASES,
    *UNIT_CASES,
    *ATTENTION_CASES,
    *LENGTH_CASES,
    *(case for name in ACTIVATIONS for case in _activation(name)),
    *NORMALIZATION_CASES,
    *LOSS_CASES,
    *HEAD_CASES,
    *CHECK_CASES,
    *RULE_CASES,
]
