"""`train` from end to end, in this process."""

from __future__ import annotations

import gc
import hashlib
import json
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rigs import classes, make_job, make_rig

from distbp import JobError, TrainingJob, train
from distbp.core.errors import DataError, NumericsError, SettingsError, StorageError
from distbp.engine.blueprint import Blueprint
from distbp.nn.network import Network
from distbp.optim.schedules import PlateauState
from distbp.run import events
from distbp.run.checkpoint import list_steps, load
from distbp.run.result import Result
from distbp.run.run_directory import read_lines
from distbp.team.base import Snapshot
from distbp.team.inline import InlineTeam

TRAIN, VALIDATION, TEST = classes(70), classes(33, seed=1), classes(20, seed=2)
DATA = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
LAYERS = ({"type": "dense", "units": 7, "activation": "tanh"}, {"type": "dense", "units": 3})
PER_EPOCH = 5


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


def job(layers: Any = LAYERS, **fields: Any) -> TrainingJob:
    fields = {"batch_size": 16, "epochs": 4, "optimizer": {"type": "adam", "learning_rate": 0.02}, **fields}
    return make_job(layers, **fields)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    def start(job: TrainingJob, data: Any = DATA, **options: Any) -> Result:
        return train(job, data=data, output=tmp_path / "run", **options)

    return start


def lines_of(result: Result) -> list[dict[str, Any]]:
    return read_lines(result.path / "metrics.jsonl")


