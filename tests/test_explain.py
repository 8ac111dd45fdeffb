"""`distbp explain`: one step of one sample with every number, and the same computed again by loops."""

from __future__ import annotations

import ast
import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from distbp.cli.main import group
from distbp.core.errors import ArgumentError, JobError
from distbp.job import TrainingJob
from distbp.nn.activations import ACTIVATIONS
from distbp.nn.layers import LAYERS
from distbp.nn.losses import LOSSES
from distbp.optim import CHAINS
from distbp.run.explain import check as check_module
from distbp.run.explain.check import check
from distbp.run.explain.explanation import Explanation
from distbp.run.explain.kinds import KINDS
from distbp.run.explain.page import page
from distbp.run.explain.step import explain_job
from distbp.run.explain.text import lines
from distbp.run.explain.update_words import rule_of
from distbp.run.explain.words import plain

ROOT = Path(__file__).resolve().parents[1]
MAZUR = str(ROOT / "examples" / "mazur.yaml")
RNG = np.random.default_rng(0)
ROWS, CLASSES = RNG.normal(size=(8, 3)), RNG.integers(0, 3, 8)
IMAGES, SERIES = RNG.normal(size=(8, 2, 7, 6)), RNG.normal(size=(8, 5, 3))
VALUES = RNG.normal(size=(8, 2))
IDS = RNG.integers(0, 7, (8, 5))
DENSE: dict[str, Any] = {"type": "dense", "units": 3}
SOFTMAX = "softmax_cross_entropy"
POOL = {"type": "max_pool2d", "kernel_size": 2}


@pytest.fixture(autouse=True)
def numpy_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


def explained(layers: list[Any], x: Any, y: Any, loss: Any = SOFTMAX, **fields: Any) -> Explanation:
    job = TrainingJob.from_mapping({"model": {"layers": layers}, "loss": loss, "batch_size": 4, **fields})
    return explain_job(job, given={"train": (x, y)}, sample=2, step=3)


def document(found: Explanation) -> Any:
    """As a program reads it."""
    return json.loads(json.dumps(found.to_json()))


def run(*words: str) -> Result:
    return CliRunner().invoke(group, ["explain", *words])


# Mazur's example ---------------------------------------------------------------------------------------


def test_the_worked_example_prints_what_the_page_prints() -> None:
    done = run(MAZUR)
    assert done.exit_code == 0, done.output
    digits = (
        "0.593269992 0.596884378 1.105905967 0.751365070 0.772928465 0.274811083 0.023560026 0.298371109"
        " 0.082167041 0.000438568 0.358916480 0.408666186 0.511301270 0.561370121 0.149780716 0.199561432"
        " 0.249751144 0.299502287 0.345614323 0.345022873 0.530750719 0.619049118 0.280471447"
    )
    for number in digits.split():
        assert number in done.output
    assert "  w[0, 0]          0.741365070     0.186815602     0.593269992     0.082167041" in done.output
    assert max(map(len, done.output.splitlines())) <= 80
    for equation in ("BP1", "BP2", "BP3", "BP4"):
        assert f"  {equation}  " in done.output


def test_it_says_where_the_page_went_wrong() -> None:
    told = " ".join(run(MAZUR).output.split())
    assert "E after the step * 0.291027924 0.2910277737" in told
    assert "The page's program had already updated w5 to w8 when it took the hidden deltas" in told
    assert "The same mistake made here gives 0.291027924; right is 0.291027774." in told
    assert "! not within" not in told


def test_its_numbers_in_full() -> None:
    found = explain_job(TrainingJob.from_file(MAZUR), ROOT / "examples")
    assert found.error == pytest.approx(0.29837110876000269, rel=1e-15)
    assert found.error_biases_held == pytest.approx(0.29102777369359935, rel=1e-15)
    assert found.error_after == pytest.approx(0.28047144679143016, rel=1e-15)
    biases = [layer.parameters[1].after for layer in found.layers]
    np.testing.assert_allclose(biases[0], [0.345614322655, 0.345022872647], atol=5e-13)
    np.testing.assert_allclose(biases[1], [0.530750719186, 0.619049118258], atol=5e-13)


@pytest.mark.heavy
def test_after_ten_thousand_steps_with_the_biases_held() -> None:
    found = explain_job(TrainingJob.from_file(MAZUR), ROOT / "examples", step=10_000, hold_biases=True)
    assert found.error == pytest.approx(3.51018778298e-5, abs=5e-17)
    np.testing.assert_allclose(found.layers[1].a, [0.0159136204, 0.9840642735], atol=5e-11)
    assert "PUBLISHED" not in "\n".join(lines(found))
    assert check(document(found)).largest < 1e-12


def test_another_network_is_not_compared_with_the_page() -> None:
    assert "PUBLISHED" not in "\n".join(lines(explained([DENSE], ROWS, CLASSES)))


# Every kind of layer, loss and rule, against the loops --------------------------------------------------

