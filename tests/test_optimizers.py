"""Update rules: published and recorded numbers, and the invariants that every row of OPTIMIZERS keeps."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
from golden.optimizer_problem import KEPT_STEPS, RATE_CHANGE, START, gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from distbp.optimizers import OPTIMIZERS, Step, Updater, chain, sum_of_squares
from distbp.optimizers.parts import ScaleByLearningRate, Trace
from distbp.optimizers.recipes import SGD, Adam, AdamW, Momentum, Nesterov

RECORD = json.loads((Path(__file__).parent / "golden" / "torch_optimizers.json").read_text())
NUMBA = pytest.param(
    "numba",
    marks=pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed"),
)
kernels = pytest.mark.parametrize("kernels_name", ["numpy", NUMBA])
every_optimizer = pytest.mark.parametrize("name", list(OPTIMIZERS))


def vectors(size, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(size).astype(dtype), rng.standard_normal((6, size)).astype(dtype)


def run(parts, start, gradients, *, decays=None, slots=None, first=1, scale=0.5, rates=None, **options):
    """Weights and slots after one update with each row of `gradients`."""
    w, g = start.copy(), np.empty_like(start)
    decays = [(0, w.size)] if decays is None else decays
    updater = Updater(parts, w, g, decays, slots=slots, **options)
    for i, row in enumerate(gradients):
        g[:] = row
        norm = math.sqrt(sum_of_squares(g)) * scale
        updater.apply(Step(first + i, 0.05 if rates is None else rates[i], norm), scale)
    updater.close()
    return w, updater.slots


def descend(optimizer, gradient_of, w0, rates, **options):
    """The weight after each step of a problem with one weight, float64, gradient given as it is."""
    w, g = np.array([w0]), np.empty(1)
    updater = Updater(chain(optimizer), w, g, [(0, 1)], **options)
    path = []
    for number, rate in enumerate(rates, start=1):
        g[:] = gradient_of(w)
        updater.apply(Step(number, rate), 1.0)
        path.append(w[0])
    return path


# Numbers that others published


@kernels
@pytest.mark.parametrize("case", RECORD["optimizers"], ids=lambda case: case["name"])
def test_a_hundred_steps_with_a_rate_change_are_pytorchs(case, kernels_name):
    optimizer = OPTIMIZERS[case["type"]](**case["options"])
    w, g = np.array(START), np.empty(6)
    updater = Updater(chain(optimizer, **case["clip"]), w, g, [(0, 6)], kernels_name=kernels_name, piece=4)
    count = 7  # the gradient arrives as a sum over this many samples
    kept = iter(case["weights"])
    for number in range(1, 101):
        rate = optimizer.learning_rate * (RATE_CHANGE["factor"] if number >= RATE_CHANGE["first_step"] else 1)
        g[:] = gradient(w, number) * count
        updater.apply(Step(number, rate, math.sqrt(sum_of_squares(g)) / count), 1 / count)
        if number in KEPT_STEPS:
            np.testing.assert_allclose(w, next(kept), rtol=1e-10, atol=1e-10, err_msg=f"step {number}")
    assert next(kept, None) is None


def test_every_optimizer_and_kind_of_clipping_is_recorded():
    assert {case["type"] for case in RECORD["optimizers"]} == set(OPTIMIZERS)
    assert {clip for case in RECORD["optimizers"] for clip in case["clip"]} == {"clip_norm", "clip_value"}


@kernels
@pytest.mark.parametrize(("convention", "expected"), [("pytorch", 0.85698), ("keras", 0.70389)])
def test_momentum_conventions_differ_when_the_rate_changes(convention, expected, kernels_name):
    # g = w, momentum .9. PyTorch: b = 1, w = .9; b = .9 + .9 = 1.8, w = .9 - .018 = .882;
    # b = 1.62 + .882 = 2.502, w = .882 - .02502 = .85698.
    # Keras: v = -.1, w = .9; v = -.09 - .009 = -.099, w = .801; v = -.0891 - .00801, w = .70389.
    optimizer = Momentum(momentum=0.9, convention=convention)
    path = descend(optimizer, lambda w: w, 1.0, [0.1, 0.01, 0.01], kernels_name=kernels_name)
    assert path[-1] == pytest.approx(expected, abs=1e-12)


@kernels
@pytest.mark.parametrize(("kind", "expected"), [(Momentum, 0.486), (Nesterov, 0.327321)])
@pytest.mark.parametrize("convention", ["pytorch", "keras"])
def test_nesterov_and_momentum_three_steps(kind, expected, convention, kernels_name):
    # momentum: b = 1, w = .9; b = 1.8, w = .72; b = 2.34, w = .486.
    # Nesterov: b = 1, w = 1 - .1 (1 + .9) = .81; b = 1.71, w = .81 - .1 (.81 + 1.539) = .5751;
    # b = 1.539 + .5751 = 2.1141, w = .5751 - .1 (.5751 + 1.90269) = .327321.
    optimizer = kind(momentum=0.9, convention=convention)
    path = descend(optimizer, lambda w: w, 1.0, [0.1] * 3, kernels_name=kernels_name)
    assert path[-1] == pytest.approx(expected, abs=1e-12)


@kernels
@pytest.mark.parametrize(("epsilon_hat", "expected"), [(False, 0.00909), (True, 0.000315)])
def test_adam_forms_differ_where_gradients_are_small_against_epsilon(epsilon_hat, expected, kernels_name):
    # m' = 1e-9, sqrt(v') = 1e-9: step = .1 * 1e-9 / (1e-9 + 1e-8) = .1 / 11 = .0090909.
    # epsilon-hat: sqrt(v) = sqrt(.001) 1e-9 = 3.162e-11, so
    # step = .1 * sqrt(.001) / .1 * 1e-10 / (3.162e-11 + 1e-8) = .000315.
    optimizer = Adam(epsilon_hat=epsilon_hat, epsilon=1e-8)
    (w,) = descend(optimizer, lambda w: 1e-9, 0.0, [0.1], kernels_name=kernels_name)
    assert -w == pytest.approx(expected, rel=2e-3)


@kernels
def test_adamw_decays_first_and_outside_of_the_moments(kernels_name):
    # w = 2, rate .1, decay .5: 2 * (1 - .05) = 1.9; Adam's first step is rate * sign(g) = .1: 1.8 for g = 1.
    # Coupled decay would only change the size of g, and step to 1.9.
    (w,) = descend(AdamW(weight_decay=0.5), lambda w: 1.0, 2.0, [0.1], kernels_name=kernels_name)
    assert w == pytest.approx(1.8, abs=1e-8)
    (w,) = descend(Adam(weight_decay=0.5), lambda w: 1.0, 2.0, [0.1], kernels_name=kernels_name)
    assert w == pytest.approx(1.9, abs=1e-8)


@kernels
def test_l2_is_nielsens_rule_and_leaves_what_does_not_decay(kernels_name):
    # eta = .5, lambda / n = .1: w = 2 with gradient 1 becomes (1 - .05) 2 - .5 = 1.4;
    # what does not decay becomes 2 - .5 = 1.5.
    w, _ = run(
        chain(SGD(), l2=0.1),
        np.array([2.0, 2.0, 2.0]),
        [[2.0, 2.0, 2.0]],
        decays=[(0, 1), (2, 3)],
        rates=[0.5],
        kernels_name=kernels_name,
    )
    np.testing.assert_allclose(w, [1.4, 1.5, 1.4], rtol=1e-15)


@kernels
def test_l1_pulls_towards_zero_and_is_zero_at_zero(kernels_name):
    w, _ = run(
        chain(SGD(), l1=0.1),
        np.array([2.0, -2.0, 0.0, 2.0]),
        np.zeros((1, 4)),
        decays=[(0, 3)],
        rates=[0.5],
        kernels_name=kernels_name,
    )
    np.testing.assert_allclose(w, [1.95, -1.95, 0.0, 2.0], rtol=1e-15)


@kernels
def test_clipping_by_norm_is_applied_to_the_average_before_decay(kernels_name):
    # The sums (6, 8) of two samples average to (3, 4), norm 5; clipped to norm 1: (.6, .8), then l2 * w.
    w, _ = run(
        chain(SGD(), clip_norm=1.0, l2=0.5),
        np.array([1.0, 1.0]),
        [[6.0, 8.0]],
        rates=[1.0],
        kernels_name=kernels_name,
    )
    np.testing.assert_allclose(w, [1 - 0.6 - 0.5, 1 - 0.8 - 0.5], atol=1e-6)


def test_clipping_by_value_never_exceeds_the_limit():
    w, _ = run(chain(SGD(), clip_value=0.1), np.zeros(4), [[9.0, -9.0, 0.1, 0.0]], rates=[1.0])
    np.testing.assert_array_equal(w, [-0.1, 0.1, -0.05, 0.0])


# Invariants of every row


def full_chain(name):
    """With everything on, so that every part's invariance shows."""
    return chain(OPTIMIZERS[name](weight_decay=0.1), clip_norm=3.0, l1=0.01)


