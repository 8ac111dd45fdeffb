"""One row for each kind of network, and for each way to train one: any number of workers gives the same bits,
on Ray and after a stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import cache
from typing import Any

import numpy as np
import pytest
from local_team import LocalTeam, Pool, on_ray
from rigs import Rig, make_job, make_rig

from distbp.engine import numerics
from distbp.optim.schedules import PlateauState
from distbp.team.base import Snapshot, Team
from distbp.team.exchange.faults import FaultPlan
from distbp.team.inline import InlineTeam

STEPS = 6
FAULTS = FaultPlan(seed=5, drop=0.15, repeat=0.2, delay=0.2, reorder=0.15)
# A residual block, normalized over channels.
IMAGES = [
    {"type": "conv2d", "filters": 4, "kernel_size": 3, "activation": "relu"},
    {"type": "max_pool2d", "kernel_size": 2, "stride": 1, "name": "a"},
    {"type": "conv2d", "filters": 4, "kernel_size": 3, "padding": 1, "groups": 2},
    {"type": "batch_normalization", "axis": 0, "name": "b"},
    {"type": "add", "inputs": ["a", "b"]},
    {"type": "relu"},
    {"type": "flatten"},
]
SEQUENCES = [
    {"type": "conv1d", "filters": 4, "kernel_size": 3, "dilation": 2, "activation": "relu"},
    {"type": "max_pool1d", "kernel_size": 2},
    {"type": "conv1d", "filters": 3, "kernel_size": 2, "groups": 1, "padding": "same"},
    {"type": "average_steps"},
]
# Two ways from the first layer, one of which jumps over a layer, and are joined.
GRAPH = [
    {"type": "dense", "units": 6, "activation": "tanh", "name": "low"},
    {"type": "dense", "units": 6, "activation": "gelu", "name": "high"},
    {"type": "add", "inputs": ["low", "high"], "name": "sum"},
    {"type": "dense", "units": 4, "inputs": ["low"], "name": "side"},
    {"type": "concatenate", "inputs": ["sum", "side"]},
    {"type": "dropout", "rate": 0.2},
]
# Two blocks of a transformer's encoder, the second without its second half.
TRANSFORMER = [
    {"type": "dense_steps", "units": 4},
    {"type": "positional_encoding"},
    {"type": "positional_embedding", "name": "x"},
    {"type": "layer_normalization"},
    {"type": "attention", "heads": 2, "name": "found"},
    {"type": "add", "inputs": ["x", "found"], "name": "half"},
    {"type": "layer_normalization"},
    {"type": "dense_steps", "units": 6, "activation": "gelu"},
    {"type": "dense_steps", "units": 4, "name": "made"},
    {"type": "add", "inputs": ["half", "made"], "name": "y"},
    {"type": "attention", "causal": True, "name": "more"},
    {"type": "add", "inputs": ["y", "more"]},
    {"type": "average_steps"},
]
# One table for the ids and for the layer over them, and one set of weights for two layers.
SHARED = [
    {"type": "embedding", "entries": 9, "size": 4, "shares": "wide.weight"},
    {"type": "average_steps", "name": "mean"},
    {"type": "dense", "units": 4, "activation": "tanh", "name": "one"},
    {"type": "dense", "units": 4, "shares": ["one.weight", "one.bias"]},
    {"type": "dense", "units": 9, "name": "wide"},
]
# Three outputs: one of a class, one of values, which the network takes on, and one of yes or no.
OUTPUTS = [
    {"type": "dense", "units": 6, "activation": "tanh", "name": "trunk"},
    {"type": "dense", "units": 2, "name": "place"},
    {"type": "concatenate", "inputs": ["trunk", "place"], "name": "all"},
    {"type": "dense", "units": 3, "inputs": ["all"], "name": "kind"},
    {"type": "dense", "units": 1, "inputs": ["all"], "name": "sure"},
]
LOSSES = {
    "kind": "softmax_cross_entropy",
    "place": {"type": "huber", "factor": 0.3},
    "sure": {"type": "sigmoid_cross_entropy", "factor": 2},
}
# An image of 3 x 6 and three facts about it.
TWO_INPUTS: list[dict[str, Any]] = [
    {"type": "input", "name": "image", "shape": [1, 3, 6]},
    {"type": "input", "name": "facts", "shape": [3]},
    {"type": "conv2d", "filters": 2, "kernel_size": 2, "inputs": ["image"]},
    {"type": "flatten", "name": "seen"},
    {"type": "concatenate", "inputs": ["seen", "facts"]},
    {"type": "dense", "units": 4, "activation": "tanh"},
]
NETWORKS: dict[str, tuple[list[dict[str, Any]], tuple[int, ...]]] = {
    "convolution": (IMAGES, (2, 7, 6)),
    "convolution of sequences": (SEQUENCES, (9, 3)),
    "recurrence": ([{"type": "elman", "units": 5}], (6, 3)),
    "lstm both ways": ([{"type": "lstm", "units": 4, "bidirectional": True}], (6, 3)),
    "gru": ([{"type": "gru", "units": 5, "return_sequences": True}, {"type": "flatten"}], (4, 3)),
    "ids": ([{"type": "embedding", "entries": 9, "size": 3}, {"type": "elman", "units": 4}], (5,)),
    "graph": (GRAPH, (5,)),
    "transformer": (TRANSFORMER, (5, 3)),
    "two inputs": (TWO_INPUTS, (21,)),
    "last step": ([{"type": "attention", "causal": True}, {"type": "last_step"}], (5, 3)),
    "lengths": (
        [
            {"type": "lstm", "units": 3, "bidirectional": True, "return_sequences": True},
            {"type": "attention", "heads": 2},
            {"type": "gru", "units": 4},
        ],
        (6, 3),
    ),
    "shared": (SHARED, (5,)),
    "windows": ([{"type": "elman", "units": 4}], (4, 2)),
    "several outputs": (OUTPUTS, (5,)),
    "carried states": (
        [
            {"type": "lstm", "units": 4, "return_sequences": True},
            {"type": "gru", "units": 3, "return_sequences": True},
        ],
        (11, 3),
    ),
}
# One number a unit, periodic embeddings, and tensors with their own rates; dropout and decay fall at the end.
REALMLP = [
    {"type": "smooth_clip"},
    {"type": "periodic_embedding", "frequencies": 3},
    {"type": "scale"},
    {"type": "dense", "units": 6, "parametrization": "ntk", "initializer": "large"},
    {"type": "parametric_activation", "function": "mish"},
    {"type": "dropout", "rate": 0.3, "schedule": "flat_cosine"},
]
NETWORKS |= dict.fromkeys(("groups", "groups, clipped"), (REALMLP, (5,)))
GROUPS: dict[str, Any] = {
    "batch_size": 20,
    "optimizer": {"type": "adamw", "learning_rate": 0.02, "decay_schedule": "flat_cosine"},
    "parameter_groups": {
        "*.bias": {"rate": 0.1},
        "*.scale.*": {"rate": 6, "decays": True},
        "layers.6.dense.weight": {"decays": False},
    },
}
WINDOWS = {"target": "label", "time": "time", "windows": {"length": 4}}
DENSE = [{"type": "dense", "units": 6, "activation": "tanh"}]
# Ways to train that are no descent along the gradient of a batch.
METHODS: dict[str, dict[str, Any]] = {
    "conjugate gradients": {"optimizer": "conjugate_gradient", "dtype": "float64"},
    "lbfgs": {"optimizer": {"type": "lbfgs", "history": 2}, "regularization": {"l2": 0.01}},
    "evolution": {"optimizer": {"type": "evolution", "population": 10}, "batch_size": 20},
}
NETWORKS |= dict.fromkeys(METHODS, (DENSE, (5,)))
# Of each kind of message one: sums of gradients of every family, labels of several kinds, states, and losses.
# `test_any_number_of_workers` has all networks, in the same memory without Ray.
ON_RAY = (
    "convolution",
    "ids",
    "transformer",
    "graph",
    "several outputs",
    "carried states",
    "conjugate gradients",
    "lbfgs",
    "evolution",
)
PLATEAU = PlateauState()


@cache
def rig(name: str) -> Rig:
    layers, shape = NETWORKS[name]
    rng = np.random.default_rng(2)
    ids = layers[0]["type"] == "embedding"

    def rows(count: int) -> Any:
        if name == "windows":
            pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
            x, y = rng.normal(size=(2, count))
            labels = rng.permutation(np.arange(count) % 3)
            return pa.table({"time": np.arange(count), "x": x, "y": y, "label": labels})
        if name == "carried states":  # of several windows each, so that states go from step to step
            x = rng.normal(size=(count, *shape))
            given = {"inputs": x, "lengths": rng.integers(2, shape[0] + 1, count)}
            return given, (x.cumsum(axis=1)[:, :, 0] > 0) + (x[:, :, 1] > 0)
        x = rng.integers(0, 9, (count, *shape)) if ids else rng.normal(size=(count, *shape))
        y = x.reshape(count, -1)[:, 0].argsort().argsort() % 3
        if name == "several outputs":
            weights = rng.uniform(0.5, 2, count)
            return x, {"kind": y, "place": x[:, 1:3] ** 2, "sure": x[:, 3:4] > 0}, weights
        return {"inputs": x, "lengths": rng.integers(0, 7, count)} if name == "lengths" else x, y

    usual = {
        "batch_size": 20,
        "optimizer": {"type": "adam", "learning_rate": 0.02},
        "clip": {"norm": 0.9},
    }
    fields = {"batch_size": "full", **METHODS[name]} if name in METHODS else usual
    if name.startswith("groups"):
        fields = {**GROUPS, **({"clip": {"norm": 0.5}} if "clipped" in name else {})}
    if name == "windows":
        fields = {**fields, "data": WINDOWS}
    last = "dense"
    if name == "carried states":
        fields, last = {**fields, "data": {"truncated_bptt_steps": 3}}, "dense_steps"
    if name == "several outputs":
        fields = {**fields, "loss": LOSSES}
    else:
        layers = [*layers, {"type": last, "units": 3}]
    job = make_job(layers, epochs=6, **fields)
    return make_rig(job, rows(50), {"validation": rows(17)})


@pytest.fixture(autouse=True)
def as_in_training() -> Iterator[None]:
    with numerics.one_blas_thread(), numerics.quiet():
        yield


def fresh(name: str) -> Snapshot:
    return Snapshot(0, {"vector": rig(name).start()})


def outcome(team: Team, first: int = 0) -> tuple[bytes, bytes]:
    """Trains to the end; the parameters with the optimizer's state, and the sums over the validation set."""
    assert team.run(first, STEPS, PLATEAU, lambda: False) == STEPS
    return team.snapshot().arrays["vector"].tobytes(), team.evaluate("validation").sums.tobytes()


