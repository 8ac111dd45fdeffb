"""NaN and Inf are traced to step, layer, tensor and rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rigs import Rig, classes, make_job, make_rig

from distbp.core.arrays import Array
from distbp.core.errors import NumericsError
from distbp.data.prepared import PreparedRows
from distbp.engine.diagnosis import diagnose

LAYERS = (
    {"type": "dense", "units": 6, "activation": "relu"},
    {"type": "batch_normalization"},
    {"type": "dense", "units": 3},
)
SMALLER = "Lower optimizer.learning_rate, set clip, or scale the inputs (data.standardize: true)."


def rig(layers: Any = LAYERS, **fields: Any) -> Rig:
    fields = {"batch_size": 16, "shuffle": False, **fields}
    return make_rig(make_job(layers, **fields), classes(40, weighted=True))


def rows_of(rig: Rig) -> PreparedRows:
    rows, _ = rig.data.train(0)
    assert isinstance(rows, PreparedRows)
    return rows


def found(rig: Rig, vector: Array, step: int = 1, **options: Any) -> NumericsError:
    with np.errstate(all="ignore"):
        return diagnose(rig.blueprint, vector, rig.data, step, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_input_names_its_rows(value: float) -> None:
    r = rig()
    rows = rows_of(r)
    for row in (17, 30, 3):  # row 3 is in step 0
        rows.inputs[row, 2] = value
    error = found(r, r.start())
    kind = "NaN" if np.isnan(value) else "Inf"
    assert str(error) == (
        # Row 30 is another shard's: the first shard at fault is enough.
        f"step 1: {kind} in the inputs of the data for training rows 17; the update was not applied."
        " Mend the data, or set data.bad_rows: skip."
    )
    assert (error.step, error.layer, error.tensor, error.rows) == (1, "the data", "inputs", (17,))


def test_rows_are_numbered_as_in_the_file() -> None:
    r = rig()
    rows_of(r).inputs[[17, 18]] = np.nan
    assert found(r, r.start(), row_number=lambda row: 1000 + row).rows == (1017, 1018)


def test_rows_of_a_shuffled_step() -> None:
    r = rig(shuffle=True)
    vector = r.start()
    own = sorted(int(row) for row in r.worker(vector).rows(1, 2))
    rows_of(r).inputs[own] = np.nan
    assert found(r, vector).rows == tuple(own)


def test_at_most_ten_rows() -> None:
    r = rig(shards=1)
    rows_of(r).inputs[:] = np.nan
    assert found(r, r.start()).rows == tuple(range(16, 26))


def test_a_bad_target() -> None:
    x, _ = classes(40)
    r = make_rig(make_job([{"type": "dense", "units": 1}], loss="mse", shuffle=False), (x, x[:, :1].copy()))
    rows_of(r).targets[9] = np.inf
    error = found(r, r.start())
    assert (error.layer, error.tensor, error.rows) == ("the data", "targets", (9,))


@pytest.mark.parametrize("path", ["layers.0.dense.weight", "layers.1.batch_normalization.shift"])
def test_poisoned_parameters(path: str) -> None:
    r = rig()
    vector = r.start()
    tensor = next(t for t in r.blueprint.network().tensors if t.path == path)
    vector[tensor.start] = np.nan
    error = found(r, vector)
    layer = f"layer {tensor.layer} ({path.split('.')[2]})"
    assert str(error) == f"step 1: NaN in the {tensor.name} of {layer}; the update was not applied. {SMALLER}"


def test_outputs_that_overflow_name_the_layer_and_the_row() -> None:
    r = rig([{"type": "dense", "units": 6}, {"type": "dense", "units": 3}])
    rows_of(r).inputs[20] = 3e38
    vector = r.start()
    vector[:] = 2  # 5 * 2 * 3e38 overflows in the first layer
    error = found(r, vector)
    assert (error.layer, error.tensor, error.rows) == ("layer 0 (dense)", "outputs", (20,))
    assert "Inf in the outputs of layer 0 (dense) for training rows 20" in str(error)


def test_a_loss_that_overflows_names_the_row() -> None:
    x, _ = classes(40)
    r = make_rig(make_job([{"type": "dense", "units": 1}], loss="mse", shuffle=False), (x, x[:, :1].copy()))
    rows_of(r).targets[13] = 3e38  # finite, its square is not
    error = found(r, r.start())
    assert (error.layer, error.tensor, error.rows) == ("the loss", "value", (13,))


def test_a_gradient_that_overflows_names_the_tensor() -> None:
    # Inputs and derivatives of the loss are finite, their product is not.
    x, _ = classes(40)
    r = make_rig(make_job([{"type": "dense", "units": 1}], loss="mae", shuffle=False), (x, x[:, :1]))
    rows_of(r).inputs[8:12] = 3e38
    vector = r.start()
    vector[:] = 0
    rows_of(r).targets[8:12] = -1
    error = found(r, vector)
    assert (error.layer, error.tensor) == ("layer 0 (dense)", "gradient of the weight")


def test_running_statistics_that_overflow() -> None:
    r = rig([{"type": "batch_normalization"}, {"type": "dense", "units": 3}])
    rows_of(r).inputs[:] = np.linspace(-1e25, 1e25, 40, dtype=np.float32)[:, None]
    error = found(r, r.start())
    assert (error.layer, error.tensor) == ("layer 0 (batch_normalization)", "running variance")


def test_a_sum_over_shards_that_overflows() -> None:
    assert found(rig(), rig().start()).layer == "the network"
