"""Update rules: published and recorded numbers, and the invariants that every row of CHAINS keeps."""

import importlib.util
import json
import math
import threading
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from golden.optimizer_problem import KEPT_STEPS, RATE_CHANGE, START, gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from distbp.optim import CHAINS, Step, Updater, chain, sum_of_squares, updater
from distbp.optim.parts import ScaleByLearningRate, Trace
from distbp.optim.recipes import SGD, Adam, AdamW, Momentum, Nesterov, RMSprop

RECORD = json.loads((Path(__file__).parent / "golden" / "torch_optimizers.json").read_text())


class Engine(NamedTuple):
    """What applies a rule: NumPy in one of two dtypes, or compiled ops."""

    dtype: type[np.floating]
    compiled: bool

    def close(self, found, expected, atol=0.0):
        """As near as the dtype allows; `atol` is for float64."""
        exact = self.dtype is np.float64
        tolerance = {"rtol": 1e-10, "atol": atol} if exact else {"rtol": 3e-4, "atol": 3e-6}
        np.testing.assert_allclose(found, expected, **tolerance)


NUMBA = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")
NUMPY = Engine(np.float64, compiled=False)
COMPILED = pytest.param(Engine(np.float32, compiled=True), id="compiled", marks=NUMBA)
engines = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(NUMPY, id="float64"),
        pytest.param(Engine(np.float32, compiled=False), id="float32"),
        COMPILED,
    ],
)
every_optimizer = pytest.mark.parametrize("name", list(CHAINS))


