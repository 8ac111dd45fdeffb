"""A network that is drawn: in lines below a list and below faults, and as SVG."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

import distbp
from distbp.cli.main import group
from distbp.core.errors import JobError
from distbp.job import TrainingJob
from distbp.job.graph import GraphNode, drawn, graph_of, is_graph, lanes
from distbp.nn.wiring import DATA
from distbp.run.plan.picture import WIDE, draw

SVG = "{http://www.w3.org/2000/svg}"
RESIDUAL = """\
name: residual
data: {train: {format: blobs, samples: 100, features: 64, classes: 3}}
model:
  layers:
    - {type: dense, units: 32, activation: relu, name: first}
    - {type: dense, units: 32, activation: relu}
    - {type: dense, units: 32, name: second}
    - {type: add, inputs: [first, second]}
    - {type: dense, units: 3}
loss: softmax_cross_entropy
"""


def dense(name: str | None = None, *inputs: str, units: int = 8) -> dict[str, Any]:
    given = {"name": name, "inputs": list(inputs) or None}
    return {"type": "dense", "units": units, **{k: v for k, v in given.items() if v}}


def join(kind: str, *inputs: str, name: str | None = None) -> dict[str, Any]:
    return {"type": kind, "inputs": list(inputs), **({"name": name} if name else {})}


def job(*layers: Any, loss: Any = "mse") -> TrainingJob:
    return TrainingJob.from_mapping({"model": {"layers": list(layers)}, "loss": loss})


def nodes_of(*layers: Any, shape: tuple[int, ...] = (8,), loss: Any = "mse") -> tuple[GraphNode, ...]:
    made = job(*layers, loss=loss)
    return graph_of(made.model.layers, shape, loss=made.loss)


CHAIN = ("relu", dense(), dense())
TANGLE = (
    dense("a"), dense("b"), join("add", "a", "b", name="ab"), dense("c", "ab"), dense("d", "ab"),
    dense("e", "ab"), join("concatenate", "c", "d", "e", "input", "a"),
)  # fmt: skip


def test_how_parameters_begin_is_not_shown() -> None:
    (node,) = nodes_of({**dense(), "activation": "tanh", "initializer": "he_normal"})
    assert node.options == "units 8, tanh"


def test_what_the_page_shows_is_drawn(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(RESIDUAL)
    done = CliRunner().invoke(group, ["describe", str(file), "--svg", str(tmp_path / "net.svg")])
    assert done.exit_code == 0, done.output
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text("utf-8")
    (block,) = re.findall(r"^```text\n(  \* .*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert f"\n\n{block}\n" in done.output
    assert "loss: softmax_cross_entropy" in (tmp_path / "net.svg").read_text("utf-8")


def test_lines_cross_and_end() -> None:
    assert (
        "\n".join(drawn(nodes_of(*TANGLE), (8,)))
        == """\
  *          input
  +-.        8
  | *        0: dense 'a' (units 8)
  | +-.      8
  | | *      1: dense 'b' (units 8)
  | +-+      a: 8, b: 8
  | | *      2: add 'ab'
  | | +-.    8
  | | | *    3: dense 'c' (units 8)
  | | +-|-.  8
  | | | | *  4: dense 'd' (units 8)
  | | | | |  8
  | | * | |  5: dense 'e' (units 8)
  +-'-'-'-'  c: 8, d: 8, e: 8, input: 8, a: 8
  *          6: concatenate
  |          40
  *          outputs"""
    )


def test_a_list_stays_a_list(tmp_path: Path) -> None:
    assert not is_graph(nodes_of(*CHAIN))
    file = tmp_path / "job.yaml"
    file.write_text(RESIDUAL.replace("    - {type: add, inputs: [first, second]}\n", ""))
    done = CliRunner().invoke(group, ["describe", str(file)])
    assert done.exit_code == 0, done.output
    assert "outputs" not in done.output


def random_wiring(seed: int) -> list[tuple[int, ...]]:
    draw_from = np.random.default_rng(seed)
    return [
        tuple(int(source) for source in draw_from.integers(DATA, number, draw_from.integers(1, 4)))
        for number in range(12)
    ]


def test_a_shared_tensor_is_named_and_counted_once() -> None:
    nodes = nodes_of(dense("a"), {**dense("b"), "shares": "a.weight"}, join("add", "a", "b"))
    assert "  | *  1: dense 'b' (units 8); weight of 'a'" in drawn(nodes, (8,))
    assert [node.parameters for node in nodes] == [72, 8, 0]
    assert "with the weight of &#x27;a&#x27;" in draw(nodes, (8,), "job")


@pytest.mark.parametrize("seed", range(20))
def test_a_lane_holds_one_thing_at_a_time(seed: int) -> None:
    wiring = random_wiring(seed)
    ranks = {DATA: 0}
    for number, sources in enumerate(wiring):
        ranks[number] = 1 + max(ranks[source] for source in sources)
    for down in (ranks, {number: number + 1 for number in ranks}):
        found = lanes(wiring, down)
        last = {one: max([rank + 1, *(down[n] for n, s in enumerate(wiring) if one in s)])
                for one, rank in down.items()}  # fmt: skip
        for one in found:
            for other in found:
                if one < other and found[one] == found[other]:
                    assert last[one] <= down[other] or last[other] <= down[one], (one, other)


# The picture -------------------------------------------------------------------------------------------

PICTURES: dict[str, tuple[Any, ...]] = {
    "a chain of 20": tuple(dense(units=n + 1) for n in range(20)),
    "tangle": TANGLE,
    "branches": (
        dense("left", "input"),
        dense("right", "input", units=5),
        join("concatenate", "left", "right"),
    ),
    "twice the same": (dense("a"), join("multiply", "a", "a")),
    "long names": (
        dense("a" * 80),
        {"type": "reshape", "shape": [2, 4]},
        {"type": "gru", "units": 3, "bidirectional": True, "name": "<&>" * 9},
    ),
    "several outputs": (
        dense("a"),
        dense("b"),
        dense("c", "a"),
        join("add", "b", "c", name="d"),
        dense("e" * 40),
    ),
}
LOSSES = {
    "several outputs": {
        "e" * 40: "mse",
        "b": {"type": "huber", "factor": 0.5},
        "c": {"type": "mae", "factor": 2},
    }
}


def boxes(svg: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    """Left, top, right, bottom."""
    found = []
    for rect in svg.iter(f"{SVG}rect"):
        if rect.get("class") != "paper":
            x, y, wide, tall = (float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
            found.append((x, y, x + wide, y + tall))
    return found


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_shows_every_layer_and_arrow(name: str) -> None:
    nodes = nodes_of(*PICTURES[name], loss=LOSSES.get(name, "mse"))
    outputs = [node for node in nodes if node.loss is not None]
    svg = ElementTree.fromstring(draw(nodes, (8,), "<job>"))
    there, texts = boxes(svg), ["".join(text.itertext()) for text in svg.iter(f"{SVG}text")]
    assert len(there) == len(nodes) + 1 + len(outputs)
    assert all(f"loss: {node.loss}" in texts for node in outputs)
    for node in nodes:
        assert any(text.startswith(f"{node.number}: {node.type}") for text in texts)
        assert not node.tensors or f"{node.parameters:,} parameters:" in texts
        listed = " ".join(texts)
        assert all(tensor in listed for tensor in node.tensors)
    flows = [path.get("d", "") for path in svg.iter(f"{SVG}path") if path.get("class") == "flow"]
    assert len(flows) == sum(len(node.sources) for node in nodes) + len(outputs)
    right, bottom = float(svg.get("width", "")), float(svg.get("height", ""))
    for number, (x1, y1, x2, y2) in enumerate(there):
        assert 0 < x1 < x2 < right and 0 < y1 < y2 < bottom
        for u1, v1, u2, v2 in there[:number]:
            assert x2 <= u1 or u2 <= x1 or y2 <= v1 or v2 <= y1, "two boxes lie on each other"
        for flow in flows:
            x, begin, end = map(float, re.findall(r"^M([\d.]+) ([\d.]+)V([\d.]+)", flow)[0])
            assert not (x1 < x < x2 and begin < y2 and y1 < end), "a line runs through a box"
    assert max(len(text) for text in texts) * 7 <= WIDE


def test_a_picture_needs_a_name_that_ends_in_svg(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(RESIDUAL)
    done = CliRunner().invoke(group, ["describe", str(file), "--svg", str(tmp_path / "net.png")])
    assert done.exit_code == 2
    assert "net.png must end in .svg" in done.output


# Faults ------------------------------------------------------------------------------------------------


def test_faults_of_a_graph_come_with_its_drawing(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(RESIDUAL.replace("inputs: [first, second]", "inputs: [first, secnd]"))
    done = CliRunner().invoke(group, ["describe", str(file)])
    assert done.exit_code == 2
    assert (
        done.output
        == f"""\
