"""A local training is seen: while it runs, afterwards, and in one line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distbp
from distbp.core.errors import ArgumentError, StorageError
from distbp.run import events, notebook, seen
from distbp.run.measured import Metrics

JOB = distbp.TrainingJob(
    name="spots",
    data={
        "train": {"format": "blobs", "samples": 64},
        "validation": {"format": "blobs", "samples": 32},
    },
    model={"layers": [{"type": "dense", "units": 4, "activation": "relu"}, {"type": "dense", "units": 3}]},
    loss="softmax_cross_entropy",
    epochs=3,
    workers=0,
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> distbp.Result:
    return distbp.train(JOB, output=tmp_path_factory.mktemp("runs") / "run")


def test_progress_shows_the_table_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[events.Event] = []
    distbp.train(JOB, output=tmp_path / "run", progress=True, listener=heard.append)
    out = capsys.readouterr().out
    assert out.startswith("spots: 27 parameters, 1 shard, in this process\n64 train rows, 32 ")
    assert len(out.splitlines()) == 2 + 3 + 3, out
    assert isinstance(heard[-1], events.Finished)
    distbp.resume(tmp_path / "run", epochs=4, progress=True)
    assert "going on from step 6" in capsys.readouterr().out
    with pytest.raises(ArgumentError, match=r"^progress must be True or False, not a value of type str$"):
        distbp.train(JOB, output=tmp_path / "other", progress="yes")  # type: ignore[arg-type]


class Cards:
    """Stands for a notebook: keeps every state of the card."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def live_card(self, html: Callable[[], str]) -> Any:
        @contextlib.contextmanager
        def live() -> Any:
            def listen(event: events.Event) -> None:
                self.shown.append(html())

            try:
                yield listen
            finally:
                self.shown.append(html())

        return live()


def test_in_a_notebook_a_card_lives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = Cards()
    monkeypatch.setattr(seen, "live_card", cards.live_card)
    distbp.train(JOB, output=tmp_path / "run", progress=True)
    assert capsys.readouterr() == ("", "")
    assert ">starting<" in cards.shown[0] and "reading the data" in cards.shown[0]
    last = cards.shown[-1]
    assert "<b>spots</b>" in last and ">completed<" in last and "step 6 of 6, attempt 1" in last
    assert last.count("<polyline") == 3  # two losses, one accuracy
    assert ">step 2</text>" in last and ">6</text>" in last  # the axis

    def stop(event: events.Event) -> None:
        if isinstance(event, events.EpochEnded):
            control.stop()

    control = distbp.Control()
    with pytest.raises(distbp.DistbpError):
        distbp.train(JOB, output=tmp_path / "b", progress=True, listener=stop, control=control)
    assert ">cancelled<" in cards.shown[-1]
    distbp.resume(tmp_path / "b", progress=True)
    assert cards.shown[-1].count("<polyline") == 3  # the epochs before are there, too
    with pytest.raises(distbp.DistbpError):
        distbp.train(JOB.replace(loss="mse"), data={"train": ([[1.0]], ["a"])}, progress=True)
    assert ">failed<" in cards.shown[-1]


def test_without_a_notebook_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert notebook.live_card(str) is None


def test_history_has_arrays_by_name(result: distbp.Result, tmp_path: Path) -> None:
    history = result.history
    assert isinstance(history, Metrics)
    np.testing.assert_array_equal(history["step"], [2, 4, 6])
    assert history["validation_loss"][-1] == result.metrics["validation_loss"]
    assert history.rows[0]["health"]
    pandas = pytest.importorskip("pandas")
    frame = history.to_frame()
    assert isinstance(frame, pandas.DataFrame) and list(frame.index) == [2, 4, 6]
    lost = distbp.Result.from_json(result.to_json(), tmp_path)
    with pytest.raises(StorageError, match=r"metrics\.jsonl does not exist; was the run directory moved\?$"):
        _ = lost.history


def test_histories_are_equal_where_all_that_was_measured_is() -> None:
    rows = [{"step": 1, "train_loss": 0.5, "test_auc": None}, {"step": 2, "train_loss": 0.25}]
    assert Metrics(rows) == Metrics([dict(row) for row in rows])
    assert Metrics(rows) != Metrics(rows[:1])
    assert Metrics(rows) != Metrics([{**row, "train_loss": 0.5} for row in rows])
    assert Metrics(rows) != dict(Metrics(rows))


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^to_frame\(\) needs pandas; run: pip install pandas$"):
        Metrics([{"step": 1}]).to_frame()


@pytest.mark.usefixtures("pictures")
def test_plot_is_a_figure_that_notebooks_show(tmp_path: Path) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    result = distbp.train(JOB, output=tmp_path / "run")
    plot = result.plot()
    assert isinstance(plot, figure.Figure) and len(plot.axes) == 2
    assert plot._repr_svg_() == (result.path / "curves.svg").read_text("utf-8")


def test_without_matplotlib_the_error_names_the_extra(
    result: distbp.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "distbp.run.curves", raising=False)
    message = r"^plot\(\) needs matplotlib, which is not installed; run: pip install 'distbp\[plot\]'$"
    with pytest.raises(ImportError, match=message):
        result.plot()


def test_results_and_models_fit_a_line(result: distbp.Result) -> None:
    loss, accuracy = result.metrics["validation_loss"], result.metrics["validation_accuracy"]
    said = f"validation_loss {loss:.4g}, validation_accuracy {accuracy:.4g}>"
    assert repr(result).startswith("<Result completed: 6 steps, train_loss ") and said in repr(result)
    model = result.model()
    assert repr(model) == "<Model for classification: 2 to 3, 27 parameters (dense, dense)>"
    assert model.summary() == (
        "layer           output  parameters\n"
        "----------------------------------\n"
        "inputs          2\n"
        "0 dense (relu)  4               12\n"
        "1 dense         3               15\n"
        "in all                  27 float32"
    )


def test_score_is_accuracy_or_r2(result: distbp.Result, tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 3
    model = result.model()
    assert model.score(x, y) == pytest.approx((model.predict(x) == y).mean())
    job = JOB.replace(data={}, model={"layers": [{"type": "dense", "units": 1}]}, loss="mse")
    values = distbp.train(job, data=(x, x.sum(axis=1)), output=tmp_path / "run").model()
    wanted = values.evaluate(x, y, metrics=["r2"])["r2"]
    assert values.score(x, y) == wanted
    assert values.score(x, y, weights=np.arange(20)) != wanted