def vectors(size, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(size).astype(dtype), rng.standard_normal((6, size)).astype(dtype)


def run(parts, start, gradients, *, decays=None, slots=None, first=1, scale=0.5, rates=None, **options):
    """Weights and slots after one update with each row of `gradients`."""
    w = start.copy()
    decays = [(0, w.size)] if decays is None else decays
    applying = Updater(parts, w, decays, slots=slots, **options)
    for i, row in enumerate(np.asarray(gradients, w.dtype)):
        norm = math.sqrt(sum_of_squares(row)) * scale
        applying.apply([row], [], Step(first + i, 0.05 if rates is None else rates[i], norm), scale)
    applying.close()
    return w, applying.slots


def descend(optimizer, gradient_of, w0, rates, engine):
    """The weight after each step of a problem with one weight, gradient given as it is."""
    w = np.array([w0], engine.dtype)
    applying = Updater(chain(optimizer), w, [(0, 1)], compiled=engine.compiled)
    path = []
    for number, rate in enumerate(rates, start=1):
        applying.apply([np.array([gradient_of(w[0])], engine.dtype)], [], Step(number, rate), 1.0)
        path.append(w[0])
    return path


# Numbers that others published


@engines
@pytest.mark.parametrize("case", RECORD["optimizers"], ids=lambda case: case["name"])
def test_a_hundred_steps_with_a_rate_change_are_pytorchs(case, engine):
    optimizer = CHAINS[case["type"]](**case["options"])
    w = np.array(START, engine.dtype)
    applying = Updater(chain(optimizer, **case["clip"]), w, [(0, 6)], compiled=engine.compiled, piece=4)
    count = 7  # the gradient arrives as a sum over this many samples
    kept = iter(case["weights"])
    for number in range(1, 101):
        rate = optimizer.learning_rate * (RATE_CHANGE["factor"] if number >= RATE_CHANGE["first_step"] else 1)
        g = (gradient(w.astype(np.float64), number) * count).astype(engine.dtype)
        applying.apply([g], [], Step(number, rate, math.sqrt(sum_of_squares(g)) / count), 1 / count)
        if number in KEPT_STEPS:
            engine.close(w, next(kept), atol=1e-10)
    assert next(kept, None) is None


def test_every_optimizer_and_kind_of_clipping_is_recorded():
    assert {case["type"] for case in RECORD["optimizers"]} == set(CHAINS)
    assert {clip for case in RECORD["optimizers"] for clip in case["clip"]} == {"clip_norm", "clip_value"}


@engines
@pytest.mark.parametrize(("convention", "expected"), [("pytorch", 0.85698), ("keras", 0.70389)])
def test_momentum_conventions_differ_when_the_rate_changes(convention, expected, engine):
    # g = w, momentum .9. PyTorch: b = 1, w = .9; b = .9 + .9 = 1.8, w = .9 - .018 = .882;
    # b = 1.62 + .882 = 2.502, w = .882 - .02502 = .85698.
    # Keras: v = -.1, w = .9; v = -.09 - .009 = -.099, w = .801; v = -.0891 - .00801, w = .70389.
    optimizer = Momentum(momentum=0.9, convention=convention)
    path = descend(optimizer, lambda w: w, 1.0, [0.1, 0.01, 0.01], engine)
    engine.close(path[-1], expected)


@engines
@pytest.mark.parametrize(("kind", "expected"), [(Momentum, 0.486), (Nesterov, 0.327321)])
@pytest.mark.parametrize("convention", ["pytorch", "keras"])
def test_nesterov_and_momentum_three_steps(kind, expected, convention, engine):
    # momentum: b = 1, w = .9; b = 1.8, w = .72; b = 2.34, w = .486.
    # Nesterov: b = 1, w = 1 - .1 (1 + .9) = .81; b = 1.71, w = .81 - .1 (.81 + 1.539) = .5751;
    # b = 1.539 + .5751 = 2.1141, w = .5751 - .1 (.5751 + 1.90269) = .327321.
    optimizer = kind(momentum=0.9, convention=convention)
    path = descend(optimizer, lambda w: w, 1.0, [0.1] * 3, engine)
    engine.close(path[-1], expected)


@engines
@pytest.mark.parametrize(("epsilon_hat", "expected"), [(False, 0.00909), (True, 0.000315)])
def test_adam_forms_differ_where_gradients_are_small_against_epsilon(epsilon_hat, expected, engine):
    # m' = 1e-9, sqrt(v') = 1e-9: step = .1 * 1e-9 / (1e-9 + 1e-8) = .1 / 11 = .0090909.
    # epsilon-hat: sqrt(v) = sqrt(.001) 1e-9 = 3.162e-11, so
    # step = .1 * sqrt(.001) / .1 * 1e-10 / (3.162e-11 + 1e-8) = .000315.
    optimizer = Adam(epsilon_hat=epsilon_hat, epsilon=1e-8)
    (w,) = descend(optimizer, lambda w: 1e-9, 0.0, [0.1], engine)
    assert -w == pytest.approx(expected, rel=2e-3)


@engines
def test_adamw_decays_first_and_outside_of_the_moments(engine):
    # w = 2, rate .1, decay .5: 2 * (1 - .05) = 1.9; Adam's first step is rate * sign(g) = .1: 1.8 for g = 1.
    # Coupled decay would only change the size of g, and step to 1.9.
    (w,) = descend(AdamW(weight_decay=0.5), lambda w: 1.0, 2.0, [0.1], engine)
    assert w == pytest.approx(1.8, abs=1e-6)
    (w,) = descend(Adam(weight_decay=0.5), lambda w: 1.0, 2.0, [0.1], engine)
    assert w == pytest.approx(1.9, abs=1e-6)


@engines
def test_l2_is_nielsens_rule_and_leaves_what_does_not_decay(engine):
    # eta = .5, lambda / n = .1: w = 2 with gradient 1 becomes (1 - .05) 2 - .5 = 1.4;
    # what does not decay becomes 2 - .5 = 1.5.
    w, _ = run(
        chain(SGD(), l2=0.1),
        np.array([2.0, 2.0, 2.0], engine.dtype),
        [[2.0, 2.0, 2.0]],
        decays=[(0, 1), (2, 3)],
        rates=[0.5],
        compiled=engine.compiled,
    )
    engine.close(w, [1.4, 1.5, 1.4])


@engines
def test_l1_pulls_towards_zero_and_is_zero_at_zero(engine):
    w, _ = run(
        chain(SGD(), l1=0.1),
        np.array([2.0, -2.0, 0.0, 2.0], engine.dtype),
        np.zeros((1, 4)),
        decays=[(0, 3)],
        rates=[0.5],
        compiled=engine.compiled,
    )
    engine.close(w, [1.95, -1.95, 0.0, 2.0])


@engines
def test_clipping_by_norm_is_applied_to_the_average_before_decay(engine):
    # The sums (6, 8) of two samples average to (3, 4), norm 5; clipped to norm 1: (.6, .8), then l2 * w.
    w, _ = run(
        chain(SGD(), clip_norm=1.0, l2=0.5),
        np.array([1.0, 1.0], engine.dtype),
        [[6.0, 8.0]],
        rates=[1.0],
        compiled=engine.compiled,
    )
    np.testing.assert_allclose(w, [1 - 0.6 - 0.5, 1 - 0.8 - 0.5], atol=1e-6)


@engines
def test_clipping_by_value_never_exceeds_the_limit(engine):
    w, _ = run(
        chain(SGD(), clip_value=0.1),
        np.zeros(4, engine.dtype),
        [[9.0, -9.0, 0.1, 0.0]],
        rates=[1.0],
        compiled=engine.compiled,
    )
    np.testing.assert_array_equal(w, np.array([-0.1, 0.1, -0.05, 0.0], engine.dtype))


# Invariants of every row


def full_chain(name):
    """With everything on, so that every part's invariance shows."""
    return chain(CHAINS[name](weight_decay=0.1), clip_norm=3.0, l1=0.01)


def plain_chain(name):
    return chain(CHAINS[name](weight_decay=0.1), clip_norm=3.0)


@pytest.fixture
def many_threads(monkeypatch):
    """Even a short vector is worth a thread, and a stretch of compiled code is short."""
    monkeypatch.setattr(updater, "WORTH_A_THREAD", 1)


def assert_same(found, expected):
    (w, slots), (right, right_slots) = found, expected
    assert w.tobytes() == right.tobytes()
    assert {key: slot.tobytes() for key, slot in slots.items()} == {
        key: slot.tobytes() for key, slot in right_slots.items()
    }


@engines
@every_optimizer
@pytest.mark.parametrize("build", [full_chain, plain_chain])
def test_pieces_threads_and_ranges_do_not_change_a_bit(name, engine, build, many_threads):
    size, cut = (20_003, 9_001) if engine.compiled else (203, 77)  # compiled code has pieces of its own
    start, gradients = vectors(size, engine.dtype)
    decays = [(0, 50), (60, 61), (90, 150), (150, size)]
    expected = run(build(name), start, gradients, decays=decays, compiled=engine.compiled)
    assert expected[0].dtype == engine.dtype
    assert all(slot.dtype == engine.dtype for slot in expected[1].values())
    assert np.isfinite(expected[0]).all()
    for piece, threads in [(1, 1), (7, 1), (7, 3), (64, 1), (10, 2)]:
        options = {"piece": piece, "threads": threads, "compiled": engine.compiled}
        assert_same(run(build(name), start, gradients, decays=decays, **options), expected)

    # Two servers with a range each; the norm is the whole vector's.
    whole = [math.sqrt(sum_of_squares(row)) * 0.5 for row in gradients]
    parts = []
    for low, high in [(0, cut), (cut, size)]:
        w = start[low:high].copy()
        mine = [(max(a, low) - low, min(b, high) - low) for a, b in decays if max(a, low) < min(b, high)]
        applying = Updater(build(name), w, mine, compiled=engine.compiled)
        for number, (row, norm) in enumerate(zip(gradients, whole, strict=True), start=1):
            applying.apply([row[low:high]], [], Step(number, 0.05, norm), 0.5)
        parts.append((w, applying.slots))
    joined = {key: np.concatenate([slots[key] for _, slots in parts]) for key in expected[1]}
    assert_same((np.concatenate([w for w, _ in parts]), joined), expected)


@engines
@pytest.mark.parametrize("blocks", [2, 5])
@pytest.mark.parametrize("threads", [1, 3])
def test_sums_are_joined_in_the_order_that_is_given(engine, blocks, threads, many_threads):
    start, _ = vectors(9_001, engine.dtype)
    sums = np.random.default_rng(3).standard_normal((blocks, 9_001)).astype(engine.dtype)
    order = {2: [(0, 1)], 5: [(0, 1), (3, 4), (2, 3), (0, 2)]}[blocks]
    by_hand = {2: lambda a, b: a + b, 5: lambda a, b, c, d, e: (a + b) + (c + (d + e))}[blocks](*sums)
    expected = run(full_chain("adam"), start, [by_hand], compiled=engine.compiled)
    w = start.copy()
    applying = Updater(full_chain("adam"), w, [(0, w.size)], compiled=engine.compiled, threads=threads)
    applying.apply(list(sums), order, Step(1, 0.05, math.sqrt(sum_of_squares(by_hand)) * 0.5), 0.5)
    applying.close()
    assert_same((w, applying.slots), expected)


@engines
@every_optimizer
@pytest.mark.parametrize("threads", [1, 2])
def test_a_measured_update_is_the_same_one_and_measures_each_tensor(name, engine, threads, many_threads):
    start, gradients = vectors(9_001, engine.dtype)
    left, right = gradients[:2]
    tensors, decays, step = [(0, 3), (3, 8_000), (8_000, 9_001)], [(3, 5_000)], Step(1, 0.05, 70.0)
    found = []
    for measured in (False, True):
        w = start.copy()
        applying = Updater(
            full_chain(name), w, decays, tensors=tensors, compiled=engine.compiled, threads=threads
        )
        apply = applying.apply_measured if measured else applying.apply
        squares = apply([left.copy(), right.copy()], [(0, 1)], step, 0.5)
        applying.close()
        found.append((w, applying.slots))
    assert_same(found[1], found[0])
    assert {end for pair in applying.parts[:, :2].tolist() for end in pair} >= {0, 3, 5_000, 8_000, 9_001}
    sums, change = left + right, found[0][0] - start
    for start_at, stop in tensors:
        inside = (applying.parts[:, 0] >= start_at) & (applying.parts[:, 1] <= stop)
        expected = [(one[start_at:stop].astype(np.float64) ** 2).sum() for one in (sums, start, change)]
        np.testing.assert_allclose(squares[inside].sum(axis=0), expected, rtol=1e-5)


@NUMBA
@every_optimizer
@pytest.mark.parametrize("build", [full_chain, plain_chain])
def test_compiled_ops_agree_with_numpy_up_to_rounding(name, build):
    start, gradients = vectors(203, np.float32)
    decays = [(0, 50), (60, 203)]
    by_numpy, _ = run(build(name), start, gradients, decays=decays)
    compiled, _ = run(build(name), start, gradients, decays=decays, compiled=True)
    np.testing.assert_allclose(compiled, by_numpy, rtol=2e-5, atol=2e-6)


@engines
@every_optimizer
@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 90), piece=st.integers(1, 100), stop=st.integers(1, 5), seed=st.integers(0, 99))
def test_state_saved_and_restored_midway_gives_the_same_bits(name, engine, size, piece, stop, seed):
    start, gradients = vectors(size, engine.dtype, seed)
    options = {"compiled": engine.compiled}
    expected = run(full_chain(name), start, gradients, **options)
    w, slots = run(full_chain(name), start, gradients[:stop], piece=piece, **options)
    saved = {key: slot.copy() for key, slot in reversed(slots.items())}
    found = run(full_chain(name), w, gradients[stop:], slots=saved, first=stop + 1, **options)
    assert_same(found, expected)
    assert all(found[1][key] is saved[key] for key in saved)  # used as they lie