def fused_chain(name):
    return chain(OPTIMIZERS[name](weight_decay=0.1), clip_norm=3.0)


@kernels
@every_optimizer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("build", [full_chain, fused_chain])
def test_pieces_threads_and_ranges_do_not_change_a_bit(name, dtype, build, kernels_name):
    start, gradients = vectors(203, dtype)
    decays = [(0, 50), (60, 61), (90, 150), (150, 203)]
    expected, slots = run(build(name), start, gradients, decays=decays, kernels_name=kernels_name)
    assert expected.dtype == dtype
    assert all(slot.dtype == dtype for slot in slots.values())
    assert np.isfinite(expected).all()
    for piece, threads in [(1, 1), (7, 1), (7, 3), (64, 1), (10, 2)]:
        w, s = run(
            build(name),
            start,
            gradients,
            decays=decays,
            kernels_name=kernels_name,
            piece=piece,
            threads=threads,
        )
        np.testing.assert_array_equal(w, expected)
        assert all(np.array_equal(s[key], slots[key]) for key in slots)

    cut = 77  # two servers with a range each; the norm is the whole vector's
    whole = [math.sqrt(sum_of_squares(row)) * 0.5 for row in gradients]
    joined = []
    for low, high in [(0, cut), (cut, 203)]:
        w, g = start[low:high].copy(), np.empty(high - low, dtype)
        mine = [(max(a, low) - low, min(b, high) - low) for a, b in decays if max(a, low) < min(b, high)]
        updater = Updater(build(name), w, g, mine, kernels_name=kernels_name)
        for number, (row, norm) in enumerate(zip(gradients, whole, strict=True), start=1):
            g[:] = row[low:high]
            updater.apply(Step(number, 0.05, norm), 0.5)
        joined.append(w)
    np.testing.assert_array_equal(np.concatenate(joined), expected)


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")
@every_optimizer
def test_the_kernel_sets_agree_up_to_rounding(name):
    start, gradients = vectors(203)
    decays = [(0, 50), (60, 203)]
    by_numpy, _ = run(fused_chain(name), start, gradients, decays=decays)
    by_numba, _ = run(fused_chain(name), start, gradients, decays=decays, kernels_name="numba")
    np.testing.assert_allclose(by_numba, by_numpy, rtol=1e-12, atol=1e-14)


