"""Every op: its compiled loop against its definition, its derivative against differences, and that errors
in it would be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import operands as products
import pytest
from op_cases import CASES, LOSS_CASES, STEPS, Call, Case, Draw
from tapes import run_op

from distbp.nn.activations import ACTIVATIONS
from distbp.nn.gradcheck import check
from distbp.nn.ops import OPS
from distbp.nn.ops.base import Op
from distbp.optim.ops import RULE_OPS

Array = np.ndarray
ALL = {**OPS, **RULE_OPS}
SIZES = [(1, 1), (1, 7), (2, 3), (5, 1), (17, 33)]
LARGE = (17, 33)
# Of the float32 results, in units of the last place of the largest of them or of 1; the library may add up
# a product in another order, and exp and others are exact to some units.
ULPS, ULPS_TO_FLOAT64 = 24, 48

Outcome = list[Array]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(params=["definition", "loop"])
def compiled(request: pytest.FixtureRequest) -> bool:
    if request.param == "loop":
        pytest.importorskip("numba", reason="Numba is not installed: nothing is compiled")
    return bool(request.param == "loop")


def operands(case: Case, call: Call, dtype: Any) -> list[Any]:
    """Rounded to float32, in the dtype of each: so that results in both may be compared."""
    dtypes = {"f": dtype, "i": np.int64, "d": np.float64}
    rounded = []
    for one, letter in zip(call.operands, ALL[case.op].operands.lower(), strict=True):
        if not isinstance(one, int):
            one = (one.astype(np.float32) if letter == "f" else one).astype(dtypes[letter])
        rounded.append(one)
    return rounded


def outcome(case: Case, size: tuple[int, int], dtype: Any, compiled: bool, change: Any = None) -> Outcome:
    """change: of (operands), before the run."""
    call = case.make(Draw(*size))
    given = operands(case, call, dtype)
    if change is not None:
        change(given)
    return run_op(ALL[case.op], given, call.whole, call.real, compiled)


def written(op: Op, call: Call) -> list[int]:
    return [i for i, c in enumerate(op.operands) if c.isupper() and getattr(call.operands[i], "size", 0)]


def agree(case: Case, found: Outcome, expected: Outcome, ulps: float) -> None:
    """Raises AssertionError where an operand that is written differs by more than so many units of
    float32."""
    for number, letter in enumerate(ALL[case.op].operands):
        if letter.isupper() and expected[number].size:
            right = expected[number].astype(np.float64)
            bound = ulps * 2.0**-23 * max(1.0, float(np.nan_to_num(np.abs(right)).max()))
            np.testing.assert_allclose(found[number].astype(np.float64), right, rtol=0, atol=bound)


def row_after_row(terms: Array) -> Array:
    total = np.zeros((1, terms.shape[1]), terms.dtype)
    for row in terms:
        total += row
    return total


def in_order(sums: list[tuple[Array, Array]], terms: Callable[[Array], Array] = lambda terms: terms) -> None:
    """Raises AssertionError where a sum has other bits than its terms added up one row after the other."""
    for added, total in sums:
        np.testing.assert_array_equal(total, row_after_row(terms(added)))


def test_every_op_has_a_row() -> None:
    assert {case.op for case in CASES} == ALL.keys()
    assert not OPS.keys() & RULE_OPS.keys()


@every_case
class TestLoop:
    """The compiled loop against the definition."""

    def test_it_does_what_the_definition_says(self, case: Case) -> None:
        pytest.importorskip("numba", reason="Numba is not installed: nothing is compiled")
        for size in SIZES:
            found = outcome(case, size, np.float32, True)
            agree(case, found, outcome(case, size, np.float32, False), ULPS)
            agree(case, found, outcome(case, size, np.float64, False), ULPS_TO_FLOAT64)

    def test_nan_comes_out_at_the_same_places(self, case: Case) -> None:
        pytest.importorskip("numba", reason="Numba is not installed: nothing is compiled")
        for size, number in [(s, n) for s in SIZES for n in read(case, s)]:

            def spoil(given: list[Any], number: int = number) -> None:
                given[number][-1, -1] = np.nan

            found, expected = (outcome(case, size, np.float32, c, spoil) for c in (True, False))
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(np.isnan(one), np.isnan(other), f"operand {number}")


def read(case: Case, size: tuple[int, int] = LARGE) -> list[int]:
    """The operands of floats that are read, but for a rule's constants."""
    call, letters = case.make(Draw(*size)), ALL[case.op].operands
    return [
        i
        for i, one in enumerate(call.operands)
        if letters[i] in "fF" and not isinstance(one, int) and one.size and not np.isnan(one).any()
    ]


