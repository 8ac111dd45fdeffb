"""What is said of a run: that it is not well, what was left out, what is not defined; and numbers at their
limits, from end to end."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rigs import classes, make_job

from distbp import TrainingJob, resume, train
from distbp.cli.main import group
from distbp.core.arrays import Array
from distbp.core.errors import DataError
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.losses import LOSSES
from distbp.nn.network import Tensor
from distbp.nn.program import loss_sum
from distbp.optim import CHAINS, OPTIMIZERS
from distbp.run import events
from distbp.run.measured import Metrics
from distbp.run.result import Result
from distbp.run.run_directory import read_lines
from distbp.run.verdict import EpochLosses, Expected, unhealthy

Run = Callable[..., Result]
SMALL = {"batch_size": 16, "shards": 2, "epochs": 6}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")

    def start(job: TrainingJob, data: Any, name: str = "run", **options: Any) -> Result:
        return train(job, data=data, output=tmp_path / name, **options)

    return start


def stack(activation: str = "relu", units: int = 8, **first: Any) -> list[dict[str, Any]]:
    hidden = {"type": "dense", "units": units, "activation": activation, **first}
    return [hidden, {"type": "dense", "units": 3}]


def by_name(vector: Array, tensors: Iterable[Tensor], layer: int) -> dict[str, Array]:
    return {t.name: vector[t.start : t.stop].reshape(t.shape) for t in tensors if t.layer == layer}


# Health --------------------------------------------------------------------------------------------------


def test_a_healthy_run_says_nothing(run: Run) -> None:
    told: list[events.Event] = []
    job = make_job(stack(), optimizer={"type": "adam", "learning_rate": 0.02}, **SMALL)
    result = run(job, classes(100), listener=told.append)
    assert result.unhealthy == {} and result.notes == ()
    assert all(e.unhealthy == {} for e in told if isinstance(e, events.EpochEnded))
    lines = read_lines(result.path / "metrics.jsonl")
    assert all(line["health"]["unhealthy"] == {} for line in lines)
    assert lines[-1]["health"]["saturated"]["layers.0"] <= 0.25  # about half of all values are 0


def test_ids_have_no_scale(run: Run) -> None:
    ids = np.random.default_rng(0).integers(0, 1000, (100, 4))
    layers = [
        {"type": "embedding", "entries": 1000, "size": 8},
        "average_steps",
        {"type": "dense", "units": 3},
    ]
    result = run(make_job(layers, optimizer="adam", **SMALL), (ids, ids[:, 0] % 3))
    assert "unscaled_inputs" not in result.unhealthy


def test_a_diverged_run_is_said_to_be_one(run: Run) -> None:
    told: list[events.Event] = []
    x, y, *_ = classes(100)
    job = make_job(
        [{"type": "dense", "units": 1}],
        loss="mse",
        dtype="float64",
        optimizer={"type": "sgd", "learning_rate": 1.5},
        **SMALL,
    )
    result = run(job, (x, y[:, None].astype(float)), listener=told.append)
    assert "diverged" in result.unhealthy
    assert result.unhealthy["diverged"].startswith("training diverged: its loss ended at ")
    assert result.unhealthy["diverged"] in result.notes
    assert events.Noted(result.unhealthy["diverged"]) in told
    ended = [e for e in told if isinstance(e, events.EpochEnded)]
    assert ended[-1].unhealthy["diverged"] == result.unhealthy["diverged"]
    assert read_lines(result.path / "metrics.jsonl")[-1]["health"]["unhealthy"] == ended[-1].unhealthy
    assert json.loads((result.path / "result.json").read_text())["unhealthy"] == result.unhealthy
    assert resume(result.path).unhealthy == result.unhealthy


def test_units_that_are_dead_on_all_rows_are_counted_not_values_that_are_0(run: Run) -> None:
    x, y, *_ = classes(90)
    x = np.abs(x)
    x[7] = -50  # one row wakes all units that the others leave dead
    dead = {"initializer": {"type": "constant", "value": -1.0}, "bias_initializer": "zeros"}
    optimizer = {"type": "sgd", "learning_rate": 1e-9}
    job = make_job(stack(**dead), optimizer=optimizer, **SMALL)
    awake = run(job, (x, y), "awake")
    x[7] = 1
    asleep = run(job, (x, y), "asleep")
    shares = [
        read_lines(r.path / "metrics.jsonl")[0]["health"]["saturated"]["layers.0"] for r in (awake, asleep)
    ]
    assert shares == [0.0, 1.0]
    assert "saturated" in asleep.unhealthy and "saturated" not in awake.unhealthy
    assert "layers.0 (100%)" in asleep.unhealthy["saturated"]
    assert "no_better" in asleep.unhealthy


@pytest.mark.parametrize("kernels", ["numpy", "auto"])
def test_the_share_of_dead_units_does_not_depend_on_how_steps_are_computed(
    run: Run, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", kernels)
    bias = {"bias_initializer": {"type": "normal", "std": 6.0}}
    optimizer = {"type": "sgd", "learning_rate": 1e-9}
    rows = classes(1024)
    rows = (np.tile(rows[0], (1, 4)), *rows[1:])[:2]
    for activation in ("relu", "sigmoid", "tanh"):
        layers = stack(activation, 64, **bias)
        job = make_job(layers, optimizer=optimizer, batch_size=64, shards=4, epochs=2)
        result = run(job, rows, activation)
        found = [
            line["health"]["saturated"]["layers.0"] for line in read_lines(result.path / "metrics.jsonl")
        ]
        model = result.model()
        weights = by_name(model.vector, model.network.tensors, layer=0)
        z = rows[0].astype(np.float64) @ weights["weight"].T + weights["bias"]
        flat = {"relu": z <= 0, "sigmoid": np.abs(z) > math.log(99), "tanh": np.abs(np.tanh(z)) > 0.98}
        assert found == [flat[activation].all(axis=0).mean()] * 2
        assert 0 < found[0] < 1


def test_inputs_that_are_not_scaled(run: Run) -> None:
    x, y, *_ = classes(100)
    job = make_job(stack(), optimizer={"type": "adam", "learning_rate": 0.001}, **SMALL)
    assert "data.standardize: true" in run(job, (x * 255, y), "large").unhealthy["unscaled_inputs"]
    assert "unscaled_inputs" in run(job, (x * 1e-6, y), "small").unhealthy
    scaled = job.replace(data={"standardize": True})
    assert "unscaled_inputs" not in run(scaled, (x * 255, y), "scaled").unhealthy
    layers = [{"type": "batch_normalization"}, *stack()]
    normalized = make_job(layers, optimizer={"type": "adam", "learning_rate": 0.01}, **SMALL)
    assert "unscaled_inputs" not in run(normalized, (x * 255, y), "normalized").unhealthy


@pytest.mark.parametrize(
    ("losses", "ended", "names"),
    [
        (EpochLosses(2.4, 0.1, 0.1, 9), True, set()),
        (EpochLosses(2.4, 2.303, 2.303, 9), True, {"no_better"}),
        (EpochLosses(2.4, 2.4, 2.4, 1), False, set()),  # it has just begun
        (EpochLosses(2.4, 2.4, 2.4, 1), True, {"no_better"}),
        (EpochLosses(1.0, 0.5, 4e4, 9), True, {"diverged"}),
        (EpochLosses(4e4, 4e4, 4e4, 1), False, {"diverged"}),
        (EpochLosses(400.0, 30.0, 30.0, 3), False, set()),  # it comes down
    ],
)
def test_verdicts(losses: EpochLosses, ended: bool, names: set[str]) -> None:
    assert set(unhealthy(Expected(2.302, 2.303, 1.0), losses, {}, ended)) == names
    negative = EpochLosses(*(loss - 100 for loss in losses[:3]), losses.epochs)
    assert "diverged" not in unhealthy(Expected(-97.7, -97.7, 1.0), negative, {}, ended) or losses.last > 1e3


def test_no_run_diverges_where_the_best_constant_has_no_loss() -> None:
    """A target that is the same in all rows: any loss is above 0."""
    assert unhealthy(Expected(0.0, 0.0, 1.0), EpochLosses(0.1, 2e-3, 5e-3, 9), {}, ended=True) == {}


@pytest.mark.parametrize("name", LOSSES)
def test_the_constant_of_a_loss_is_the_best_one(name: str) -> None:
    loss, rng = LOSSES[name](), np.random.default_rng(4)
    rows, outputs = 60, 3
    labels = loss.targets == "labels"
    high = 1 if loss.task == "binary" else 5
    targets = rng.choice(3, rows, p=[0.6, 0.3, 0.1]) if labels else rng.uniform(0, high, (rows, outputs))
    share = np.bincount(targets, minlength=3) / rows if labels else targets.mean(axis=0)
    best = loss.constant(share, share if labels else np.median(targets, axis=0))

    def of(constant: Any) -> float:
        return loss_sum(loss, np.tile(constant, (rows, 1)), targets, None)

    nearly = 0.02 if name == "huber" else 1e-9  # its best lies between the mean and the median
    for output in range(outputs):
        for sign in (-1, 1):
            other = best.copy()
            other[output] += sign * (0.002 if loss.takes == "probabilities" else 0.05)
            if name == "perceptron":  # of the constants of this size: 0 costs nothing and says nothing
                other[output] = -best[output]
            if name == "nll":
                other /= other.sum()
            assert of(best) <= of(other) * (1 + nearly)


# Rows that are left out ----------------------------------------------------------------------------------


def test_rows_that_are_left_out_are_counted_and_told(run: Run, tmp_path: Path) -> None:
    x, y, *_ = classes(64)
    x, hold, told = x.copy(), x.copy(), []
    x[4:], hold[:2, 1] = np.nan, 1e39 if x.dtype == np.float64 else np.inf
    job = make_job(stack(), data={"bad_rows": "skip"}, **SMALL)
    result = run(job, {"train": (x, y), "validation": (hold, y)}, listener=told.append)
    assert result.skipped["train"] == {"NaN in the inputs": 60}
    assert sum(result.skipped["validation"].values()) == 2
    note = "bad_rows: skip left out 60 of 64 train rows (60: NaN in the inputs)"
    assert note in result.notes and events.Noted(note) in told
    started = next(e for e in told if isinstance(e, events.Started))
    assert started.skipped == result.skipped
    noted = [e["text"] for e in read_lines(result.path / "events.jsonl") if e["event"] == "noted"]
    assert note in noted
    np.savez(tmp_path / "d.npz", inputs=x, targets=y)
    source = {"format": "npz", "path": "d.npz"}
    on_file = job.replace(data={"train": source, "bad_rows": "skip"})
    (tmp_path / "job.yaml").write_text(on_file.to_yaml())
    shown = CliRunner().invoke(group, ["validate", str(tmp_path / "job.yaml")])
    assert shown.exit_code == 0 and f"note: {note}" in shown.output
    trained = CliRunner().invoke(
        group, ["train", str(tmp_path / "job.yaml"), "--output", str(tmp_path / "cli")]
    )
    assert trained.exit_code == 0 and f"note: {note}" in trained.output + trained.stderr


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("part", ["inputs", "targets", "weights"])
def test_numbers_beyond_the_dtype_are_refused_in_every_split(run: Run, split: str, part: str) -> None:
    def rows(bad: bool) -> tuple[Any, ...]:
        found = {"inputs": np.ones((20, 2)), "targets": np.ones((20, 1)), "weights": np.ones(20)}
        if bad:
            found[part][(3, 0) if part != "weights" else 3] = 1e39
        return tuple(found.values())

    data = {name: rows(name == split) for name in ("train", "validation", "test")}
    job = make_job([{"type": "dense", "units": 1}], loss="mse", **SMALL)
    where = "row 3" if part == "weights" else "row 3, column 0"
    with pytest.raises(DataError, match=rf"{where} of the {split} {part} is 1e\+39.*A float32 job takes"):
        run(job, data)
    if part != "inputs":
        return
    assert run(job.replace(dtype="float64", optimizer={"type": "sgd", "learning_rate": 1e-80}), data).steps


# Metrics that are not defined ----------------------------------------------------------------------------


def test_an_undefined_metric_decides_nothing_and_is_nan_everywhere(run: Run) -> None:
    x, y, *_ = classes(60)
    y = (y > 0).astype(np.float64)[:, None]
    told: list[events.Event] = []
    job = make_job(
        [{"type": "dense", "units": 1}],
        loss="sigmoid_cross_entropy",
        metrics=["auc"],
        early_stopping={"metric": "validation_auc", "patience": 1},
        optimizer={
            "type": "sgd",
            "schedule": {
                "type": "reduce_on_plateau",
                "metric": "validation_auc",
                "mode": "max",
                "patience": 0,
            },
        },
        **SMALL,
    )
    data = {"train": (x, y), "validation": (x[:9], np.zeros((9, 1)))}
    whole = run(job, data, listener=told.append)
    assert (whole.status, whole.epochs) == ("completed", 6)
    notes = [note for note in whole.notes if note.startswith("validation_auc is not defined on this data")]
    assert len(notes) == 1 and events.Noted(notes[0]) in told
    lines = read_lines(whole.path / "metrics.jsonl")
    assert all(line["validation_auc"] is None for line in lines)
    assert len({line["learning_rate"] for line in lines}) == 1
    assert math.isnan(whole.metrics["validation_auc"])
    again = resume(whole.path)
    assert math.isnan(again.metrics["validation_auc"])
    assert np.isnan(Metrics(lines)["validation_auc"]).all()
    (whole.path / "result.json").unlink()
    for path in (whole.path / "model").iterdir():
        path.unlink()
    (whole.path / "model").rmdir()
    resumed = resume(whole.path, data=data)
    assert math.isnan(resumed.metrics["validation_auc"])
    assert resumed.params_sha256 == whole.params_sha256
    served = Result.from_json(json.loads((whole.path / "result.json").read_text()))
    assert math.isnan(served.metrics["validation_auc"])


# The caller's settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [name for name, a in ACTIVATIONS.items() if a.trainable])
def test_the_callers_seterr_does_no_harm(run: Run, activation: str) -> None:
    x, y, *_ = classes(60)
    x = x * 40  # far into every tail
    job = make_job(stack(activation), **SMALL)
    with np.errstate(all="raise"):
        model = run(job, {"train": (x, y), "validation": (x, y)}).model()
        model.predict(x), model.predict_proba(x), model.evaluate(x, y)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_no_loss_and_no_optimizer_minds_the_callers_seterr(run: Run, kind: str, loss: str) -> None:
    x, y, *_ = classes(40)
    last = {"nll": "softmax", "binary_cross_entropy": "sigmoid"}.get(loss, "linear")
    targets = y if LOSSES[loss].targets == "labels" else (np.arange(3) == y[:, None]).astype(float)
    layers = [{"type": "dense", "units": 3, "activation": last}]
    optimizer = {"type": kind, "learning_rate": 1e-30} if kind in CHAINS else {"type": kind}
    batch = 20 if kind in CHAINS else "full"
    job = make_job(layers, loss=loss, optimizer=optimizer, batch_size=batch, shards=1, epochs=1)
    with np.errstate(all="raise"):
        model = run(job, {"train": (x * 1e-20, targets), "test": (x, targets)}).model()
        model.evaluate(x, targets)


@pytest.mark.heavy
def test_without_numbas_compiler_numpy_computes_and_says_so(tmp_path: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from rigs import classes, make_job
from distbp import train
layers = [{"type": "dense", "units": 4, "activation": "sigmoid"}, {"type": "dense", "units": 3}]
job = make_job(layers, epochs=1)
result = train(job, data=classes(20), output=sys.argv[2])
print(result.numerics["kernels"], *result.notes, sep="|")
"""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    environment.pop("DISTBP_KERNELS", None)
    told = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.startswith(
        "numpy, small weights transposed|kernels are those of NumPy, which are slower: NUMBA_DISABLE_JIT is"
        " set, so Numba compiles"
        " nothing: unset it"
    )


# Batch normalization -------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_a_last_batch_of_one_row_leaves_the_running_statistics_alone(run: Run, momentum: float) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(3, 2, (129, 4)), rng.integers(0, 3, 129)
    layers = [{"type": "batch_normalization", "momentum": momentum}, {"type": "dense", "units": 3}]
    job = make_job(layers, batch_size=128, shards=4, epochs=60, shuffle=True)
    model = run(job, (x, y)).model()
    found = by_name(model.vector, model.network.statistics, layer=0)
    assert found["variance"] == pytest.approx(x.var(axis=0), rel=0.2)
    assert found["mean"] == pytest.approx(x.mean(axis=0), rel=0.2)
