"""Tensors with their own learning rate and decay: by hand, by both executors, and what is said of names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rigs import classes, make_job, make_rig

from distbp import JobError, TrainingJob
from distbp.core.reduction import Block
from distbp.engine.numerics import one_blas_thread
from distbp.job.digest import canonical
from distbp.nn import kernels
from distbp.optim import Step, Updater
from distbp.optim.groups import PLAIN, Group, groups_of
from distbp.optim.recipes import SGD, AdamW
from distbp.optim.schedules import FlatCosine

LAYERS = [{"type": "dense", "units": 4, "activation": "tanh"}, {"type": "dense", "units": 3}]


@given(st.data())
def test_groups_cover_what_they_should(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    ends = sorted(data.draw(st.lists(st.integers(0, size), max_size=8)))
    cuts = list(zip(ends[::2], ends[1::2], strict=False))
    rates = [(a, b, data.draw(st.sampled_from([0.0, 0.1, 1.0, 6.0]))) for a, b in cuts]
    decays = [(a, b) for a, b in zip(ends[1::2], ends[2::2], strict=False)]
    groups = groups_of(decays, rates, size)
    wanted = [
        (any(a <= n < b for a, b in decays), next((f for a, b, f in rates if a <= n < b), 1.0))
        for n in range(size)
    ]
    found = [PLAIN[0]] * size
    for start, stop, number in groups.stretches:
        found[start:stop] = [groups.kinds[number]] * (stop - start)
    assert found == [Group(*one) for one in wanted]
    assert groups.kinds[:2] == PLAIN


@pytest.mark.parametrize("compiled", [False, True])
def test_a_rate_of_its_own_by_hand(compiled: bool) -> None:
    if compiled:
        pytest.importorskip("numba", reason="Numba is not installed")
    w = np.ones(6, np.float32)
    rule = AdamW(weight_decay=0.5, decay_schedule=FlatCosine()).parts()
    updater = Updater(rule, w, [(0, 4)], rates=[(2, 4, 0.1), (5, 6, 0.0)], compiled=compiled)
    g = np.array([1, -2, 3, -4, 5, 6], np.float32)
    updater.apply([g.copy()], [], Step(1, 0.2, decay=0.5), 1.0)
    kept = np.array([1 - 0.2 * 0.25] * 2 + [1 - 0.02 * 0.25] * 2 + [1, 1])
    rate = np.array([0.2, 0.2, 0.02, 0.02, 0.2, 0.0])
    np.testing.assert_allclose(w, kept - rate * np.sign(g), rtol=1e-6)  # the first step of Adam is the sign


def test_a_rate_of_one_changes_no_bit() -> None:
    start = np.random.default_rng(0).normal(size=50)
    gradient = np.random.default_rng(1).normal(size=50)
    found = []
    for rates in ([], [(0, 50, 1.0)], [(10, 30, 1.0)]):
        w = start.copy()
        updater = Updater(SGD(weight_decay=0.1).parts(), w, [(5, 20)], rates=rates)
        updater.apply([gradient.copy()], [], Step(1, 0.3), 0.5)
        found.append(w.tobytes())
    assert len(set(found)) == 1


@pytest.mark.parametrize("kernel_set", ["numpy", "numba"])
def test_a_group_is_trained_by_its_factor(kernel_set: str) -> None:
    """Of plain SGD the step of a tensor is its factor times what it would be."""
    if kernel_set == "numba":
        pytest.importorskip("numba", reason="Numba is not installed")
        kernels.load("numba")
    groups = {"*.bias": {"rate": 0.25}, "layers.1.dense.bias": {"rate": 3}, "layers.0.*": {"rate": 0}}
    moved = []
    for said in (None, groups):
        job = make_job(LAYERS, optimizer={"type": "sgd", "learning_rate": 0.5}, parameter_groups=said)
        made = make_rig(job, classes(16), kernels=kernel_set)
        with one_blas_thread():
            start = made.start()
            server = made.server(start.copy())
            worker, one = made.worker(server.vector), made.contribution(server.vector, Block(0, 4))
            worker.compute(0, one.block, one.gradient, one.totals)
            server.apply(0, [one])
        moved.append(server.vector - start)
    network = made.blueprint.network()
    factors = {"layers.0.dense.weight": 0, "layers.0.dense.bias": 0, "layers.1.dense.bias": 3}
    for tensor in network.tensors:  # the longest pattern: layers.0.* is longer than *.bias
        here = slice(tensor.start, tensor.stop)
        factor = factors.get(tensor.path, 1)
        np.testing.assert_allclose(moved[1][here], factor * moved[0][here], rtol=1e-5, atol=1e-7)
        assert moved[0][here].any()


def test_what_decays() -> None:
    groups = {"*.weight": {"decays": False}, "layers.1.*": {"decays": True}}
    made = make_rig(make_job(LAYERS, parameter_groups=groups), classes(16))
    network = made.blueprint.network()
    paths = {t.start: t.path for t in network.tensors}
    found = {paths[start] for start, _ in made.blueprint.decays(network)}
    assert found == {"layers.1.dense.bias", "layers.1.dense.weight"}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"layers.1.dense.bais": {"rate": 2}},
            "parameter_groups.layers.1.dense.bais: is not a tensor of the network; did you mean"
            " 'layers.1.dense.bias'",
        ),
        (
            {"nothing": {}},
            "is not a tensor of the network; tensors: layers.0.dense.weight, layers.0.dense.bias",
        ),
    ],
)
def test_names_that_are_none(groups: Any, message: str) -> None:
    with pytest.raises(JobError, match=message):
        make_rig(make_job(LAYERS, parameter_groups=groups), classes(16))


def test_patterns_that_fit_nothing_are_told() -> None:
    made = make_rig(make_job(LAYERS, parameter_groups={"*.scale": {"rate": 6}}), classes(16))
    assert "parameter_groups: no tensor has a name like *.scale" in made.blueprint.notes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parameter_groups": {"*.bias": {"rate": -1}}}, "rate: must be a number at least 0, not -1"),
        ({"parameter_groups": {"*.bias": {"rates": 1}}}, "did you mean 'rate'"),
        ({"parameter_groups": ["*.bias"]}, "parameter_groups: must be a mapping from the name of a tensor"),
        (
            {"parameter_groups": {"*.bias": {"rate": 2}}, "optimizer": "lbfgs"},
            "parameter_groups: give tensors a rate, and lbfgs has none",
        ),
        (
            {"optimizer": {"type": "adamw", "decay_schedule": "reduce_on_plateau"}},
            "optimizer.decay_schedule: watches the learning rate alone; take another schedule",
        ),
    ],
)
def test_faults(fields: Any, message: str) -> None:
    job = {"data": {"train": "digits"}, "model": {"layers": [{"type": "dense", "units": 10}]}}
    with pytest.raises(JobError, match=message):
        TrainingJob.from_mapping({**job, "loss": "softmax_cross_entropy", **fields})


def test_jobs_that_say_nothing_of_groups_keep_their_digest() -> None:
    job = {"data": {"train": "digits"}, "model": {"layers": [{"type": "dense", "units": 10}]}}
    found = TrainingJob.from_mapping({**job, "loss": "softmax_cross_entropy", "optimizer": "adamw"})
    for field in ("parameter_groups", "decay_schedule", "parametrization"):
        assert f'"{field}"' not in canonical(found.to_mapping())