@every_case
class TestBothForms:
    def test_everything_is_written_that_is_said_to_be(self, case: Case, compiled: bool) -> None:
        # What is not read is NaN before; `run_op` looks at everything else.
        for size in SIZES:
            assert not any(np.isnan(one).any() for one in outcome(case, size, np.float32, compiled)), size

    def test_nan_is_never_masked(self, case: Case, compiled: bool) -> None:
        letters = ALL[case.op].operands
        for number in read(case):
            if number in case.drops | case.unread:
                continue

            def spoil(given: list[Any], number: int = number) -> None:
                given[number][-1, -1] = np.nan

            found = outcome(case, LARGE, np.float32, compiled, spoil)
            wrote = [one for one, letter in zip(found, letters, strict=True) if letter.isupper()]
            assert any(np.isnan(one).any() for one in wrote), f"operand {number}"

    def test_the_same_call_gives_the_same_bits(self, case: Case, compiled: bool) -> None:
        once, again = (outcome(case, LARGE, np.float32, compiled) for _ in range(2))
        assert [one.tobytes() for one in once] == [one.tobytes() for one in again]


@pytest.mark.parametrize("case", [case for case in CASES if case.sums], ids=str)
@pytest.mark.parametrize("size", [s for s in SIZES if s[1] > 1], ids=str)
def test_sums_are_added_up_row_after_row(case: Case, size: tuple[int, int], compiled: bool) -> None:
    assert case.sums is not None
    assert "row after row" in ALL[case.op].order
    in_order(case.sums(outcome(case, size, np.float32, compiled)))


def eight_sums(values: Array) -> Any:
    """As `loops_normalization.lane_sum`: eight sums added in order, then the values that are left."""
    most = len(values) - len(values) % 8
    total = row_after_row(row_after_row(values[:most].reshape(-1, 8)).reshape(8, 1))[0, 0]
    for value in values[most:]:
        total += value
    return total


def roots(given: list[Any], after: Outcome) -> list[tuple[Array, Array]]:
    x, features = given[0], np.float32(given[0].shape[1])
    e = x - np.array([[eight_sums(row) / features] for row in x])
    squares = np.array([[eight_sums(row) / features] for row in e * e])
    return [(after[4], np.sqrt(squares + np.float32(1e-3)))]


def weighted_loss(given: list[Any], after: Outcome) -> list[tuple[Array, Array]]:
    losses, weights, total = given[0].astype(np.float64), given[1].astype(np.float64), 0.0
    most = losses.shape[1] // 4 * 4
    for row, weight in zip(losses, weights[:, 0], strict=True):
        a, b, c, d = row_after_row(row[:most].reshape(-1, 4))[0]
        for value in row[most:]:
            a += value
        total += ((a + b) + (c + d)) * weight
    return [(after[3], np.array([[1.0 + 0.3 * total]]))]


def hinge(given: list[Any], after: Outcome) -> list[tuple[Array, Array]]:
    z, label = given[0], given[1][:, 0]
    rows = np.arange(len(z))
    over = np.maximum(z + (np.float32(0.7) - z[rows, label])[:, None], 0)
    over[rows, label] = 0
    return [(after[3], row_after_row(over.T).T)]


def by_number(numbers: Array, d: Array, out: Array) -> list[tuple[Array, Array]]:
    return [(out, np.concatenate([row_after_row(d[numbers == i]) for i in range(len(out))]))]


