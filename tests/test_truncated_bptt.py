"""Truncated backpropagation through time: a job whose recurrent layers carry their states from window to
window, from the data to the model."""

from __future__ import annotations

import csv
import io
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rigs import make_job, make_rig

from distbp import TrainingJob, load_model, resume, train
from distbp.cli import main as cli
from distbp.core.arrays import Array
from distbp.core.errors import DataError, Interrupted, JobError, ModelError
from distbp.core.reduction import Block
from distbp.engine import numerics
from distbp.engine.parameter_server import ParameterServer
from distbp.engine.worker import Worker
from distbp.job.data_checks import notes_about
from distbp.job.members import seed_of
from distbp.machine.memory import share
from distbp.nn.kernels import NUMPY
from distbp.nn.network import Network
from distbp.nn.program import Program
from distbp.run.gradcheck import check_job
from distbp.run.result import Result
from distbp.run.run_directory import read_lines
from distbp.run.verify import verify_run
from distbp.team.exchange.shared_data import HeldShards, SharedRows, cut

STEPS = 4
LAYERS = (
    {"type": "gru", "units": 5, "return_sequences": True},
    {"type": "dense_steps", "units": 2},
)


def job_of(layers: Any = LAYERS, **fields: Any) -> TrainingJob:
    usual = {"batch_size": 6, "shards": 2, "epochs": 3, "data": {"truncated_bptt_steps": STEPS}}
    usual["optimizer"] = {"type": "adam", "learning_rate": 0.02}
    return make_job(layers, **{**usual, **fields})


def series(count: int, seed: int = 0) -> tuple[list[Array], list[Array]]:
    """Of different lengths; whether the sum so far is above 0."""
    draw = np.random.default_rng(seed)
    x = [draw.normal(size=(draw.integers(3, 15), 2)).astype(np.float32) for _ in range(count)]
    return x, [(one.cumsum(axis=0)[:, 0] > 0).astype(int) for one in x]


