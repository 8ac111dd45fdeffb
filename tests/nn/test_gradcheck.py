from __future__ import annotations

import numpy as np
import pytest

from distbp.nn.gradcheck import FIRST_STEP, TWO_POINTS, check, numeric_gradient, relative_error


def wavy(x: np.ndarray) -> float:
    return float(np.sum(np.sin(x) * np.exp(x / 3)))


def wavy_gradient(x: np.ndarray) -> np.ndarray:
    return (np.cos(x) + np.sin(x) / 3) * np.exp(x / 3)


def test_a_smooth_function_is_met_far_below_the_tolerance() -> None:
    x = np.random.default_rng(0).normal(size=(4, 5))
    kept = x.copy()
    np.testing.assert_allclose(numeric_gradient(wavy, x), wavy_gradient(x).ravel(), rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(x, kept)


def test_exact_for_a_quartic() -> None:
    # The formula has no error before the fifth derivative: d/dx x^4 = 32 at 2, rounding only.
    assert numeric_gradient(lambda x: float(x[0] ** 4), np.array([2.0]))[0] == pytest.approx(32, rel=1e-12)


def test_indices_in_their_order_and_large_coordinates() -> None:
    x = np.array([1.0, 2.0, 1e6])
    found = numeric_gradient(lambda v: float(v[0] ** 2 + 3 * v[1] + np.log(v[2])), x, np.array([2, 0]))
    np.testing.assert_allclose(found, [1e-6, 2.0], rtol=1e-6)


def test_x_is_restored_when_the_function_raises() -> None:
    x = np.array([1.0])

    def fails(v: np.ndarray) -> float:
        raise ArithmeticError("no")

    with pytest.raises(ArithmeticError):
        numeric_gradient(fails, x)
    assert x[0] == 1.0


def test_float32_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs contiguous float64, not float32; use dtype: float64"):
        numeric_gradient(wavy, np.ones(2, np.float32))  # type: ignore[arg-type]


def test_relative_error() -> None:
    a = np.array([1.0, 0.0, 1e-9, np.nan, np.inf])
    b = np.array([1.1, 0.0, 0.0, 1.0, np.inf])
    np.testing.assert_allclose(relative_error(a, b, scale=1e-3), [0.1 / 1.1, 0, 1e-6, np.inf, np.inf])


def test_a_right_gradient_passes() -> None:
    x = np.random.default_rng(1).normal(size=20)
    report = check(wavy, x, wavy_gradient(x))
    assert report.passed and report.worst.error < 1e-9
    assert str(report).startswith("gradients agree: 20 of 20 checked, largest relative error ")


def test_a_wrong_coordinate_is_named_with_its_part() -> None:
    x = np.random.default_rng(2).normal(size=10)
    wrong = wavy_gradient(x)
    wrong[7] *= 1 + 1e-6
    report = check(wavy, x, wrong, parts={"layer 0 weight": slice(0, 6), "layer 0 bias": slice(6, 10)})
    assert not report.passed
    assert [part.part for part in report.parts] == ["layer 0 weight", "layer 0 bias"]
    assert [(part.checked, part.size) for part in report.parts] == [(6, 6), (4, 4)]
    assert (report.worst.part, report.worst.index) == ("layer 0 bias", 1)
    assert report.worst.error == pytest.approx(1e-6, rel=1e-2)
    assert "gradients disagree: layer 0 bias[1] is " in str(report)
    assert "(relative error 1.0e-06, allowed 1e-07)" in str(report)


def test_parts_without_a_checked_coordinate_are_left_out() -> None:
    x = np.ones(4)
    report = check(wavy, x, wavy_gradient(x), {"a": slice(0, 2), "b": slice(2, 4)}, np.array([3]))
    assert [(part.part, part.index, part.checked, part.size) for part in report.parts] == [("b", 1, 1, 2)]
    assert str(report).startswith("gradients agree: 1 of 2 checked")


def test_a_smooth_coordinate_costs_two_values_and_is_told() -> None:
    x, calls, told = np.ones(5), [], []

    def square(v: np.ndarray) -> float:
        calls.append(1)
        return float(v @ v)

    assert check(square, x, 2 * x, watch=lambda *counts: told.append(counts)).passed
    assert len(calls) == 1 + 2 * 5
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_a_coordinate_on_which_two_points_lie_far_off_is_tried_with_four() -> None:
    def steep(x: np.ndarray) -> float:
        return float(np.sin(200 * x).sum())

    x = np.array([0.3])
    right = 200 * np.cos(200 * x)
    two = numeric_gradient(steep, x, None, FIRST_STEP, TWO_POINTS)
    assert relative_error(two, right)[0] > 5e-7
    assert check(steep, x, right).worst.error < 1e-7


def test_a_sharp_bend_is_tried_with_smaller_steps() -> None:
    """As the loss of a normalization whose slice has two rows, nearly alike."""

    def bend(x: np.ndarray) -> float:
        return float(np.hypot(x, 1e-3).sum())

    x = np.array([5e-4])
    right = x / np.hypot(x, 1e-3)
    assert check(bend, x, right).passed
    assert not check(bend, x, right * (1 + 1e-6)).passed


def test_a_near_kink_is_tried_again_with_smaller_steps() -> None:
    def relu_sum(x: np.ndarray) -> float:
        return float(np.maximum(x, 0).sum())

    x = np.array([1e-4, -5e-4, 1.0, -1.0, 1e-5])
    assert check(relu_sum, x, (x > 0).astype(float)).passed
    assert not check(relu_sum, x, np.array([1.0, 1.0, 1.0, 0.0, 1.0])).passed


def test_kinks_at_the_point_and_among_many() -> None:
    """A unit whose inputs are 0 and whose bias is 0, and thousands of units that bend near by: one side of
    the point is smooth."""
    bends = np.random.default_rng(3).normal(size=5000)

    def many(x: np.ndarray) -> float:
        return float(np.maximum(x[0], 0) + np.maximum(x[1] - bends, 0).mean() + x[2] ** 2)

    x = np.array([0.0, 0.1, 0.3])
    right = np.array([0.0, np.mean(bends < 0.1), 0.6])
    assert check(many, x, right).passed
    assert check(many, x, right + np.array([1, 0, 0])).passed
    for wrong in ([0.3, 0, 0], [0, 1e-4, 0], [0, 0, 1e-6]):
        assert not check(many, x, right + np.array(wrong)).passed, wrong


@pytest.mark.parametrize("place", [0, 777, 999])
def test_a_direction_finds_what_is_wrong_in_none_of_the_checked_coordinates(place: int) -> None:
    x = np.random.default_rng(4).normal(size=(20, 50))
    gradient, parts = wavy_gradient(x), {"a": slice(0, 500), "b": slice(500, 1000)}
    few, kept = np.array([1, 501]), x.copy()
    assert check(wavy, x, gradient, parts, few, draw=np.random.default_rng(0)).passed
    np.testing.assert_array_equal(x, kept)
    gradient.reshape(-1)[place] *= 1.01
    assert check(wavy, x, gradient, parts, few).passed
    report = check(wavy, x, gradient, parts, few, draw=np.random.default_rng(0))
    part = "a" if place < 500 else "b"
    assert (report.worst.part, report.worst.index) == (part, None)
    assert f"gradients disagree: the derivative along a random direction of {part} is " in str(report)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_never_passes(value: float) -> None:
    x = np.ones(3)
    broken = wavy_gradient(x)
    broken[1] = value
    report = check(wavy, x, broken)
    assert not report.passed and report.worst.index == 1
    assert report.worst.numeric == pytest.approx(wavy_gradient(x)[1])


def test_a_wrong_neighbor_of_a_broken_coordinate_is_not_hidden() -> None:
    x = np.ones(3)
    report = check(wavy, x, np.array([np.inf, 5.0, np.nan]), parts={"a": slice(1, 2)})
    assert report.worst.error > 0.5


def test_f_may_overwrite_the_analytic_gradient() -> None:
    x, gradient = np.ones(3), wavy_gradient(np.ones(3))

    def f(v: np.ndarray) -> float:
        gradient.fill(0)
        return wavy(v)

    assert check(f, x, gradient).passed


def test_mistakes_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"the gradient has shape \(2,\), but x has \(3,\)"):
        check(wavy, np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="no coordinate to check"):
        check(wavy, np.ones(3), np.ones(3), indices=np.array([], dtype=np.intp))