@engines
@pytest.mark.parametrize(
    "rule",
    [
        *(build() for name, build in CHAINS.items() if name not in ("sgd", "adagrad")),  # these have no mean
        RMSprop(centered=True, momentum=0.9),
    ],
    ids=lambda rule: rule.type,
)
def test_a_running_mean_that_fades_ends_at_zero_not_among_subnormal_numbers(rule, engine):
    tiny = np.finfo(engine.dtype).tiny
    left = np.array([tiny, -tiny, tiny / 8, 8 * tiny, np.nan, 1.0] * 20, engine.dtype)
    start = np.ones(left.size, engine.dtype)
    begun = Updater(chain(rule), start.copy(), [], compiled=engine.compiled).slots
    # A second moment is never negative.
    slots = {key: np.abs(left) if key.startswith(("second", "mean_square")) else left.copy() for key in begun}
    nothing = np.zeros((1, left.size))
    _, found = run(chain(rule), start, nothing, slots=slots, compiled=engine.compiled)
    assert found
    for key, slot in found.items():
        size = np.abs(slot).reshape(20, 6)
        assert not ((size > 0) & (size < tiny)).any(), key
        assert (size[:, :3] == 0).all()
        assert (size[:, 3] > tiny).all()
        assert np.isnan(size[:, 4]).all()
        assert (size[:, 5] > 0.5).all()