# What compiled code adds up in another order than rows of a matrix, or writes over: (operands before, after)
# -> the results, and what they are in the order that the op promises.
ORDERS: dict[str, Callable[[list[Any], Outcome], list[tuple[Array, Array]]]] = {
    "sum_products": lambda given, after: [(after[2], row_after_row(given[0] * given[1]))],
    "blend_backward": lambda given, after: [(after[5], row_after_row(given[3] * (given[1] - given[0])))],
    "batch_norm": lambda given, after: [
        (after[6], row_after_row(given[0]) / np.float32(len(given[0])) * np.float32(len(given[0])))
    ],
    "layer_norm": roots,
    "add_losses": weighted_loss,
    "hinge": hinge,
    "scatter_add_rows": lambda given, after: by_number(given[0][:, 0], given[1], after[2]),
    "scatter_add_cells": lambda given, after: by_number(given[0][:, 2], given[1][:, 1:], after[2]),
    "mean_steps": lambda given, after: [
        (after[2], row_after_row(given[0].reshape(-1, STEPS, LARGE[1]).swapaxes(0, 1).reshape(STEPS, -1))
         .reshape(after[2].shape) * np.float32(1 / STEPS))
    ],
}  # fmt: skip
# Their order is the library's, or that of fused multiply-adds, or comes after an exponential; live rows are
# exact in any order. Comparisons with definitions hold these to a few units of the last place.
BY_COMPARISON = {
    *("product_nt", "product_nn", "product_tn", "attention", "attention_backward", "live_rows"),
    *("convolve", "convolve_backward", "convolve_weights", "max_pool_backward"),
    *(
        "average_pool",
        "average_pool_backward",
        "softmax_cross_entropy",
        "nll",
        "periodic",
        "periodic_backward",
    ),
}


def test_every_order_is_checked() -> None:
    promised = {name for name, op in ALL.items() if op.order}
    assert promised == {*ORDERS, *BY_COMPARISON, *(case.op for case in CASES if case.sums)}


@pytest.mark.parametrize("name", ORDERS)
def test_sums_are_added_up_in_the_order_that_is_promised(name: str) -> None:
    pytest.importorskip("numba", reason="Numba is not installed: nothing is compiled")
    others = {"mean_steps": ""}  # without lengths
    case = next(c for c in CASES if c.op == name and c.about == others.get(name, c.about))
    call = case.make(Draw(*LARGE))
    given = operands(case, call, np.float32)
    before = [one.copy() for one in given]
    for found, right in ORDERS[name](before, run_op(ALL[name], given, call.whole, call.real, True)):
        np.testing.assert_array_equal(found, right)


