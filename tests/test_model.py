"""Models: predictions against arithmetic done by hand, round trips, and folders that must be refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import random
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from disks import fails_from
from hypothesis import given, settings
from hypothesis import strategies as st

from distbp.core import sealed
from distbp.core.errors import DataError, JobError, ModelError, StorageError
from distbp.data.preprocessing import Preprocessing
from distbp.job import TrainingJob
from distbp.job.kinds import Kind
from distbp.job.tables import TABLES
from distbp.model.archive import MODEL, WEIGHTS
from distbp.model.folder import load_model, params_digest, save_model
from distbp.model.predictor import Model
from distbp.nn.network import Network

LAYERS = [{"type": "dense", "units": 4, "activation": "tanh"}, {"type": "dense", "units": 3}]


def network_of(
    layers: list[dict[str, Any]], inputs: tuple[int, ...] = (2,), dtype: str = "float64"
) -> Network:
    kind = Kind("layers", "layer", TABLES)
    return Network([kind.validate(layer) for layer in layers], inputs, dtype)


def saved(
    path: Path,
    layers: list[dict[str, Any]] = LAYERS,
    loss: str = "softmax_cross_entropy",
    *,
    inputs: tuple[int, ...] = (2,),
    dtype: str = "float64",
    preprocessing: Preprocessing | None = None,
    seed: int = 3,
    **options: Any,
) -> tuple[Network, np.ndarray]:
    network = network_of(layers, inputs, dtype)
    vector = network.initialize(seed)
    job = TrainingJob.from_mapping({"model": {"layers": layers}, "loss": loss, "dtype": dtype})
    preprocessing = preprocessing or Preprocessing()
    save_model(
        path,
        job=job,
        network=network,
        vector=vector,
        preprocessing=preprocessing,
        numerics={"numpy": "2"},
        **options,
    )
    return network, vector


def by_hand(network: Network, vector: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The two dense layers of LAYERS."""
    w1, b1, w2, b2 = (vector[t.start : t.stop].reshape(t.shape) for t in network.tensors)
    return np.tanh(x @ w1.T + b1) @ w2.T + b2


X = np.random.default_rng(1).normal(size=(2500, 2))


# ---------------------------------------------------------------- predictions


def test_classification(tmp_path: Path) -> None:
    network, vector = saved(tmp_path / "model")
    model = load_model(tmp_path)  # as of a run directory
    z = by_hand(network, vector, X)
    np.testing.assert_allclose(model.outputs(X), z, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X), z.argmax(axis=1))
    assert model.predict(X).dtype == np.intp
    e = np.exp(z)
    np.testing.assert_allclose(model.predict_proba(X), e / e.sum(axis=1, keepdims=True), rtol=1e-12)
    labels = np.arange(len(X)) % 3
    found = model.evaluate(X, labels)
    p = (e / e.sum(axis=1, keepdims=True))[np.arange(len(X)), labels]
    assert found.keys() == {"loss", "accuracy"}
    np.testing.assert_allclose(found["loss"], -np.log(p).mean(), rtol=1e-12)
    assert found["accuracy"] == (z.argmax(axis=1) == labels).mean()
    assert model.evaluate(X, labels[:, None].astype(float)) == found
    assert model.evaluate(X, labels.astype(np.float32)) == found
    assert model.evaluate(X, labels.astype(np.uint8)) == found
    assert "auc" in model.evaluate(X, labels, metrics=["auc", "top_2"])
    assert (model.task, model.input_shape, model.output_shape) == ("classification", (2,), (3,))
    assert model.facts["numerics"] == {"numpy": "2"}
    assert len(model.facts["job_digest"]) == 64
    assert model.facts["params_sha256"] == params_digest(vector)