CASES: dict[str, tuple[Any, ...]] = {
    "dense": ([{**DENSE, "activation": "tanh"}, DENSE], ROWS),
    "activation": ([{**DENSE, "units": 5}, {"type": "activation", "function": "gelu"}, DENSE], ROWS),
    "dense, ntk": (
        [{"type": "dense_steps", "units": 3, "parametrization": "ntk"}, "flatten",
         {**DENSE, "parametrization": "ntk"}],
        SERIES,
    ),
    "of units": (
        ["scale", {**DENSE, "units": 5}, {"type": "parametric_activation", "function": "mish"}, "scale",
         DENSE],
        ROWS,
    ),
    "parametric_activation of the data": (
        [{"type": "parametric_activation", "function": "tanh"}, DENSE],
        ROWS,
    ),
    "periodic_embedding": (
        [{**DENSE, "units": 3}, {"type": "periodic_embedding", "frequencies": 5}, DENSE],
        ROWS,
    ),
    "periodic_embedding, few numbers": (
        [{**DENSE, "units": 1}, {"type": "periodic_embedding", "frequencies": 2, "dimension": 3}, DENSE],
        ROWS,
    ),
    "conv2d": (
        [{"type": "conv2d", "filters": 4, "kernel_size": 3, "activation": "relu"}, "flatten", DENSE],
        IMAGES,
    ),
    "conv2d, uneven": (
        [
            {"type": "conv2d", "filters": 4, "kernel_size": [2, 3], "padding": [1, 0], "stride": [1, 2],
             "dilation": [2, 1], "groups": 2, "activation": "softmax"}, "flatten", DENSE,
        ],
        IMAGES,
    ),
    "conv2d, same": (
        [{"type": "conv2d", "filters": 2, "kernel_size": [2, 3], "padding": "same"}, "flatten", DENSE],
        IMAGES,
    ),
    "max_pool2d": ([{"type": "conv2d", "filters": 4, "kernel_size": 3}, POOL, "flatten", DENSE], IMAGES),
    "max_pool2d, overlapping": (
        [{"type": "conv2d", "filters": 2, "kernel_size": 2}, {**POOL, "stride": 1, "padding": 1},
         {"type": "conv2d", "filters": 2, "kernel_size": 2}, "flatten", DENSE],
        IMAGES,
    ),
    "max_pool2d of the data": ([POOL, "flatten", DENSE], IMAGES),
    "average_pool2d": (
        [{"type": "conv2d", "filters": 2, "kernel_size": 2},
         {"type": "average_pool2d", "kernel_size": 2, "padding": 1}, "flatten", DENSE],
        IMAGES,
    ),
    "global_average_pool2d": (
        [{"type": "conv2d", "filters": 3, "kernel_size": 2}, "global_average_pool2d", DENSE], IMAGES,
    ),
    "conv1d": (
        [{"type": "conv1d", "filters": 4, "kernel_size": 2, "activation": "tanh", "padding": 1},
         {"type": "conv1d", "filters": 4, "kernel_size": 3, "groups": 2, "stride": 2, "padding": "valid"},
         "flatten", DENSE],
        SERIES,
    ),
    "conv1d, dilated": (
        [{"type": "conv1d", "filters": 2, "kernel_size": 3, "dilation": 2, "padding": "same"},
         {"type": "max_pool1d", "kernel_size": 2, "stride": 1, "padding": 1},
         {"type": "average_pool1d", "kernel_size": 3, "stride": 2, "padding": 1}, "flatten", DENSE],
        SERIES,
    ),
    "elman": ([{"type": "elman", "units": 4}, DENSE], SERIES),
    "elman, sequences": (
        [{"type": "elman", "units": 4, "return_sequences": True, "activation": "relu"},
         {"type": "elman", "units": 3}, DENSE],
        SERIES,
    ),
    "elman, flattened": ([{"type": "elman", "units": 4, "return_sequences": True}, "flatten", DENSE], SERIES),
    "elman, both ways": ([{"type": "elman", "units": 2, "bidirectional": True}, DENSE], SERIES),
    "elman, one step": (
        [{"type": "reshape", "shape": [1, 15]}, {"type": "elman", "units": 4}, DENSE], SERIES,
    ),
    "lstm": ([{"type": "lstm", "units": 4}, DENSE], SERIES),
    "lstm, sequences": (
        [{"type": "lstm", "units": 2, "return_sequences": True, "bidirectional": True},
         {"type": "lstm", "units": 3, "forget_bias": 0.0}, DENSE],
        SERIES,
    ),
    "gru": ([{"type": "gru", "units": 4}, DENSE], SERIES),
    "gru, sequences": (
        [{"type": "gru", "units": 2, "return_sequences": True}, {"type": "gru", "units": 3}, DENSE], SERIES,
    ),
    "both ways": (
        [{"type": "gru", "units": 2, "bidirectional": True, "return_sequences": True},
         {"type": "elman", "units": 3, "bidirectional": True}, DENSE],
        SERIES,
    ),
    "lstm, one step": (
        [{"type": "reshape", "shape": [1, 15]}, {"type": "lstm", "units": 2, "bidirectional": True}, DENSE],
        SERIES,
    ),
    "attention": ([{"type": "attention", "heads": 2, "units": 4}, "average_steps", DENSE], SERIES),
    "attention, causal": (
        [{"type": "attention", "causal": True, "bias": False}, {"type": "attention", "heads": 3}, "flatten",
         DENSE],
        SERIES,
    ),
    "slice": (
        [
            {"type": "slice", "stop": 2, "inputs": ["input"], "name": "first"},
            {"type": "slice", "start": 1, "inputs": ["input"], "name": "rest"},
            {**DENSE, "inputs": ["first"], "name": "made"},
            {"type": "concatenate", "inputs": ["made", "rest"]},
            {"type": "slice", "start": 1},
            DENSE,
        ],
        ROWS,
    ),
    "input": (
        [
            {"type": "input", "name": "place", "shape": [1, 2]},
            {"type": "input", "name": "size", "shape": [1]},
            {"type": "flatten", "inputs": ["place"], "name": "flat"},
            {"type": "concatenate", "inputs": ["flat", "size"]},
            DENSE,
        ],
        ROWS,
    ),
    "last_step": (
        [{"type": "dense_steps", "units": 4}, {"type": "attention", "causal": True}, "last_step", DENSE],
        SERIES,
    ),
    "batch_normalization": (["batch_normalization", "flatten", DENSE], SERIES),
    "batch_normalization of images": (
        [{"type": "conv2d", "filters": 2, "kernel_size": 3}, "batch_normalization", "flatten", DENSE], IMAGES,
    ),
    "batch_normalization of channels": (
        [{"type": "conv2d", "filters": 2, "kernel_size": 3}, {"type": "batch_normalization", "axis": 0},
         "flatten", DENSE],
        IMAGES,
    ),
    "batch_normalization of channels of one pixel": (
        [{"type": "max_pool2d", "kernel_size": [7, 6]}, {"type": "batch_normalization", "axis": -3},
         "flatten", DENSE],
        IMAGES,
    ),
    "batch_normalization of a row": ([DENSE, "batch_normalization", DENSE], ROWS),
    "layer_normalization": ([{**DENSE, "units": 5}, "layer_normalization", "tanh", DENSE], ROWS),
    "layer_normalization of steps": (
        [{"type": "dense_steps", "units": 4, "activation": "gelu"}, "layer_normalization",
         {"type": "dense_steps", "units": 4, "activation": "softmax"}, "flatten", DENSE],
        SERIES,
    ),
    "layer_normalization of rows of pixels": (
        [{"type": "conv2d", "filters": 2, "kernel_size": 3}, "layer_normalization", "flatten", DENSE], IMAGES,
    ),
    "softmax of rows of pixels": (
        [{"type": "conv2d", "filters": 2, "kernel_size": 3}, "softmax", "flatten", DENSE], IMAGES,
    ),
    "dropout": ([{**DENSE, "units": 9}, {"type": "dropout", "rate": 0.3}, DENSE], ROWS),
    "dropout with a schedule": (
        [{**DENSE, "units": 9}, {"type": "dropout", "rate": 0.6, "schedule": "flat_cosine"}, DENSE], ROWS,
    ),
    "dropout of nothing": (["dropout", DENSE, {"type": "dropout", "rate": 0.0}], ROWS),
    "embedding": (
        [{"type": "embedding", "entries": 7, "size": 4}, "positional_encoding", "positional_embedding",
         {"type": "attention", "heads": 2}, "average_steps", DENSE],
        IDS,
    ),
    "add": (
        [{**DENSE, "name": "a", "activation": "tanh"}, DENSE, {**DENSE, "name": "c"},
         {"type": "add", "inputs": ["a", "c"]}],
        ROWS,
    ),
    "multiply": (
        [{**DENSE, "name": "a"}, {**DENSE, "activation": "sigmoid", "name": "b"},
         {"type": "multiply", "inputs": ["a", "b", "input"]}, DENSE],
        ROWS,
    ),
    "concatenate": (
        [{"type": "dense_steps", "units": 4, "name": "a"},
         {"type": "elman", "units": 2, "return_sequences": True, "name": "b", "inputs": ["input"]},
         {"type": "concatenate", "inputs": ["a", "b", "a"]}, "flatten", DENSE],
        SERIES,
    ),
    "concatenate along steps": (
        [{"type": "dense_steps", "units": 3, "name": "a"},
         {"type": "concatenate", "inputs": ["input", "a"], "axis": 0}, "average_steps", DENSE],
        SERIES,
    ),
    "taken through other shapes": (
        [{"type": "dense_steps", "units": 2, "name": "a"}, {"type": "flatten", "name": "b"},
         {"type": "reshape", "shape": [2, 5], "inputs": ["a"]}, {"type": "average_steps", "name": "c"},
         {"type": "dense", "units": 5, "inputs": ["b"], "name": "d"},
         {"type": "multiply", "inputs": ["c", "d"]}],
        SERIES,
    ),
    "shares": (
        [{"type": "embedding", "entries": 7, "size": 4, "shares": "wide.weight", "name": "table"},
         "average_steps", {"type": "dense", "units": 4, "activation": "tanh", "name": "one"},
         {"type": "dense", "units": 4, "shares": ["one.weight", "one.bias"]},
         {"type": "dense", "units": 7, "name": "wide"}, DENSE],
        IDS,
    ),
    "flatten": (["flatten", DENSE], IMAGES),
    "reshape": (["relu", {"type": "reshape", "shape": [84]}, DENSE], IMAGES),
}  # fmt: skip