@cache
def undisturbed(name: str) -> tuple[bytes, bytes]:
    with closing(InlineTeam(rig(name).blueprint, rig(name).data, fresh(name), 1)) as team:
        return outcome(team)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_changes_every_layer(name: str) -> None:
    start = rig(name).start()
    end = np.frombuffer(undisturbed(name)[0], start.dtype)[: start.size]
    for tensor in rig(name).blueprint.network().tensors:
        here = slice(tensor.start, tensor.stop)
        assert (start[here] != end[here]).any(), tensor.name


@pytest.mark.parametrize(
    ("workers", "faults"), [(1, None), (2, FAULTS), (3, FAULTS)], ids=["1", "2, faults", "3, faults"]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_any_number_of_workers(name: str, workers: int, faults: FaultPlan | None, pool: Pool) -> None:
    made = rig(name)
    with closing(LocalTeam(pool, made.blueprint, made.data, fresh(name), 1, workers, faults)) as team:
        assert outcome(team) == undisturbed(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_another_number_of_workers_goes_on_from_a_snapshot(name: str, pool: Pool) -> None:
    made = rig(name)
    with closing(LocalTeam(pool, made.blueprint, made.data, fresh(name), 1, 3)) as team:
        assert team.run(0, 2, PLATEAU, lambda: False) == 2
        half = team.snapshot()
    with closing(InlineTeam(made.blueprint, made.data, half, 2)) as team:
        assert outcome(team, 2) == undisturbed(name)


@pytest.mark.parametrize("name", ON_RAY)
def test_workers_on_ray(name: str, ray_here: None) -> None:
    with closing(on_ray(rig(name), 2, FAULTS, fresh(name), 1)) as team:
        assert outcome(team) == undisturbed(name)
