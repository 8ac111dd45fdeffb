"""`distbp reproduce`: published figures beside ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from distbp.cli.main import group
from distbp.run.explain.figures import Figure, printed, table
from distbp.run.reproduce import cs231n
from distbp.run.reproduce.figures import Folders
from distbp.run.reproduce.results import RESULTS


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTBP_TEST_DATA", raising=False)


def run(*words: Any) -> Result:
    return CliRunner().invoke(group, ["reproduce", *map(str, words)])


def test_alone_it_lists_them() -> None:
    done = run()
    assert done.exit_code == 0
    for name, one in RESULTS.items():
        assert f"  {name}\n" in done.output and one.title in done.output
    assert "needs MNIST and the book's curves" in done.output
    assert max(map(len, done.output.splitlines())) <= 80


def test_mazur(tmp_path: Path) -> None:
    picture = tmp_path / "mazur.svg"
    done = run("mazur", "-o", picture)
    assert done.exit_code == 0, done.output
    told = " ".join(done.stdout.split())
    assert "dE/dw5 0.082167041 0.08216704056 -4.4e-10" in told
    assert "E after the step * 0.291027924 0.2910277737 -1.5e-07" in told
    assert "the same, with the page's mistake 0.291027924 0.2910279239 -9.5e-11" in told
    assert "o1 after 10,000 steps * 0.015912196 0.01591362044 1.4e-06" in told
    assert "E after 10,000 steps is 3.51018778298e-05" in told
    assert told.endswith("All figures agree.")
    assert max(map(len, done.stdout.splitlines())) <= 90
    assert picture.read_text("utf-8").startswith("<?xml")


def test_an_elman_step() -> None:
    done = run("cs231n/rnn")
    assert done.exit_code == 0, done.output
    assert "-0.58172089" in done.output
    found = cs231n.states()
    x, h = np.linspace(-0.4, 0.7, 30).reshape(3, 10), np.linspace(-0.2, 0.5, 12).reshape(3, 4)
    wx, wh = np.linspace(-0.1, 0.9, 40).reshape(10, 4), np.linspace(-0.3, 0.7, 16).reshape(4, 4)
    by_hand = np.tanh(x @ wx + h @ wh + np.linspace(-0.2, 0.4, 4))
    np.testing.assert_allclose(found, by_hand, rtol=1e-14)


def test_an_lstm_step() -> None:
    done = run("cs231n/lstm")
    assert done.exit_code == 0, done.output
    assert "0.24635157" in done.output and "0.56717407" in done.output
    h, c = cs231n.lstm_states()
    x, h0, c0 = (np.linspace(*ends, 15).reshape(3, 5) if n else np.linspace(*ends, 12).reshape(3, 4)
                 for n, ends in enumerate(((-0.4, 1.2), (-0.3, 0.7), (-0.4, 0.9))))  # fmt: skip
    wx, wh = np.linspace(-2.1, 1.3, 80).reshape(4, 20), np.linspace(-0.7, 2.2, 100).reshape(5, 20)
    z = np.split(x @ wx + h0 @ wh + np.linspace(0.3, 0.7, 20), 4, axis=1)
    i, f, o = (1 / (1 + np.exp(-one)) for one in z[:3])
    by_hand = f * c0 + i * np.tanh(z[3])
    np.testing.assert_allclose(c, by_hand, rtol=1e-14)
    np.testing.assert_allclose(h, o * np.tanh(by_hand), rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "figure"),
    [("overfitting", "5887"), ("three-shards", "5887"), ("weight-initialization-30", "9270")],
)
def test_curves_begin_as_published(test_data: Path, tmp_path: Path, name: str, figure: str) -> None:
    picture = tmp_path / "curve.svg"
    folders = ("--golden", test_data / "golden", "--mnist", test_data / "data" / "mnist")
    done = run(f"nielsen/{name}", *folders, "--epochs", 1, "-o", picture)
    assert done.exit_code == 0, done.output
    assert figure in done.stdout and "The first 1 of" in done.stdout
    assert "epoch 1 of 1" in done.stderr
    assert picture.stat().st_size > 1000


def test_another_curve_is_not_met(test_data: Path, tmp_path: Path) -> None:
    """One answer fewer in the published curve, and the exit code says so."""
    curves = json.loads((test_data / "golden/nielsen/overfitting.json").read_text())
    curves[1][0] -= 1
    (tmp_path / "nielsen").mkdir()
    (tmp_path / "nielsen" / "overfitting.json").write_text(json.dumps(curves))
    folders = ("--golden", tmp_path, "--mnist", test_data / "data" / "mnist")
    done = run("nielsen/overfitting", *folders, "--epochs", 1)
    assert done.exit_code == 4
    assert (
        "test images right, epoch 1                      5886             5887    1.0e+00  !" in done.stdout
    )
    assert "Not all figures agree." in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["overfitting", "three-shards", "weight-initialization-30"])
def test_curves_in_full(test_data: Path, name: str) -> None:
    found = RESULTS[f"nielsen/{name}"].run(
        Folders(test_data / "golden", test_data / "data" / "mnist"), lambda text: None
    )
    assert found.agrees, table(found.figures)
    told = ["by 9.4%"] if name == "three-shards" else []
    assert [note[-8:-1] for note in found.notes[1:]] == told


def test_figures() -> None:
    assert printed("a", "0.750", 0.7504).agrees
    assert not printed("a", "0.750", 0.7506).agrees
    assert not printed("a", "0.750", float("nan")).agrees
    assert printed("a", "0.750", 0.7506, differs=True).agrees
    assert not printed("a", "0.750", 0.7504, differs=True).agrees
    assert not Figure("a", "1", float("nan"), 0.1, differs=True).agrees
    rows = table([printed("a", "0.5", 0.8), printed("b", "0.5", 0.8, True)])
    assert rows[1].endswith("3.0e-01  !") and rows[2].startswith("b *")
    assert rows[-2:] == [
        "* known to be wrong where it was published: ours must differ",
        "! not within the tolerance",
    ]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    done = run("nielsen/overfitting")
    assert done.exit_code == 3
    assert (
        "error: the published curve overfitting.json is needed: give its folder by --golden DIR (the one with"
        " nielsen/), or set DISTBP_TEST_DATA" in done.output
    )
    done = run("nielsen/overfitting", "--golden", tmp_path)
    assert (
        "no such file or directory; name the folder with nielsen/overfitting.json by --golden" in done.output
    )
    (tmp_path / "nielsen").mkdir()
    (tmp_path / "nielsen" / "overfitting.json").write_text("[[")
    assert "is not sound JSON" in run("nielsen/overfitting", "--golden", tmp_path).output
    (tmp_path / "nielsen" / "overfitting.json").write_text("[[], [], [], []]")
    done = run("nielsen/overfitting", "--golden", tmp_path)
    assert "MNIST's four files are needed" in done.output and "--mnist DIR" in done.output


def test_unknown_names_and_options_that_do_not_fit() -> None:
    done = run("nielsen")
    assert done.exit_code == 2
    assert "'nielsen' is not known; known: mazur, nielsen/overfitting," in done.output
    done = run("mazur", "--epochs", 3)
    assert done.exit_code == 2
    assert "--epochs is for results that are curves by epoch, which mazur is not" in done.output
