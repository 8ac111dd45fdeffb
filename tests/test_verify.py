"""Runs recomputed and compared: equal where they should be, and the step named where not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rigs import classes, make_job

from distbp import train
from distbp.cli import main as cli
from distbp.core.errors import CheckpointError, FingerprintError
from distbp.run.checkpoint import list_steps, load, save
from distbp.run.run_directory import read_lines
from distbp.run.verify import verify_run

DATA = {"train": classes(70), "validation": classes(33, seed=1)}
PER_EPOCH = 5


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


def trained(path: Path, **fields: Any) -> Path:
    layers = [
        {"type": "dense", "units": 7, "activation": "tanh"},
        {"type": "batch_normalization"},
        {"type": "dropout", "rate": 0.1},
        {"type": "dense", "units": 3},
    ]
    options = {
        "batch_size": 16,
        "epochs": 4,
        "optimizer": {"type": "adam", "learning_rate": 0.02},
        "checkpoint": {"every_steps": 7, "every_seconds": None, "keep_last": 2, "keep_best": False},
        **fields,
    }
    train(make_job(layers, **options), data=DATA, output=path / "run")
    return path / "run"


@pytest.mark.parametrize("step", [1, 5, 6, 13, 14, 15, 16, 20, None])
def test_every_step_of_a_good_run_is_equal(tmp_path: Path, step: int | None) -> None:
    run = trained(tmp_path)
    assert list_steps(run / "checkpoints") == [14, 20]
    found = verify_run(run, step, data=DATA)
    asked = step or 20
    assert found.equal and found.step == asked
    assert found.start == (14 if asked > 14 else 0)
    assert found.comparisons[-1].step == next(s for s in (5, 10, 14, 15, 20) if s >= asked)
    assert len(found.shards) == len(set(found.shards)) == 4


def test_digests_of_the_shards_do_not_depend_on_where_recomputing_began(tmp_path: Path) -> None:
    few, many = trained(tmp_path / "few"), trained(tmp_path / "many", checkpoint={"every_steps": 1})
    first, second = verify_run(few, 20, data=DATA), verify_run(many, 20, data=DATA)
    assert (first.start, second.start) == (14, 19)
    assert first.shards == second.shards


def test_a_schedule_that_follows_a_metric(tmp_path: Path) -> None:
    schedule = {"type": "reduce_on_plateau", "metric": "validation_loss", "patience": 1, "factor": 0.1}
    optimizer = {"type": "sgd", "learning_rate": 3.0, "schedule": schedule}
    run = trained(tmp_path, epochs=8, optimizer=optimizer)
    rates = {line["learning_rate"] for line in read_lines(run / "metrics.jsonl")}
    assert len(rates) > 1
    assert verify_run(run, 3, data=DATA).equal
    assert verify_run(run, 23, data=DATA).equal


def with_other_bits(run: Path, name: str) -> None:
    """Writes the checkpoint of step 20 again, well formed, with one bit of one array flipped."""
    good = load(run / "checkpoints", 20)
    arrays = {key: value.copy() for key, value in good.arrays.items()}
    arrays[name].view(np.uint8)[2] ^= 1
    save(run / "checkpoints", 20, arrays, good.state)


@pytest.mark.parametrize("name", ["vector", "epoch_totals"])
def test_a_flipped_bit_in_a_checkpoint(tmp_path: Path, name: str) -> None:
    run = trained(tmp_path)
    with_other_bits(run, name)
    found = verify_run(run, data=DATA)
    assert not found.equal
    assert found.comparisons[-1].differing == (name,)


def test_a_run_that_went_wrong_is_followed_to_the_first_difference(tmp_path: Path) -> None:
    run = trained(tmp_path)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[1] = lines[1].replace(json.loads(lines[1])["params_sha256"], "0" * 64)
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    found = verify_run(run, 12, data=DATA)
    assert [(c.step, c.equal) for c in found.comparisons] == [(5, True), (10, False)]
    assert found.comparisons[-1].recorded == "0" * 64


def test_other_data_differ(tmp_path: Path) -> None:
    run = trained(tmp_path)
    assert not verify_run(run, data={**DATA, "train": classes(70, seed=9)}).equal


def test_what_cannot_be_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"nothing at or after step 21: the last digest is that of step 20"
    ):
        verify_run(run, 21, data=DATA)
    with pytest.raises(CheckpointError, match="step is 0, but the first step is 1"):
        verify_run(run, 0, data=DATA)
    with pytest.raises(CheckpointError, match=r"is not a run directory; give the folder"):
        verify_run(tmp_path, data=DATA)
    text = (run / "job.yaml").read_text()
    (run / "job.yaml").write_text(text.replace("seed: 5", "seed: 6"))
    with pytest.raises(CheckpointError, match=r"another job; .* Changed is the job: seed was 5, and is 6"):
        verify_run(run, data=DATA)
    (run / "job.yaml").write_text(text)
    monkeypatch.setattr("distbp.engine.numerics.fingerprint", lambda kernels: {"blas": "another"})
    with pytest.raises(
        FingerprintError, match=r"this run was made on a machine that would compute other bits"
    ):
        verify_run(run, 3, data=DATA)


JOB = """
name: blobs
data: {train: {format: blobs, samples: 100, seed: 1}}
model: {layers: [{type: dense, units: 3}]}
loss: softmax_cross_entropy
epochs: 2
shards: 2
workers: 0
"""


def test_the_command(tmp_path: Path) -> None:
    def run(*words: str | Path) -> Any:
        return CliRunner().invoke(cli.group, [str(word) for word in words])

    (tmp_path / "job.yaml").write_text(JOB)
    folder = tmp_path / "run"
    assert run("train", tmp_path / "job.yaml", "--output", folder).exit_code == 0
    good = run("verify", folder, "--step", "2")
    assert good.exit_code == 0
    lines = good.stdout.splitlines()
    assert lines[0].startswith("recomputed 4 steps from the first weights in ")
    assert lines[1].startswith("  after step 4        equal ")
    assert lines[2] == "gradient sums of step 2, by shard (SHA-256):"
    assert lines[3].startswith("  shard 0    ") and lines[4].startswith("  shard 1    ")
    assert lines[5] == "step 2 is as the run computed it"
    good_json = json.loads(run("verify", folder, "--json").stdout)
    assert good_json["equal"] is True and len(good_json["shards"]) == 2
    saved = load(folder / "checkpoints", 8)
    arrays = {key: value.copy() for key, value in saved.arrays.items()}
    arrays["vector"].view(np.uint8)[0] ^= 1
    save(folder / "checkpoints", 8, arrays, saved.state)
    bad = run("verify", folder)
    assert bad.exit_code == 7
    assert "  after step 8        DIFFERS " in bad.stdout
    assert "other bits in: vector" in bad.stdout
    assert "the bits differ within steps 5 to 8. Either the training data changed" in bad.stdout


def test_the_command_shows_the_last_digests_of_many(tmp_path: Path) -> None:
    def run(*words: str | Path) -> Any:
        return CliRunner().invoke(cli.group, [str(word) for word in words])

    (tmp_path / "job.yaml").write_text(JOB)
    assert (
        run("train", tmp_path / "job.yaml", "--output", tmp_path / "run", "--set", "epochs=13").exit_code == 0
    )
    lines = run("verify", tmp_path / "run").stdout.splitlines()
    assert lines[1] == "  3 digests before these: equal (--json has all)"
    assert lines[2].startswith("  after step 16       equal ") and lines[11].startswith("  after step 52 ")
    assert len(json.loads(run("verify", tmp_path / "run", "--json").stdout)["comparisons"]) == 13
