"""Conjugate gradients and L-BFGS: the line search alone, published figures, and the invariants of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from distbp.core.arrays import Array
from distbp.core.reduction import PIECE
from distbp.engine.numerics import one_blas_thread
from distbp.optim import Searching, Step
from distbp.optim.line_search import ACCEPTED, DECREASE, FAILED, MOST_TRIES, Line, advance, begin
from distbp.optim.searching import NUMBERS, Found
from distbp.optim.whole_batch import LBFGS, ConjugateGradient, dot

METHODS = {"conjugate_gradient": ConjugateGradient, "lbfgs": LBFGS}
every_method = pytest.mark.parametrize("name", METHODS)
Objective = Callable[[Array], tuple[float, Array]]


@pytest.fixture(autouse=True)
def as_in_training() -> Iterator[None]:
    with one_blas_thread():
        yield


def descend(
    method: Any, objective: Objective, start: Array, most: int = 2000, **options: Any
) -> tuple[Array, Searching]:
    """The point after at most `most` evaluations."""
    point = start.copy()
    searching = Searching(method, point, [(0, point.size)], tensors=[(0, point.size)], **options)
    for number in range(1, most + 1):
        searching.probe()
        loss, gradient = objective(point)
        searching.apply_measured(gradient.astype(point.dtype) * 4, Step(number, 1.0, 0.0, loss), 0.25)
        if searching.verdict:
            break
    return point, searching


def rosenbrock(w: Array) -> tuple[float, Array]:
    """sum of 100 (y - x^2)^2 + (1 - x)^2 over neighbors; minimum 0 at 1 (Rosenbrock, 1960)."""
    x, y = w[:-1], w[1:]
    slack = y - x * x
    gradient = np.zeros_like(w)
    gradient[:-1] = -400 * x * slack - 2 * (1 - x)
    gradient[1:] += 200 * slack
    return float((100 * slack**2 + (1 - x) ** 2).sum()), gradient


def bowl(seed: int, condition: float = 100.0) -> tuple[Objective, Array]:
    """A least-squares bowl of 100 dimensions, and its lowest point."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(200, 100)))
    v, _ = np.linalg.qr(rng.normal(size=(100, 100)))
    x = q * np.sqrt(200 * np.linspace(1, condition, 100)) @ v
    y = x @ rng.normal(size=100) + 0.5 * rng.normal(size=200)

    def loss(w: Array) -> tuple[float, Array]:
        error = x @ w - y
        return float(error @ error) / 200, 2 * x.T @ error / 200

    return loss, np.linalg.lstsq(x, y, rcond=None)[0]


# The line search


def search(phi: Callable[[float], tuple[float, float]], step: float, curvature: float) -> Line:
    line = begin(*phi(0.0), step)
    while line.phase not in (ACCEPTED, FAILED):
        assert line.tries <= MOST_TRIES
        line = advance(line, *phi(line.step), curvature, 0.0)
    return line