def test_weights_of_rows_and_classes(tmp_path: Path) -> None:
    network, vector = saved(tmp_path / "model", class_weights=[2, 1, 0.5])
    model = load_model(tmp_path / "model")
    z = by_hand(network, vector, X)
    labels, rows = np.arange(len(X)) % 3, np.linspace(0, 1, len(X))
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(X)), labels]
    weights = np.array([2, 1, 0.5])[labels] * rows
    found = model.evaluate(X, labels, weights=rows)
    np.testing.assert_allclose(found["loss"], (losses * weights).sum() / weights.sum(), rtol=1e-12)
    np.testing.assert_allclose(found["accuracy"], ((z.argmax(axis=1) == labels) * rows).sum() / rows.sum())


@pytest.mark.parametrize("classes", [["setosa", "versicolor", "virginica"], [10, 20, 40]])
def test_class_names(tmp_path: Path, classes: list[Any]) -> None:
    saved(tmp_path / "model", classes=classes)
    model = load_model(tmp_path / "model")
    plain = load_model(tmp_path / "model").outputs(X).argmax(axis=1)
    np.testing.assert_array_equal(model.predict(X), np.array(classes)[plain])
    assert model.evaluate(X, model.predict(X))["accuracy"] == 1
    assert model.evaluate(X, model.predict(X)[:, None])["accuracy"] == 1
    if classes[0] == "setosa":
        assert model.evaluate(X, plain)["accuracy"] == 1
    else:
        with pytest.raises(
            DataError, match="row 1: 30 is a class that the model does not have; it has 10, 20, 40"
        ):
            model.evaluate(X[:2], np.array([10, 30]))


def test_unknown_class_name(tmp_path: Path) -> None:
    saved(tmp_path / "model", classes=["a", "b", "c"])
    with pytest.raises(DataError, match="row 1: d is a class that the model does not have; it has a, b, c"):
        load_model(tmp_path / "model").evaluate(X[:2], np.array(["a", "d"]))


@pytest.mark.parametrize(
    ("loss", "activation"), [("sigmoid_cross_entropy", "linear"), ("binary_cross_entropy", "sigmoid")]
)
@pytest.mark.parametrize("outputs", [1, 3])
def test_yes_or_no(tmp_path: Path, loss: str, activation: str, outputs: int) -> None:
    layers = [{"type": "dense", "units": outputs, "activation": activation}]
    network, vector = saved(tmp_path / "model", layers, loss)
    model = load_model(tmp_path / "model")
    w, b = (vector[t.start : t.stop].reshape(t.shape) for t in network.tensors)
    z = X @ w.T + b
    p = 1 / (1 + np.exp(-z))
    shape = (len(X),) if outputs == 1 else (len(X), outputs)
    np.testing.assert_allclose(model.predict_proba(X), p.reshape(shape), rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X), (z > 0).reshape(shape))
    assert model.predict(X).dtype == np.intp
    assert model.evaluate(X, model.predict(X))["accuracy"] == 1


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression(tmp_path: Path, outputs: int) -> None:
    network, vector = saved(tmp_path / "model", [{"type": "dense", "units": outputs}], "mse")
    model = load_model(tmp_path / "model")
    w, b = (vector[t.start : t.stop].reshape(t.shape) for t in network.tensors)
    y = X @ w.T + b
    np.testing.assert_allclose(model.predict(X), y[:, 0] if outputs == 1 else y, rtol=1e-12)
    found = model.evaluate(X, y[:, 0] if outputs == 1 else y)
    whole = np.full((len(X), outputs), -3)
    assert model.evaluate(X, whole) == model.evaluate(X, whole[:, 0] if outputs == 1 else whole.astype(float))
    assert found["rmse"] < 1e-12
    assert found["r2"] == pytest.approx(1)
    with pytest.raises(
        ModelError, match="trained with the loss 'mse' gives outputs, no probabilities; use predict"
    ):
        model.predict_proba(X)