class TestMutants:
    """The comparisons above see errors: each of these would fail them."""

    @every_case
    def test_a_wrong_result_is_seen(self, case: Case) -> None:
        right = outcome(case, LARGE, np.float32, False)
        agree(case, right, right, ULPS_TO_FLOAT64)
        for number in written(ALL[case.op], case.make(Draw(*LARGE))):
            for change in (flipped, one_element_off, last_row_missing):
                wrong = [one.copy() for one in right]
                kind = right[number].dtype.kind  # whole numbers hold no small fault
                wrong[number] = change(wrong[number] if kind == "f" else wrong[number].astype(np.float64))
                with pytest.raises(AssertionError):
                    agree(case, wrong, right, ULPS_TO_FLOAT64)

    @every_case
    def test_results_in_each_others_place_are_seen(self, case: Case) -> None:
        right = outcome(case, LARGE, np.float32, False)
        places = written(ALL[case.op], case.make(Draw(*LARGE)))
        for i, j in [(i, j) for i in places for j in places if i < j and right[i].shape == right[j].shape]:
            if case.op == "add_losses" or np.array_equal(right[i], right[j]):
                continue
            wrong = list(right)
            wrong[i], wrong[j] = right[j], right[i]
            with pytest.raises(AssertionError):
                agree(case, wrong, right, ULPS_TO_FLOAT64)

    @every_case
    def test_a_term_that_is_missing_is_seen(self, case: Case) -> None:
        if case.op == "step_backward":  # it gives zeros, whatever it is given
            return
        right = outcome(case, LARGE, np.float32, False)
        letters = ALL[case.op].operands
        numbers = [(n, None) for n in read(case) if n not in case.unread]
        numbers += [(n, None) for n, letter in enumerate(letters) if letter == "i"]
        numbers += [(len(letters) - 1, constant) for constant in case.constants]
        for number, constant in numbers:

            def leave_out(given: list[Any], number: int = number, constant: int | None = constant) -> None:
                if constant is not None:
                    given[number][0, constant] *= 1.01
                elif given[number].dtype == np.int64:
                    given[number][-1, 0] = (given[number][-1, 0] + 1) % 7
                else:
                    given[number][-1] = 0

            with pytest.raises(AssertionError):
                agree(case, outcome(case, LARGE, np.float32, False, leave_out), right, ULPS_TO_FLOAT64)

    @every_case
    def test_a_wrong_operand_is_seen(self, case: Case) -> None:
        right = outcome(case, LARGE, np.float32, False)
        call = case.make(Draw(*LARGE))
        places = [n for n in read(case) if n not in case.unread]
        for i, j in [(i, j) for i in places for j in places if i < j]:
            if call.operands[i].shape != call.operands[j].shape or (i, j) == case.symmetric:
                continue

            def swap(given: list[Any], i: int = i, j: int = j) -> None:
                given[i], given[j] = given[j], given[i]

            with pytest.raises(AssertionError):
                agree(case, outcome(case, LARGE, np.float32, False, swap), right, ULPS_TO_FLOAT64)

    @pytest.mark.parametrize("case", [case for case in CASES if case.sums], ids=str)
    def test_another_order_of_sums_is_seen(self, case: Case, compiled: bool) -> None:
        assert case.sums is not None
        if case.op == "step_backward":  # a sum of zeros
            return
        with pytest.raises(AssertionError):
            in_order(case.sums(outcome(case, LARGE, np.float32, compiled)), lambda terms: terms[::-1])

    def test_writing_beside_an_operand_is_seen(self) -> None:
        def beside(a: Array, out: Array, whole: Any, real: Any) -> None:
            out[:] = 1
            a[0, 0] += 1

        op = Op("beside", "fF", beside, "")
        with pytest.raises(AssertionError, match="beside wrote to what it does not write"):
            run_op(op, [np.ones((2, 2)), np.ones((2, 2))])


def flipped(values: Array) -> Array:
    return -values if values.any() else values + 1


def one_element_off(values: Array) -> Array:
    place = np.unravel_index(int(np.abs(values).argmax()), values.shape)
    values[place] += 1 if values.dtype == np.int64 else 1e-4 * max(1.0, float(np.abs(values[place])))
    return values


def last_row_missing(values: Array) -> Array:
    values[-1] = -12345 if values.dtype == np.int64 else np.nan
    return values


# Derivatives, in float64.


def evaluate(name: str, given: list[Any], call: Call, weights: dict[int, Array]) -> float:
    """The sum of some results of an op, each element times a weight."""
    found = run_op(OPS[name], given, call.whole, call.real)
    return float(sum((found[number] * weight).sum() for number, weight in weights.items()))


def meets_differences(f: Callable[[], float], x: Array, gradient: Array) -> None:
    report = check(lambda _: f(), x, np.ascontiguousarray(gradient))
    assert report.worst.error < 1e-7, str(report)


BACKWARD = [name for name in OPS if name.endswith("_backward")]


def test_every_backward_op_has_a_forward_op() -> None:
    assert {name.removesuffix("_backward") for name in BACKWARD} == {
        *ACTIVATIONS,
        "batch_norm",
        "layer_norm",
        "convolve",
        "max_pool",
        "average_pool",
        "lstm_step",
        "gru_step",
        "attention",
        "mean_steps",
        "blend",
        "periodic",
    }