# More and Thuente, ACM TOMS 20 (1994), section 5: functions 1 and 2; then a flat bottom, waves and walls.
LINES: dict[str, Callable[[float], tuple[float, float]]] = {
    "more-thuente 1": lambda a: (-a / (a * a + 2), (a * a - 2) / (a * a + 2) ** 2),
    "more-thuente 2": lambda a: (
        (a + 0.004) ** 5 - 2 * (a + 0.004) ** 4,
        5 * (a + 0.004) ** 4 - 8 * (a + 0.004) ** 3,
    ),
    "quartic": lambda a: ((a - 3) ** 4, 4 * (a - 3) ** 3),
    "waves": lambda a: (math.cos(3 * a) - a / 2 + a * a / 9, -3 * math.sin(3 * a) - 0.5 + 2 * a / 9),
    "wall": lambda a: (-math.log(2 - a) - 2 * a, 1 / (2 - a) - 2) if a < 2 else (math.inf, math.nan),
    "wall of nan": lambda a: ((a - 0.1) ** 2, 2 * (a - 0.1)) if a < 0.3 else (math.nan, math.nan),
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("step", [1e-3, 0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("curvature", [0.9, 0.1, 0.001])
def test_an_accepted_step_keeps_the_strong_wolfe_conditions(name: str, step: float, curvature: float) -> None:
    phi = LINES[name]
    line = search(phi, step, curvature)
    assert line.phase == ACCEPTED and line.step > 0
    (value, slope), (start, steepness) = phi(line.step), phi(0.0)
    assert value <= start + DECREASE * line.step * steepness
    assert abs(slope) <= -curvature * steepness


def test_on_a_parabola_the_second_trial_is_its_minimum() -> None:
    for step in (0.5, 3.0, 5.0, 9.0):
        line = search(lambda a: ((a - 4) ** 2, 2 * (a - 4)), step, 1e-6)
        assert line.tries <= 3 and line.step == pytest.approx(4.0, abs=1e-6)


def test_on_a_parabola_a_first_trial_may_have_to_be_nearer_to_its_minimum() -> None:
    """With c2 = 0.2 a trial at 3.5 is good enough, with a slope of an eighth of the first one."""

    def parabola(a: float) -> tuple[float, float]:
        return (a - 4) ** 2, 2 * (a - 4)

    line = begin(*parabola(0.0), 3.5)
    assert advance(line, *parabola(3.5), 0.2, 0.0).phase == ACCEPTED
    further = advance(line, *parabola(3.5), 0.2, 0.0, 0.001)
    assert further.phase != ACCEPTED and further.step == pytest.approx(4.0)
    assert advance(further, *parabola(further.step), 0.2, 0.0, 0.001).phase == ACCEPTED

    def other(a: float) -> tuple[float, float]:  # as steep at both ends, and a hundredth lower
        value, slope = parabola(a)
        return value - 0.01 * (a > 0), slope

    assert advance(line, *other(3.5), 0.2, 0.0, 0.001).phase == ACCEPTED
    assert advance(line, *other(3.5), 0.2, 0.02, 0.001).phase != ACCEPTED  # by rounding it may be one


def test_a_search_without_a_lower_value_fails_and_one_without_a_bottom_ends() -> None:
    line = search(lambda a: (abs(a), 1.0) if a else (0.0, -1.0), 1.0, 0.5)
    assert line.phase == FAILED and line.step == 0
    assert line.tries == MOST_TRIES
    line = search(lambda a: (-a, -1.0), 1.0, 0.5)
    assert (line.phase, line.tries) == (ACCEPTED, MOST_TRIES)


def test_where_values_differ_by_rounding_only_slopes_decide() -> None:
    # The parabola lies on 1, and its values are rounded to 1e-9: near the minimum they say nothing.
    def phi(a: float) -> tuple[float, float]:
        return round(1 + 1e-10 * (a - 4) ** 2, 9), 2e-10 * (a - 4)

    line = begin(*phi(0.0), 1.0)
    while line.phase not in (ACCEPTED, FAILED):
        line = advance(line, *phi(line.step), 0.01, 1e-8)
    assert line.phase == ACCEPTED and line.step == pytest.approx(4.0, rel=0.02) and line.tries <= 4


# Problems


@pytest.mark.parametrize("seed", range(8))
def test_conjugate_gradients_solve_a_bowl_of_100_dimensions_in_110_iterations(seed: int) -> None:
    """With the curvature that a job has where it says none."""
    loss, lowest = bowl(seed)
    point, searching = descend(ConjugateGradient(tolerance=1e-10), loss, np.zeros(100))
    assert np.abs(point - lowest).max() < 1e-10
    assert searching.found.iterations <= 110 and searching.found.evaluations <= 220
    assert searching.found.norm == pytest.approx(float(np.linalg.norm(loss(point)[1])), rel=1e-3)


@every_method
@pytest.mark.parametrize("size", [2, 10])
def test_both_find_the_bottom_of_rosenbrocks_valley(name: str, size: int) -> None:
    """From the usual start, and from eight near it: how long it takes differs from start to start."""
    draw, evaluations = np.random.default_rng(0), []
    for scale in (0.0, *[0.1] * 8):
        start = np.tile([-1.2, 1.0], size // 2) + scale * draw.normal(size=size)
        point, searching = descend(METHODS[name](tolerance=1e-9), rosenbrock, start)
        np.testing.assert_allclose(point, 1, atol=1e-8)
        assert searching.verdict.startswith("converged after ") and "tolerance is 1e-09" in searching.verdict
        evaluations.append(searching.found.evaluations)
    assert np.median(evaluations) < (120 if name == "lbfgs" else 650)


def test_lbfgs_needs_no_more_evaluations_than_scipys() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    options = {"gtol": 1e-9, "ftol": 0, "maxcor": 10}
    theirs = optimize.minimize(
        rosenbrock, np.tile([-1.2, 1.0], 5), jac=True, method="L-BFGS-B", options=options
    )
    _, searching = descend(LBFGS(history=10, tolerance=1e-9), rosenbrock, np.tile([-1.2, 1.0], 5))
    assert searching.found.evaluations <= 1.25 * theirs.nfev


@every_method
def test_float32_ends_where_it_can_do_no_more(name: str) -> None:
    loss, lowest = bowl(0, 10.0)

    def single(w: Array) -> tuple[float, Array]:
        value, gradient = loss(w.astype(np.float64))
        return float(np.float32(value)), gradient

    point, searching = descend(METHODS[name](tolerance=0.0), single, np.zeros(100, np.float32))
    assert point.dtype == np.float32 and np.abs(point - lowest).max() < 1e-5
    assert "no step lowers the loss beyond rounding" in searching.verdict


@every_method
def test_l2_is_part_of_the_loss(name: str) -> None:
    # (w - 3)^2 + (v - 3)^2 with l2 = 2 on w alone: w = 1.5, v = 3.
    point = np.zeros(2)
    searching = Searching(METHODS[name](tolerance=1e-9), point, [(0, 1)], l2=2.0, tensors=[(0, 2)])
    while not searching.verdict:
        searching.probe()
        loss = float(((point - 3) ** 2).sum())
        searching.apply_measured(2 * (point - 3), Step(1, 1.0, 0.0, loss), 1.0)
    np.testing.assert_allclose(point, [1.5, 3.0], atol=1e-9)
    assert searching.found.loss == pytest.approx(2.25)  # without the penalty


# Invariants


@every_method
def test_between_steps_the_parameters_are_the_best_point_and_the_loss_never_rises(name: str) -> None:
    point = np.array([-1.2, 1.0])
    searching = Searching(METHODS[name](), point, [], tensors=[(0, 2)])
    losses, tried = [], 0
    for number in range(60):
        before = point.copy()
        searching.probe()
        trial = point.copy()
        loss, gradient = rosenbrock(point)
        squares = searching.apply_measured(gradient, Step(number + 1, 1.0, 0.0, loss), 1.0)
        assert point.tobytes() in (before.tobytes(), trial.tobytes())
        tried += point.tobytes() != trial.tobytes()
        assert searching.found.loss == rosenbrock(point)[0]
        losses.append(searching.found.loss)
        change = point - before
        np.testing.assert_allclose(
            squares, [[searching.found.norm**2, before @ before, change @ change]], rtol=1e-12
        )
    assert tried > 3  # searches that had to give up a trial
    assert (np.diff(losses) <= 0).all()


@every_method
@pytest.mark.parametrize("stop", [1, 2, 7, 23, 40])
def test_state_saved_and_restored_midway_gives_the_same_bits(name: str, stop: int) -> None:
    start, method = np.tile([-1.2, 1.0], 4), METHODS[name]()
    whole, expected = descend(method, rosenbrock, start, 50)
    half, searching = descend(method, rosenbrock, start, stop)
    saved = {key: slot.copy() for key, slot in searching.slots.items()}
    end, found = descend(method, rosenbrock, half, 50 - stop, slots=saved)
    assert end.tobytes() == whole.tobytes()
    assert {k: v.tobytes() for k, v in found.slots.items()} == {
        k: v.tobytes() for k, v in expected.slots.items()
    }


@every_method
def test_after_the_end_nothing_changes_any_more(name: str) -> None:
    loss, _ = bowl(0, 3.0)
    point, searching = descend(METHODS[name](tolerance=1e-6), loss, np.zeros(100))
    before, slots = point.copy(), {key: slot.copy() for key, slot in searching.slots.items()}
    verdict = searching.verdict
    searching.probe()
    np.testing.assert_array_equal(point, before)
    searching.apply_measured(loss(point)[1], Step(99, 1.0, 0.0, loss(point)[0]), 1.0)
    assert point.tobytes() == before.tobytes()
    assert searching.slots["gradient"].tobytes() == slots["gradient"].tobytes()
    assert searching.verdict.partition(", ")[0] == verdict.partition(", ")[0]


@every_method
def test_a_start_at_the_lowest_point_ends_at_once(name: str) -> None:
    _, searching = descend(METHODS[name](), lambda w: (float(w @ w), 2 * w), np.zeros(3))
    assert searching.found.evaluations == 1
    assert searching.verdict.startswith(
        "converged after 0 iterations, 1 evaluations: the gradient's norm is 0"
    )


@every_method
def test_a_loss_that_is_not_finite_is_a_step_that_was_too_long(name: str) -> None:
    def loss(w: Array) -> tuple[float, Array]:
        with np.errstate(all="ignore"):
            return float(-np.log(1 - w).sum() - 3 * w.sum()), 1 / (1 - w) - 3

    point, searching = descend(METHODS[name](tolerance=1e-9), loss, np.array([-50.0, 0.2]))
    np.testing.assert_allclose(point, 2 / 3, atol=1e-9)
    assert searching.bears_infinity and not Searching(METHODS[name](), np.zeros(1), []).bears_infinity


def test_a_dot_product_is_the_same_for_any_cut_into_pieces() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        a, b = rng.normal(size=(2, 2 * PIECE + 77)).astype(dtype)
        parts = [dot(a[at : at + PIECE], b[at : at + PIECE]) for at in range(0, a.size, PIECE)]
        assert dot(a, b) == (parts[0] + parts[1]) + parts[2]
        assert dot(a, b) == pytest.approx(float(a.astype(float) @ b.astype(float)), rel=1e-12)


def test_what_is_remembered_fits_one_vector_of_numbers() -> None:
    numbers = np.arange(21.0).tolist()
    assert Found.of(numbers).flat() == numbers
    assert len(Searching(LBFGS(), np.zeros(2), []).slots[NUMBERS]) == 21


def test_state_of_another_method_is_refused() -> None:
    saved = Searching(LBFGS(history=3), np.zeros(4), []).slots
    with pytest.raises(
        ValueError, match=r"the saved state of lbfgs has '(moves|changes)' of shape \(3, 4\), but \(5, 4\)"
    ):
        Searching(LBFGS(history=5), np.zeros(4), [], slots=saved)
    with pytest.raises(ValueError, match=r"the saved state of conjugate_gradient has '(moves|changes)'"):
        Searching(ConjugateGradient(), np.zeros(4), [], slots=saved)
