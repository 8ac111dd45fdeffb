"""The embedding layer, and data that are ids: never floats, refused out of range, the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_sets import PLAIN
from nn.lowered import check_compiled, check_same_bits, gradcheck, layer, train_once
from rigs import make_job, make_rig

from distbp import JobError, TrainingJob
from distbp.core.errors import DataError, ModelError
from distbp.data.preprocessing import Preprocessing
from distbp.model.predictor import Model
from distbp.nn.losses import LOSSES
from distbp.nn.network import Network
from distbp.run.splits import open_splits

NETS: dict[str, tuple[list[Any], tuple[int, ...]]] = {
    "words": ([layer("embedding", entries=7, size=3), layer("flatten"), layer("dense", units=2)], (5,)),
    "one id": ([layer("embedding", entries=7, size=3), layer("dense", units=2)], ()),
    "elman": ([layer("embedding", entries=7, size=3), layer("elman", units=4)], (6,)),
    "two tables": (
        [
            layer("embedding", entries=7, size=3, name="a"),
            layer("embedding", entries=9, size=2, name="b", inputs=("input",)),
            layer("concatenate", inputs=("a", "b")),
            layer("flatten"),
        ],
        (2, 2),
    ),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("rows", "most"), [(5, 5), (3, 8)])
def test_gradients(name: str, rows: int, most: int) -> None:
    report = gradcheck(*NETS[name], rows, most, ids=7)
    assert report.passed, str(report)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("rows", "most"), [(6, 6), (3, 20)])
def test_compiled_ops_give_the_same(name: str, rows: int, most: int) -> None:
    check_compiled(*NETS[name], rows, most, ids=7)


def tokens(rows: int, length: int, dtype: Any = np.int32) -> tuple[Any, Any]:
    x = np.random.default_rng(1).integers(0, 7, (rows, length)).astype(dtype)
    return x, (x[:, 0] > 3).astype(np.int64)


@pytest.mark.parametrize("shards", [2, 3])
@pytest.mark.parametrize("kernels", PLAIN)
def test_same_bits(kernels: str, shards: int) -> None:
    check_same_bits(NETS["words"][0], *tokens(50, 5), shards, kernels)


def test_values_and_sums_by_hand() -> None:
    network = Network([layer("embedding", entries=3, size=2), layer("flatten")], (2,), np.float64)
    vector = np.arange(6.0)
    x = np.array([[2, 0], [2, 2]])
    _, outputs, gradient = train_once(network, 4, x, np.zeros((2, 4)), vector)
    assert outputs.tolist() == [[4, 5, 0, 1], [4, 5, 4, 5]]
    assert (gradient * 4).reshape(3, 2).tolist() == [[0, 2 * 1], [0, 0], [2 * 12, 2 * 15]]  # a mean over 4


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.float64])
def test_ids_stay_whole_numbers(dtype: Any) -> None:
    made = make_rig(make_job(NETS["words"][0]), tokens(20, 5, dtype))
    rows, _ = made.data.train(0)
    assert rows.inputs.dtype == np.int64
    reader = made.worker(made.start()).reader(0)
    assert reader.slice(0).x.dtype == np.int64
    assert reader.slice(0).x.tolist() == tokens(20, 5)[0][reader.rows(0)].tolist()


def test_large_ids_are_exact() -> None:
    """2^24 + 1 is not a float32."""
    x = np.array([[2**24 + 1], [2**24]], np.int64)
    layers = [layer("embedding", entries=2**24 + 2, size=1)]
    splits = open_splits(
        make_job([*layers, layer("flatten"), layer("dense", units=2)]),
        Path(),
        {"train": (x, np.array([0, 1]))},
    )
    assert splits.tables["train"].inputs.tolist() == x.tolist()


@pytest.mark.parametrize(("value", "shown"), [(7, "7.0"), (-1, "-1.0"), (2.5, "2.5")])
def test_ids_out_of_range_are_refused_when_the_data_are_opened(value: float, shown: str) -> None:
    x, y = tokens(20, 5, np.float64)
    x[13, 2] = value
    with pytest.raises(DataError) as caught:
        make_rig(make_job(NETS["words"][0]), (x, y))
    assert str(caught.value) == (
        f"the train arrays: row 13, column 2 of the inputs is {shown}, but ids are whole numbers from 0 to 6,"
        " as the embedding has 7 entries; mend the data, or give it more entries"
    )


def test_the_smallest_table_bounds_the_ids() -> None:
    job = make_job([*NETS["two tables"][0], layer("dense", units=2)])
    x = np.full((20, 2, 2), 7)
    with pytest.raises(
        DataError, match=r"row 0, column \(0, 0\) of the inputs is 7, but ids are whole numbers from 0 to 6"
    ):
        make_rig(job, (x, np.zeros(20, np.int64)))


def test_a_model_takes_ids() -> None:
    network = Network(NETS["words"][0], (5,))
    vector = network.initialize(1)
    model = Model(network, vector, LOSSES["mse"](), Preprocessing(), None, None, None, {})
    x, _ = tokens(4, 5)
    y = model.outputs(x)
    table = vector[:21].reshape(7, 3)
    weight = vector[21:51].reshape(2, 15)
    np.testing.assert_allclose(y, table[x].reshape(4, 15) @ weight.T, rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match="the inputs: row 1, column 0 of the inputs is 9, but ids are whole"):
        model.outputs(np.array([[0] * 5, [9] * 5]))


EMBED, DENSE = {"type": "embedding", "entries": 5, "size": 2}, {"type": "dense", "units": 2}


@pytest.mark.parametrize(
    ("layers", "data", "faults"),
    [
        (
            [DENSE, EMBED, "flatten", DENSE], {},
            ["model.layers.1: embedding takes ids, and only the data are ids; put it first, or give it"
             " inputs: [input]"],
        ),
        (
            [{**EMBED, "name": "a"}, {**DENSE, "inputs": ["input"], "name": "b"}, "flatten",
             {"type": "concatenate", "inputs": ["a", "b"]}], {},
            ["model.layers.1: dense takes numbers, but the data are ids, as another layer takes them so",
             "model.layers.2: no layer takes the output of this one; name it in the inputs of a later"
             " layer, or take it out"],
        ),
        (
            [EMBED, "flatten", DENSE], {"standardize": True},
            ["data.standardize: would change the ids that an embedding takes; leave it out"],
        ),
        (
            [EMBED, "flatten", DENSE], {"scale": 255},
            ["data.scale: would change the ids that an embedding takes, but is 255; leave it out"],
        ),
    ],
)  # fmt: skip
def test_faults_of_a_job(layers: list[Any], data: Any, faults: list[str]) -> None:
    with pytest.raises(JobError) as caught:
        TrainingJob(model={"layers": layers}, data=data, loss="mse")
    assert sorted(str(fault) for fault in caught.value.faults) == sorted(faults)


def test_facts() -> None:
    one = layer("embedding", entries=7, size=3)
    assert (one.takes, one.ids_below, one.output_shape((4, 2)), one.output_shape(())) == (
        "ids",
        7,
        (4, 2, 3),
        (3,),
    )
    assert [(spec.name, spec.shape) for spec in one.parameters((4,))] == [("weight", (7, 3))]