@pytest.mark.parametrize("size", [(1, 3), (6, 5)], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_of_activations(name: str, size: tuple[int, int]) -> None:
    d = Draw(*size)
    x, bias, weight = d.normal(), np.full((1, size[1]), 0.01), d.normal()
    given = [x, bias, d.out(), d.out() if ACTIVATIONS[name].keeps else d.none()]
    after = run_op(OPS[name], given)
    back = run_op(OPS[f"{name}_backward"], [after[3], after[2], weight, d.out(1)])
    for array, gradient in ((x, back[2]), (bias, back[3])):
        meets_differences(lambda: evaluate(name, given, Call([]), {2: weight}), array, gradient)


@pytest.mark.parametrize("size", [(2, 3), (6, 5)], ids=str)
@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_derivatives_of_normalizations(name: str, size: tuple[int, int]) -> None:
    case = next(case for case in CASES if case.op == name and not case.about)
    call = case.make(Draw(*size))
    given, weight = list(call.operands), Draw(*size, seed=1).normal()
    after = run_op(OPS[name], given, call.whole, call.real)
    out = Draw(*size).out
    back = run_op(OPS[f"{name}_backward"], [weight, after[3], after[4], after[1], out(1), out(1), out()])
    for number, gradient in ((0, back[6]), (1, back[4]), (2, back[5])):
        meets_differences(lambda: evaluate(name, given, call, {5: weight}), given[number], gradient)


@pytest.mark.parametrize("size", [(1, 3), (6, 5)], ids=str)
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_derivatives_of_cells(name: str, size: tuple[int, int]) -> None:
    call = next(case for case in CASES if case.op == f"{name}_step").make(Draw(*size))
    given, h, m = list(call.operands), Draw(*size, seed=1).normal(), Draw(*size, seed=2).normal()
    z, u, *_ = after = run_op(OPS[f"{name}_step"], given)
    if name == "lstm":
        weights = {4: h, 3: m}
        back = run_op(OPS["lstm_step_backward"], [z, given[2], after[3], h, m])
        gradients = [(0, back[0]), (1, back[0].sum(axis=0, keepdims=True)), (2, back[4])]
    else:
        weights = {5: h}
        dz, du, _, dh = run_op(OPS["gru_step_backward"], [z, u, given[4], h])
        inner = du[:, -size[1] :].sum(axis=0, keepdims=True)
        gradients = [(0, dz), (1, du), (2, dz.sum(axis=0, keepdims=True)), (3, inner), (4, dh)]
    for number, gradient in gradients:
        meets_differences(lambda: evaluate(f"{name}_step", given, Call([]), weights), given[number], gradient)


@pytest.mark.parametrize("size", [(1, 3), (6, 5)], ids=str)
def test_derivatives_of_blends(size: tuple[int, int]) -> None:
    d, weight = Draw(*size), Draw(*size, seed=1).normal()
    given = [d.normal(), d.normal(), d.normal(1), d.out()]
    back = run_op(OPS["blend_backward"], [*given[:3], weight, d.out(), d.out(1)])
    for number, gradient in ((0, back[3]), (1, back[4]), (2, back[5])):
        meets_differences(lambda: evaluate("blend", given, Call([]), {3: weight}), given[number], gradient)


@pytest.mark.parametrize("size", [(1, 3), (6, 2)], ids=str)
def test_derivatives_of_periodic_embeddings(size: tuple[int, int]) -> None:
    call = next(case for case in CASES if case.op == "periodic").make(Draw(*size))
    given, d = list(call.operands), Draw(*size, seed=1)
    weight = d.normal(*given[5].shape)
    weight[:, :1] = weight[:, -1:] = 0  # columns of others
    x, frequency, _, w, bias, _, kept = run_op(OPS["periodic"], given, call.whole)
    out = [d.out(*one.shape) for one in (frequency, frequency, w, bias)]
    dx = np.zeros((len(x), len(frequency)))
    back = run_op(OPS["periodic_backward"], [x, frequency, w, kept, weight, *out, dx], call.whole)
    for number, gradient in ((1, back[5]), (2, back[6]), (3, back[7]), (4, back[8])):
        meets_differences(lambda: evaluate("periodic", given, call, {5: weight}), given[number], gradient)
    whole_x = np.zeros_like(x)
    whole_x[:, 1 : 1 + len(frequency)] = back[9]
    meets_differences(lambda: evaluate("periodic", given, call, {5: weight}), given[0], whole_x)


@pytest.mark.parametrize("size", [(1, 3), (4, 5)], ids=str)
@pytest.mark.parametrize("case", [case for case in CASES if case.op == "attention"], ids=str)
def test_derivatives_of_attention(case: Case, size: tuple[int, int]) -> None:
    call, d = case.make(Draw(*size)), Draw(*size, seed=1)
    given = list(call.operands)
    qkv, p, y, _ = run_op(OPS["attention"], given, call.whole)
    weight = d.normal(*y.shape)
    out = [d.out(STEPS, STEPS), d.out(*qkv.shape)]
    back = run_op(OPS["attention_backward"], [qkv, p, weight, *out], call.whole)
    meets_differences(lambda: evaluate("attention", given, call, {2: weight}), given[0], back[4])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", [case for case in LOSS_CASES if case.op != "add_losses"], ids=str)
def test_derivatives_of_losses(case: Case, weighted: bool) -> None:
    call = case.make(Draw(6, 4))
    given = list(call.operands)
    weights = Draw(6, 1, seed=1).between(0.5, 2) if weighted else np.empty((0, 1))

    def added(after: Outcome) -> Outcome:
        zero = np.zeros((1, 1))
        return run_op(OPS["add_losses"], [after[3], weights, after[2], zero, zero], real=call.real[:1])

    def loss() -> float:
        return float(added(run_op(OPS[case.op], given, call.whole, real))[3][0, 0])

    # The factor of the gradient is that of the loss; squares are halved, and so is what Huber clips.
    twice = {"squares": 2.0, "huber": 2.0}.get(case.op, 1.0)
    factor = 1.0 if call.real[1] == 1.0 else 0.25 * twice
    real = (1.0 if call.real[1] == 1.0 else 0.25, factor, *call.real[2:])
    call = call._replace(real=real)
    meets_differences(loss, given[0], added(run_op(OPS[case.op], given, call.whole, real))[2])


@pytest.mark.parametrize("wrong", [lambda d: -d, lambda d: d * (1 + 1e-6), lambda d: np.roll(d, 1, axis=1)])
def test_a_wrong_derivative_is_seen(wrong: Callable[[Array], Array]) -> None:
    d = Draw(4, 5)
    x, weight = d.normal(), d.normal()
    given = [x, d.none(), d.out(), d.none()]
    back = run_op(OPS["tanh_backward"], [d.none(), run_op(OPS["tanh"], given)[2], weight, d.none()])
    with pytest.raises(AssertionError):
        meets_differences(lambda: evaluate("tanh", given, Call([]), {2: weight}), x, wrong(back[2]))


def test_products_are_the_derivatives_of_each_other() -> None:
    d = Draw(5, 4)
    x, w, weight = d.normal(5, 3), d.normal(4, 3), d.normal(5, 4)
    call = Call([], (0,))
    dx = run_op(OPS["product_nn"], [weight, w, d.out(5, 3)], (0,))[2]
    dw = run_op(OPS["product_tn"], [weight, x, d.out(4, 3)], (0, 4))[2]
    given = [x, w, d.out()]
    for array, gradient in ((x, dx), (w, dw)):
        meets_differences(lambda: evaluate("product_nt", given, call, {2: weight}), array, gradient)


@pytest.mark.parametrize("columns", [8, 40])
def test_the_gradient_of_a_narrow_matrix_over_many_rows(columns: int, compiled: bool) -> None:
    """Compiled code adds it up part by part."""
    rng = np.random.default_rng(3)
    dz, x = (rng.normal(size=(5003, size)).astype(np.float32) for size in (130, columns))
    found = run_op(OPS["product_tn"], [dz, x, np.ones((130, columns), np.float32)], (1, 130), (), compiled)[2]
    np.testing.assert_allclose(found, 1 + dz.T.astype(np.float64) @ x, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("added", [0, 1])
@pytest.mark.parametrize("kind", ["nn", "tn"])
def test_a_large_product_with_a_small_matrix(kind: str, added: int, compiled: bool) -> None:
    """Compiled code cuts it into strips where the library is fast with small products."""
    m, n, k = (64, 65, 1003) if kind == "tn" else (1003, 65, 64)
    a, b = products.operands(kind, m, n, k)
    given = [a, b, np.ones((m, n), np.float32)]
    found = run_op(OPS[f"product_{kind}"], given, (added, m), (), compiled)[2]
    np.testing.assert_allclose(found, added + products.exact(kind, a, b), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 5), (16, 16), (32, 48), (15, 40), (40, 15), (17, 16), (33, 31)])
