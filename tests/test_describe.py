"""`distbp describe`: the facts of a job, and its tape as a list."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from distbp.cli.describe import lines
from distbp.cli.main import group
from distbp.job import TrainingJob
from distbp.nn.ops import OPS
from distbp.optim.ops import RULE_OPS
from distbp.run.plan.describe import Description, describe_job

TEXT = """
name: small
data:
  train: {format: blobs, samples: 200, features: 6, classes: 3}
model:
  layers:
    - {type: dense, units: 5, activation: tanh}
    - batch_normalization
    - dropout
    - {type: dense, units: 3}
loss: softmax_cross_entropy
optimizer: {type: momentum, learning_rate: 0.1}
clip: {value: 1}
batch_size: 16
shards: 2
"""


@pytest.fixture(autouse=True)
def numpy_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


def described(text: str = TEXT, *, tape: bool = False) -> Description:
    return describe_job(TrainingJob.from_yaml(text), tape=tape)


def test_the_facts() -> None:
    found = described()
    assert [(f.type, f.output_shape, f.parameters) for f in found.layers] == [
        ("dense", (5,), 35),
        ("batch_normalization", (5,), 10),
        ("dropout", (5,), 0),
        ("dense", (3,), 18),
    ]
    assert (found.input_shape, found.parameters, found.shards, found.slice_rows) == ((6,), 63, 2, 8)
    assert found.tape is None
    assert sum(found.memory.values()) > 4 * 63


def test_the_tape_as_text() -> None:
    text = "\n".join(lines(described(tape=True)))
    assert max(map(len, text.splitlines())) <= 80
    stable = re.sub(r" +\d+\.\d\d%", "", text.split("The tape:")[1])
    assert "on one core, by the kernel set numpy" in stable
    first = """\
forward: from the inputs to the outputs
   no  op                            layer             flops     share
    0  product_nn"""
    assert first.replace("product_nn", "") in stable
    assert (
        """
         reads   inputs[0:48] (8 x 6)
"""
        in stable
    )
    assert (
        """
         writes  gradient[0:30] (5 x 6) layers.0.dense.weight