@kernels
@every_optimizer
@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 90), piece=st.integers(1, 100), stop=st.integers(1, 5), seed=st.integers(0, 99))
def test_state_saved_and_restored_midway_gives_the_same_bits(name, kernels_name, size, piece, stop, seed):
    start, gradients = vectors(size, np.float32, seed)
    expected, expected_slots = run(full_chain(name), start, gradients, kernels_name=kernels_name)
    w, slots = run(full_chain(name), start, gradients[:stop], kernels_name=kernels_name, piece=piece)
    saved = {key: slot.copy() for key, slot in reversed(slots.items())}
    w, slots = run(
        full_chain(name), w, gradients[stop:], slots=saved, first=stop + 1, kernels_name=kernels_name
    )
    np.testing.assert_array_equal(w, expected)
    assert all(np.array_equal(slots[key], expected_slots[key]) for key in expected_slots)
    assert all(slots[key] is saved[key] for key in saved)  # used as they lie


@kernels
@every_optimizer
def test_converges_on_a_quadratic(name, kernels_name):
    # E = sum of curvature * w^2 / 2, minimum 0 at 0.
    curvature = np.array([0.2, 1.0, 3.0])
    w, g = np.array([1.0, -2.0, 0.5]), np.empty(3)
    updater = Updater(chain(OPTIMIZERS[name]()), w, g, [], kernels_name=kernels_name)
    rate = {"adagrad": 0.5, "rmsprop": 0.01, "adam": 0.05, "adamw": 0.05}.get(name, 0.1)
    for number in range(1, 601):
        g[:] = curvature * w
        updater.apply(Step(number, rate), 1.0)
    assert np.abs(w).max() < 0.01


@every_optimizer
def test_an_update_allocates_nothing_that_stays(name):
    import tracemalloc

    w, g = np.ones(5000, np.float32), np.ones(5000, np.float32)
    updater = Updater(full_chain(name), w, g, [(0, 5000)], piece=1000)
    updater.apply(Step(1, 0.01, 1.0), 1.0)
    tracemalloc.start()
    try:
        for number in range(2, 50):
            updater.apply(Step(number, 0.01, 1.0), 1.0)
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert current < 2000 and peak < 4000  # one piece is 4000 bytes


@kernels
@every_optimizer
def test_the_kind_of_scalar_does_not_change_a_bit(name, kernels_name):
    # Rates and weights come from NumPy arrays as float64 scalars, which NumPy would compute in float64 with.
    start, gradients = vectors(50, np.float32)
    results = []
    for number in (float, np.float64, np.float32):
        w, g = start.copy(), np.empty_like(start)
        updater = Updater(full_chain(name), w, g, [(0, 50)], kernels_name=kernels_name)
        for i, row in enumerate(gradients, start=1):
            g[:] = row
            updater.apply(Step(np.int64(i), number(0.0625), number(7.5)), number(0.5))
        results.append(w)
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


