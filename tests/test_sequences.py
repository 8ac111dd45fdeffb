"""Rows of different lengths from the data to predictions; the layers are in nn/test_lengths.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distbp
from distbp import TrainingJob
from distbp.core.arrays import Array
from distbp.core.errors import DataError, JobError, ModelError
from distbp.data.formats import Npy, Npz, from_arrays, load
from distbp.data.preprocessing import fit

LAYERS = [{"type": "lstm", "units": 4, "bidirectional": True}, {"type": "dense", "units": 2}]


def job(layers: list[dict[str, Any]] = LAYERS, **fields: Any) -> TrainingJob:
    standard = {"loss": "softmax_cross_entropy", "epochs": 3, "batch_size": 8, "shards": 3, "workers": 0}
    return TrainingJob(**{**standard, "model": {"layers": layers}, **fields})


def ragged(rows: int, most: int = 6, seed: int = 0) -> tuple[list[Array], Array]:
    """Rows of 0 to `most` - 1 steps; the class is whether there are three or more."""
    draw = np.random.default_rng(seed)
    x = [draw.normal(size=(draw.integers(0, most), 2)) for _ in range(rows)]
    return x, np.array([int(len(row) > 2) for row in x])


def padded(x: list[Array], steps: int, filling: float) -> dict[str, Array]:
    inputs = np.full((len(x), steps, 2), filling)
    for row, own in zip(inputs, x, strict=True):
        row[: len(own)] = own
    return {"inputs": inputs, "lengths": np.array([len(row) for row in x])}


def test_every_way_to_give_lengths_trains_the_same_model(tmp_path: Path) -> None:
    """A list of arrays, padded arrays, an archive, mapped files; and padding of any numbers, also of none."""
    x, y = ragged(40)
    steps = max(map(len, x))
    a, b = padded(x, steps, -7.5), padded(x, steps, np.nan)
    np.savez(tmp_path / "a.npz", inputs=a["inputs"], targets=y, long=a["lengths"])
    for name, array in (("x", b["inputs"]), ("y", y), ("n", b["lengths"])):
        np.save(tmp_path / f"{name}.npy", array)
    npz = {"format": "npz", "path": "a.npz", "lengths": "long"}
    npy = {"format": "npy", "inputs": "x.npy", "targets": "y.npy", "lengths": "n.npy"}
    found = [
        distbp.train(one, data=data, folder=tmp_path, output=tmp_path / f"run{number}")
        for number, (one, data) in enumerate(
            [
                (job(), (x, y)),
                (job(), (a, y)),
                (job(), (b, y)),
                (job(data={"train": npz}), None),
                (job(data={"train": npy}), None),
            ]
        )
    ]
    assert len({result.params_sha256 for result in found}) == 1


def test_lengths_change_the_model(tmp_path: Path) -> None:
    x, y = ragged(40)
    rows = padded(x, 6, 0)
    whole = distbp.train(job(), data=(rows["inputs"], y), output=tmp_path / "whole")
    assert whole.params_sha256 != distbp.train(job(), data=(rows, y), output=tmp_path / "own").params_sha256


def test_a_resumed_run_gives_the_same_bits(tmp_path: Path) -> None:
    x, y = ragged(60)
    splits = {"train": (x, y), "validation": ragged(20, most=9, seed=1)}
    one = distbp.train(job(), data=splits, output=tmp_path / "one")
    half = distbp.train(job(epochs=1), data=splits, output=tmp_path / "half")
    longer = distbp.resume(half.path, data=splits, epochs=3)
    assert longer.params_sha256 == one.params_sha256
    assert longer.metrics == one.metrics


def test_predictions_of_every_way_to_give_rows(tmp_path: Path) -> None:
    x, y = ragged(30)
    result = distbp.train(
        job(), data={"train": (x, y), "validation": ragged(9, most=8)}, output=tmp_path / "run"
    )
    model = result.model()
    assert model.input_shape == (7, 2)  # the longest row of all splits
    alone = np.concatenate([model.outputs([row]) for row in x])
    for given in (x, [row.tolist() for row in x], padded(x, 5, 9.0), padded(x, 9, np.nan)):
        np.testing.assert_allclose(model.outputs(given), alone, rtol=1e-5, atol=1e-6)
    rows = padded(x, 7, 3.0)
    assert model.predict(rows["inputs"], lengths=rows["lengths"]).tolist() == model.predict(x).tolist()
    assert model.predict_proba(x).shape == (30, 2)
    found = model.evaluate(x, y)
    assert found == model.evaluate(rows["inputs"], y, lengths=rows["lengths"])
    assert model.score(x, y) == found["accuracy"]
    xv, yv = ragged(9, most=8)
    assert model.evaluate(xv, yv)["loss"] == result.metrics["validation_loss"]
    assert model.outputs([]).shape == (0, 2)
    assert model.outputs([[], []]).shape == (2, 2)


WRONG: list[tuple[Any, Any, str]] = [
    (np.zeros((2, 3, 2)), None, r"trained on rows with lengths; give lengths=..., or a list of arrays"),
    (np.zeros((2, 3, 2)), [1, 4], r"the length of row 1 is 4, but lengths are whole numbers from 0 to 3"),
    (np.zeros((2, 3, 2)), [1, -1], "the length of row 1 is -1"),
    (np.zeros((2, 3, 2)), [1, 0.5], "the length of row 1 is 0.5"),
    (np.zeros((2, 3, 2)), [1], r"lengths of shape \(1,\) for 2 rows"),
    (np.zeros((2, 3, 5)), [1, 3], r"expected steps of shape \(2,\), got \(5,\)"),
    (
        np.zeros((2, 9, 2)),
        [1, 9],
        "row 1 has 9 steps, but the model takes at most 5, the most that training had",
    ),
    (
        [np.zeros((1, 2)), np.zeros((2, 3))],
        None,
        r"a step of row 1 has the shape \(3,\), but one of row 0 has",
    ),
    ([np.zeros((1, 2)), "no"], None, "row 1 is not an array of numbers"),
]


def test_rows_that_do_not_fit_a_model(tmp_path: Path) -> None:
    x, y = ragged(30)
    model = distbp.train(job(epochs=1), data=(x, y), output=tmp_path / "run").model()
    for given, lengths, message in WRONG:
        with pytest.raises(ModelError, match=message):
            model.outputs(given, lengths=lengths)
    plain = distbp.train(
        job(epochs=1), data=(np.zeros((8, 3, 2)), [0, 1] * 4), output=tmp_path / "plain"
    ).model()
    with pytest.raises(ModelError, match="trained on rows without lengths; leave `lengths` out"):
        plain.outputs(np.zeros((1, 3, 2)), lengths=[2])


def test_faults_of_a_job(tmp_path: Path) -> None:
    """Before the data is read, and for data from Python."""
    layers = [{"type": "lstm", "units": 4, "return_sequences": True}, {"type": "flatten"}, *LAYERS[1:]]
    said = "flatten drops the lengths of the rows, so padding would count; put a layer before it that uses"
    npz = {"format": "npz", "path": "a.npz", "lengths": "n"}
    with pytest.raises(JobError) as caught:
        job(layers, data={"train": npz})
    assert [(fault.path, said in fault.message) for fault in caught.value.faults] == [
        ("model.layers.1", True)
    ]
    x, y = ragged(20)
    with pytest.raises(JobError) as caught:
        distbp.train(job(layers), data=(x, y), output=tmp_path / "run")
    assert [(fault.path, said in fault.message) for fault in caught.value.faults] == [
        ("model.layers.1", True)
    ]
    steps = [{"type": "lstm", "units": 2, "return_sequences": True}]
    left = "lstm gives the steps of rows that have lengths to the loss, so padding would count; put a"
    for fields in ({"data": {"train": npz}}, {}):
        with pytest.raises(JobError) as caught:
            made = job(steps, loss="mse", **fields)
            distbp.train(made, data=(x, np.zeros((20, 10))), output=tmp_path / "run")
        (fault,) = caught.value.faults
        assert fault.path == "model.layers.0" and fault.message.startswith(left)
        assert fault.message.endswith("or, where each step has a target, set data.truncated_bptt_steps")
    with pytest.raises(DataError, match="some splits have lengths and others do not; give them for all"):
        whole = np.zeros((4, 5, 2)), [0, 1, 0, 1]
        distbp.train(job(), data={"train": (x, y), "validation": whole}, output=tmp_path / "run")
    with pytest.raises(
        DataError, match="the length of row 1 is 9, but lengths are whole numbers from 0 to 5"
    ):
        given = {"inputs": np.zeros((2, 5, 2)), "lengths": [1, 9]}
        distbp.train(job(), data=(given, [0, 1]), output=tmp_path / "run")


def test_ids_of_any_padding(tmp_path: Path) -> None:
    ids = [[3, 1], [4], [], [2, 2, 2]]
    layers = [{"type": "embedding", "entries": 5, "size": 3}, {"type": "average_steps"}, *LAYERS[1:]]
    one = distbp.train(job(layers), data=(ids, [0, 1, 1, 0]), output=tmp_path / "one")
    rows = np.full((4, 3), -1)  # which is not an id
    for row, own in zip(rows, ids, strict=True):
        row[: len(own)] = own
    given = {"inputs": rows, "lengths": [2, 1, 0, 3]}
    two = distbp.train(job(layers), data=(given, [0, 1, 1, 0]), output=tmp_path / "two")
    assert one.params_sha256 == two.params_sha256
    assert one.model().predict(ids).tolist() == two.model().predict(rows, lengths=[2, 1, 0, 3]).tolist()


def test_statistics_are_of_own_steps() -> None:
    x, _ = ragged(25)
    found = fit(from_arrays(padded(x, 5, 1e9)), standardize=True)
    steps = np.concatenate(x)
    assert found.mean is not None
    assert found.std is not None
    np.testing.assert_allclose(found.mean, np.broadcast_to(steps.mean(axis=0), (5, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, np.broadcast_to(steps.std(axis=0), (5, 2)), rtol=1e-12)
    with pytest.raises(DataError, match="all rows have length 0, so there is nothing to standardize by"):
        fit(from_arrays({"inputs": np.ones((2, 5, 2)), "lengths": [0, 0]}), standardize=True)


def test_files_keep_lengths_by_row(tmp_path: Path) -> None:
    """Of the rows that are used, without those that are left out."""
    x = np.arange(24.0).reshape(4, 3, 2)
    x[2, 0, 0] = np.nan
    np.savez(tmp_path / "a.npz", inputs=x, n=[3, 2, 2, 1], bad=[3, 2, 2], targets=[0, 1, 0, 1])
    table = load(Npz(path="a.npz", lengths="n", rows=(1, 4)), tmp_path, bad_rows="skip")
    assert table.lengths is not None
    assert table.lengths.tolist() == [2, 1]
    assert table.inputs[1].tolist() == [[18, 19], [0, 0], [0, 0]]
    with pytest.raises(DataError, match=r"a.npz\[inputs\]: the lengths: lengths of shape \(3,\) for 4 rows"):
        load(Npz(path="a.npz", lengths="bad"), tmp_path)
    np.save(tmp_path / "x.npy", x[:2])
    np.save(tmp_path / "n.npy", [1, 1.5])
    with pytest.raises(DataError, match=r"x\.npy: the lengths: the length of row 1 is 1.5"):
        load(Npy(inputs="x.npy", targets=None, lengths="n.npy"), tmp_path)