def test_scores_are_no_probabilities(tmp_path: Path) -> None:
    saved(tmp_path / "model", loss="hinge")
    model = load_model(tmp_path / "model")
    assert set(model.predict(X)) <= {0, 1, 2}
    with pytest.raises(ModelError, match="trained with the loss 'hinge' gives scores, no probabilities"):
        model.predict_proba(X)


def test_batch_normalization_predicts_with_its_running_statistics(tmp_path: Path) -> None:
    layers = [
        {"type": "batch_normalization"},
        {"type": "dropout", "rate": 0.5},
        {"type": "dense", "units": 3},
    ]
    network = network_of(layers)
    vector = network.initialize(1)
    for tensor in network.statistics:
        vector[tensor.start : tensor.stop] = 2.0
    job = TrainingJob.from_mapping(
        {"model": {"layers": layers}, "loss": "softmax_cross_entropy", "dtype": "float64"}
    )
    arguments: dict[str, Any] = {
        "job": job,
        "network": network,
        "preprocessing": Preprocessing(),
        "numerics": {},
    }
    save_model(tmp_path / "model", vector=vector, **arguments)
    model = load_model(tmp_path / "model")
    np.testing.assert_array_equal(model.vector, vector)
    one = model.outputs(X[:1])
    np.testing.assert_allclose(model.outputs(X)[:1], one, rtol=1e-12)  # neither other rows nor dropout matter
    assert model.facts["params_sha256"] == params_digest(vector[: network.parameter_count])


def test_preprocessing_is_part_of_the_model(tmp_path: Path) -> None:
    preprocessing = Preprocessing(1.0, np.array([10.0, -5.0]), np.array([2.0, 4.0]))
    network, vector = saved(tmp_path / "model", preprocessing=preprocessing)
    raw = X * [2, 4] + [10, -5]
    np.testing.assert_allclose(
        load_model(tmp_path / "model").outputs(raw), by_hand(network, vector, X), rtol=1e-9
    )


def test_images_for_a_network_that_takes_rows(tmp_path: Path) -> None:
    saved(tmp_path / "model", inputs=(12,), dtype="float32", preprocessing=Preprocessing(255))
    model = load_model(tmp_path / "model")
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4), dtype=np.uint8)
    np.testing.assert_array_equal(model.outputs(images), model.outputs(images.reshape(7, 12)))
    assert model.outputs(images).dtype == np.float32