error: {file} has 1 fault:
  model.layers.3.inputs.1: 'secnd' is not known; did you mean 'second'? known: first, input, second

  *    input
  |    ?
  *    0: dense 'first' (units 32, relu)
  +-.  32
  | *  1: dense (units 32, relu)
  | |  32
  | *  2: dense 'second' (units 32)
  |    first: 32, secnd: ?
  *    3: add <- at fault
  |    ?
  *    4: dense (units 3)
  |    3
  *    outputs
"""
    )


def test_shapes_that_clash_and_layers_that_nothing_takes_are_marked() -> None:
    with pytest.raises(JobError) as caught:
        job(dense("a"), dense("b", units=5), dense("c", "a"), join("add", "a", "b"))
    text = str(caught.value)
    assert "  | | *  2: dense 'c' (units 8) <- at fault\n" in text
    assert "  +-'    a: 8, b: 5\n  *      3: add <- at fault\n" in text
    assert "b' (units 5) <-" not in text


def test_faults_elsewhere_do_not_hide_the_drawing() -> None:
    with pytest.raises(JobError) as caught:
        TrainingJob.from_mapping(
            {"model": {"layers": [dense("a"), join("add", "a", "b")]}, "loss": "mse", "epochs": "many"}
        )
    assert [fault.path for fault in caught.value.faults] == ["epochs", "model.layers.1.inputs.1"]
    assert "  |  a: 8, b: ?\n" in caught.value.drawing


def test_shapes_that_only_the_data_decide(tmp_path: Path) -> None:
    net = job(dense("a"), join("add", "a", "input"))
    with pytest.raises(JobError, match="must have one shape") as caught:
        distbp.train(net, data=(np.ones((4, 3)), np.ones((4, 8))), output=tmp_path / "run")
    assert "input: 3\n" in str(caught.value)


@pytest.mark.parametrize(
    "layers",
    [
        [dense(), {"type": "reshape", "shape": [3, 3]}, "flatten", dense()],
        [*[dense()] * 300, join("add", "nothing", "input")],
    ],
    ids=["a list", "very many"],
)
def test_a_list_of_layers_and_very_many_of_them_are_not_drawn(layers: list[Any]) -> None:
    with pytest.raises(JobError) as caught:
        job(*layers)
    assert caught.value.drawing == ""