DATA = {"train": series(14), "validation": series(5, 1), "test": series(4, 2)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train(job_of(), data=DATA, output=tmp_path_factory.mktemp("whole") / "run")


def test_a_run_killed_within_its_series_goes_on_to_the_same_bits(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_epoch = whole.steps // 3
    assert per_epoch > 3
    apply, states = ParameterServer.apply, []

    def watched(self: ParameterServer, number: int, *rest: Any) -> None:
        if number == per_epoch + 2 and not states:
            network = self.blueprint.network()
            states.append(self.vector[network.states[0].start :].copy())
            os.kill(os.getpid(), signal.SIGTERM)
        apply(self, number, *rest)

    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    other = train(job_of(), data=DATA, output=tmp_path / "other")
    monkeypatch.setattr(ParameterServer, "apply", watched)
    output = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(job_of(), data=DATA, output=output)
    assert states[0].any()  # the checkpoint holds states that are not 0
    result = resume(output, data=DATA)
    assert result.params_sha256 == other.params_sha256
    assert (output / "metrics.jsonl").read_bytes() == (other.path / "metrics.jsonl").read_bytes()
    assert verify_run(output, data=DATA).equal


def test_compiled_steps_and_workers_give_the_same_bits(whole: Result) -> None:
    """The run's steps were compiled, where they can be; here they are computed one by one."""
    made = make_rig(job_of(), DATA["train"], kernels=whole.model().kernels)
    blocks = [Block(shard, shard + 1) for shard in range(2)]
    server = made.server(made.start())
    with numerics.one_blas_thread():
        each = [made.worker(server.vector) for _ in blocks]
        sums = [made.contribution(server.vector, block) for block in blocks]
        for step in range(whole.steps):
            for worker, one in zip(each, sums, strict=True):
                worker.compute(step, one.block, one.gradient, one.totals)
            server.apply(step, sums)
    network = made.blueprint.network()
    assert not server.vector[network.states[0].start :].any()  # after an epoch no series goes on
    model = whole.model()
    assert server.vector[: network.parameter_count].tobytes() == model.vector.tobytes()


def test_a_model_takes_whole_series_of_any_length(whole: Result) -> None:
    model = whole.model()
    assert model.vector.size == model.network.parameter_count  # it has no states
    draw = np.random.default_rng(3)
    x = draw.normal(size=(3, 23, 2)).astype(np.float32)
    network = Network(model.network.layers, (23, 2), np.float32)
    once = Program(network, 3, model.vector, kernels=NUMPY)
    once.run(x)
    found = model.outputs(x)
    np.testing.assert_allclose(found, once.outputs(3), rtol=1e-5, atol=1e-6)
    assert model.predict(x).tolist() == found.argmax(axis=2).tolist()
    np.testing.assert_allclose(model.predict_proba(x).sum(axis=2), 1, rtol=1e-5)
    ragged = [x[0, :1], x[1, :23], x[2, :9]]
    some = model.outputs(ragged)
    for row, one in enumerate(ragged):
        np.testing.assert_allclose(some[row, : len(one)], found[row, : len(one)], rtol=1e-5, atol=1e-6)
        assert not some[row, len(one) :].any()
    padded = np.where(np.arange(23)[:, None] < np.array([1, 23, 9])[:, None, None], x, np.nan)
    assert model.outputs(padded, lengths=[1, 23, 9]).tobytes() == some.tobytes()
    assert model.predict(x[:0]).shape == (0, 23)
    again = load_model(whole.path / "model")
    assert again.outputs(x).tobytes() == found.tobytes()


def test_series_without_steps_have_no_predictions(whole: Result) -> None:
    model = whole.model()
    for given in (np.zeros((2, 0, 2)), [np.zeros((0, 2))] * 2):
        assert model.outputs(given).shape == model.predict_proba(given).shape == (2, 0, 2)
        assert model.predict(given).shape == (2, 0)
    assert model.predict([np.zeros((0, 2)), np.ones((3, 2))]).shape == (2, 3)


def test_a_series_says_nothing_past_its_end(whole: Result, tmp_path: Path) -> None:
    model, lengths = whole.model(), [1, 3, 0, 2]
    x = np.random.default_rng(4).normal(size=(4, 3, 2))
    likely = model.predict_proba(x, lengths=lengths)
    past = np.arange(3) >= np.array(lengths)[:, None]
    assert np.isnan(likely[past]).all() and np.isfinite(likely[~past]).all()
    values = train(job_of(loss="mse", epochs=1), data=(x, x), output=tmp_path / "values").model()
    assert (np.isnan(values.predict(x, lengths=lengths)) == past[:, :, None]).all()

    np.savez(tmp_path / "series.npz", x=x, n=lengths)
    named = f"format: npz, path: {tmp_path / 'series.npz'}, inputs: x, targets: null, lengths: n"
    words = ["predict", str(whole.path), "{" + named + "}", "--probabilities"]
    told = CliRunner().invoke(cli.group, words)
    assert told.exit_code == 0, told.output
    lines = list(csv.DictReader(io.StringIO(told.stdout)))
    assert [(line["row"], line["step"]) for line in lines] == [
        ("0", "0"), ("1", "0"), ("1", "1"), ("1", "2"), ("3", "0"), ("3", "1"),
    ]  # fmt: skip
    assert [int(line["prediction"]) for line in lines] == model.predict(x, lengths=lengths)[~past].tolist()
    found = [[float(line[f"probability_{k}"]) for k in range(2)] for line in lines]
    np.testing.assert_array_equal(np.array(found, np.float32), likely[~past])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 5)), r"expected series of shape \(rows, steps, 2\), got \(2, 5\)"),
        (np.zeros((2, 5, 3)), r"expected series of shape \(rows, steps, 2\), got \(2, 5, 3\)"),
        (np.full((2, 5, 2), np.nan), "row 0, column .* of the inputs is NaN.*; mend or leave out that row"),
    ],
)
def test_series_that_a_model_does_not_take(whole: Result, given: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        whole.model().predict(given)


def test_a_model_measures_what_training_measured(whole: Result) -> None:
    model = whole.model()
    for split in ("validation", "test"):
        found = model.evaluate(*DATA[split])
        assert {f"{split}_{name}": value for name, value in found.items()}.items() <= dict(
            whole.metrics
        ).items()
    x, y = DATA["test"]
    right = sum((model.predict([one])[0] == labels).sum() for one, labels in zip(x, y, strict=True))
    assert model.score(x, y) == pytest.approx(right / sum(map(len, y)))
    weighted = model.evaluate(x, y, weights=[0, 0, 0, 2])
    assert weighted == pytest.approx(model.evaluate(x[3:], y[3:]))


def test_windows_as_long_as_the_series_are_backpropagation_through_all_time() -> None:
    """The same steps as by a job without windows, whose loss is that of all outputs of a row."""
    draw = np.random.default_rng(5)
    x, y = draw.normal(size=(8, 6, 2)), draw.normal(size=(8, 6, 2))
    fields = {"loss": "mse", "batch_size": 8, "shards": 1, "dtype": "float64", "optimizer": "sgd"}
    cut = make_rig(job_of(data={"truncated_bptt_steps": 6}, **fields), (x, y))
    plain = make_rig(job_of((*LAYERS, {"type": "flatten"}), data={}, **fields), (x, y.reshape(8, 12)))
    ends = []
    for made in (cut, plain):
        server = made.server(made.start())
        worker, one = made.worker(server.vector), made.contribution(server.vector, Block(0, 1))
        for step in range(5):
            worker.compute(step, one.block, one.gradient, one.totals)
            server.apply(step, [one])
        ends.append(server.vector[: made.blueprint.network().parameter_count])
    assert np.abs(ends[0] - plain.start()).max() > 1e-3
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-12)