def test_no_rows_and_many_threads(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert model.predict(X[:0]).shape == (0,)
    assert np.isnan(model.evaluate(X[:0], np.zeros(0, int))["loss"])
    wanted, found = model.outputs(X), []
    threads = [threading.Thread(target=lambda: found.append(model.outputs(X))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outputs in found:
        np.testing.assert_array_equal(outputs, wanted)
    assert len(found) == 4


# ---------------------------------------------------------------- inputs that do not fit

SHAPES = [
    (
        np.zeros((5, 3)),
        r"expected inputs of shape \(rows, 2\), got \(5, 3\); give the same columns as in training",
    ),
    (np.zeros(2), r"expected inputs of shape \(rows, 2\), got \(2,\); for a single row give x\[None\]"),
    (np.zeros(()), r"expected inputs of shape \(rows, 2\), got \(\)"),
    (np.array([["a", "b"]]), "expected numbers as inputs, got an array of dtype <U1"),
    (np.array([[None, 1]]), "expected numbers as inputs, got an array of dtype object"),
    (np.zeros((2, 2), complex), "expected numbers as inputs, got an array of dtype complex128"),
]


def test_predictions_do_not_warn_of_invalid_products(tmp_path: Path) -> None:
    """BLAS may set the processor's flag where all is well, so it is no reason to warn."""
    _, vector = saved(tmp_path / "m", [{"type": "dense", "units": 3}])
    model = replace(load_model(tmp_path / "m"), vector=np.full_like(vector, np.inf))
    with np.errstate(invalid="raise"):
        assert np.isnan(model.outputs(np.array([[1.0, -1.0]]))).all()  # inf - inf, which sets that flag


def test_outputs_that_overflow_are_no_class(tmp_path: Path) -> None:
    """The largest of NaNs is the first, so a row that is far too large was of class 0."""
    _, vector = saved(tmp_path / "m", [{"type": "dense", "units": 3}])
    model = replace(load_model(tmp_path / "m"), vector=np.full_like(vector, 1e10))
    assert model.predict([[1.0, 2.0]]).tolist() == [0]
    with pytest.raises(
        ModelError, match=r"^the outputs for row 1 are not finite numbers: its inputs are too "
    ):
        model.predict([[1.0, 2.0], [1e300, 1e300]])
    with pytest.raises(ModelError, match=r"^the outputs for row 1 are not finite numbers"):
        model.predict_proba([[1.0, 2.0], [1e300, 1e300]])
    assert np.isnan(model.score([[1.0, 2.0], [1e300, 1e300]], [0, 0]))
    found = model.evaluate([[1.0, 2.0], [1e300, 1e300]], [0, 0], metrics=["accuracy", "f1"])
    assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize(("x", "message"), SHAPES)
def test_inputs_of_the_wrong_shape(tmp_path: Path, x: np.ndarray, message: str) -> None:
    saved(tmp_path / "model")
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "model").predict(x)


def test_inputs_that_are_no_numbers(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    x = X.copy()
    x[1500, 1] = np.nan
    with pytest.raises(
        ModelError,
        match=r"row 1500, column 1 of the inputs is NaN\. Allowed are finite numbers; mend or leave out",
    ):
        load_model(tmp_path / "model").predict(x)


TARGETS = [
    (
        np.zeros(3, int),
        None,
        "the targets of the data: 3 targets for the 5 rows of inputs in the data; give one for each",
    ),
    (np.zeros(5, int), np.ones(4), "the weights of the data: 4 weights for the 5 rows of inputs"),
    (np.array([0, 1, 2, 3, 0]), None, "row 3: label 3, but the 3 outputs of the last layer allow 0 to 2"),
    (np.array([0, 0.5, 1, 1, 1]), None, "row 1: 0.5 is not a label"),
    (np.zeros((5, 3)), None, "3 target columns, where the loss takes one label for each row"),
    (
        np.array(["a"] * 5),
        None,
        "the labels are text .'a'., but the classes are 0, 1, 2; give labels of that kind",
    ),
    (
        np.zeros((5, 1, 1)),
        None,
        r"targets of shape \(5, 1, 1\); give labels \(rows,\) or values \(rows, outputs\)",
    ),
    (
        np.array([0, 1, np.nan, 1, 1]),
        None,
        r"row 2.* is NaN\. 1 of 5 rows are bad; mend them, or leave them out\.",
    ),
    (np.zeros(5, int), np.array([1, -1, 1, 1, 1.0]), "row 1 of the weights is -1"),
]


@pytest.mark.parametrize(("y", "weights", "message"), TARGETS)
def test_targets_that_do_not_fit(
    tmp_path: Path, y: np.ndarray, weights: np.ndarray | None, message: str
) -> None:
    saved(tmp_path / "model")
    with pytest.raises(DataError, match=message):
        load_model(tmp_path / "model").evaluate(X[:5], y, weights=weights)


def test_metrics_that_do_not_apply(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    with pytest.raises(JobError, match="'rmse' does not apply to a classification loss"):
        load_model(tmp_path / "model").evaluate(X, np.zeros(len(X), int), metrics=["rmse"])


# ---------------------------------------------------------------- the folder


@given(
    units=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    activation=st.sampled_from(sorted(TABLES["activations"])),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 9),
)
@settings(max_examples=20)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, units: list[int], activation: str, dtype: str, seed: int
) -> None:
    path = tmp_path_factory.mktemp("model") / "model"
    layers: list[dict[str, Any]] = [
        {"type": "dense", "units": u, "activation": activation if activation != "step" else "relu"}
        for u in units
    ]
    layers.append({"type": "dense", "units": 2, "initializer": {"type": "normal", "std": 0.3}})
    network, vector = saved(path, layers, dtype=dtype, seed=seed)
    model = load_model(path)
    np.testing.assert_array_equal(model.vector, vector)
    assert model.vector.dtype == vector.dtype
    assert model.network.layers == network.layers


def test_the_files_are_plain(tmp_path: Path) -> None:
    network, vector = saved(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [MODEL, WEIGHTS]
    arrays = safetensors.numpy.load_file(tmp_path / "model" / WEIGHTS)
    first = network.tensors[0]
    assert first.path == "layers.0.dense.weight"
    np.testing.assert_array_equal(arrays[first.path].ravel(), vector[first.start : first.stop])
    content = json.loads((tmp_path / "model" / MODEL).read_text())
    assert content["layers"][0]["activation"] == "tanh"
    assert content["loss"]["type"] == "softmax_cross_entropy"


def test_saving_again_replaces_a_model_but_nothing_else(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    _, vector = saved(tmp_path / "model", seed=8)
    np.testing.assert_array_equal(load_model(tmp_path / "model").vector, vector)
    assert os.listdir(tmp_path) == ["model"]  # noqa: PTH208
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="holds other files than a model; choose another folder"):
        saved(tmp_path / "model")


def test_a_replacement_that_was_cut_short(tmp_path: Path) -> None:
    """The process died after moving the old model aside: a save that fails brings it back."""
    saved(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / ".tmp-old-model")
    with pytest.raises(StorageError, match="disk full"):
        saved(tmp_path / "model", disk=fails_from(1, errno.ENOSPC, ("write",)))
    load_model(tmp_path / "model")


def test_class_weights_need_classes(tmp_path: Path) -> None:
    saved(tmp_path / "model", [{"type": "dense", "units": 1}], "mse", class_weights=[1.0])
    with pytest.raises(ModelError, match="class_weights is given, but the loss 'mse' knows no classes"):
        load_model(tmp_path / "model")


@pytest.mark.parametrize("again", [False, True])
def test_a_full_disk_leaves_the_old_model(tmp_path: Path, again: bool) -> None:
    if again:
        saved(tmp_path / "model")
    for n in range(1, 8):
        with pytest.raises(StorageError, match=r"disk full: could not write .*/model"):
            saved(tmp_path / "model", seed=8, disk=fails_from(n, errno.ENOSPC, ("write", "fsync", "mkdir")))
        if again or (tmp_path / "model").exists():
            load_model(tmp_path / "model")
        assert [p.name for p in tmp_path.iterdir() if p.name != "model"] == []


def test_no_pickle_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was read")

    saved(tmp_path / "model")
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    load_model(tmp_path / "model")


# ---------------------------------------------------------------- damage and malice


@pytest.mark.parametrize("file", [MODEL, WEIGHTS])
def test_every_flipped_bit_is_found(tmp_path: Path, file: str) -> None:
    saved(tmp_path / "model")
    path = tmp_path / "model" / file
    good, draw = path.read_bytes(), random.Random(4)
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bad)
        with pytest.raises(ModelError, match=f"is not a usable model: {file} "):
            load_model(tmp_path / "model")
    path.write_bytes(good)
    load_model(tmp_path / "model")


def changed(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(fields)


def _first_layer(**options: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["layers"][0].update(options)


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown layer": (_first_layer(type="os.system"), r"layers\.0\.type: 'os.system' is not known"),
    "misspelt layer": (
        _first_layer(type="dens"),
        r"layers\.0\.type: 'dens' is not known; did you mean 'dense'\?",
    ),
    "unknown option": (_first_layer(command="rm"), r"layers\.0\.command: 'command' is not known"),
    "activation": (
        _first_layer(activation="__import__"),
        r"layers\.0\.activation: '__import__' is not known",
    ),
    "layer is text": (changed(layers=[["dense"]]), r"layers\.0: must be the name of a layer, or a mapping"),
    "no layers": (changed(layers=[]), "it has 0 layers, where 1 to 10,000 are allowed"),
    "many layers": (changed(layers=["relu"] * 10_001), "it has 10001 layers"),
    "units": (_first_layer(units=-4), r"layers\.0\.units: must be .* greater than 0, not -4"),
    "units do not match": (
        _first_layer(units=5),
        r"layers\.0\.dense\.weight should be float64 of shape \(5, 2\), but weights.safetensors holds"
        r" float64 of shape \(4, 2\)",
    ),
    "a huge layer": (
        _first_layer(units=10**12),
        r"layers\.0\.(dense\.weight should be .*1000000000000, 2|units)",
    ),
    "a layer too many": (
        lambda content: content["layers"].append({"type": "dense", "units": 3}),
        r"has no tensor 'layers\.2\.dense\.bias'",
    ),
    "a layer too few": (
        lambda content: content.update(layers=content["layers"][:1], output_shape=[4]),
        r"has a strange tensor 'layers\.1\.dense\.bias'",
    ),
    "layers that do not fit": (
        changed(input_shape=[2, 2]),
        r"layer 0 \(dense\): a dense layer takes one row",
    ),
    "input shape": (changed(input_shape=[0]), r"input_shape is \[0\], not a list of sizes"),
    "input shape of text": (changed(input_shape=["2"]), "input_shape is .*, not a list of sizes"),
    "input shape true": (changed(input_shape=[True]), "input_shape is .*, not a list of sizes"),
    "output shape": (changed(output_shape=[7]), "output_shape or task does not follow from its layers"),
    "task": (changed(task="regression"), "output_shape or task does not follow from its layers"),
    "loss": (changed(loss={"type": "eval"}), r"loss\.type: 'eval' is not known"),
    "loss that does not fit": (
        lambda content: (content["layers"][1].update(units=1), content.update(output_shape=[1])),
        "chooses between classes, but the last layer has 1 output",
    ),
    "dtype": (changed(dtype="object"), "dtype is 'object', not float32 or float64"),
    "other dtype": (changed(dtype="float32"), "should be float32 of shape .* holds float64"),
    "a path": (
        lambda content: content.update(files={"../../etc/passwd": content["files"][WEIGHTS]}),
        "model.json must name the file weights.safetensors and no other",
    ),
    "two files": (
        lambda content: content["files"].update(more={}),
        "must name the file weights.safetensors and no",
    ),
    "size": (
        lambda content: content["files"][WEIGHTS].update(bytes=10**15),
        "model.json says that weights.safetensors has 1000000000000000 bytes, which its layers do not fill",
    ),
    "hash": (
        lambda content: content["files"][WEIGHTS].update(sha256="0" * 64),
        "does not have the SHA-256 that",
    ),
    "params": (changed(params_sha256="0" * 64), "the weights do not have the params_sha256 that it says"),
    "missing field": (lambda content: content.pop("preprocessing"), "preprocessing is missing in model.json"),
    "wrong field": (changed(loss="mse"), "loss is missing in model.json or of the wrong type"),
    "preprocessing": (changed(preprocessing={"scale": 0}), "scale is 0.0, but must be a number above 0"),
    "preprocessing of another size": (
        changed(preprocessing={"scale": 1, "features": [3], "mean": [0] * 3, "std": [1] * 3}),
        "preprocessing is for inputs of another size",
    ),
    "classes": (changed(classes=["a"]), "classes is not a list of 3, one for each class"),
    "classes of lists": (changed(classes=[[], [], []]), "classes is not a list of 3"),
    "class weights": (changed(class_weights=["1", "1", "1"]), "class_weights is not a list of 3"),
    "metrics": (changed(metrics=["acuracy"]), "'acuracy' is not known; did you mean 'accuracy'"),
    "metrics of numbers": (changed(metrics=[1]), "metrics is not a list of names"),
}


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes model.json as an attacker would: with a digest that is right again."""
    content = sealed.unseal_json((path / MODEL).read_bytes())
    change(content)
    (path / MODEL).write_bytes(sealed.sealed_json(content))


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_models_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    saved(tmp_path / "model")
    rewrite(tmp_path / "model", change)
    with pytest.raises(ModelError, match=f"(?s)is not a usable model: .*{message}"):
        load_model(tmp_path / "model")


def test_a_later_format(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    rewrite(tmp_path / "model", changed(version=9))
    with pytest.raises(
        ModelError, match=r"was written as 'distbp model' version 9; this distbp reads .* version 1"
    ):
        load_model(tmp_path / "model")


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (shutil.rmtree, "does not exist; give the model folder of a run directory"),
    "empty": (lambda p: (p / MODEL).unlink(), "has no model.json; give the model folder"),
    "a file": (
        lambda p: (shutil.rmtree(p), p.write_text("x")),
        "is not a model .*give the folder of a model, or the .tar",
    ),
    "no weights": (lambda p: (p / WEIGHTS).unlink(), "weights.safetensors cannot be read \\(No such file"),
    "a pipe": (
        lambda p: ((p / WEIGHTS).unlink(), os.mkfifo(p / WEIGHTS)),  # opening it would wait forever
        "weights.safetensors cannot be read .it is a folder, a pipe or a device, not a regular file",
    ),
    "too long": (lambda p: os.truncate(p / WEIGHTS, 1 << 40), "cannot be read .it has [0-9,]{17} bytes"),
    "a folder for weights": (
        lambda p: ((p / WEIGHTS).unlink(), (p / WEIGHTS).mkdir()),
        "weights.safetensors cannot be read .it is a folder",
    ),
    "a pipe for model.json": (
        lambda p: ((p / MODEL).unlink(), os.mkfifo(p / MODEL)),
        "model.json cannot be read .it is a folder, a pipe",
    ),
    "endless": (
        lambda p: ((p / MODEL).unlink(), (p / MODEL).symlink_to("/dev/zero")),
        "model.json cannot be read .Too many levels of symbolic links",
    ),
    "deep": (lambda p: (p / MODEL).write_text("[" * 100_000), "model.json is not JSON"),
    "binary": (lambda p: (p / MODEL).write_bytes(b"\xff\x80\x00"), "model.json is not JSON"),
    "a list": (lambda p: (p / MODEL).write_text("[]"), "model.json was changed after it was written"),
    "short": (lambda p: (p / WEIGHTS).write_bytes(b"x"), "has 1 bytes; model.json says"),
}


@pytest.mark.parametrize(("change", "message"), FOLDERS.values(), ids=FOLDERS.keys())
def test_folders_that_are_no_models(tmp_path: Path, change: Callable[[Path], Any], message: str) -> None:
    saved(tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "model")


def test_weights_that_are_no_safetensors(tmp_path: Path) -> None:
    """A header that claims 2^60 bytes, with the right size and hash in model.json."""
    saved(tmp_path / "model")
    data = (1 << 60).to_bytes(8, "little") + b"{}"
    (tmp_path / "model" / WEIGHTS).write_bytes(data)
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite(tmp_path / "model", lambda content: content["files"].update({WEIGHTS: entry}))
    with pytest.raises(ModelError, match=r"weights\.safetensors is not a safetensors file"):
        load_model(tmp_path / "model")


def test_a_model_cannot_be_changed_by_accident(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    model = load_model(str(tmp_path / "model"))
    assert isinstance(model, Model)
    with pytest.raises(ValueError, match="read-only"):
        model.vector[0] = 1
