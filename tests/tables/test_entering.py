"""The entry of a table's cells in everything that shows a network: describe, summary, explain, gradcheck."""

from __future__ import annotations

from pathlib import Path

import pytest
from houses import houses, job, write

from distbp import JobError, train
from distbp.cli.describe import lines
from distbp.plan.describe import describe_job
from distbp.run.explain.step import explain_job
from distbp.run.gradcheck import check_job

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
    assert found.layers[0].x.shape == (44,)
    assert found.layers[0].x[8:38].sum() == 1
    with pytest.raises(JobError, match=r"data.columns: hold an embedding, which is not explained yet"):
        explain_job(job(path))


def test_options_of_a_category(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        job("h.csv", columns={"code": {"kind": "category", "encode": "one_hot", "dimension": 3}})
    assert str(caught.value.faults[0]) == (
        "data.columns.code.dimension: is of an embedding, but encode is one_hot; leave one of them out"
    )
