"""The entry of a table's cells in everything that shows a network: describe, summary, explain, gradcheck."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from houses import houses, job, write

from distbp import JobError, TrainingJob, train
from distbp.cli.describe import lines
from distbp.run.explain.check import check
from distbp.run.explain.page import page
from distbp.run.explain.step import explain_job
from distbp.run.explain.text import lines as explain_lines
from distbp.run.gradcheck import check_job
from distbp.run.plan.describe import describe_job

ONE_HOT = {"code": {"kind": "category", "encode": "one_hot"}}


def test_it_is_shown_and_counted(tmp_path: Path) -> None:
    wanted = job(write(houses(), tmp_path / "h.csv")).replace(epochs=1)
    found = describe_job(wanted, tape=True)
    entry, first, _ = found.layers
    # rooms; area and whether it is missing; 4 cities and others; 15 numbers of a code; 5 of a date; garden
    assert (found.input_shape, entry.number, entry.type, entry.output_shape) == ((8,), None, "columns", (29,))
    assert (entry.parameters, first.parameters) == (31 * 15, 8 * 30)
    assert found.parameters == 31 * 15 + 8 * 30 + 9
    assert found.tape is not None
    assert {row.op for row in found.tape if row.layer is None and row.section == "forward"} == {
        "enter_number",
        "enter_one_hot",
        "enter_row",
    }
    shown = "\n".join(lines(found))
    assert "    -  columns               29                        465" in shown
    model = train(wanted, output=tmp_path / "run").model()
    assert ["columns", "29", "465"] in [line.split() for line in model.summary().splitlines()]


def test_gradients_of_a_job_with_a_table(tmp_path: Path) -> None:
    report = check_job(job(write(houses(), tmp_path / "h.csv")))
    assert report.passed, str(report)
    assert any(one.part == "input.columns.embedding.code.weight" for one in report.parts)


def test_a_step_is_explained_from_what_enters(tmp_path: Path) -> None:
    path = write(houses(), tmp_path / "h.csv")
    found = explain_job(job(path, columns=ONE_HOT))
    entry, first, _ = found.layers
    assert (entry.number, entry.type, entry.d_a) == (-1, "columns", None)
    assert entry.x.shape == found.input.shape == (8,)
    assert np.array_equal(first.x, entry.a) and first.x.shape == (44,)
    assert first.x[8:38].sum() == 1


PERIODIC = {"area": {"kind": "number", "frequencies": 3, "dimension": 3, "bins": 4}}
AROUND_ZERO = {"area": {"kind": "number", "bins": 4, "bin_height": 0.3}}
TABLES: dict[str, Any] = {
    "embedding": {},
    "bins around zero": {"columns": AROUND_ZERO},
    "one hot": {"columns": ONE_HOT},
    "numbers": {"columns": PERIODIC},
    "windows": {"columns": PERIODIC, "time": "built", "windows": {"length": 3, "horizon": 1}},
}


@pytest.mark.parametrize("name", TABLES)
def test_every_number_of_what_enters_is_computed_again(tmp_path: Path, name: str) -> None:
    dates = pa.array(np.datetime64("1990-01-01") + np.arange(300))  # each once, for windows
    wanted = job(write(houses().set_column(4, "built", dates), tmp_path / "h.csv"), **TABLES[name])
    for sample in range(4):
        found = explain_job(wanted, sample=sample, step=2)
        checked = check(json.loads(json.dumps(found.to_json())))
        assert checked.largest < 1e-12, checked
        text = list(explain_lines(found))
        assert max(map(len, text)) <= 80, max(text, key=len)
        assert "<h2>The columns</h2>" in page(found)


def test_the_entry_of_a_table_is_told(tmp_path: Path) -> None:
    found = explain_job(job(write(houses(), tmp_path / "h.csv")), step=2)
    entry, first, _ = found.layers
    weight = entry.parameters[0]
    code = int(entry.x[3])
    assert weight.name == "embedding.code.weight" and weight.gradient.shape == (31, 15)
    np.testing.assert_array_equal(weight.before[code], entry.a[8:23])
    np.testing.assert_array_equal(weight.gradient[code], entry.get("dE_da")[8:23])
    assert np.count_nonzero(weight.gradient.any(axis=1)) == 1
    handed = first.tensor("weight").T @ first.get("delta")
    np.testing.assert_allclose(entry.get("dE_da"), handed, rtol=1e-12)
    text = "\n".join(explain_lines(found))
    assert "\ncolumns, output 29\n" in text and f"code is entry {code} of a table of its own" in text
    assert f"  w[{code}, 0]" in text
    assert f"\ncolumns, embedding.code.weight\n{'before':>30}" in text
    assert f"\n  [{code}, 0] " in text
    shown = page(found)
    assert "<h2>The columns</h2>" in shown and f"as the cell is entry {code} of the table" in shown


def test_a_missing_cell_is_called_so(tmp_path: Path) -> None:
    """Where cells hold a number that stands for it."""
    path = tmp_path / "t.csv"
    path.write_text("a,b,target\n,2,x\n,3,y\n4,5,x\n5,6,y\n")
    found = explain_job(
        TrainingJob.from_mapping(
            {
                "data": {"train": {"format": "table", "path": str(path)}, "target": "target"},
                "model": {"layers": [{"type": "dense", "units": 2}]},
                "loss": "softmax_cross_entropy",
                "optimizer": {"type": "sgd", "learning_rate": 0.1},
                "batch_size": 2,
                "epochs": 1,
            }
        )
    )
    assert "input   missing, " in "\n".join(explain_lines(found))
    shown = page(found)
    assert "x[0] = missing" in shown and ">missing</text>" in shown and "e+38" not in shown


def test_a_layer_that_takes_the_columns_says_so(tmp_path: Path) -> None:
    wanted = job(write(houses(), tmp_path / "h.csv"))
    layers = [
        {"type": "dense", "units": 2, "name": "a"},
        {"type": "dense", "units": 2, "inputs": ["input"], "name": "b"},
        {"type": "concatenate", "inputs": ["a", "b", "input"]},
        {"type": "dense", "units": 1},
    ]
    fields = {**wanted.to_mapping(), "model": {"layers": layers}}
    found = explain_job(TrainingJob.from_mapping(fields))
    assert check(found.to_json()).passed
    text = "\n".join(explain_lines(found))
    assert "layer 2: concatenate, takes layer 0 and layer 1 and the columns, output 33" in text
    assert "takes 0, 1, the columns" in " ".join(page(found).split())


def test_wrong_numbers_of_what_enters_are_found(tmp_path: Path) -> None:
    told = explain_job(job(write(houses(), tmp_path / "h.csv"), columns=PERIODIC)).to_json()
    for name in ("a", "dE_da"):
        bad = copy.deepcopy(told)
        bad["layers"][0][name][3] += 1e-6
        assert check(bad).place.startswith(f"layers.0.{name}")
    bad = copy.deepcopy(told)
    bad["layers"][0]["parameters"]["periodic_embedding.area.phase"]["dE_dw"][0][1] += 1e-6
    assert check(bad).place == "layers.0.parameters.periodic_embedding.area.phase.dE_dw[0, 1]"


def test_biases_of_embeddings_are_held(tmp_path: Path) -> None:
    wanted = job(write(houses(), tmp_path / "h.csv"), columns=PERIODIC)
    found = explain_job(wanted, sample=1, hold_biases=True)
    held = [one.name for one in found.layers[0].parameters if np.array_equal(one.before, one.after)]
    assert held == ["periodic_embedding.area.bias"]
    assert check(found.to_json()).passed


def test_options_of_a_category(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        job("h.csv", columns={"code": {"kind": "category", "encode": "one_hot", "dimension": 3}})
    assert str(caught.value.faults[0]) == (
        "data.columns.code.dimension: is of an embedding, but encode is one_hot; leave one of them out"
    )
