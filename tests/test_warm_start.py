"""Jobs that begin with a model: which layers are taken over, what is told, and the same bits everywhere."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rigs import classes, make_job

from distbp import Control, JobError, TrainingJob, load_model, resume, train
from distbp.cli import main as cli
from distbp.core.errors import Interrupted
from distbp.run import events
from distbp.run.result import Result
from distbp.run.run_directory import read_result
from distbp.run.verify import verify_run

pytestmark = pytest.mark.usefixtures("numpy_kernels")
DATA = {"train": classes(70), "validation": classes(33, seed=1)}
LAYERS = (
    {"type": "dense", "units": 7, "activation": "tanh"},
    {"type": "batch_normalization"},
    {"type": "dense", "units": 5, "activation": "tanh"},
    {"type": "dense", "units": 3},
)


@pytest.fixture(scope="module")
def trained(numpy_kernels: None, tmp_path_factory: pytest.TempPathFactory) -> Result:
    job = make_job(LAYERS, name="teacher", batch_size=16, epochs=3)
    return train(job, data=DATA, output=tmp_path_factory.mktemp("trained") / "run")


def tuned(init: Any, layers: Any = LAYERS, **fields: Any) -> TrainingJob:
    return make_job(layers, **{"batch_size": 16, "epochs": 2, "init": str(init), "seed": 8, **fields})


def tensors(result: Result) -> dict[str, np.ndarray]:
    model = result.model()
    every = (*model.network.tensors, *model.network.statistics)
    return {t.path: model.vector[t.start : t.stop].reshape(t.shape) for t in every}


FROZEN = {"type": "sgd", "learning_rate": 1e-30}  # far below a float32's last bit: weights stay as they begin


def began_with(tmp_path: Path, job: TrainingJob, name: str = "run") -> tuple[dict[str, np.ndarray], Result]:
    result = train(job.replace(optimizer=FROZEN, max_steps=1), data=DATA, output=tmp_path / name)
    return tensors(result), result


def about_init(notes: tuple[str, ...]) -> tuple[str, ...]:
    """A short run is also told that it learned nothing."""
    return tuple(note for note in notes if note.startswith("init: "))


def test_all_layers_are_those_of_the_model(tmp_path: Path, trained: Result) -> None:
    told: list[events.Event] = []
    found, result = began_with(tmp_path, tuned(trained.path))
    for name, array in tensors(trained).items():
        if not name.endswith((".mean", ".variance")):  # running statistics have moved by one step
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    count = sum(array.size for array in tensors(trained).values())
    notes = (f"init: 4 layers ({count} values) are those of the model of 'teacher' in model",)
    assert about_init(result.notes) == notes
    train(tuned(trained.path / "model"), data=DATA, output=tmp_path / "again", listener=told.append)
    [started] = [event for event in told if isinstance(event, events.Started)]
    assert started.notes == notes


def test_another_head_begins_fresh_and_is_told(tmp_path: Path, trained: Result) -> None:
    """With a dropout between, which shifts the numbers of the layers, and one layer left out."""
    layers = [LAYERS[0], {"type": "dropout", "rate": 0.1}, LAYERS[1], {"type": "dense", "units": 3}]
    found, result = began_with(tmp_path, tuned(trained.path, layers))
    theirs = tensors(trained)
    np.testing.assert_array_equal(found["layers.0.dense.weight"], theirs["layers.0.dense.weight"])
    np.testing.assert_array_equal(
        found["layers.2.batch_normalization.scale"], theirs["layers.1.batch_normalization.scale"]
    )
    fresh, _ = began_with(tmp_path, tuned(trained.path, layers).replace(init=None), "fresh")
    np.testing.assert_array_equal(found["layers.3.dense.weight"], fresh["layers.3.dense.weight"])
    assert about_init(result.notes)[1:] == (
        "init: layer 2 begins with the model's layer 1",
        "init: layer 3 (dense: weight 3 x 7, bias 3) begins fresh",
        "init: the model's layer 2 (dense: weight 5 x 7, bias 5) is not used",
        "init: the model's layer 3 (dense: weight 3 x 5, bias 3) is not used",
    )


def test_inputs_that_are_prepared_in_another_way_are_told(tmp_path: Path, trained: Result) -> None:
    result = train(tuned(trained.path, data={"standardize": True}), data=DATA, output=tmp_path / "run")
    assert "init: inputs are prepared as this job's data says" in about_init(result.notes)[-1]


def test_another_dtype(tmp_path: Path, trained: Result) -> None:
    found, _ = began_with(tmp_path, tuned(trained.path, dtype="float64"))
    theirs = tensors(trained)["layers.0.dense.weight"].astype(np.float64)
    np.testing.assert_allclose(found["layers.0.dense.weight"], theirs, rtol=1e-12)


def test_nothing_fits(tmp_path: Path, trained: Result) -> None:
    job = tuned(trained.path, [{"type": "dense", "units": 4}])
    with pytest.raises(JobError, match=r"init: no layer of the model in .* fits this network: init: layer 0"):
        train(job, data=DATA, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("init", "message"),
    [("nowhere", "init: .*nowhere does not exist; give the model folder"), ("", "init: ")],
)
def test_no_model(tmp_path: Path, init: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        train(tuned(init), data=DATA, folder=tmp_path, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_confined_it_stays_in_the_folder(tmp_path: Path, trained: Result) -> None:
    for init in (str(trained.path), "../run", "link"):
        (tmp_path / "jail").mkdir(exist_ok=True)
        (tmp_path / "jail/link").unlink(missing_ok=True)
        (tmp_path / "jail/link").symlink_to(trained.path)
        with pytest.raises(JobError, match=r"init: .*( not allowed|a link leads out)"):
            train(tuned(init), data=DATA, folder=tmp_path / "jail", output=tmp_path / "run", confined=True)


def test_killed_before_the_first_checkpoint_it_begins_with_the_same_model(
    tmp_path: Path, trained: Result
) -> None:
    """Whatever has become of that meanwhile."""
    copy = tmp_path / "copy"
    shutil.copytree(trained.path / "model", copy)
    whole = train(tuned(copy), data=DATA, output=tmp_path / "whole")

    def listener(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded):
            raise KeyboardInterrupt  # nothing is saved

    with pytest.raises(KeyboardInterrupt):
        train(tuned(copy), data=DATA, output=tmp_path / "run", listener=listener)
    shutil.rmtree(copy)
    result = resume(tmp_path / "run", data=DATA)
    assert (result.params_sha256, result.notes) == (
        whole.params_sha256,
        tuple(n.replace("in copy", "in init") for n in whole.notes),
    )
    assert verify_run(tmp_path / "run", 1, data=DATA).equal
    assert load_model(tmp_path / "run/init").facts["params_sha256"] == trained.params_sha256


def test_stopped_and_resumed(tmp_path: Path, trained: Result) -> None:
    whole = train(tuned(trained.path), data=DATA, output=tmp_path / "whole")
    control = Control()

    def stop(event: events.Event) -> None:
        if isinstance(event, events.Started):
            control.stop()

    with pytest.raises(Interrupted):
        train(tuned(trained.path), data=DATA, output=tmp_path / "run", control=control, listener=stop)
    assert resume(tmp_path / "run", data=DATA).params_sha256 == whole.params_sha256


RULES = {
    "adam": {"optimizer": {"type": "adam", "learning_rate": 0.05}},
    "momentum": {"optimizer": {"type": "momentum", "learning_rate": 0.05}, "clip": {"norm": 0.5}},
    "sgd": {"optimizer": {"type": "sgd", "learning_rate": 0.05}, "drop_last": True},
}
RANDOM = (LAYERS[0], {"type": "dropout", "rate": 0.2}, *LAYERS[1:])


def going_on(path: Path, first: TrainingJob, runs: int) -> Result:
    """The last of so many runs, each of which goes on with all of the one before."""
    result = train(first, data=DATA, output=path / "0")
    for number in range(1, runs):
        job = first.replace(init=str(path / str(number - 1)), init_keeps=["optimizer"])
        result = train(job, data=DATA, output=path / str(number))
    return result


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("auto", marks=pytest.mark.heavy)])
@pytest.mark.parametrize("name", ["adam", "momentum", "sgd"])
def test_runs_that_go_on_with_the_optimizer_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kernels: str
) -> None:
    """Orders of rows, dropout, moments and their count, running statistics: to the bit."""
    monkeypatch.setenv("DISTBP_KERNELS", kernels)
    job = make_job(RANDOM, batch_size=16, epochs=6, **RULES[name])
    whole = train(job, data=DATA, output=tmp_path / "whole")
    last = going_on(tmp_path, job.replace(epochs=2), 3)
    assert last.params_sha256 == whole.params_sha256
    np.testing.assert_array_equal(whole.history["validation_loss"][4:], last.history["validation_loss"])
    np.testing.assert_array_equal(last.model().vector, whole.model().vector)  # running statistics, too
    assert verify_run(last.path, 1, data=DATA).equal
    fresh = job.replace(epochs=2, init=str(tmp_path / "1"))
    assert train(fresh, data=DATA, output=tmp_path / "fresh").params_sha256 != whole.params_sha256


def test_copies_are_drawn_on(tmp_path: Path) -> None:
    job = make_job(batch_size=16, epochs=4, optimizer={"type": "evolution", "population": 4})
    whole = train(job, data=DATA, output=tmp_path / "whole")
    assert going_on(tmp_path, job.replace(epochs=2), 2).params_sha256 == whole.params_sha256


def test_the_state_is_kept_with_the_run(tmp_path: Path) -> None:
    """It is resumed to the same bits whatever becomes of the run before."""
    job = make_job(RANDOM, batch_size=16, epochs=2, optimizer="adam")
    whole = going_on(tmp_path / "whole", job, 2)
    shutil.copytree(tmp_path / "whole/0", tmp_path / "copy")
    stopped = Control()

    def stop(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded):
            stopped.stop()

    later = job.replace(init=str(tmp_path / "copy"), init_keeps=["optimizer"])
    with pytest.raises(Interrupted):
        train(later, data=DATA, output=tmp_path / "run", control=stopped, listener=stop)
    shutil.rmtree(tmp_path / "copy")
    assert resume(tmp_path / "run", data=DATA).params_sha256 == whole.params_sha256
    shutil.rmtree(tmp_path / "run/checkpoints")
    (tmp_path / "run/result.json").unlink()
    assert resume(tmp_path / "run", data=DATA).params_sha256 == whole.params_sha256


def test_several_networks_go_on_with_one(tmp_path: Path) -> None:
    job = make_job(RANDOM, batch_size=16, epochs=2, optimizer="adam")
    train(job, data=DATA, output=tmp_path / "one")
    later = job.replace(init=str(tmp_path / "one"), init_keeps=["optimizer"], members=2)
    both = train(later, data=DATA, output=tmp_path / "both")
    assert verify_run(both.path, data=DATA).equal
    second = TrainingJob.from_file(tmp_path / "both/members/1/job.yaml")
    alone = train(second, data=DATA, output=tmp_path / "alone")
    assert alone.params_sha256 == Result.from_json(read_result(tmp_path / "both/members/1")).params_sha256
    several = job.replace(init=str(tmp_path / "both/members/1"), init_keeps=["optimizer"])
    train(several, data=DATA, output=tmp_path / "again")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"optimizer": "rmsprop"}, "it kept first_moment, second_moment, and rmsprop keeps mean_square"),
        ({"optimizer": "sgd"}, "it kept first_moment, second_moment, and sgd keeps nothing"),
        ({"model": {"layers": [*LAYERS[:-1], {"type": "dense", "units": 4}]}}, "not all layers begin with"),
    ],
)
def test_an_optimizer_that_cannot_go_on_begins_anew(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    job = make_job(LAYERS, batch_size=16, epochs=1, optimizer="adam")
    train(job, data=DATA, output=tmp_path / "one")
    later = job.replace(init=str(tmp_path / "one"), init_keeps=["optimizer"], **changes)
    result = train(later, data=DATA, output=tmp_path / "run")
    assert f"init: the state of the optimizer begins anew: {why}" in about_init(result.notes)[-1]
    anew = train(later.replace(init_keeps=None), data=DATA, output=tmp_path / "anew")
    assert anew.params_sha256 == result.params_sha256


def test_what_has_no_state_to_go_on_with(tmp_path: Path, trained: Result) -> None:
    shutil.copytree(trained.path / "model", tmp_path / "model")
    with pytest.raises(JobError, match=r"init_keeps: there is no state of an optimizer beside the model in "):
        train(tuned(tmp_path / "model", init_keeps=["optimizer"]), data=DATA, output=tmp_path / "run")
    with pytest.raises(JobError, match="init_keeps: is for a job that begins with a model"):
        tuned("here", init_keeps=["optimizer"]).replace(init=None)
    with pytest.raises(JobError, match="init_keeps: names the optimizer, and lbfgs has no state"):
        make_job(init="here", init_keeps=["optimizer"], optimizer="lbfgs", batch_size="full")


def test_the_commands(tmp_path: Path) -> None:
    text = (
        "{data: {train: {format: blobs, samples: 100}},"
        " model: {layers: [{type: dense, units: 4}, {type: dense, units: 3}]},"
        " loss: softmax_cross_entropy, epochs: 2, workers: 0}"
    )
    (tmp_path / "first.yaml").write_text(text)
    (tmp_path / "second.yaml").write_text(text[:-1] + ", seed: 3, init: runs/first}")

    def run(*words: str | Path) -> Any:
        return CliRunner().invoke(cli.group, [str(word) for word in words])

    missing = run("validate", tmp_path / "second.yaml")
    assert missing.exit_code == 2 and "runs/first does not exist" in missing.output, missing.output
    assert run("train", tmp_path / "first.yaml", "--output", tmp_path / "runs/first").exit_code == 0
    note = r"note: init: 2 layers \(27 values\) are those of the model of 'job' in model"
    valid = run("validate", tmp_path / "second.yaml")
    assert re.search(note, valid.output), valid.output
    second = run("train", tmp_path / "second.yaml", "--output", tmp_path / "runs/second")
    assert second.exit_code == 0 and re.search(note, second.output), second.output