"""
        in stable
    )
    assert stable.endswith("""\
         reads   momentum[0:63] (63 x 1)
         writes  parameters[0:63] (63 x 1)
         reads   constants[8:12] (1 x 4)""")
    assert [line for line in stable.splitlines() if line.endswith(("outputs", "first", "parameter"))] == [
        "forward: from the inputs to the outputs",
        "loss: its value, and its gradient with respect to the outputs",
        "backward: the gradients, from the last layer to the first",
        "update: once for all shards, over every parameter",
    ]


def test_every_op_is_listed_once_in_its_section() -> None:
    tape = described(tape=True).tape
    assert tape is not None
    assert [row.number for row in tape] == list(range(len(tape)))
    sections = [row.section for row in tape]
    assert sections == sorted(sections, key=["forward", "loss", "backward", "update"].index)
    network = TrainingJob.from_yaml(TEXT)
    ops = {section: [row.op for row in tape if row.section == section] for section in set(sections)}
    assert ops["update"] == ["clip_value", "trace", "descend"]
    assert ops["loss"][0] == "softmax_cross_entropy"
    assert {"tanh", "batch_norm", "dropout", "linear"} <= set(ops["forward"])
    assert {"tanh_backward", "batch_norm_backward", "linear_backward"} <= set(ops["backward"])
    layers = [row.layer for row in tape if row.section == "forward"]
    assert layers == sorted(layers, key=lambda layer: -1 if layer is None else layer)
    layers = [row.layer for row in tape if row.section == "backward" and row.layer is not None]
    assert layers == sorted(layers, reverse=True)
    assert len(network.model.layers) == len(set(layers))
    assert all(row.op in OPS or row.op in RULE_OPS for row in tape)
    written = {o.tensor for row in tape if row.section == "backward" for o in row.operands if o.writes}
    assert {f"layers.{name}" for name in ("0.dense.weight", "0.dense.bias", "3.dense.weight")} <= written


def test_shares_are_those_of_one_step() -> None:
    found = described(tape=True)
    assert found.tape is not None
    assert sum(row.share for row in found.tape) == pytest.approx(1)
    assert all(row.seconds > 0 and row.share > 0 for row in found.tape)
    times = [row.seconds * (1 if row.section == "update" else found.shards) for row in found.tape]
    assert [row.share for row in found.tape] == pytest.approx([t / sum(times) for t in times])


EVOLUTION = {
    "    - batch_normalization\n    - dropout\n": "",
    "momentum, learning_rate: 0.1": "evolution, learning_rate: 0.1, population: 32",
}


@pytest.mark.parametrize(
    ("runs", "products", "changes"),
    [
        (1, 4 * 5 * 6 + 6 * 3 * 5, {}),  # nobody wants the gradient of the data
        (1, 4 * 5 * 6 + 6 * 3 * 5, {"batch_size: 16": "batch_size: 15"}),
        (33, 2 * 5 * 6 + 2 * 3 * 5, EVOLUTION),  # the parameters, and 32 copies of them, forward only
    ],
)
def test_flops_are_those_of_the_ops(runs: int, products: int, changes: dict[str, str]) -> None:
    text = TEXT
    for old, new in changes.items():
        text = text.replace(old, new)
    found = described(text, tape=True)
    assert found.tape is not None
    of_slice = [row for row in found.tape if row.section != "update"]
    assert sum(row.flops for row in of_slice if "product" in row.op and "bound" not in row.op) == (
        found.slice_rows * products
    )
    assert ("backward" in {row.section for row in of_slice}) == (runs == 1)
    for layer in found.layers:
        ops = sum(row.flops for row in of_slice if row.layer == layer.number)
        assert layer.flops == runs * ops / found.slice_rows
    update = sum(row.flops for row in found.tape if row.section == "update")
    slices = sum(row.flops for row in of_slice)
    if found.batch_size == 16:
        assert found.flops == 2 * runs * slices + update
    else:  # one of the two has a row less
        assert slices < found.flops - update < 2 * slices


@pytest.mark.parametrize("loss", ["mse", "mae", "poisson", "sigmoid_cross_entropy"])
def test_sample_weights_and_values(loss: str) -> None:
    job = TrainingJob.from_yaml(
        f"model: {{layers: [{{type: dense, units: 2, activation: sigmoid}}]}}\nloss: {loss}\n"
        "optimizer: adam\nbatch_size: 4\n" if loss == "poisson" else
        f"model: {{layers: [{{type: dense, units: 2}}]}}\nloss: {loss}\noptimizer: adam\nbatch_size: 4\n"
    )  # fmt: skip
    x, y = np.ones((8, 3)) * np.arange(8)[:, None], np.tile([[0, 1], [1, 0]], (4, 1))
    for weights in (None, np.ones(8) + np.arange(8)):
        given = (x, y) if weights is None else (x, y, weights)
        found = describe_job(job, tape=True, given={"train": given})
        assert found.tape is not None
        spaces = {operand.space for row in found.tape for operand in row.operands}
        assert ("weights" in spaces) == (weights is not None)
        assert {"first_moment", "second_moment", "sums", "direction"} <= spaces


def test_inputs_that_are_ids() -> None:
    """With numbers in their place NumPy would refuse to look them up."""
    layers = "[{type: embedding, entries: 9, size: 2}, flatten, {type: dense, units: 2}]"
    page = f"model: {{layers: {layers}}}\nloss: softmax_cross_entropy\noptimizer: sgd\nbatch_size: 4\n"
    given = {"train": (np.arange(24).reshape(8, 3) % 9, np.arange(8) % 2)}
    found = describe_job(TrainingJob.from_yaml(page), tape=True, given=given)
    assert found.tape is not None
    assert found.tape[0].op == "gather_rows"


def test_lengths_enter_before_the_first_layer() -> None:
    layers = "[{type: elman, units: 2}, {type: dense, units: 2}]"
    page = f"model: {{layers: {layers}}}\nloss: softmax_cross_entropy\noptimizer: sgd\nbatch_size: 4\n"
    given = {"train": ([np.ones((1 + row % 3, 2)) for row in range(8)], np.arange(8) % 2)}
    found = describe_job(TrainingJob.from_yaml(page), tape=True, given=given)
    assert found.tape is not None
    sections = {row.op: row.section for row in found.tape}
    assert (sections["longest"], sections["tanh"]) == ("forward", "forward")
    assert (sections["softmax_cross_entropy"], sections["put_last"]) == ("loss", "backward")


def test_compiled_ops_are_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setenv("DISTBP_KERNELS", "numba")
    found = described(tape=True)
    assert found.kernels == "numba"
    assert found.tape is not None
    assert sum(row.share for row in found.tape) == pytest.approx(1)


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(TEXT)
    done = CliRunner().invoke(group, ["describe", str(file)])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == "small: inputs of shape 6"
    assert f"  flops of a step     {described().flops:,}" in done.output
    assert "The tape" not in done.output
    done = CliRunner().invoke(group, ["describe", str(file), "--tape", "--json"])
    found = json.loads(done.output)
    assert found["layers"][0] == {
        "number": 0, "type": "dense", "name": None, "sources": [-1], "output_shape": [5], "parameters": 35,
        "flops": described().layers[0].flops,
    }  # fmt: skip
    assert found["tape"][-1]["op"] == "descend"
    assert found["tape"][-1]["section"] == "update"


def test_a_job_without_data_says_what_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(re.sub(r"data:\n.*\n", "", TEXT))
    done = CliRunner().invoke(group, ["describe", str(file)])
    assert done.exit_code == 2
    assert "data.train: is required on the command line (the training set)" in done.output
