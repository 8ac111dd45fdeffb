"""Jobs that search along a line, from start to end: the same bits after any stop, the verdict, the model."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disks import in_child
from rigs import DATA, make_job

from distbp import TrainingJob, resume, train
from distbp.core.errors import CheckpointError, Interrupted, NumericsError
from distbp.engine.parameter_server import ParameterServer
from distbp.run import events
from distbp.run.checkpoint import list_steps
from distbp.run.result import Result
from distbp.run.verify import verify_run

LAYERS = [{"type": "dense", "units": 5, "activation": "tanh"}, {"type": "dense", "units": 3}]
STEPS = 20
METHODS: dict[str, dict[str, Any]] = {
    "conjugate_gradient": {"optimizer": {"type": "conjugate_gradient", "curvature": 0.1}},
    "lbfgs": {"optimizer": {"type": "lbfgs", "history": 3}, "dtype": "float64"},
}
every_search = pytest.mark.parametrize("name", list(METHODS))
METHODS["evolution"] = {"optimizer": {"type": "evolution", "population": 12}}
every_method = pytest.mark.parametrize("name", METHODS)
WHOLE: dict[str, Result] = {}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTBP_KERNELS", "numpy")
        yield


def job_of(name: str, **fields: Any) -> TrainingJob:
    usual = {"batch_size": "full", "epochs": STEPS, "shards": 3, "evaluate_every": 2}
    return make_job(LAYERS, **{**usual, "checkpoint": {"every_steps": 4}, **METHODS[name], **fields})


@pytest.fixture
def whole(name: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The run that nothing happened to."""
    if name not in WHOLE:
        WHOLE[name] = train(job_of(name), data=DATA, output=tmp_path_factory.mktemp(name) / "run")
    return WHOLE[name]


def metrics_of(result: Result) -> bytes:
    return (result.path / "metrics.jsonl").read_bytes()


