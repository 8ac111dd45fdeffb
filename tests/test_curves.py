"""The picture of a run: drawn from any metrics, the same bytes every time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distbp import TrainingJob, resume, train
from distbp.run.curves import draw

LINES = [
    {
        "epoch": e,
        "step": 10 * e,
        "train_loss": 5 / e**2,
        "validation_loss": 4 / e + e,
        "validation_accuracy": 1 - 1 / e,
    }
    for e in range(1, 21)
]


def test_svg_is_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    draw(LINES, tmp_path / "a.svg")
    draw(LINES, tmp_path / "b.svg")
    script = f"from pathlib import Path; from distbp.run.curves import draw; draw({LINES!r}, Path('c.svg'))"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "PYTHONHASHSEED": "5",
    }
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.svg", "b.svg", "c.svg"))
    assert a == b == c
    assert b"<dc:date>" not in a
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "b.svg", "c.svg"]


def test_the_words_in_the_picture(tmp_path: Path) -> None:
    """Text is drawn as outlines; matplotlib leaves each text in a comment beside them."""
    text = draw(LINES, tmp_path / "a.svg", title="digits").read_text("utf-8")
    for words in (
        "digits",
        "loss (logarithmic)",
        "accuracy",
        "training",
        "validation",
        "best: 4 (epoch 2)",
        "best: 0.95 (epoch 20)",
    ):
        assert f"<!-- {words} -->" in text, words


def test_png_has_two_panels_in_color(tmp_path: Path) -> None:
    picture = matplotlib.image.imread(draw(LINES, tmp_path / "a.png"))
    height, width = picture.shape[:2]
    assert (width, height) == (1497, 561)
    for half in (picture[:, : width // 2], picture[:, width // 2 :]):
        orange = (half[..., 0] > 0.8) & (half[..., 2] < 0.2)
        assert orange.sum() > 300


@pytest.mark.parametrize(
    ("lines", "title"),
    [
        ([{"epoch": 1, "step": 7, "train_loss": 1.0}], "Training, 1 epoch, 7 steps"),
        ([{"train_loss": 1.0}, {"train_loss": None}], "Training"),
        (
            [{"epoch": 1, "train_loss": None, "validation_rmse": 0.1}, {"epoch": 2, "train_loss": 3.0}],
            "Training, 2 epochs",
        ),
        ([{"epoch": e, "train_loss": 2.0, "validation_loss": 2.0} for e in (1, 2)], "Training, 2 epochs"),
        ([{"epoch": 1, "train_loss": 0.0}, {"epoch": 2, "train_loss": -4.0}], "Training, 2 epochs"),
    ],
)
def test_thin_metrics(tmp_path: Path, lines: list[dict[str, Any]], title: str) -> None:
    assert f"<!-- {title} -->" in draw(lines, tmp_path / "a.svg").read_text("utf-8")


@given(
    st.lists(
        st.fixed_dictionaries({"train_loss": st.floats(1e-30, 1e30) | st.none()}), min_size=1, max_size=5
    )
)
@settings(max_examples=8)
def test_any_losses(tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("curves")
    if all(line["train_loss"] is None for line in lines):
        with pytest.raises(ValueError, match="there is no loss in the metrics"):
            draw(lines, folder / "a.png")
    else:
        assert draw(lines, folder / "a.png").stat().st_size > 1000


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("names", "panels", "size"),
    [
        (("rmse", "r2"), ["loss (logarithmic)", "r2", "rmse (logarithmic)"], (2246, 561)),
        (("auc", "accuracy", "f1"), ["loss (logarithmic)", "accuracy", "f1", "auc"], (1497, 1123)),
        (("top_5",), ["loss (logarithmic)", "top 5"], (1497, 561)),
    ],
)
def test_every_metric_has_its_panel(
    tmp_path: Path, names: tuple[str, ...], panels: list[str], size: tuple[int, int]
) -> None:
    lines = [
        {"epoch": e, "train_loss": 5 / e**2, **{f"validation_{name}": 5 / e**2 for name in names}}
        for e in range(1, 21)
    ]
    text = draw(lines, tmp_path / "a.svg").read_text("utf-8")
    places = [text.index(f"<!-- {name} -->") for name in panels]
    assert places == sorted(places), panels
    height, width = matplotlib.image.imread(draw(lines, tmp_path / "a.png")).shape[:2]
    assert (width, height) == size


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("members", [1, 2])
def test_a_run_is_drawn_unless_told(tmp_path: Path, members: int) -> None:
    layers = [{"type": "dense", "units": 1}]
    fields: dict[str, Any] = {"members": members} if members > 1 else {}
    job = TrainingJob(model={"layers": layers}, loss="mse", epochs=1, **fields)
    data = np.ones((4, 2)), np.ones(4)
    for draws in (True, False):
        picture = tmp_path / str(draws) / "curves.svg"
        train(job, data=data, output=picture.parent, workers=0, draws=draws)
        assert picture.exists() == draws
        picture.unlink(missing_ok=True)
        resume(picture.parent, data=data, epochs=2, workers=0, draws=draws)
        assert picture.exists() == draws


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no loss in the metrics, so there is no curve to draw"):
        draw([{"epoch": 1, "learning_rate": 0.1}], tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []


def test_matplotlib_is_left_as_it_was(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    draw(LINES, tmp_path / "a.svg")
    assert dict(matplotlib.rcParams) == before