def test_a_transpose_of_any_shape(shape: tuple[int, int], compiled: bool) -> None:
    a = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    out = np.zeros(shape[::-1], np.float32)
    np.testing.assert_array_equal(run_op(OPS["transpose"], [a, out], (), (), compiled)[1], a.T)


def test_live_rows_of_more_columns_than_are_counted_at_a_time(compiled: bool) -> None:
    y = np.maximum(np.random.default_rng(2).normal(size=(5, 4097)), 0).astype(np.float32)
    kept, total = np.zeros((0, 4097), np.float32), np.ones((1, 4097))
    found = run_op(OPS["live_rows"], [y, kept, total], (), (0, 0, np.inf, -np.inf), compiled)[2]
    np.testing.assert_array_equal(found[0], 1 + (y > 0).sum(axis=0))


@pytest.mark.parametrize(
    ("name", "other", "shape", "back", "whole"),
    [
        ("copy_columns", "copy_columns", (5, 9), (5, 9), (3, 3, 4)),
        ("steps_first", "samples_first", (5, 4 * STEPS), (5 * STEPS, 4), ()),
        ("transpose", "transpose", (5, 4), (4, 5), ()),
        ("copy", "copy", (6, 4), (8, 3), ()),
    ],
)
def test_what_moves_values_moves_gradients_back(
    name: str,
    other: str,
    shape: tuple[int, int],
    back: tuple[int, int],
    whole: tuple[int, ...],
    compiled: bool,
) -> None:
    """The sum of (A x) w is the sum of x (A^T w)."""
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-9, 9, size).astype(np.float32) for size in (shape, back))
    there = run_op(OPS[name], [x, np.zeros(back, np.float32)], whole, (), compiled)[1]
    again = run_op(OPS[other], [w, np.zeros(shape, np.float32)], whole, (), compiled)[1]
    assert (there * w).sum() == (x * again).sum() != 0