def test_momentum_leaves_the_slot_to_itself_whatever_follows():
    # A part after `Trace` must write its direction elsewhere than into the slot.
    start, gradients = vectors(10)
    from distbp.optimizers.parts import AddL2, ClipByValue, ScaleByAdagrad

    _, plain = run((Trace(0.9), ScaleByLearningRate()), start, gradients)
    for part in (AddL2(0.3), ClipByValue(0.01), ScaleByAdagrad()):
        _, slots = run((Trace(0.9), part, ScaleByLearningRate()), start, gradients)
        np.testing.assert_array_equal(slots["momentum"], plain["momentum"])


# The norm and the finite check


@given(size=st.integers(0, 200), piece=st.integers(1, 60), seed=st.integers(0, 99))
def test_sums_of_aligned_ranges_add_up_to_the_same_bits(size, piece, seed):
    g = vectors(size, np.float32, seed)[0]
    total = 0.0
    for start in range(0, size, piece):
        total += sum_of_squares(g[start : start + piece], piece)
    assert sum_of_squares(g, piece) == total == pytest.approx(float((g.astype(float) ** 2).sum()), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_entry_that_is_not_finite_makes_nan(bad, dtype):
    g = np.ones(100, dtype)
    g[57] = bad
    assert math.isnan(sum_of_squares(g, 10))


def test_large_finite_entries_are_told_from_infinite_ones():
    g = np.full(100, 3e20, np.float32)  # the squares are beyond float32
    assert sum_of_squares(g, 30) == pytest.approx(100 * 9e40, rel=1e-6)
    assert sum_of_squares(np.full(4, 1e200)) == math.inf


# Refusals


def make_updater(**changes):
    fit = {"parts": chain(Momentum()), "parameters": np.zeros(4), "gradient": np.zeros(4), "decays": []}
    options = {**fit, **changes}
    return Updater(*[options.pop(key) for key in fit], **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"gradient": np.zeros(3)},
            r"the gradient must be a writable contiguous vector \(4,\) of float64; found shape \(3,\)",
        ),
        ({"gradient": np.zeros(4, np.float32)}, "found shape .4,. of float32"),
        ({"gradient": np.zeros(8)[::2]}, "the gradient must be a writable contiguous vector"),
        ({"parameters": np.zeros(4, int), "gradient": np.zeros(4, int)}, "of int64"),
        ({"parameters": np.zeros((2, 2))}, r"the parameters must be .* found shape \(2, 2\)"),
        (
            {"slots": {"first_moment": np.zeros(4)}},
            r"has the slots \['first_moment'\], but this optimizer keeps \['momentum'\]; resume with the",
        ),
        ({"slots": {"momentum": np.zeros(5)}}, r"optimizer slot 'momentum' must be .* found shape \(5,\)"),
        (
            {"decays": [(0, 5)]},
            r"decays must be stretches within 0..4 that do not overlap; found \[\(0, 5\)\]",
        ),
        ({"decays": [(2, 4), (0, 3)]}, "that do not overlap"),
        (
            {"parts": (Trace(0.9), Trace(0.8), ScaleByLearningRate())},
            "two parts of one update rule keep a slot named 'momentum'",
        ),
        ({"kernels_name": "cuda"}, "kernels_name is 'cuda'; it must be 'numpy' or 'numba'"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_updater(**changes)


def test_threads_end_and_closing_twice_is_harmless():
    w, g = np.zeros(100), np.ones(100)
    updater = Updater(chain(SGD()), w, g, [], piece=2, threads=3)
    updater.apply(Step(1, 1.0), 1.0)
    np.testing.assert_array_equal(w, -np.ones(100))
    updater.close()
    updater.close()


def test_parts_of_a_vector_decay_as_a_whole():
    pytest.importorskip("numba", reason="Numba is not installed")
    from distbp.optimizers.joined import with_decays

    starts, ends = np.array([0, 4, 6]), np.array([4, 6, 9])
    rows = with_decays(starts, ends, [(0, 4), (6, 9)])
    np.testing.assert_array_equal(rows, [[0, 4, 1], [4, 6, 0], [6, 9, 1]])
    np.testing.assert_array_equal(with_decays(starts, ends, [(0, 9)])[:, 2], 1)
    with pytest.raises(ValueError, match=r"decay of 0\.\.5 begins or ends within one of the parts"):
        with_decays(starts, ends, [(0, 5)])
