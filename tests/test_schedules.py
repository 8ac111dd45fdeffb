"""Schedules: PyTorch's values, ends and edges, and the messages of contradictions."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbp import JobError, TrainingJob
from distbp.optim.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    CosineLog,
    Exponential,
    FlatCosine,
    OneCycle,
    PlateauState,
    Polynomial,
    Progress,
    ReduceOnPlateau,
    StepDecay,
    WarmUp,
    plateau_of,
)

RECORD = json.loads((Path(__file__).parent / "golden" / "torch_optimizers.json").read_text())
CURVES, PLATEAUS = RECORD["schedules"], RECORD["plateaus"]


def make(options):
    options = dict(options)
    kind = SCHEDULES[options.pop("type")]
    if "then" in options:
        options["then"] = make(options["then"])
    return kind(**options)


@pytest.mark.parametrize("case", CURVES["cases"], ids=lambda case: case["name"])
def test_the_rates_are_pytorchs(case):
    schedule = make(case["options"])
    for step, expected in enumerate(case["rates"]):
        progress = Progress(step, CURVES["steps_per_epoch"], CURVES["total_steps"])
        assert schedule.rate(CURVES["base_rate"], progress) == pytest.approx(expected, rel=1e-10, abs=1e-15)


@pytest.mark.parametrize("case", PLATEAUS["cases"], ids=str)
def test_plateau_reductions_are_pytorchs_and_survive_json(case):
    schedule = ReduceOnPlateau(**case["options"])
    state = PlateauState()
    for step, (metric, expected) in enumerate(zip(PLATEAUS["metrics"], case["rates"], strict=True)):
        if metric < 0 and schedule.threshold_mode == "relative":
            break  # where PyTorch takes what is slightly worse for better
        state = schedule.observe(state, PLATEAUS["base_rate"], metric)
        state = PlateauState(**json.loads(json.dumps(dataclasses.asdict(state), allow_nan=False)))
        rate = schedule.rate(PLATEAUS["base_rate"], Progress(step, 10, 40, state))
        assert rate == pytest.approx(expected, rel=1e-12), (step, state)


def test_the_plateau_cases_do_reduce():
    assert all(case["rates"][-1] < PLATEAUS["base_rate"] for case in PLATEAUS["cases"])


def test_a_first_metric_of_nan_or_infinity_is_no_improvement():
    for metric in (math.nan, math.inf):
        assert ReduceOnPlateau().observe(PlateauState(), 0.1, metric) == PlateauState(bad=1)


def test_every_schedule_is_recorded():
    others = {"reduce_on_plateau", "flat_cosine", "cosine_log"}  # PyTorch has not the last two
    assert {case["options"]["type"] for case in CURVES["cases"]} | others == set(SCHEDULES)


def test_the_curves_of_better_by_default():
    """Holzmueller et al. (2024): flat_cos and coslog_4 at places where the formula is plain."""
    rates = [FlatCosine().rate(0.2, Progress(t, 4, 16)) for t in (0, 7, 8, 12, 16, 20)]
    assert rates == pytest.approx([0.2, 0.2, 0.2, 0.1, 0.0, 0.0])
    log = CosineLog()
    at = [0, 0.5, 1, 3, 7, 15]  # log2(1 + t): 0, .58, 1, 2, 3, 4 turns of 15 steps
    found = [log.rate(1.0, Progress(step, 5, 30)) for step in (2 * t for t in map(float, at))]
    middle = (1 - math.cos(2 * math.pi * math.log2(1.5))) / 2
    assert found == pytest.approx([0, middle, 0, 0, 0, 0], abs=1e-12)
    tops = [15 * (2 ** (turn + 0.5) - 1) / 15 for turn in range(4)]
    assert [log.rate(0.04, Progress(top, 1, 15)) for top in tops] == pytest.approx([0.04] * 4)


ANY = [
    Constant(),
    StepDecay(),
    Exponential(),
    Polynomial(),
    Cosine(),
    Cosine(period_epochs=0.3, restarts=True),
    Cosine(period_steps=3, restarts=True, period_growth=3, minimum_rate=0.001),
    WarmUp(warmup_epochs=2),
    WarmUp(warmup_steps=4, then=Cosine()),
    FlatCosine(flat=0.2, minimum_rate=0.01),
    CosineLog(),
    OneCycle(),
    OneCycle(duration_epochs=1, shape="linear"),
    ReduceOnPlateau(),
]


@pytest.mark.parametrize("schedule", ANY, ids=str)
@given(step=st.integers(0, 10_000), steps_per_epoch=st.integers(1, 50), total=st.integers(1, 500))
def test_a_rate_is_finite_and_within_the_base_rate_everywhere(schedule, step, steps_per_epoch, total):
    progress = Progress(step, steps_per_epoch, total)
    rate = schedule.rate(0.1, progress)
    assert isinstance(rate, float)
    assert 0 <= rate <= 0.1 * (1 + 1e-12)
    assert rate == schedule.rate(0.1, progress)  # nothing is remembered


def test_without_restarts_the_cosine_stays_at_the_minimum():
    schedule = Cosine(period_steps=10, minimum_rate=0.01)
    assert [schedule.rate(1.0, Progress(t, 5, 40)) for t in (10, 15, 20)] == [0.01] * 3


def test_a_cycle_too_short_to_rise_begins_with_the_base_rate():
    assert OneCycle(duration_steps=3).rate(0.1, Progress(0, 3, 3)) == 0.1


def test_epochs_and_steps_are_the_same_durations():
    for t in range(60):
        progress = Progress(t, 6, 60)
        by_steps = WarmUp(warmup_steps=9, then=StepDecay(every_steps=12))
        by_epochs = WarmUp(warmup_epochs=1.5, then=StepDecay(every_epochs=2))
        assert by_steps.rate(1.0, progress) == by_epochs.rate(1.0, progress)


def test_a_plateau_is_found_and_used_behind_a_warm_up():
    inner = ReduceOnPlateau(patience=3)
    schedule = WarmUp(warmup_steps=2, then=WarmUp(warmup_steps=2, then=inner))
    assert plateau_of(schedule) is inner
    assert plateau_of(Cosine()) is None
    assert schedule.rate(1.0, Progress(4, 10, 100, PlateauState(rate=0.25))) == 0.25


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: StepDecay(every_steps=1, every_epochs=1), "give every_steps or every_epochs, not both"),
        (lambda: Exponential(every_steps=1, every_epochs=1), "give every_steps or every_epochs, not both"),
        (
            lambda: Polynomial(duration_steps=1, duration_epochs=1),
            "give duration_steps or duration_epochs, not both",
        ),
        (lambda: OneCycle(duration_steps=2, duration_epochs=1), "give duration_steps or duration_epochs"),
        (lambda: Cosine(period_steps=1, period_epochs=1), "give period_steps or period_epochs, not both"),
        (lambda: Cosine(restarts=True), r"needs period_steps \(updates\) or period_epochs"),
        (lambda: WarmUp(), r"needs warmup_steps \(updates\) or warmup_epochs"),
        (lambda: WarmUp(warmup_steps=1, warmup_epochs=1), "give warmup_steps or warmup_epochs, not both"),
    ],
)
def test_contradicting_durations_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("level", [-10.6, 10.6, 0.0])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["relative", "absolute"])
def test_a_metric_that_stands_still_is_no_improvement_whatever_its_sign(level, mode, threshold_mode):
    schedule = ReduceOnPlateau(patience=2, mode=mode, threshold_mode=threshold_mode, factor=0.5)
    worse = 1e-5 if mode == "min" else -1e-5
    state = PlateauState()
    for metric in (level, level, level + worse, level):
        state = schedule.observe(state, 0.1, metric)
    assert (state.best, state.rate) == (level, 0.05)
    better = schedule.observe(state, 0.1, level - 1e4 * worse)
    assert (better.best, better.bad) == (level - 1e4 * worse, 0)


def test_a_plateau_behind_a_warm_up_is_named_by_its_own_path() -> None:
    then = {"type": "reduce_on_plateau", "metric": "validation_accuracy", "mode": "min"}
    blobs = {"format": "blobs", "samples": 100, "features": 2, "classes": 3}
    with pytest.raises(JobError) as caught:
        TrainingJob(
            model={"layers": [{"type": "dense", "units": 3}]},
            loss="softmax_cross_entropy",
            data={"train": blobs, "validation": {**blobs, "seed": 1}},
            optimizer={"type": "sgd", "schedule": {"type": "warm_up", "warmup_epochs": 1, "then": then}},
        )
    fault = "optimizer.schedule.then.mode: must be 'max' for 'validation_accuracy', not 'min'"
    assert fault in str(caught.value)