@pytest.mark.parametrize(("name", "columns"), [("steps_first", (12, 3)), ("samples_first", (3, 12))])
def test_no_rows_have_no_steps(name: str, columns: tuple[int, int], compiled: bool) -> None:
    """A slice may be empty: the number of steps is then not known, and nothing is moved."""
    x, out = (np.zeros((0, width), np.float32) for width in columns)
    assert run_op(OPS[name], [x, out], (), (), compiled)[1].shape == out.shape


# Random bits.


@pytest.mark.parametrize(
    "position", [(0, 0, 0), (3, 1, 7), (2**40, 2**33, 2**62 + 5), (1, 0, 2**63 - 1)], ids=str
)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 16), (7, 41)], ids=str)
def test_dropout_takes_the_bits_of_philox(
    position: tuple[int, int, int], size: tuple[int, int], compiled: bool
) -> None:
    step, shard, seed = position
    dropped, layer, past = 30_000, 5, step // 3
    bits = np.random.Philox(
        key=np.array([seed, 4], np.uint64), counter=np.array([0, layer, shard, step], np.uint64)
    )
    levels = bits.random_raw(size[0] * size[1]).view(np.uint16)[: size[0] * size[1]].reshape(size)
    ones, out = np.ones(size, np.float32), np.full(size, np.nan, np.float32)
    found = run_op(
        OPS["dropout"],
        [np.array([(step - past, shard, seed, 9, past)]), ones, out, out],
        (dropped, layer, 0),
        (1.5,),
        compiled,
    )
    np.testing.assert_array_equal(found[2], np.where(levels >= dropped, np.float32(1.5), 0))
    np.testing.assert_array_equal(found[3], found[2])