@every_method
@pytest.mark.parametrize("step", [0, 3, 9])
def test_stopped_within_a_search_the_run_goes_on_to_the_same_bits(
    name: str, step: int, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, waiting = ParameterServer.apply, [signal.SIGTERM]

    def watched(self: ParameterServer, number: int, *rest: Any) -> None:
        if number == step and waiting:
            signal.raise_signal(waiting.pop())
        apply(self, number, *rest)

    monkeypatch.setattr(ParameterServer, "apply", watched)
    with pytest.raises(Interrupted):
        train(job_of(name), data=DATA, output=tmp_path / "run")
    assert list_steps(tmp_path / "run" / "checkpoints")[-1] == step + 1
    result = resume(tmp_path / "run", data=DATA)
    assert result.params_sha256 == whole.params_sha256
    assert metrics_of(result) == metrics_of(whole)
    assert dict(result.metrics) == dict(whole.metrics)


@every_method
def test_killed_within_a_search_the_run_goes_on_to_the_same_bits(
    name: str, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = ParameterServer.apply

    def deadly(self: ParameterServer, number: int, *rest: Any) -> None:
        if number == 14:  # the last checkpoint is of step 12
            os.kill(os.getpid(), signal.SIGKILL)
        apply(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(ParameterServer, "apply", deadly)
        job = job_of(name)

        def child() -> None:
            train(job, data=DATA, output=tmp_path / "run")

        assert in_child(child) == -signal.SIGKILL
    assert list_steps(tmp_path / "run" / "checkpoints")[-1] == 12
    result = resume(tmp_path / "run", data=DATA)
    assert result.params_sha256 == whole.params_sha256 and metrics_of(result) == metrics_of(whole)


@every_method
def test_a_longer_run_is_the_same_as_one_that_was_long_at_once(
    name: str, whole: Result, tmp_path: Path
) -> None:
    train(job_of(name, epochs=11), data=DATA, output=tmp_path / "run")
    result = resume(tmp_path / "run", data=DATA, epochs=STEPS)
    assert result.params_sha256 == whole.params_sha256 and metrics_of(result) == metrics_of(whole)


@every_method
def test_verify_recomputes_a_run(name: str, whole: Result) -> None:
    found = verify_run(whole.path, 10, data=DATA)
    assert found.equal and len(found.shards) == 3
    assert verify_run(whole.path, 9, data=DATA).shards != found.shards


@every_search
def test_every_epoch_has_the_loss_of_the_model_that_it_left(name: str, whole: Result) -> None:
    losses = whole.history["train_loss"]
    assert (np.diff(losses) <= 0).all() and (np.diff(losses) == 0).any()  # a trial was given up
    assert whole.metrics["train_loss"] == losses[-1]
    x, y, weights = DATA["train"]
    right = whole.model().predict_proba(x)[np.arange(len(x)), y]
    assert losses[-1] == pytest.approx(float(np.average(-np.log(right), weights=weights)), rel=1e-5)


@every_search
def test_shards_change_sums_by_rounding_only(name: str, tmp_path: Path) -> None:
    found = []
    for shards in (1, 5):
        job = job_of(name, shards=shards, dtype="float64", epochs=8)
        found.append(train(job, data=DATA, output=tmp_path / str(shards)).model().vector)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-8, atol=1e-10)


@every_search
def test_training_ends_with_a_verdict_where_nothing_is_left_to_do(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 4))
    data = {"train": (x, x @ [[1.0], [2], [3], [4]] + 0.1 * rng.normal(size=(60, 1)))}
    optimizer = {**METHODS[name]["optimizer"], "tolerance": 1e-9}
    layers, fields = [{"type": "dense", "units": 1}], {"epochs": 500, "dtype": "float64", "evaluate_every": 7}
    job = make_job(layers, loss="mse", batch_size="full", optimizer=optimizer, **fields)
    told: list[events.Event] = []
    result = train(job, data=data, output=tmp_path / "run", listener=told.append)
    assert result.status == "completed" and result.steps < 60
    verdict = result.notes[-1]
    assert verdict.startswith("converged after ") and f", {result.steps} evaluations: " in verdict
    assert verdict.endswith("and tolerance is 1e-09")
    assert verdict in [event.text for event in told if isinstance(event, events.Noted)]
    lines = result.history.rows
    assert len(lines) == result.steps and lines[-1]["params_sha256"] == result.params_sha256
    lowest = np.linalg.lstsq(np.c_[x, np.ones(60)], data["train"][1], rcond=None)[0][:, 0]
    np.testing.assert_allclose(result.model().vector, lowest, atol=1e-9)
    assert verify_run(result.path, data=data).equal
    assert resume(result.path, data=data).params_sha256 == result.params_sha256
    with pytest.raises(
        CheckpointError, match=r"the run converged at step \d+, and would have with any number"
    ):
        resume(result.path, data=data, epochs=900)


def test_a_bowl_of_100_dimensions_is_solved_in_110_iterations(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    q, v = (np.linalg.qr(rng.normal(size=(rows, 100)))[0] for rows in (200, 100))
    x = q * np.sqrt(200 * np.linspace(1, 100, 100)) @ v
    y = x @ rng.normal(size=(100, 1)) + 0.5 * rng.normal(size=(200, 1))
    optimizer = {"type": "conjugate_gradient", "tolerance": 1e-10}
    fields: dict[str, Any] = {"batch_size": "full", "epochs": 300, "dtype": "float64", "shards": 3}
    job = make_job([{"type": "dense", "units": 1}], loss="mse", optimizer=optimizer, **fields)
    result = train(job, data=(x, y), output=tmp_path / "run")
    found = re.match(r"converged after (\d+) iterations, (\d+) evaluations", result.notes[-1])
    assert found is not None and int(found[1]) <= 110 and int(found[2]) == result.steps <= 220
    lowest = np.linalg.lstsq(np.c_[x, np.ones(200)], y, rcond=None)[0][:, 0]
    assert np.abs(result.model().vector - lowest).max() < 1e-10


@every_search
def test_a_loss_that_is_not_finite_at_the_start_stops_the_run(name: str, tmp_path: Path) -> None:
    huge = (np.full((6, 2), 1e30, np.float32), np.zeros((6, 1), np.float32))
    job = make_job([{"type": "dense", "units": 1}], loss="mse", batch_size="full", shards=1, **METHODS[name])
    with pytest.raises(NumericsError, match="step 0: Inf in the value of the loss"):
        train(job.replace(dtype="float32"), data=huge, output=tmp_path / "run")


def test_the_batch_is_the_whole_set_for_any_optimizer_that_says_so(tmp_path: Path) -> None:
    job = make_job(LAYERS, batch_size="full", optimizer="sgd", epochs=3, shards="auto")
    result = train(job, data=DATA, output=tmp_path / "run")
    assert (result.steps, result.shards) == (3, 1)
    assert train(job.replace(seed=job.seed, shuffle=False), data=DATA, output=tmp_path / "again").steps == 3
    assert not [note for note in result.notes if "batch" in note]
    for spelling in ("lbfgs", {"type": "lbfgs"}, {"type": "conjugate_gradient", "tolerance": 0}):
        found = TrainingJob(model={"layers": LAYERS}, loss="softmax_cross_entropy", optimizer=spelling)
        assert found.batch_size == "full" and TrainingJob.from_yaml(found.to_yaml()).digest == found.digest
    assert TrainingJob(model={"layers": LAYERS}, loss="softmax_cross_entropy").batch_size == 32
