"""Gradients of whole jobs, through worker, weights and tree, against central differences in float64.

The layers and losses come from their tables: a new one is checked here without a line of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_sets import PLAIN
from rigs import make_job

from distbp import TrainingJob
from distbp.core.arrays import Array
from distbp.core.errors import DataError, JobError
from distbp.engine.worker import Worker
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.gradcheck import Report
from distbp.nn.layers import LAYERS
from distbp.nn.losses import LOSSES
from distbp.run.gradcheck import MAX_ROWS, check_job

ROWS, FEATURES, OUTPUTS = 23, 4, 3
FEW = 4  # coordinates of each tensor
OPTIONS: dict[str, dict[str, Any]] = {
    "dense": {"units": 5},
    "dropout": {"rate": 0.3},
    "reshape": {"shape": [5, 1]},
    "conv2d": {"filters": 2, "kernel_size": 2},
    "max_pool2d": {"kernel_size": 2},
    "average_pool2d": {"kernel_size": 2},
    "conv1d": {"filters": 2, "kernel_size": 2},
    "max_pool1d": {"kernel_size": 2},
    "average_pool1d": {"kernel_size": 2},
    "elman": {"units": 4},
    "lstm": {"units": 4, "bidirectional": True},
    "gru": {"units": 4, "return_sequences": True},
    "attention": {"heads": 2, "causal": True},
    "dense_steps": {"units": 3, "activation": "gelu"},
    "parametric_activation": {"function": "mish"},
    "slice": {"start": 1, "stop": 4},
    **{name: {"inputs": ["first", "other"]} for name in ("add", "multiply", "concatenate")},
}
OF_DATA = {"embedding", "input"}  # take the data themselves; see test_embedding.py, test_named_inputs.py
OVER_STEPS = (
    "attention", "dense_steps", "positional_encoding", "positional_embedding", "average_steps", "last_step",
    "conv1d", "max_pool1d", "average_pool1d",
)  # fmt: skip
IMAGE = {"type": "reshape", "shape": [2, 3, 4]}
BEFORE: dict[str, list[dict[str, Any]]] = {  # where a row of 5 numbers does not do
    "conv2d": [{"type": "dense", "units": 24}, IMAGE],
    "max_pool2d": [{"type": "dense", "units": 24}, IMAGE],
    "average_pool2d": [{"type": "dense", "units": 24}, IMAGE],
    "global_average_pool2d": [{"type": "dense", "units": 24}, IMAGE],
    **{
        name: [{"type": "dense", "units": 6}, {"type": "reshape", "shape": [3, 2]}]
        for name in ("elman", "lstm", "gru", *OVER_STEPS)
    },
    **{name: [{"type": "tanh", "name": "other"}] for name in ("add", "multiply", "concatenate")},
}
CANNOT_TRAIN = {name for name, activation in ACTIVATIONS.items() if not activation.trainable}
INNER = [
    *(
        {"type": name, **OPTIONS.get(name, {})}
        for name in LAYERS
        if name not in CANNOT_TRAIN | OF_DATA | {"activation"}
    ),
    *({"type": "activation", "function": name} for name in ACTIVATIONS if name not in CANNOT_TRAIN),
    *({"type": "dense", "units": 5, "activation": name} for name in ACTIVATIONS if name not in CANNOT_TRAIN),
]
LAST = {"probabilities": {"binary": "sigmoid", "classification": "softmax"}}
LOSS_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "huber": [{}, {"delta": 0.3}],
    "poisson": [{}, {"log_input": False}],
    "sigmoid_cross_entropy": [{}, {"outputs": "sum"}],
    "binary_cross_entropy": [{}, {"outputs": "sum"}],
    "softmax_cross_entropy": [{}, {"label_smoothing": 0.2}],
    "hinge": [{}, {"power": 2, "margin": 0.7}],
}
LOSS_CASES = [{"type": name, **more} for name in LOSSES for more in LOSS_OPTIONS.get(name, [{}])]


def named(case: Any) -> str | None:
    return "-".join(str(value) for value in case.values()) if isinstance(case, dict) else None


def targets(loss: Any, rng: np.random.Generator) -> Any:
    if loss.targets == "labels":
        return rng.integers(0, OUTPUTS, ROWS)
    if loss.task == "binary":
        return rng.uniform(0, 1, (ROWS, OUTPUTS))
    return rng.poisson(2.0, (ROWS, OUTPUTS)) + 0.5


def job_and_data(
    inner: dict[str, Any], loss: dict[str, Any], shards: int, weighted: bool
) -> tuple[TrainingJob, dict[str, Any]]:
    rng = np.random.default_rng(7)
    kind = LOSSES[loss["type"]](**{k: v for k, v in loss.items() if k != "type"})
    last = LAST.get(kind.takes, {}).get(kind.task, "linear")
    if loss.get("log_input") is False:
        last = "softplus"  # a rate is above 0
    layers = [
        {"type": "dense", "units": 5, "activation": "tanh", "name": "first"},
        *BEFORE.get(inner["type"], []),
        inner,
        {"type": "flatten"},
        {"type": "dense", "units": OUTPUTS, "activation": last},
    ]
    class_weight = [0.5, 2.0, 1.5] if weighted and kind.targets == "labels" else None
    job = make_job(layers, loss=loss, shards=shards, batch_size=10, class_weight=class_weight)
    x, y = rng.normal(size=(ROWS, FEATURES)), targets(kind, rng)
    return job, {"train": (x, y, rng.uniform(0.2, 3, ROWS)) if weighted else (x, y)}


def assert_agrees(job: TrainingJob, given: dict[str, Any], coordinates: int = FEW) -> None:
    report = check_job(job, given=given, coordinates=coordinates)
    assert report.passed, str(report)
    assert report.tolerance == 1e-7
    assert {part.checked for part in report.parts} <= set(range(1, coordinates + 1))


def test_every_layer_and_loss_is_here() -> None:
    assert {case["type"] for case in INNER} | CANNOT_TRAIN | OF_DATA == set(LAYERS)
    assert {case["type"] for case in LOSS_CASES} == set(LOSSES)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("inner", INNER, ids=named)
def test_every_layer(inner: dict[str, Any], shards: int) -> None:
    assert_agrees(*job_and_data(inner, {"type": "softmax_cross_entropy"}, shards, weighted=True))


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("loss", LOSS_CASES, ids=named)
def test_every_loss(loss: dict[str, Any], shards: int, weighted: bool) -> None:
    assert_agrees(*job_and_data({"type": "sigmoid"}, loss, shards, weighted))


@pytest.mark.parametrize("kernels", PLAIN)
def test_a_deep_network_of_everything(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels == "numba":
        pytest.importorskip("numba", reason="Numba is not installed: the compiled kernels cannot run")
    monkeypatch.setenv("DISTBP_KERNELS", kernels)
    job, given = job_and_data({"type": "gelu"}, {"type": "softmax_cross_entropy"}, 3, weighted=True)
    first, *_, last = job.model.layers
    middle = ["batch_normalization", "silu", {"type": "dense", "units": 6, "activation": "elu"},
              {"type": "dropout", "rate": 0.1}, "layer_normalization", "softplus"]  # fmt: skip
    assert_agrees(job.replace(model={"layers": [first, *middle, last]}), given, coordinates=12)


def test_all_coordinates_of_a_small_job() -> None:
    job, given = job_and_data({"type": "tanh"}, {"type": "mse"}, 3, weighted=False)
    told: list[tuple[int, int]] = []
    for coordinates in (10_000, None):
        report = check_job(
            job, given=given, coordinates=coordinates, watch=lambda *counts: told.append(counts)
        )
        assert [(p.part, p.checked, p.size) for p in report.parts] == [
            ("layers.0.dense.weight", 20, 20),
            ("layers.0.dense.bias", 5, 5),
            ("layers.3.dense.weight", 15, 15),
            ("layers.3.dense.bias", 3, 3),
        ]
        assert str(report).startswith("gradients agree: 43 of 43 checked")
        assert told[-1] == (43, 43)


def spoil(monkeypatch: pytest.MonkeyPatch, how: Callable[[Array], None]) -> None:
    """A worker whose gradient is wrong."""
    compute = Worker.compute

    def wrong(self: Worker, step: int, block: Any, gradient: Any, totals: Any) -> None:
        compute(self, step, block, gradient, totals)
        how(gradient)

    monkeypatch.setattr(Worker, "compute", wrong)


def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def how(gradient: Array) -> None:
        gradient[3] *= 1 + 1e-5

    spoil(monkeypatch, how)
    job, given = job_and_data({"type": "tanh"}, {"type": "mse"}, 3, weighted=False)
    report = check_job(job, given=given, coordinates=20)
    assert not report.passed
    assert str(report).startswith("gradients disagree: layers.0.dense.weight[3] is ")


IMAGES = [
    {"type": "batch_normalization", "axis": 0},
    {"type": "conv2d", "filters": 3, "kernel_size": 3, "padding": 1},
    {"type": "relu", "name": "x"},
    {"type": "conv2d", "filters": 3, "kernel_size": 3, "padding": 1, "name": "y"},
    {"type": "add", "inputs": ["x", "y"]},
    "relu",
    "flatten",
    {"type": "dense", "units": 3},
]
WORDS = [
    {"type": "embedding", "entries": 2000, "size": 4},
    {"type": "gru", "units": 4},
    {"type": "dense", "units": 3},
]


def images_or_words(kind: str) -> tuple[TrainingJob, dict[str, Any]]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(40, 3, 6, 6)) if kind == "images" else rng.integers(0, 2000, (40, 5))
    layers = IMAGES if kind == "images" else WORDS
    job = TrainingJob(model={"layers": layers}, loss="softmax_cross_entropy", shards=2)
    return job, {"train": (x, np.arange(40) % 3)}


@functools.cache
def right_report(kind: str) -> Report:
    job, given = images_or_words(kind)
    return check_job(job, given=given, coordinates=FEW)


@pytest.mark.parametrize("how", ["off by a little", "shifted", "missing"])
@pytest.mark.parametrize(
    ("kind", "tensor"),
    [("images", number) for number in range(8)] + [("words", number) for number in range(6)],
)
def test_a_wrong_derivative_is_found_in_every_tensor(
    kind: str, tensor: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a table of embeddings, of whose 2,000 rows the batch reaches 80. Few coordinates are tried, so
    that the direction is what finds it."""
    job, given = images_or_words(kind)
    right = right_report(kind)
    assert right.passed, str(right)
    sizes = [part.size for part in right.parts]
    start = sum(sizes[:tensor])

    def spoiled(gradient: Array) -> None:
        part = gradient[start : start + sizes[tensor]]
        if how == "off by a little":
            part *= 1 + 1e-5
        elif how == "shifted":
            part += 1e-4 * np.abs(part).max()
        else:
            part[:] = 0

    spoil(monkeypatch, spoiled)
    report = check_job(job, given=given, coordinates=FEW)
    assert not report.passed
    assert report.worst.part == right.parts[tensor].part