def remembered(count: int, seed: int) -> tuple[Array, Array]:
    """The target of each of 12 steps is the bit of the first one, which is shown nowhere else."""
    bits = np.random.default_rng(seed).integers(0, 2, count)
    x = np.zeros((count, 12, 2), np.float32)
    x[np.arange(count), 0, bits] = 1
    return x, np.tile(bits[:, None], 12)


def test_a_bit_is_remembered_over_more_steps_than_a_window_has(tmp_path: Path) -> None:
    layers = ({"type": "lstm", "units": 6, "return_sequences": True}, {"type": "dense_steps", "units": 2})
    job = job_of(layers, batch_size=16, epochs=12, optimizer={"type": "adam", "learning_rate": 0.03})
    job = job.replace(data={"truncated_bptt_steps": 3})
    result = train(job, data={"train": remembered(64, 0), "validation": remembered(40, 1)}, output=tmp_path)
    # Without states three of four windows would say nothing: 0.625.
    assert result.metrics["validation_accuracy"] > 0.98


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("one long text", {"loss": "softmax_cross_entropy"}),
        ("values", {"loss": "mse", "data": {"truncated_bptt_steps": STEPS, "standardize": True}}),
        ("yes or no", {"loss": "sigmoid_cross_entropy", "metrics": ["accuracy", "auc", "f1"]}),
        ("class weights", {"loss": "softmax_cross_entropy", "class_weight": "balanced", "drop_last": True}),
    ],
)
def test_other_losses_and_data(kind: str, fields: dict[str, Any], tmp_path: Path) -> None:
    draw = np.random.default_rng(6)
    x = draw.normal(size=(6, 30, 2))
    y: Array = x.cumsum(axis=1)
    units, first = 2, []
    if kind == "one long text":
        x = draw.integers(0, 4, (1, 300))
        y, units, first = np.roll(x, 1, axis=1), 4, [{"type": "embedding", "entries": 4, "size": 3}]
    elif kind == "yes or no":
        y, units = (y[:, :, 0] > 0).astype(float), 1
    elif kind == "class weights":
        y = (y[:, :, 0] > 1).astype(int)
    layers = [*first, LAYERS[0], {"type": "dropout", "rate": 0.1}, {"type": "dense_steps", "units": units}]
    job = job_of(layers, **fields)
    result = train(job, data={"train": (x, y), "validation": (x[:3], y[:3])}, output=tmp_path / "run")
    model = result.model()
    found = model.evaluate(x[:3], y[:3])
    assert {f"validation_{name}": value for name, value in found.items()}.items() <= dict(
        result.metrics
    ).items()
    assert model.predict(x).shape == y.shape
    losses = [line["train_loss"] for line in read_lines(result.path / "metrics.jsonl")]
    assert losses[-1] < losses[0]


def test_the_gradient_of_such_a_job() -> None:
    assert check_job(job_of(), given=DATA).passed


def test_it_is_said_where_no_state_is_carried() -> None:
    made = make_rig(job_of(batch_size=200, shards=1), DATA["train"])
    notes = notes_about(made.blueprint.job, made.blueprint.rows, 1)
    count = made.blueprint.rows["train"]
    assert notes[-1] == (
        f"no state is carried: all {count} windows of the training set are in one batch; lower batch_size"
    )