@engines
@every_optimizer
def test_converges_on_a_quadratic(name, engine):
    # E = sum of curvature * w^2 / 2, minimum 0 at 0.
    curvature = np.array([0.2, 1.0, 3.0], engine.dtype)
    w = np.array([1.0, -2.0, 0.5], engine.dtype)
    applying = Updater(chain(CHAINS[name]()), w, [], compiled=engine.compiled)
    rate = {"adagrad": 0.5, "rmsprop": 0.01, "adam": 0.05, "adamw": 0.05}.get(name, 0.1)
    for number in range(1, 601):
        applying.apply([curvature * w], [], Step(number, rate), 1.0)
    assert np.abs(w).max() < 0.01


@engines
@every_optimizer
def test_an_update_allocates_nothing_that_stays(name, engine):
    import tracemalloc

    w, g = np.ones(50_000, engine.dtype), np.ones(50_000, engine.dtype)
    applying = Updater(full_chain(name), w, [(0, 50_000)], piece=1000, compiled=engine.compiled)
    applying.apply([g], [], Step(1, 0.01, 1.0), 1.0)
    tracemalloc.start()
    try:
        for number in range(2, 20):
            applying.apply([g], [], Step(number, 0.01, 1.0), 1.0)
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The vector has 200 or 400 KB; what works on it has a few arrays of one piece.
    assert current < 4000 and peak < 50_000