@pytest.mark.parametrize("inner", ["batch_normalization", "tanh"])
def test_a_large_job_is_checked_on_a_few_rows(inner: str) -> None:
    job, _ = job_and_data({"type": inner}, {"type": "softmax_cross_entropy"}, 3, weighted=False)
    job = job.replace(batch_size=16 * MAX_ROWS, shards=100, max_steps=50)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, FEATURES)), rng.integers(0, OUTPUTS, 500)
    assert_agrees(job, {"train": (x, y)})


def test_images_with_black_borders() -> None:
    """There all inputs of a window are 0, and the first biases are 0: a kink of ReLU and of the maximum."""
    x = np.zeros((16, 1, 12, 12))
    x[:, :, 4:8, 4:8] = np.random.default_rng(0).uniform(size=(16, 1, 4, 4))
    layers = [
        {"type": "conv2d", "filters": 8, "kernel_size": 3, "activation": "relu"},
        {"type": "max_pool2d", "kernel_size": 2},
        "flatten",
        {"type": "dense", "units": 3},
    ]
    job = TrainingJob(model={"layers": layers}, loss="softmax_cross_entropy")
    report = check_job(job, given={"train": (x, np.arange(16) % 3)})
    assert report.passed, report


def test_batches_that_weigh_nothing_are_passed_over() -> None:
    job, given = job_and_data({"type": "tanh"}, {"type": "mse"}, 1, weighted=False)
    weights = np.repeat([0.0, 2.0], [ROWS - 1, 1])
    given = {"train": (*given["train"], weights)}
    job = job.replace(batch_size=2, shuffle=False)
    assert_agrees(job, given)
    with pytest.raises(DataError, match=r"of every batch of the first epoch weigh 0: there is no gradient$"):
        check_job(job.replace(drop_last=True), given=given)


def test_units_without_a_derivative_have_no_gradient_to_check() -> None:
    layers = [{"type": "dense", "units": 3, "activation": "step"}, {"type": "dense", "units": 2}]
    job = TrainingJob(
        data={"train": {"format": "blobs", "classes": 2}}, model={"layers": layers},
        loss="softmax_cross_entropy", optimizer="evolution",
    )  # fmt: skip
    with pytest.raises(JobError, match=r"layers.0: 'step' has a derivative of zero, so there is no gradient"):
        check_job(job)