def test_every_explained_layer_has_a_case() -> None:
    told = {
        layer if isinstance(layer, str) else layer["type"] for case in CASES.values() for layer in case[0]
    }
    assert set(KINDS) - {*ACTIVATIONS, "columns"} <= told


@pytest.mark.parametrize("name", CASES)
def test_layers(name: str) -> None:
    layers, x = CASES[name]
    found = explained(layers, x, CLASSES, optimizer={"type": "momentum", "learning_rate": 0.1})
    checked = check(document(found))
    assert checked.largest < 1e-12, checked
    text = list(lines(found))
    assert max(map(len, text)) <= 80, max(text, key=len)
    parsed(page(found))


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "step"])
def test_activations(name: str) -> None:
    found = explained([{**DENSE, "units": 4, "activation": name}, name, DENSE], ROWS, CLASSES)
    assert check(document(found)).largest < 1e-12


def test_an_activation_names_the_layer_that_it_takes() -> None:
    layers = [
        {"type": "tanh", "name": "input alone"},
        {**DENSE, "name": "a"},
        {**DENSE, "name": "b"},
        {"type": "sigmoid", "inputs": ["a"], "name": "gate"},
        {"type": "multiply", "inputs": ["gate", "b"]},
    ]
    text = "\n".join(lines(explained(layers, ROWS, CLASSES)))
    assert "a = tanh(z), z the input\n" in text and "a = sigmoid(z), z the output of layer 1\n" in text