def test_kernels_that_are_not_installed(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numba")
    monkeypatch.setitem(sys.modules, "numba", None)
    message = "DISTBP_KERNELS=numba cannot be used: the package numba is not installed: pip install"
    with pytest.raises(SettingsError, match=re.escape(message)):
        run(job())


# What a run leaves ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pictures")
def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    told: list[events.Event] = []
    result = train(job(epochs=20), data=DATA, output=tmp_path / "run", listener=told.append)
    assert (result.status, result.steps, result.epochs, result.shards) == ("completed", 100, 20.0, 4)
    assert (result.workers, result.exchange, result.attempt) == (0, "inline", 1)
    assert result.job_digest == job(epochs=20).digest
    assert set(result.metrics) == {
        f"{split}_{name}" for split in ("validation", "test") for name in ("loss", "accuracy")
    } | {"train_loss"}
    assert result.metrics["validation_accuracy"] > 0.7
    assert result.samples_per_second > 0
    assert sorted(p.name for p in result.path.iterdir() if p.name != ".lock") == [
        "checkpoints", "curves.svg", "events.jsonl", "job.yaml", "metrics.jsonl", "model", "result.json"
    ]  # fmt: skip
    assert TrainingJob.from_file(result.path / "job.yaml").digest == result.job_digest
    assert json.loads((result.path / "result.json").read_text()) == json.loads(json.dumps(result.to_json()))
    kinds = [type(event) for event in told if not isinstance(event, events.Progressed | events.Waiting)]
    assert kinds[0] is events.Started and kinds[-1] is events.Finished
    assert kinds.count(events.EpochEnded) == 20
    logged = [line["event"] for line in read_lines(result.path / "events.jsonl")]
    assert logged[0] == "started" and logged[-1] == "finished" and "progressed" not in logged
    model = result.model()
    predicted = model.predict(TEST[0])
    assert np.mean(predicted == TEST[1]) == pytest.approx(result.metrics["test_accuracy"])


def test_params_sha256_is_that_of_the_saved_weights(run: Any) -> None:
    layers = [LAYERS[0], {"type": "batch_normalization"}, LAYERS[1]]
    result = run(job(layers))
    arrays = load(result.path / "checkpoints", 20).arrays
    count = 5 * 7 + 7 + 2 * 7 + 7 * 3 + 3  # without the running statistics
    assert arrays["vector"].size == count + 14
    assert (
        result.params_sha256 == hashlib.sha256(arrays["vector"][:count].astype("<f4").tobytes()).hexdigest()
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_equals_the_plain_loop(run: Any, dtype: str) -> None:
    # The same steps, written out: worker and server, no trainer.
    j = job(dtype=dtype, epochs=2)
    result = run(j)
    r = make_rig(j, TRAIN)
    vector = r.start()
    team = InlineTeam(r.blueprint, r.data, Snapshot(0, {"vector": vector}))
    team.run(0, 2 * PER_EPOCH, PlateauState(), lambda: False)
    assert result.params_sha256 == hashlib.sha256(vector.tobytes()).hexdigest()
    team.close()


def test_the_same_job_gives_the_same_bits_and_another_seed_does_not(tmp_path: Path) -> None:
    results = [
        train(job(seed=seed), data=DATA, output=tmp_path / str(number))
        for number, seed in enumerate([5, 5, 6])
    ]
    assert results[0].params_sha256 == results[1].params_sha256 != results[2].params_sha256
    metrics = [(r.path / "metrics.jsonl").read_bytes() for r in results]
    assert metrics[0] == metrics[1] != metrics[2]


def test_when_checkpoints_are_saved_changes_nothing(tmp_path: Path) -> None:
    settings = [{"every_steps": 1}, {"every_seconds": 1e-9}, {"every_seconds": None, "keep_best": False}]
    results = [
        train(job(checkpoint=checkpoint), data=DATA, output=tmp_path / str(number))
        for number, checkpoint in enumerate(settings)
    ]
    assert len({r.params_sha256 for r in results}) == 1
    assert len({(r.path / "metrics.jsonl").read_bytes() for r in results}) == 1
    assert list_steps(results[2].path / "checkpoints") == [20]  # the end


def test_a_metrics_line(run: Any) -> None:
    result = run(job([LAYERS[0], {"type": "sigmoid"}, LAYERS[1]], epochs=2))
    first, last = lines_of(result)
    assert (first["epoch"], first["step"], last["epoch"], last["step"]) == (1, 5, 2, 10)
    assert first["learning_rate"] == 0.02
    assert set(first["health"]["tensors"]) == {
        "layers.0.dense.weight", "layers.0.dense.bias", "layers.2.dense.weight", "layers.2.dense.bias"
    }  # fmt: skip
    assert set(first["health"]["saturated"]) == {"layers.0", "layers.1"}
    assert all(h["gradient_norm"] > 0 and h["update_ratio"] >= 0 for h in first["health"]["tensors"].values())
    assert last["train_loss"] == result.metrics["train_loss"]


def test_train_loss_is_the_weighted_mean_over_the_epoch(run: Any) -> None:
    # A rate so small that the parameters stay: the mean over the epoch is that over the training set.
    x, y, w = classes(70, weighted=True)
    optimizer = {"type": "sgd", "learning_rate": 1e-12}
    j = job(epochs=1, dtype="float64", optimizer=optimizer, class_weight=[1, 3, 2])
    result = run(j, data={"train": (x, y, w), "validation": (x, y, w)})
    assert result.metrics["train_loss"] == pytest.approx(result.metrics["validation_loss"], rel=1e-9)


# Length --------------------------------------------------------------------------------------------------


def test_max_steps_in_the_middle_of_an_epoch(run: Any) -> None:
    result = run(job(epochs=None, max_steps=7))
    assert (result.status, result.steps, result.epochs) == ("completed", 7, 1.4)
    first, last = lines_of(result)
    assert (last["epoch"], last["step"]) == (2, 7)
    assert "health" in first and "health" not in last  # measured over whole epochs
    assert "validation_loss" in last
    assert list_steps(result.path / "checkpoints")[-1] == 7


@pytest.mark.parametrize(("epochs", "max_steps", "steps"), [(3, 100, 15), (3, 15, 15), (30, 10, 10)])
def test_the_shorter_of_epochs_and_max_steps(run: Any, epochs: int, max_steps: int, steps: int) -> None:
    result = run(job(epochs=epochs, max_steps=max_steps))
    assert result.steps == steps
    assert "health" in lines_of(result)[-1]


def test_evaluate_every(run: Any) -> None:
    result = run(job(epochs=5, evaluate_every=2))
    assert ["validation_loss" in line for line in lines_of(result)] == [False, True, False, True, True]


def test_without_validation_and_test(run: Any) -> None:
    result = run(job(), data=TRAIN)
    assert set(result.metrics) == {"train_loss"}


def test_drop_last_and_shuffle(run: Any) -> None:
    assert run(job(drop_last=True, shuffle=False)).steps == 16


def test_fewer_rows_than_a_batch_or_than_shards(run: Any) -> None:
    result = run(job(batch_size=64, shards=8, epochs=3), data=classes(5))
    assert result.steps == 3
    assert result.metrics["train_loss"] > 0


# Early stopping and the best weights ---------------------------------------------------------------------

WATCHED = {"metric": "validation_loss", "patience": 2}


def stopped_job(**fields: Any) -> TrainingJob:
    # A high rate on few rows: the validation loss soon rises.
    optimizer = {"type": "adam", "learning_rate": 0.2}
    return job(**{"epochs": 60, "early_stopping": WATCHED, "optimizer": optimizer, **fields})


def test_early_stopping_restores_the_best_weights(run: Any) -> None:
    told: list[events.Event] = []
    result = run(stopped_job(), listener=told.append)
    lines = lines_of(result)
    losses = [line["validation_loss"] for line in lines]
    best = int(np.argmin(losses))
    assert result.status == "stopped early"
    assert len(lines) == best + 1 + WATCHED["patience"] < 60
    assert result.steps == len(lines) * PER_EPOCH
    assert result.model_epoch == best + 1
    (stopped,) = (event for event in told if isinstance(event, events.Stopped))
    assert stopped == events.Stopped("validation_loss", 2, best + 1, losses[best])
    assert result.metrics["validation_loss"] == losses[best]
    assert result.metrics["train_loss"] == lines[best]["train_loss"]
    kept = load(result.path / "checkpoints", result.steps)
    assert result.params_sha256 == hashlib.sha256(kept.arrays["best"].tobytes()).hexdigest()
    measured = result.model().evaluate(*VALIDATION)
    assert measured["loss"] == pytest.approx(losses[best], rel=1e-5)
    assert result.metrics["test_loss"] == pytest.approx(result.model().evaluate(*TEST)["loss"], rel=1e-5)


def test_a_team_that_takes_no_other_weights_makes_room_for_one_that_begins_with_them(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with workers on several nodes."""
    expected = run(stopped_job())
    monkeypatch.setattr(InlineTeam, "adopt", lambda self, vector: False)
    found = train(stopped_job(), data=DATA, output=tmp_path / "other")
    assert found.metrics == expected.metrics and "test_loss" in found.metrics
    assert found.params_sha256 == expected.params_sha256


def test_the_last_weights_where_the_best_are_not_wanted(run: Any) -> None:
    result = run(stopped_job(early_stopping={**WATCHED, "restore_best": False}))
    assert result.metrics["validation_loss"] == lines_of(result)[-1]["validation_loss"]
    assert result.model_epoch == len(lines_of(result))


def test_more_is_better_for_accuracy(run: Any) -> None:
    result = run(stopped_job(early_stopping={"metric": "validation_accuracy", "patience": 3}))
    values = [line["validation_accuracy"] for line in lines_of(result)]
    assert result.metrics["validation_accuracy"] == max(values)


def test_min_delta(run: Any) -> None:
    result = run(stopped_job(early_stopping={**WATCHED, "min_delta": 100.0}))
    assert len(lines_of(result)) == 3  # nothing improves on the first by as much


def test_steps_in_which_kernels_may_be_compiled_are_not_part_of_the_speed(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one, and the last one of the first epoch, which measures health: stretches of their own."""
    monkeypatch.setattr("distbp.run.trainer.PROGRESS_S", 1e9)
    told: list[events.Event] = []
    result = run(job(epochs=2), listener=told.append)
    progressed = [event for event in told if isinstance(event, events.Progressed)]
    counted = [(event.step, event.samples_per_second > 0) for event in progressed]
    assert counted == [(1, False), (PER_EPOCH - 1, True), (PER_EPOCH, False), (2 * PER_EPOCH, True)]
    assert {event.workers for event in progressed} == {0}
    assert result.samples_per_second > 0
    what = [event.what for event in told if isinstance(event, events.Waiting)]
    assert what[0] == "reading the data" and what[1].startswith("loading the kernels")


def test_the_best_parameters_are_kept_in_every_checkpoint(run: Any) -> None:
    result = run(stopped_job(checkpoint={"every_steps": 1, "keep_last": 2}, early_stopping=None, epochs=12))
    lines = lines_of(result)
    best = lines[int(np.argmin([line["validation_loss"] for line in lines]))]
    assert best["step"] < 55
    assert list_steps(result.path / "checkpoints") == [59, 60]
    for step in (59, 60):
        kept = load(result.path / "checkpoints", step)
        assert hashlib.sha256(kept.arrays["best"].tobytes()).hexdigest() == best["params_sha256"]


def test_better_epochs_write_nothing_to_the_disk(run: Any) -> None:
    """But for the lines of the logs: a checkpoint of each cost twenty times the training of a small job."""
    told: list[events.Event] = []
    optimizer = {"type": "sgd", "learning_rate": 1e-3}  # slowly, and better each time
    run(job(epochs=30, optimizer=optimizer), data={**DATA, "validation": TRAIN}, listener=told.append)
    assert sum(event.improved for event in told if isinstance(event, events.EpochEnded)) > 20
    assert [event.step for event in told if isinstance(event, events.CheckpointSaved)] == [30 * PER_EPOCH]


def test_the_best_parameters_are_not_kept_where_told_so(run: Any) -> None:
    checkpoint = {"every_steps": 1, "keep_last": 2, "keep_best": False}
    result = run(stopped_job(checkpoint=checkpoint, early_stopping=None, epochs=12))
    assert "best" not in load(result.path / "checkpoints", 60).arrays


def test_the_rate_falls_on_a_plateau(run: Any) -> None:
    schedule = {"type": "reduce_on_plateau", "patience": 0, "threshold": 10.0, "threshold_mode": "absolute"}
    result = run(job(optimizer={"type": "sgd", "learning_rate": 0.1, "schedule": schedule}))
    # The first evaluation is the best so far; each later one reduces the rate of what follows.
    np.testing.assert_allclose([line["learning_rate"] for line in lines_of(result)], [0.1, 0.1, 0.01, 0.001])


# What goes wrong -----------------------------------------------------------------------------------------


def last_event(path: Path) -> dict[str, Any]:
    return read_lines(path / "events.jsonl")[-1]


def test_an_exploding_rate_is_stopped_before_the_update(run: Any, tmp_path: Path) -> None:
    # Linear and squared: every step multiplies the error, until float32 overflows.
    optimizer = {"type": "sgd", "learning_rate": 1e6}
    layers = [{"type": "dense", "units": 3}]
    with pytest.raises(NumericsError) as caught:
        run(job(layers, loss="mse", optimizer=optimizer, checkpoint={"every_steps": 1}))
    error = caught.value
    assert error.step >= 1
    assert error.layer in ("layer 0 (dense)", "the loss")
    assert error.rows
    assert "; the update was not applied. Lower optimizer.learning_rate, set clip" in str(error)
    # The last good state is there, and it is finite.
    kept = load(tmp_path / "run/checkpoints", error.step)
    assert np.isfinite(kept.arrays["vector"]).all()


def test_bad_rows_are_refused_before_training(run: Any, tmp_path: Path) -> None:
    x = TRAIN[0].copy()
    x[12, 3] = np.nan
    with pytest.raises(DataError, match=r"row 12, column 3.*1 of 70 rows are bad"):
        run(job(), data=(x, TRAIN[1]))
    assert not (tmp_path / "run").exists()


def test_bad_rows_can_be_skipped(run: Any) -> None:
    x = TRAIN[0].copy()
    x[[12, 13]] = np.nan
    assert run(job(data={"bad_rows": "skip"}), data=(x, TRAIN[1])).steps == 20


def test_a_row_that_overflows_is_named_by_its_number_in_the_data(run: Any) -> None:
    x = TRAIN[0].copy()
    x[2] = np.nan  # skipped, so that later rows have other places in the table
    x[40] = 3e38
    layers = [{"type": "dense", "units": 7, "activation": "relu"}, LAYERS[1]]
    with pytest.raises(NumericsError) as caught:
        run(job(layers, data={"bad_rows": "skip"}, epochs=1), data=(x, TRAIN[1]))
    assert caught.value.rows == (40,)
    assert "outputs of layer" in str(caught.value)


def test_a_job_that_does_not_fit_its_data_leaves_nothing_behind(run: Any, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="the labels are of 3 classes: 0, 1, 2; give the last layer 3 units"):
        run(job([{"type": "dense", "units": 2}]))
    assert not (tmp_path / "run").exists()


def test_data_of_an_unknown_split(run: Any) -> None:
    with pytest.raises(ValueError, match=r"data has the key 'valid'; its keys are train, validation, test"):
        run(job(), data={"train": TRAIN, "valid": VALIDATION})


def test_nothing_to_train_on(run: Any) -> None:
    with pytest.raises(DataError, match=r"there is nothing to train on: name data\.train in the job"):
        run(job(), data=None)


def test_a_folder_with_something_in_it_is_refused(run: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="is not empty"):
        run(job())


def test_a_listener_that_fails_ends_the_run_and_frees_it(run: Any, tmp_path: Path) -> None:
    def listener(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded):
            raise RuntimeError("display is gone")

    with pytest.raises(RuntimeError, match="display is gone"):
        run(job(), listener=listener)
    assert last_event(tmp_path / "run")["event"] == "epoch_ended"


# Real data, images, other tasks --------------------------------------------------------------------------


def test_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: no digits")
    j = TrainingJob(
        data={
            "train": {"format": "digits", "rows": [0, 1400]},
            "test": {"format": "digits", "rows": [1400, 1797]},
            "scale": 16,
        },
        model={
            "layers": [{"type": "dense", "units": 64, "activation": "relu"}, {"type": "dense", "units": 10}]
        },
        loss="softmax_cross_entropy",
        optimizer={"type": "adam", "learning_rate": 0.003},
        batch_size=32,
        epochs=12,
        workers=0,
    )
    result = train(j, output=tmp_path / "run")
    assert result.metrics["test_accuracy"] >= 0.93


def test_images_may_go_straight_into_a_dense_layer(run: Any) -> None:
    x = TRAIN[0].astype(np.float32)[:, :4].reshape(70, 2, 2)
    result = run(job(epochs=1), data=(x, TRAIN[1]))
    assert result.model().predict(x).shape == (70,)


@pytest.mark.parametrize(
    ("loss", "units", "targets"),
    [
        ("mse", 1, TRAIN[0] @ np.array([1.0, -2, 0.5, 0, 3])),
        ("huber", 2, TRAIN[0][:, :2]),
        ("sigmoid_cross_entropy", 1, TRAIN[1] > 0),
        ("poisson", 1, np.exp(TRAIN[0][:, 0]).round()),
        ("quadratic", 3, TRAIN[1]),
    ],
)
def test_other_tasks(run: Any, loss: str, units: int, targets: Any) -> None:
    layers = [LAYERS[0], {"type": "dense", "units": units}]
    targets = np.asarray(targets, dtype=np.int64 if targets.dtype == bool else None)
    data = (TRAIN[0], targets)
    result = run(job(layers, loss=loss, epochs=15), data={"train": data, "validation": data})
    losses = [line["validation_loss"] for line in lines_of(result)]
    assert losses[-1] < losses[0]


# Memory --------------------------------------------------------------------------------------------------


def resident_bytes() -> int:
    """Of this process, mapped files included."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


@pytest.fixture
def steps() -> Iterator[Callable[[int], None]]:
    """Runs so many more steps of the inline team, on 64 features with every kind of part."""
    layers = [
        {"type": "dense", "units": 32, "activation": "gelu"},
        {"type": "dropout", "rate": 0.2},
        {"type": "batch_normalization"},
        {"type": "dense", "units": 3},
    ]
    optimizer = {"type": "adam", "schedule": "cosine"}
    j = make_job(layers, batch_size=32, shards=2, optimizer=optimizer, clip={"norm": 1.0}, epochs=10_000)
    r = make_rig(j, classes(300, features=64, weighted=True))
    team = InlineTeam(r.blueprint, r.data, Snapshot(0, {"vector": r.start()}))
    place = 0

    def more(count: int) -> None:
        nonlocal place
        place = team.run(place, place + count, PlateauState(), lambda: False)

    yield more
    team.close()


@pytest.mark.heavy
def test_the_hot_loop_allocates_nothing_that_stays(steps: Callable[[int], None]) -> None:
    gc.collect()
    gc.disable()  # a collection would empty the lists of freed objects that CPython keeps
    try:
        steps(2521)  # up to 2,000 freed tuples of each length: the lists are full then
        tracemalloc.start()
        steps(20)
        before = tracemalloc.get_traced_memory()[0]
        steps(1000)
        assert tracemalloc.get_traced_memory()[0] - before < 8000  # less than one small object a step
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 MB of inputs, two hundred times the buffer of a shard."""
    folder = tmp_path_factory.mktemp("large")
    rows, features = 60_000, 500
    inputs = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (rows, features))
    inputs[:] = (np.arange(rows) % 7)[:, None]
    inputs.flush()
    np.save(folder / "y.npy", np.arange(rows) % 3)
    return folder


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_training_from_a_mapped_file_keeps_the_resident_size(
    large_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    monkeypatch.setenv("DISTBP_PREPARE_BYTES", "1MiB")  # scaled batch by batch, not at once
    source = {"format": "npy", "inputs": "x.npy", "targets": "y.npy"}
    data = {"train": source, "scale": scale}
    j = make_job([{"type": "dense", "units": 3}], data=data, batch_size=256, shards=2, epochs=2)
    sizes: list[int] = []

    def listener(event: events.Event) -> None:
        if isinstance(event, events.Started | events.Progressed):
            sizes.append(resident_bytes())

    monkeypatch.setattr("distbp.run.trainer.PROGRESS_S", 0.005)
    train(j, folder=large_file, output=tmp_path / "run", listener=listener)
    assert len(sizes) > 10
    assert max(sizes) - sizes[0] < 20 * 2**20, [size >> 20 for size in sizes]


@pytest.mark.parametrize(
    ("parameter_bytes", "rows", "every"),
    [(1 << 20, 100, 1), (25 << 20, 65536, 1), (25 << 20, 65535, 2), (25 << 20, 4096, 16)],
)
def test_large_vectors_on_little_data_are_hashed_less_often(
    parameter_bytes: int, rows: int, every: int
) -> None:
    from distbp.run.accounts import digest_every

    assert digest_every(parameter_bytes, rows) == every


def test_an_epoch_without_a_digest_is_saved_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for small in (1 << 20, 0):  # bytes of parameters that are hashed at every epoch
        monkeypatch.setattr("distbp.run.accounts.SMALL_BYTES", small)
        stopping = {"metric": "validation_loss", "patience": 1, "min_delta": 0.01}
        result = train(
            job(epochs=30, early_stopping=stopping, checkpoint={"keep_last": 50, "keep_best": True}),
            data=DATA,
            output=tmp_path / str(small),
        )
        kept = {
            step: load(result.path / "checkpoints", step) for step in list_steps(result.path / "checkpoints")
        }
        lines = lines_of(result)
        hashed = [line["epoch"] for line in lines if line.pop("params_sha256", None)]
        arrays = {(s, k): v.tobytes() for s, c in kept.items() for k, v in c.arrays.items()}
        found.append((hashed, lines, arrays, result))
    (every, lines, kept, result), (few, *rest, other) = found
    assert result.status == "stopped early"
    assert (every, few) == ([line["epoch"] for line in lines], [])  # it stops before the last epoch
    assert (result.steps, "best") in kept
    assert rest == [lines, kept]
    assert other.params_sha256 == result.params_sha256


def test_an_epoch_makes_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than a short epoch."""
    made: list[int] = []
    usual = Blueprint.network

    def network(blueprint: Blueprint) -> Network:
        made[-1] += 1
        return usual(blueprint)

    monkeypatch.setattr(Blueprint, "network", network)
    for epochs in (2, 6):
        made.append(0)
        train(job(epochs=epochs), data=DATA, output=tmp_path / str(epochs), workers=0)
    assert made[0] == made[1] > 0


@pytest.mark.parametrize("fields", [{}, {"members": 2}])
def test_compiling_is_waited_for_and_changes_no_team(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    pytest.importorskip("numba")
    monkeypatch.setenv("DISTBP_KERNELS", "numba")

    @contextmanager
    def compiles(first: Callable[[], None]) -> Iterator[None]:
        first()
        yield

    monkeypatch.setattr("distbp.machine.lean_numba.told", compiles)
    heard: list[events.Event] = []
    result = run(job(epochs=1, **fields), workers=0, listener=heard.append)
    [what] = {
        event.what for event in heard if isinstance(event, events.Waiting) and "compiling" in event.what
    }
    assert what.startswith("compiling kernels, once on this machine: ")
    assert {"tanh", "softmax_cross_entropy", "tanh_backward"} <= set(what.split(": ")[1].split(", "))
    assert not any(isinstance(event, events.TeamChanged) for event in heard)
    assert not any("compil" in note for note in result.notes)