FIELD = "data.truncated_bptt_steps"


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        (
            {"data": {"truncated_bptt_steps": 0}},
            {FIELD: "must be a whole number at least 1 and at most 65536, not 0"},
        ),
        (
            {"layers": [{"type": "dense_steps", "units": 2}]},
            {
                FIELD: "is for recurrent layers, and the network has none; add elman, gru or lstm, or leave"
                " it out"
            },
        ),
        (
            {"layers": [{"type": "attention"}, {"type": "lstm", "units": 2}]},
            {
                "model.layers.1": "lstm gives the state after a window alone; set return_sequences: true",
                "model.layers.0": "attention finds nothing before a window of a series; use recurrent layers"
                " alone",
            },
        ),
        (
            {"data": {"truncated_bptt_steps": 3, "targets": "inputs", "bad_rows": "skip"}},
            {
                "data.targets": f"compares whole rows, but with {FIELD} each step has a target; leave it out",
                "data.bad_rows": f"must be refuse with {FIELD}: a row is a whole series",
            },
        ),
        (
            {
                "data": {
                    "truncated_bptt_steps": 3,
                    "target": "y",
                    "train": {"format": "table", "path": "a.csv"},
                }
            },
            {FIELD: "is for arrays whose rows are series; windows of a table are data.windows"},
        ),
        (
            {
                "layers": [
                    {"type": "lstm", "units": 2, "return_sequences": True, "name": "seen"},
                    {"type": "dense_steps", "units": 1, "inputs": ["seen"], "name": "one"},
                    {"type": "dense_steps", "units": 1, "inputs": ["seen"], "name": "two"},
                ],
                "loss": {"one": "mse", "two": "mse"},
            },
            {"loss": f"must be one loss with {FIELD}, not one for each of several outputs"},
        ),
        (
            {"batch_size": "full"},
            {"batch_size": "full takes all windows at once, so none follows another; give a number"},
        ),
        (
            {"optimizer": "lbfgs", "batch_size": "full"},
            {"optimizer": f"lbfgs carries no states from step to step; take another, or leave {FIELD} out"},
        ),
    ],
)
def test_jobs_that_cannot_carry(fields: dict[str, Any], faults: dict[str, str]) -> None:
    fields = dict(fields)
    with pytest.raises(JobError) as error:
        job_of(fields.pop("layers", LAYERS), **fields)
    assert {fault.path: fault.message for fault in error.value.faults} == faults


def test_targets_must_be_there_for_each_step() -> None:
    with pytest.raises(DataError, match="windows of series need a target for each step"):
        make_rig(job_of(), (np.zeros((4, 8, 2)), [0, 1, 0, 1]))


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_node_that_has_some_shards_only_reads_the_same_slices(shuffle: bool) -> None:
    """And evaluates the same rows: what is sent to it says where series begin."""
    made = make_rig(job_of(shards=3, shuffle=shuffle), DATA["train"], {"validation": DATA["validation"]})
    per_epoch, memories, parts = made.blueprint.steps_per_epoch, [], []

    def fetch(shard: int) -> dict[str, SharedRows]:
        sent = cut(made.data, shard, made.blueprint.dtype)
        found = {name: share(arrays) for name, arrays in sent.splits.items()}
        memories.extend(memory for memory, _ in found.values())
        return {name: SharedRows(names) for name, (_, names) in found.items()}

    held, vector = HeldShards(fetch), made.start()
    try:
        here, there = made.worker(vector), Worker(made.blueprint, vector, held)
        for shard in range(3):
            for step in (0, 1, per_epoch - 1, per_epoch):
                slices = [worker.reader(shard).slice(step) for worker in (here, there)]
                assert slices[0].rows == slices[1].rows
                for one, other in zip(slices[0][:3], slices[1][:3], strict=True):
                    assert one is not None and other is not None
                    assert one.tobytes() == other.tobytes()
            with numerics.one_blas_thread():
                sums = [worker.evaluate("validation", shard).sums for worker in (here, there)]
            assert sums[0].tobytes() == sums[1].tobytes()
            parts.append(sums[0][1])
        assert sum(parts) == sum(map(len, DATA["validation"][0]))
    finally:
        for memory in memories:
            memory.close()


def test_the_best_of_several(tmp_path: Path) -> None:
    """Each deals its series by its own seed."""
    job = job_of(restarts=2, epochs=2)
    result = train(job, data=DATA, output=tmp_path / "run")
    alone = [job_of(epochs=2, seed=seed_of(job.seed, number)) for number in range(2)]
    digests = [train(one, data=DATA, output=tmp_path / str(n)).params_sha256 for n, one in enumerate(alone)]
    assert result.params_sha256 in digests and digests[0] != digests[1]


def test_members_go_through_the_series_side_by_side(tmp_path: Path) -> None:
    """Their predictions are averaged step by step, and evaluation is that of training."""
    job = job_of(members=3, metrics=["accuracy"])
    result = train(job, data=DATA, output=tmp_path / "run")
    model, (x, y) = result.model(), DATA["test"]
    alone = [load_model(result.path / f"members/{number}/model") for number in range(3)]
    mean = sum(one.predict_proba(x).astype(np.float64) for one in alone) / 3
    found = model.predict_proba(x)
    for row, length in enumerate(map(len, x)):
        np.testing.assert_allclose(found[row, :length], mean[row, :length], rtol=1e-5)
    measured = model.evaluate(x, y)
    assert {f"test_{name}": value for name, value in measured.items()} == {
        name: value for name, value in result.metrics.items() if name.startswith("test_")
    }
    of_steps = np.concatenate(list(y))
    chosen = np.concatenate([found[row, : len(one)].argmax(axis=1) for row, one in enumerate(y)])
    assert measured["accuracy"] == pytest.approx((chosen == of_steps).mean())