RULES: list[Any] = [
    {"type": "sgd", "weight_decay": 0.1}, "momentum", {"type": "momentum", "convention": "keras"}, "nesterov",
    {"type": "nesterov", "convention": "keras"}, "adagrad", "rmsprop",
    {"type": "rmsprop", "momentum": 0.5, "centered": True}, "adam", {"type": "adam", "epsilon_hat": True},
    "adamw", {"type": "adamw", "schedule": {"type": "cosine"}},
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rules(rule: Any) -> None:
    fields = {"clip": {"norm": 0.5, "value": 0.2}, "regularization": {"l1": 0.01, "l2": 0.02}}
    for more in ({}, fields, {"regularization": {"l2": 0.1, "biases": True}}):
        found = explained([{**DENSE, "activation": "tanh"}, DENSE], ROWS, CLASSES, optimizer=rule, **more)
        assert check(document(found)).largest < 1e-12


STATES = {"momentum": "b", "sum_of_squares": "s", "mean_square": "v", "mean": "e", "first_moment": "m"}
STATES["second_moment"] = "v"
LIMITS: dict[str, Any] = {"clip": {"norm": 0.5, "value": 0.2}, "regularization": {"l1": 0.01, "l2": 0.02}}
OWN_RATE = {"layers.1.dense.weight": {"rate": 3}}


@pytest.mark.parametrize("more", [{}, LIMITS, {"clip": {"norm": 0.5}, "parameter_groups": OWN_RATE}], ids=str)
@pytest.mark.parametrize("rule", [*RULES, "sgd", {"type": "rmsprop", "centered": True}], ids=str)
def test_the_rule_in_words_is_the_one_that_was_applied(rule: Any, more: dict[str, Any]) -> None:
    """Its lines, computed as they are written, give the numbers after the step."""
    rule = {**(rule if isinstance(rule, dict) else {"type": rule}), "learning_rate": 0.0125}
    found = explained([{**DENSE, "activation": "tanh"}, DENSE], ROWS, CLASSES, optimizer=rule, **more)
    told = rule_of(found)
    for layer in found.layers:
        for one in layer.parameters:
            numbers = {STATES[slot]: values for slot, values in one.state_before.items()}
            numbers |= {"w": one.before, "d": one.gradient, "g": one.gradient}
            for line in told:
                target, text = re.split(r" (?:<-|=) ", line.replace("dE/dw", "d"), maxsplit=1)
                text = re.sub(r" \(all d have the norm [\d.e+-]+\)", "", text).replace("^", "**")
                text = re.sub(r"^(.*) cut to (\S+) \.\.\. (\S+)", r"clip(\1, \2, \3)", text)
                if not one.decays:
                    text = re.sub(r" \+ [\d.e-]+ (?:w|sign\(w\))", "", text)
                    text = re.sub(r"^\(1 - [^)]+\) w", "w", text)
                if one.rate != 1:
                    text = text.replace(plain(found.learning_rate), plain(found.learning_rate * one.rate))
                text = re.sub(r"(?<=[\w)]) (?=[a-z(])", " * ", text)
                numbers[target] = eval(text, {"sqrt": np.sqrt, "sign": np.sign, "clip": np.clip}, numbers)
            change = one.after - one.before
            np.testing.assert_allclose(numbers["w"] - one.before, change, rtol=1e-5, err_msg=str(told))


def test_what_is_another_rule_for_a_tensor_is_said_with_it() -> None:
    groups = {"*.bias": {"rate": 0.25}, "layers.1.dense.weight": {"rate": 0}}
    job = {"parameter_groups": groups, "regularization": {"l2": 0.1}}
    found = explained([DENSE, DENSE], ROWS, CLASSES, **job)
    text, shown = "\n".join(lines(found)), page(found)
    assert "layer 0, weight\n" in text
    assert "layer 0, bias  (learning rate times 0.25, without decay)\n" in text
    assert "layer 1, weight  (learning rate times 0)\n" in text
    assert "<h3>bias (learning rate times 0.25, without decay)</h3>" in shown


def test_a_job_that_goes_on_with_an_optimizer_counts_its_updates(tmp_path: Path) -> None:
    """Which decide the corrections of Adam, and what dropout draws."""
    import distbp

    layers = [{**DENSE, "units": 5}, {"type": "dropout", "rate": 0.3}, DENSE]
    fields = {"model": {"layers": layers}, "loss": SOFTMAX, "batch_size": 4, "epochs": 2}
    job = TrainingJob.from_mapping({**fields, "workers": 0})
    distbp.train(job, data=(ROWS, CLASSES), output=tmp_path / "run")
    further = TrainingJob.from_mapping({**fields, "init": "run", "init_keeps": ["optimizer"]})
    found = explain_job(further, tmp_path, given={"train": (ROWS, CLASSES)}, step=1)
    told = document(found)
    assert (told["past"], told["step"], told["optimizer"]["update"]) == (4, 1, 6)
    assert check(told).largest < 1e-9
    assert "(1 - 0.9^6)" in rule_of(found)[-1]


def test_gradients_that_are_nothing_but_rounding() -> None:
    """Those of the biases of keys are 0 but for rounding, which Adam's rule enlarges."""
    for seed in range(3):
        found = explained(
            *CASES["attention"], CLASSES, optimizer={"type": "adam", "epsilon": 1e-9}, seed=seed
        )
        assert check(document(found)).passed


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_gradients_whose_terms_cancel(rule: Any) -> None:
    """A normalization takes the biases below it out again. So their derivatives are 0, and every rule makes
    something of the rounding."""
    found = explained(*CASES["layer_normalization of rows of pixels"], CLASSES, optimizer=rule)
    assert check(document(found)).passed


PAIRS: list[tuple[Any, str, Any]] = [
    ("quadratic", "linear", VALUES), ("mse", "linear", VALUES), ("mae", "linear", VALUES),
    ({"type": "huber", "delta": 0.1}, "linear", VALUES), ("poisson", "linear", np.abs(VALUES)),
    ({"type": "poisson", "log_input": False}, "softplus", np.abs(VALUES)),
    ("sigmoid_cross_entropy", "linear", (VALUES > 0) * 1.0),
    ({"type": "sigmoid_cross_entropy", "outputs": "sum"}, "linear", (VALUES > 0) * 1.0),
    ("binary_cross_entropy", "sigmoid", (VALUES > 0) * 1.0), (SOFTMAX, "linear", CLASSES % 2),
    ({"type": SOFTMAX, "label_smoothing": 0.1}, "linear", CLASSES % 2), ("nll", "softmax", CLASSES % 2),
    ("perceptron", "linear", (VALUES > 0) * 1.0),
    ("hinge", "linear", CLASSES % 2), ({"type": "hinge", "power": 2}, "linear", CLASSES % 2),
]  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "activation", "y"), PAIRS, ids=lambda v: "" if isinstance(v, np.ndarray) else str(v)
)
def test_losses(loss: Any, activation: str, y: Any) -> None:
    found = explained([{"type": "dense", "units": 2, "activation": activation}], ROWS, y, loss)
    assert check(document(found)).largest < 1e-12
    assert max(map(len, lines(found))) <= 80


def test_no_loss_or_rule_is_left_out() -> None:
    def kind(spec: Any) -> str:
        return spec if isinstance(spec, str) else spec["type"]

    assert {kind(loss) for loss, _, _ in PAIRS} == set(LOSSES)
    assert {kind(rule) for rule in RULES} == set(CHAINS)