@pytest.mark.parametrize(("step", "dropped"), [(0, 30_000), (20, 30_000), (30, 15_000), (40, 0), (50, 0)])
def test_dropout_falls_along_its_schedule(step: int, dropped: int, compiled: bool) -> None:
    """Of 40 steps: all of the rate until 20, half of it at 30, nothing from 40 on. Steps before the job
    do not count."""
    position, ones = np.array([[step, 1, 7, 40, 9]]), np.ones((300, 400), np.float32)
    out = np.full_like(ones, np.nan)
    factors = run_op(OPS["dropout"], [position, ones, out, out], (30_000, 5, 1), (1.5,), compiled)[2]
    kept = np.float32(65_536 / (65_536 - dropped))
    assert set(np.unique(factors).tolist()) <= {0.0, float(kept)}
    assert (factors == 0).mean() == pytest.approx(dropped / 65_536, abs=0.006)


def test_sines_and_cosines_of_compiled_code() -> None:
    """Against NumPy in float64, of angles up to a thousand turns. Beyond 1e5 they are those of 1e5; those of
    angles that are infinite or NaN are NaN."""
    pytest.importorskip("numba", reason="Numba is not installed")
    angles = np.concatenate([np.linspace(-40, 40, 4001), np.linspace(-6000, 6000, 999), [0, 1e30, -1e30]])
    x = angles[:, None].astype(np.float32)
    one, zero = np.full((1, 1), 1 / (2 * np.pi), np.float32), np.zeros((1, 1), np.float32)
    given = [x, one, zero, zero, zero, np.zeros_like(x), np.full((len(x), 2), np.nan, np.float32)]
    found = run_op(OPS["periodic"], given, (0, 0), compiled=True)[6][:-2]
    turned = (np.float32(2 * np.pi) * x[:-2]) * one
    wide = turned.astype(np.float64)
    np.testing.assert_allclose(found, np.concatenate([np.cos(wide), np.sin(wide)], axis=1), atol=4e-7)
    far = run_op(OPS["periodic"], given, (0, 0), compiled=True)[6][-2:]
    assert (np.abs(far) <= 1).all()
    given[0], given[6] = np.array([[np.inf], [-np.inf], [np.nan]], np.float32), np.zeros((3, 2), np.float32)
    given[5] = np.zeros((3, 1), np.float32)
    assert np.isnan(run_op(OPS["periodic"], given, (0, 0), compiled=True)[6]).all()


# What the library's users may count on beyond values near 1.


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
@pytest.mark.parametrize("number", [0, 1])
def test_a_bound_is_not_small_where_a_gradient_may_not_be_finite(
    value: float, number: int, compiled: bool
) -> None:
    given = [np.ones((50, 9), np.float32), np.ones((50, 13), np.float32)]
    given[number][3, 4] = value
    total = run_op(OPS["bound_product"], [*given, np.zeros((1, 1))], compiled=compiled)[2][0, 0]
    assert not total < 1e38
    total = run_op(OPS["bound"], [given[number], np.zeros((1, 1))], compiled=compiled)[1][0, 0]
    assert not total < 1e38


def test_the_bound_of_a_product_is_one(compiled: bool) -> None:
    d = Draw(17, 9)
    dz, x = d.normal().astype(np.float32), d.normal(columns=6).astype(np.float32)
    total = run_op(OPS["bound_product"], [dz, x, np.zeros((1, 1))], compiled=compiled)[2][0, 0]
    assert np.abs(dz.T @ x).max() <= total < 1e4