@engines
@every_optimizer
def test_the_kind_of_scalar_does_not_change_a_bit(name, engine):
    # Rates and weights come from NumPy arrays as float64 scalars, which NumPy would compute in float64 with.
    start, gradients = vectors(50, engine.dtype)
    results = []
    for number in (float, np.float64, np.float32):
        w = start.copy()
        applying = Updater(full_chain(name), w, [(0, 50)], compiled=engine.compiled)
        for i, row in enumerate(gradients, start=1):
            applying.apply([row], [], Step(np.int64(i), number(0.0625), number(7.5)), number(0.5))
        results.append(w)
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


def test_momentum_leaves_the_slot_to_itself_whatever_follows():
    # A part after `Trace` must write its direction elsewhere than into the slot.
    start, gradients = vectors(10)
    from distbp.optim.parts import AddL2, ClipByValue, ScaleByAdagrad

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
    fit = {"parts": chain(Momentum()), "parameters": np.zeros(4), "decays": []}
    options = {**fit, **changes}
    return Updater(*[options.pop(key) for key in fit], **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": np.zeros(8)[::2]}, "the parameters must be a writable contiguous vector"),
        ({"parameters": np.zeros(4, int)}, r"\(4,\) of int64; found shape \(4,\) of int64"),
        ({"parameters": np.zeros((2, 2))}, r"the parameters must be .* found shape \(2, 2\)"),
        ({"slots": {"momentum": np.zeros(4, np.float32)}}, "found shape .4,. of float32"),
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
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_updater(**changes)


@engines
def test_threads_end_and_closing_twice_is_harmless(engine, many_threads):
    before = threading.active_count()
    w, g = np.zeros(10_000, engine.dtype), np.ones(10_000, engine.dtype)
    applying = Updater(chain(SGD()), w, [], piece=2, threads=3, compiled=engine.compiled)
    applying.apply([g], [], Step(1, 1.0), 1.0)
    np.testing.assert_array_equal(w, -g)
    assert threading.active_count() > before
    applying.close()
    applying.close()
    assert threading.active_count() == before


@settings(max_examples=50)
@given(st.data())
def test_a_cut_covers_every_element_once_and_decays_where_it_should(data):
    size, piece = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 100))
    ends = sorted(data.draw(st.sets(st.integers(0, size), max_size=6)))
    decays = list(pairwise(ends))[::2]
    decayed = np.zeros(size, int)
    for start, stop in decays:
        decayed[start:stop] = 1
    found = np.full(size, -1)
    for start, stop, decays_here in updater.cut([(0, size)], [(a, b, 1) for a, b in decays], piece).tolist():
        assert 0 < stop - start <= piece
        assert (found[start:stop] == -1).all()
        found[start:stop] = decays_here
    np.testing.assert_array_equal(found, decayed)