def test_what_checks_shares_no_code_with_the_engine() -> None:
    """Nor does any module that it imports."""
    folder, waiting, seen = Path(check_module.__file__).parent, ["check"], set[str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        file = folder / Path(*name.split("."))
        text = (file / "__init__.py" if file.is_dir() else file.with_suffix(".py")).read_text("utf-8")
        for node in ast.parse(text).body:  # what is imported for type checking alone stands deeper
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("distbp"):
                assert node.module.startswith("distbp.run.explain."), f"{name} imports {node.module}"
                own = node.module.removeprefix("distbp.run.explain.")
                waiting += [own] if own not in seen else []
    assert {"recompute", "kinds", "kinds.attention", "recurrent_steps", "window_loops"} <= seen
    assert not {"record", "step"} & seen


# Several outputs ----------------------------------------------------------------------------------------

KIND, SIZE = {**DENSE, "inputs": ["trunk"], "name": "kind"}, {"type": "dense", "units": 2, "name": "size"}
TRUNK = {**DENSE, "units": 4, "activation": "tanh", "name": "trunk"}
WEIGHED = {"kind": SOFTMAX, "size": {"type": "mse", "factor": 100}}
OUTPUTS: dict[str, tuple[Any, ...]] = {
    "beside each other": ([TRUNK, KIND, {**SIZE, "inputs": ["trunk"]}], WEIGHED, ("layers 1, 2", "")),
    "one over the other": (
        [TRUNK, KIND, {**SIZE, "inputs": ["kind"]}],
        {"kind": {"type": SOFTMAX, "factor": 0.5}, "size": "mse"},
        ("the loss and layer 2", "0.5 * ("),
    ),
    "two of one layer": (
        [{**TRUNK, "units": 3}, {"type": "flatten", "inputs": ["trunk"], "name": "kind"},
         {**SIZE, "inputs": ["trunk"]}],
        {**WEIGHED, "kind": {"type": "hinge", "factor": 0.25}},
        ("the loss and layer 2", "(kind: 0.25 x hinge)"),
    ),
    "without weight": (
        [TRUNK, KIND, {**SIZE, "inputs": ["trunk"]}],
        {"kind": SOFTMAX, "size": {"type": "quadratic", "factor": 0}},
        ("layers 1, 2", "0 * ("),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_several_outputs(name: str) -> None:
    layers, loss, (parts, digits) = OUTPUTS[name]
    found = explained(layers, ROWS, {"kind": CLASSES, "size": VALUES}, loss, clip={"norm": 1.0})
    checked = check(document(found))
    assert checked.largest < 1e-12, checked
    text = list(lines(found))
    assert max(map(len, text)) <= 80, max(text, key=len)
    told, shown = " ".join(" ".join(text).split()), parsed(page(found))
    assert f"dE/da is the sum of what comes from {parts}:" in told
    assert digits in told or any(digits in title for title in shown.titles)


def test_each_output_tells_its_loss_its_factor_and_its_delta() -> None:
    layers, loss, _ = OUTPUTS["beside each other"]
    found = explained(layers, ROWS, {"kind": CLASSES, "size": VALUES}, loss)
    kind, size = found.outputs
    assert found.error == pytest.approx(kind.error + 100 * size.error, rel=1e-14)
    np.testing.assert_allclose(size.d_a, 100 * (size.a - VALUES[2]), rtol=1e-12)  # of the mean of two
    np.testing.assert_array_equal(size.d_a, found.layers[2].d_a)
    handed = sum(layer.tensor("weight").T @ layer.get("dE_da") for layer in found.layers[1:])
    np.testing.assert_allclose(found.layers[0].get("dE_da"), handed, rtol=1e-12)
    text = "\n".join(lines(found))
    assert (
        text.splitlines()[1] == "loss kind: softmax_cross_entropy, size: 100 x mse; adam, learning rate 0.001"
    )
    assert f"target kind  {CLASSES[2]}\n" in text
    assert re.search(r"LOSS   E = [\d.]+ \+ 100 \* [\d.]+ = [\d.]+\s+\(kind:\s+softmax_cross_entropy", text)
    assert re.search(
        r"\noutput size of layer 2: mse = [\d.]+\n  output                target +a +part of E", text
    )
    shown = parsed(page(found))
    assert any("100 * (2 * (" in title for title in shown.titles)
    assert "size, of layer 2: mse = " in " ".join(shown.texts)
    assert shown.texts.count(f"target {VALUES[2, 0]:.9g}") == 1


def test_a_wrong_number_of_an_output_is_found() -> None:
    layers, loss, _ = OUTPUTS["one over the other"]
    for name in ("E", "values", "dE_da"):
        bad = document(explained(layers, ROWS, {"kind": CLASSES, "size": VALUES}, loss))
        bad["outputs"][1][name] = np.add(bad["outputs"][1][name], 1e-6).tolist()
        assert check(bad).place.split("[")[0] == f"outputs.1.{name}"


# Rows with lengths --------------------------------------------------------------------------------------

RAGGED = [SERIES[row, :length] for row, length in enumerate((5, 1, 3, 0, 2, 4, 5, 3))]
RAGGED_IDS = [IDS[row, : len(values)] for row, values in enumerate(RAGGED)]
LENGTHS: dict[str, tuple[Any, ...]] = {
    "elman": ([{"type": "elman", "units": 4}, DENSE], RAGGED),
    "lstm, sequences": (
        [{"type": "lstm", "units": 2, "return_sequences": True}, {"type": "lstm", "units": 3}, DENSE], RAGGED,
    ),
    "both ways": (
        [{"type": "gru", "units": 2, "bidirectional": True, "return_sequences": True},
         {"type": "elman", "units": 3, "bidirectional": True}, DENSE],
        RAGGED,
    ),
    "gru, both ways": ([{"type": "gru", "units": 2, "bidirectional": True}, DENSE], RAGGED),
    "attention": (
        [{"type": "attention", "heads": 3}, {"type": "attention", "causal": True}, "average_steps", DENSE],
        RAGGED,
    ),
    "steps of ids": (
        [{"type": "embedding", "entries": 7, "size": 4}, "positional_encoding", "positional_embedding",
         {"type": "dropout", "rate": 0.3}, "layer_normalization",
         {"type": "dense_steps", "units": 4, "activation": "softmax"}, "last_step", DENSE],
        RAGGED_IDS,
    ),
    "joins": (
        [{"type": "dense_steps", "units": 3, "activation": "tanh", "name": "a"},
         {"type": "multiply", "inputs": ["a", "input"], "name": "b"},
         {"type": "add", "inputs": ["a", "b"], "name": "c"},
         {"type": "concatenate", "inputs": ["a", "c"]}, {"type": "elman", "units": 2}, DENSE],
        RAGGED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LENGTHS)
def test_rows_with_lengths(name: str) -> None:
    layers, x = LENGTHS[name]
    found = explained(layers, x, CLASSES, optimizer={"type": "momentum", "learning_rate": 0.1})
    told = document(found)
    checked = check(told)
    assert checked.largest < 1e-12, checked
    assert np.shape(told["input"]) == np.shape(x[2]) and told["length"] == 3
    assert all(len(values) == 3 for layer in found.layers for values in layer.inputs if values.ndim > 1)
    text = "\n".join(lines(found))
    assert "length  3 steps; what lies past the end of the row is left out" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "The row has 3 steps; what lies past its end is left out." in " ".join(parsed(page(found)).texts)


def test_padding_changes_nothing() -> None:
    """A row among longer ones is told as the same row alone."""
    layers = [{"type": "lstm", "units": 4, "bidirectional": True}, DENSE]
    alone = {"loss": SOFTMAX, "batch_size": 1, "model": {"layers": layers}}
    numbers = []
    for x in ([RAGGED[2]], [RAGGED[2], SERIES[0]]):
        job = TrainingJob.from_mapping(alone)
        found = document(explain_job(job, given={"train": (x, CLASSES[2 : 2 + len(x)])}))
        numbers.append([found["layers"], found["outputs"]])
    assert numbers[0] == numbers[1]


def test_a_row_without_steps_is_refused() -> None:
    job = TrainingJob.from_mapping(
        {"loss": SOFTMAX, "batch_size": 1, "model": {"layers": LENGTHS["elman"][0]}}
    )
    with pytest.raises(
        ArgumentError, match="sample 3 has no steps, so there is nothing to explain; name ano"
    ):
        explain_job(job, given={"train": (RAGGED, CLASSES)}, sample=3)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_each_of_several_inputs_ends_at_its_own_steps(cell: str, bidirectional: bool) -> None:
    """One has 2 steps in the row, the other 4."""
    recurrent = {"type": cell, "units": 2, "bidirectional": bidirectional}
    layers = [
        {"type": "input", "name": "short", "shape": [5, 3], "ragged": True},
        {"type": "input", "name": "long", "shape": [6, 3], "ragged": True},
        {**recurrent, "inputs": ["short"], "name": "one"},
        {**recurrent, "inputs": ["long"], "return_sequences": True},
        {"type": "average_steps", "name": "other"},
        {"type": "concatenate", "inputs": ["one", "other"]},
        DENSE,
    ]
    given = {
        "short": [SERIES[n][: n % 5] for n in range(8)],
        "long": [SERIES[n][: n % 3 + 2] for n in range(8)],
    }
    told = document(explained(layers, given, CLASSES))
    assert check(told).largest < 1e-12
    assert [len(layer["a"]) for layer in told["layers"][:2]] == [2, 4]
    empty = {**given, "short": [SERIES[0][:0]] * 8}
    with pytest.raises(
        ArgumentError, match=r"sample 2 has no steps in its input 'short', so there is nothing to"
    ):
        explained(layers, empty, CLASSES)


# Windows of series --------------------------------------------------------------------------------------

LONG = [RNG.normal(size=(length, 2)) for length in (9, 14, 11, 5)]
RISES = [(one.cumsum(axis=0)[:, 0] > 0).astype(int) for one in LONG]
SUMS = [one.cumsum(axis=0) for one in LONG]
OUT = {"type": "dense_steps", "units": 2}
CARRIED: dict[str, tuple[Any, ...]] = {
    "elman": ([{"type": "elman", "units": 3, "return_sequences": True}, OUT], LONG, RISES, SOFTMAX),
    "lstm": ([{"type": "lstm", "units": 2, "return_sequences": True}, OUT], LONG, SUMS, "mse"),
    "gru": (
        [{"type": "gru", "units": 3, "return_sequences": True}, {"type": "dropout", "rate": 0.2},
         {"type": "gru", "units": 2, "return_sequences": True}],
        LONG, SUMS, {"type": "huber", "delta": 0.5},
    ),
    "ids": (
        [{"type": "embedding", "entries": 2, "size": 3},
         {"type": "elman", "units": 2, "return_sequences": True}, "layer_normalization", OUT],
        RISES, RISES, SOFTMAX,
    ),
}  # fmt: skip


def window(name: str, sample: int, step: int, **fields: Any) -> Explanation:
    layers, x, y, loss = CARRIED[name]
    usual = {"batch_size": 3, "shards": 2, "epochs": 2, "data": {"truncated_bptt_steps": 4}, "seed": 5}
    job = TrainingJob.from_mapping({"model": {"layers": layers}, "loss": loss, **usual, **fields})
    return explain_job(job, given={"train": (x, y)}, sample=sample, step=step)


@pytest.mark.parametrize("name", CARRIED)
def test_windows_of_series(name: str) -> None:
    lengths, begun = set(), set()
    for sample, step in ((0, 0), (0, 1), (1, 2), (2, 1), (0, 5)):
        found = window(name, sample, step)
        told = document(found)
        checked = check(told)
        assert checked.largest < 1e-11, (sample, step, checked)
        layer = next(one for one in found.layers if one.has("states_before"))
        lengths.add(told["length"])
        begun.add(bool(layer.get("states_before").any()))
        (output,) = told["outputs"]
        assert output["weights"] == pytest.approx([1 / told["length"]] * told["length"])
        assert sum(np.ravel(output["values"])) == pytest.approx(output["E"], rel=1e-12)
        text = "\n".join(lines(found))
        assert f"window  {told['window']} of the training set, row {sample} of this step's batch" in text
        assert max(map(len, text.splitlines())) <= 80, max(text.splitlines(), key=len)
        assert f"row {sample} of this step's batch" in " ".join(parsed(page(found)).texts)
    assert begun == {False, True} and len(lengths) > 1


def test_a_window_begins_with_what_the_one_before_left() -> None:
    began = []
    for lane in range(3):
        before, found = window("lstm", lane, 0), window("lstm", lane, 1)
        (first, *_), (second, *_) = before.layers, found.layers
        assert not first.get("states_before").any()
        told = " ".join("\n".join(lines(found)).split())
        began.append(bool(second.get("states_before").any()))
        if began[-1]:
            assert before.window is not None and found.window == before.window + 1
            for name in ("states", "memory"):
                np.testing.assert_array_equal(second.get(f"{name}_before"), first.get(name)[-1])
        wanted = "what the window before has left" if began[-1] else "0"
        assert f"h[-1], c[-1] = {wanted}" in told
        assert "unit h[-1] c[-1]" in told
    assert set(began) == {False, True}


def test_weights_of_classes_are_those_of_the_steps() -> None:
    found = window("elman", 1, 1, class_weight={0: 1.0, 1: 3.0})
    (output,) = found.outputs
    assert output.weights is not None
    assert output.weights.sum() == pytest.approx(1, rel=1e-15)
    wanted = np.where(output.target == 1, 3.0, 1.0)
    np.testing.assert_allclose(output.weights, wanted / wanted.sum(), rtol=1e-12)
    assert check(document(found)).largest < 1e-12


def test_a_window_that_weighs_nothing_is_refused() -> None:
    layers, x, y, loss = CARRIED["elman"]
    fields = {"data": {"truncated_bptt_steps": 4}, "batch_size": 3, "shuffle": False}
    job = TrainingJob.from_mapping({"model": {"layers": layers}, "loss": loss, **fields})
    given = {"train": (x, y, [0.0, 1.0, 1.0, 1.0])}
    with pytest.raises(
        ArgumentError, match="sample 0 weighs nothing, so nothing is learned from it; name ano"
    ):
        explain_job(job, given=given)
    assert check(document(explain_job(job, given=given, sample=2))).passed


def test_samples_of_series_are_those_of_the_batch() -> None:
    with pytest.raises(ArgumentError, match="sample is 3, but the batch of step 1 has 3 windows, 0 to 2"):
        window("gru", 3, 1)


# A wrong number is found --------------------------------------------------------------------------------


def numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all that is computed: not of what the step is given."""
    given = {"input", "target", "before", "state_before", "optimizer", "options", "rate", "factor", "weights"}
    if isinstance(value, dict):
        return [p for key, one in value.items() if key not in given for p in numbers(one, (*path, key))]
    if isinstance(value, list):
        return [p for place, one in enumerate(value) for p in numbers(one, (*path, place))]
    return [path] if isinstance(value, float) else []


@pytest.mark.parametrize(
    "name",
    ["dense", "conv2d", "max_pool2d", "elman", "lstm, sequences", "both ways", "attention", "concatenate",
     "layer_normalization of steps", "dropout", "embedding", "shares"],
)  # fmt: skip
def test_one_wrong_number_is_found(name: str) -> None:
    good = document(explained(*CASES[name], CLASSES))
    paths = numbers(good)
    chosen = np.random.default_rng(1).choice(len(paths), 15, replace=False)
    for path in [paths[n] for n in chosen]:
        bad = copy.deepcopy(good)
        *way, last = path
        place = bad
        for key in way:
            place = place[key]
        place[last] += 1e-6 * max(1.0, abs(place[last]))
        checked = check(bad)
        assert not checked.passed, path
        wanted = [key for key in path if isinstance(key, str)]
        assert [part for part in re.split(r"[.\[]", checked.place) if part.isidentifier()] == wanted
        assert "computed again" in str(checked) and checked.place in str(checked)


@pytest.mark.parametrize("wrong", [float("nan"), None, [0.5]])
def test_what_is_no_number_is_found(wrong: Any) -> None:
    bad = document(explained([DENSE], ROWS, CLASSES))
    bad["layers"][0]["z"] = (
        wrong if wrong is None else [wrong, 0.0, 0.0] if isinstance(wrong, float) else wrong
    )
    checked = check(bad)
    assert not checked.passed and checked.place.startswith("layers.0.z")


def test_a_fault_makes_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "64 numbers computed again by loops" in " ".join(run(MAZUR, "--check").output.split())
    monkeypatch.setattr("distbp.run.explain.kinds.dense.activate", lambda layer, z: z)
    done = run(MAZUR, "--check")
    assert done.exit_code == 4
    assert "(allowed 1e-09)" in " ".join(done.output.split())


# JSON, HTML, files -------------------------------------------------------------------------------------


def test_json_is_as_the_page_says() -> None:
    done = run(MAZUR, "--format", "json", "--check")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    told = (ROOT / "docs" / "cli.md").read_text("utf-8").split("## explain", 1)[1].split("\n## ", 1)[0]
    names = set(re.findall(r"`(\w+)`", told))
    layer = found["layers"][1]
    weight = layer["parameters"]["weight"]
    for thing in (found, found["outputs"][0], found["loss"], layer, weight):
        assert set(thing) - {"type"} <= names
    assert weight["dE_dw"][0][0] == pytest.approx(0.08216704056423078, rel=1e-14)
    assert layer["a"] == pytest.approx([0.7513650695523157, 0.7729284653214625], rel=1e-14)
    assert check(found).passed


class _Page(HTMLParser):
    VOID = frozenset({"meta", "link", "br", "img", "circle", "rect", "line", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: list[str] = []
        self.texts: list[str] = []
        self.places: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.places += [str(value) for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "title":
            self.titles.append(data)
        elif not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)


def parsed(text: str) -> _Page:
    found = _Page()
    found.feed(text)
    assert found.open == []
    assert found.places == [], "nothing is loaded"
    assert "http" not in text
    return found


def test_the_page_holds_the_numbers(tmp_path: Path) -> None:
    file = tmp_path / "step.html"
    done = run(MAZUR, "-o", str(file), "--check")
    assert done.exit_code == 0
    assert f"step 1 of sample 0 is in {file}" in done.output
    found = parsed(file.read_text("utf-8"))
    text = " ".join(found.texts)
    for digits in ("0.593269992", "0.082167041", "0.000438568", "0.561370121", "0.291027924", "0.298371109"):
        assert digits in text
    for shown in ("0.5933", "0.7514", "0.1385", "-0.0381", "0.4000", "0.0822", "b = 0.6000", "target 0.01"):
        assert shown in found.texts, shown
    (edge,) = (title for title in found.titles if title.startswith("w[0, 0] = 0.4\n"))
    assert "dE/dw[0, 0] = 0.74136507 * 0.186815602 * 0.593269992 = 0.0821670406" in edge
    assert "after the step: 0.35891648" in edge
    assert any("delta[0] = 0.0363503064 * 0.241300709 = 0.00877135469" in title for title in found.titles)


def test_no_derivative_comes_back_to_the_data() -> None:
    """Its arrow is drawn to each layer below which something is trained, and to nothing else."""

    def arrows(name: str) -> tuple[int, int]:
        drawn = page(explained(*CASES[name], CLASSES))
        return drawn.count('class="flow forward"'), drawn.count('class="flow backward"')

    assert arrows("elman") == (2, 1)  # input, states, its output; then lines of weights
    assert arrows("max_pool2d") == (3, 2)
    assert arrows("max_pool2d of the data") == (2, 0)
    assert arrows("concatenate along steps") == (4, 2)


def test_the_key_names_what_is_drawn() -> None:
    told = {name: page(explained(*CASES[name], CLASSES)) for name in ("dense", "conv2d")}
    told["no lines"] = page(explained([{"type": "elman", "units": 3}], SERIES, CLASSES))
    assert {name: ("lines: weights" in one, "grids: " in one) for name, one in told.items()} == {
        "dense": (True, False),
        "conv2d": (True, True),
        "no lines": (False, True),
    }


def test_biases_of_gates_are_not_drawn_as_those_of_units() -> None:
    for name in ("lstm, one step", "elman, both ways"):
        texts = parsed(page(explained(*CASES[name], CLASSES))).texts
        assert sum(text.startswith("b = ") for text in texts) == DENSE["units"]


def test_long_numbers_are_set_smaller_in_their_circles() -> None:
    x = np.array([[0.05, -0.000123456]] * len(CLASSES))
    drawn = page(explained([{"type": "dense", "units": 3}], x, CLASSES))
    assert '<text class="a" x="32.0" y="129.0" text-anchor="middle">0.0500</text>' in drawn
    assert 'style="font-size:10.1px" x="32.0" y="279.0" text-anchor="middle">-0.000123</text>' in drawn


def test_zero_has_no_sign() -> None:
    """A relu that is off times a derivative below 0 is -0 in floating point."""
    for name in ("dense", "max_pool2d", "lstm, one step"):
        found = explained(*CASES[name], CLASSES)
        told = "\n".join([*lines(found), page(found)])
        assert not re.search(r"(?<![\w.-])-0(?![\w.])", told), name
    assert plain(-0.0) == "0"


def test_large_layers_are_cut_and_say_so() -> None:
    x = np.random.default_rng(2).normal(size=(8, 3, 20, 20))
    layers = [{"type": "conv2d", "filters": 6, "kernel_size": 3}, "flatten", {"type": "dense", "units": 3}]
    found = explained(layers, x, CLASSES)
    text = " ".join(parsed(page(found)).texts)
    assert "2 more channels; of 18 x 18 the middle 17 x 17" in text
    assert "1,934 more units" in text
    assert "5,808 more are left out; --format json has them all." in text
    told = "\n".join(lines(found))
    assert "... 1,936 more units; --format json has them all" in told
    assert len(found.to_json()["layers"][0]["a"]) == 6


def test_each_of_several_inputs_is_shown_with_its_numbers() -> None:
    found = explained(*CASES["input"], CLASSES)
    told, drawn = "\n".join(lines(found)), " ".join(parsed(page(found)).texts)
    assert "Layer 0: input 'place'" in drawn
    assert f"a[0] = x[2] = {plain(found.input[2])}" in told
    assert "1: input" in drawn  # a column of the picture


def test_a_file_says_what_it_is_by_its_name(tmp_path: Path) -> None:
    run(MAZUR, "-o", str(tmp_path / "a.json"))
    assert json.loads((tmp_path / "a.json").read_text())["format"] == "distbp explain"
    run(MAZUR, "-o", str(tmp_path / "a.txt"))
    assert (tmp_path / "a.txt").read_text().startswith("mazur: one step for sample 0")


# Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--sample", "1"), "sample is 1, but the training set has 1 row, which is 0"),
        (("--sample", "-1"), "sample is -1, but"),
        (("--step", "10001"), "step is 10001, but the job has 10,001 steps: 0 to 10000 can come before"),
        (("-o", "step.pdf"), "step.pdf must end in .txt or .html or .json"),
    ],
)
def test_what_is_out_of_range_is_said(words: tuple[str, ...], text: str) -> None:
    done = run(MAZUR, *words)
    assert done.exit_code == 2
    assert text in done.output


def test_many_rows_are_counted() -> None:
    job = TrainingJob.from_mapping({"model": {"layers": [DENSE]}, "loss": SOFTMAX})
    with pytest.raises(ArgumentError, match="sample is 8, but the training set has 8 rows, 0 to 7"):
        explain_job(job, given={"train": (ROWS, CLASSES)}, sample=8)


def test_a_shared_tensor_is_told_once_and_its_gradient_in_parts() -> None:
    found = explained(*CASES["shares"], CLASSES, clip={"norm": 0.01})
    assert check(document(found)).largest < 1e-12
    table, wide = found.layers[0].parameters[0], found.layers[4].parameters[0]
    assert (table.owner, wide.owner) == (4, 4)
    np.testing.assert_allclose(table.given + wide.given, wide.gradient, atol=1e-15)
    assert np.array_equal(table.after, wide.after)
    text = "\n".join(lines(found))
    assert "  weight is one tensor for layers 0 and 4, and layer 4 has it; here is what" in text
    assert "layer 4, weight\n" in text and "layer 0, weight\n" not in text


def test_the_rule_of_ntk_names_the_factor() -> None:
    layers = [{**DENSE, "units": 4}, {**DENSE, "parametrization": "ntk"}]
    shown = page(explained(layers, ROWS, CLASSES))
    assert "x are the inputs times 0.5" in shown
    assert "BP2  dE/da = W^T delta of layer 1, times 0.5" in shown


def test_dropout_drops_less_at_the_end() -> None:
    found = explained(*CASES["dropout with a schedule"], CLASSES, epochs=2)  # three quarters are over
    factors = found.layers[1].get("factors")
    dropped = int(round(0.6 * 65536) / 2 + 0.5)
    assert set(factors.tolist()) == {0.0, 65536 / (65536 - dropped)}
    assert check(document(found)).passed
    assert "probability 0.6, which falls to 0 in the second half of training" in page(found)


def test_rates_of_groups_and_decay_on_its_schedule_are_explained() -> None:
    rule = {"type": "adamw", "weight_decay": 0.3, "decay_schedule": "flat_cosine"}
    groups = {"*.bias": {"rate": 0.25, "decays": True}, "layers.1.dense.weight": {"rate": 3}}
    found = explained(*CASES["dense"], CLASSES, optimizer=rule, parameter_groups=groups)
    assert check(document(found)).largest < 1e-12
    facts = {
        (layer.number, one.name): (one.rate, one.decays) for layer in found.layers for one in layer.parameters
    }
    biases = {(number, "bias"): (0.25, True) for number in (0, 1)}
    assert facts == {(0, "weight"): (1, True), (1, "weight"): (3, True), **biases}


def test_every_layer_is_explained() -> None:
    assert set(KINDS) == {*LAYERS, "columns"}  # those: tests/tables/test_entering.py


def test_steps_before_are_those_of_training(tmp_path: Path) -> None:
    """The parameters are those that `distbp train` has after as many steps."""
    import distbp

    fields = {"model": {"layers": [{**DENSE, "activation": "tanh"}, DENSE]}, "loss": SOFTMAX, "batch_size": 3}
    job = TrainingJob.from_mapping({**fields, "shards": 2, "dtype": "float64", "max_steps": 7, "workers": 0})
    result = distbp.train(job, data=(ROWS, CLASSES), output=tmp_path / "run")
    found = explain_job(job.replace(max_steps=8), given={"train": (ROWS, CLASSES)}, step=7)
    before = np.concatenate([one.before.ravel() for layer in found.layers for one in layer.parameters])
    assert np.array_equal(before, result.model().vector)


def test_what_learn_shows_is_what_the_command_prints() -> None:
    told = run(MAZUR).output
    shown = (ROOT / "docs" / "learn.md").read_text("utf-8")
    part = shown.split("### Every number of a step", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```text\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        assert block in told


def test_what_learn_shows_of_steps_is_what_the_command_prints() -> None:
    told = run(str(ROOT / "examples" / "elman.yaml")).output
    shown = (ROOT / "docs" / "learn.md").read_text("utf-8")
    part = shown.split("## 9. Through time", 1)[1].split("\n## ", 1)[0]
    (block,) = re.findall(r"^```text\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    assert block in told
    # What is in the sum, not a - t alone.
    assert "dE/dh[0, 0] = 0.537049567 - 0.5 + 0.8 * 0.495843058 = 0.433724014\n" in told


def test_weights_of_a_model_are_taken(tmp_path: Path) -> None:
    import distbp

    fields = {"model": {"layers": [DENSE]}, "loss": SOFTMAX, "dtype": "float64", "workers": 0}
    job = TrainingJob.from_mapping({**fields, "epochs": 1})
    result = distbp.train(job, data=(ROWS, CLASSES), output=tmp_path / "run")
    further = TrainingJob.from_mapping({**fields, "init": "run"})
    found = explain_job(further, tmp_path, given={"train": (ROWS, CLASSES)})
    assert np.array_equal(found.layers[0].parameters[0].before.ravel(), result.model().vector[:9])
    with pytest.raises(JobError, match="nowhere"):
        explain_job(further.replace(init="nowhere"), tmp_path, given={"train": (ROWS, CLASSES)})


def sums_of(text: str) -> tuple[float, float]:
    """What is written out on the left of the last =, and what it is said to be."""
    left, right = text.rsplit(" = ", 1)
    return eval(left.rsplit(" = ", 1)[-1]), float(right)


@pytest.mark.parametrize(
    "name",
    ["dense", "conv2d, uneven", "max_pool2d, overlapping", "average_pool2d", "elman", "lstm",
     "gru, sequences", "attention", "layer_normalization of steps", "batch_normalization of images",
     "dropout", "multiply", "shares", "conv1d", "conv1d, dilated", "global_average_pool2d",
     "concatenate", "taken through other shapes"],
)  # fmt: skip
def test_formulas_give_what_they_say(name: str) -> None:
    """Sums that are short enough to be written in full."""
    compared = 0
    for title in parsed(page(explained(*CASES[name], CLASSES))).titles:
        for line in title.splitlines():
            for part in line.split(";  "):
                if re.fullmatch(r"\S+(?: \S+)*? = [-\d.e+*/() ]+ = [-\d.e]+", part) and re.search(
                    r"[*+/] ", part
                ):
                    made, told = sums_of(part)
                    assert made == pytest.approx(told, rel=1e-6, abs=1e-8), part
                    compared += 1
    assert compared > 20
