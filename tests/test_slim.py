"""Without Ray and matplotlib, as a slim install is: what is missing is said, with what brings it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import distbp
from distbp.core.errors import ExchangeError, SettingsError
from distbp.run.plan import plan

JOB = distbp.TrainingJob(
    model={"layers": [{"type": "dense", "units": 2}]}, loss="softmax_cross_entropy", epochs=1
)
DATA = (np.eye(8, dtype=np.float32), np.arange(8) % 2)
NEEDS_RAY = "training on workers needs Ray, which is not installed; run: pip install 'ray'; or set workers: 0"
PLOT = "needs matplotlib, which is not installed; run: pip install 'distbp[plot]'"


@pytest.fixture(autouse=True)
def slim(pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "distbp.run.curves", None)
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")


@pytest.mark.parametrize("workers", [0, "auto"])
def test_inline_training_and_prediction(workers: int | str, tmp_path: Path) -> None:
    result = distbp.train(JOB, data=DATA, output=tmp_path / "run", workers=workers)
    assert f"curves.svg {PLOT}" in result.notes
    assert ("workers: auto chose 0 (Ray is not installed)" in result.notes) == (workers == "auto")
    assert not (tmp_path / "run" / "curves.svg").exists()
    assert result.model().predict(DATA[0]).shape == (8,)


def test_workers_need_ray(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError) as raised:
        distbp.train(JOB, data=DATA, output=tmp_path / "run", workers=2)
    assert str(raised.value) == NEEDS_RAY


def test_a_picture_needs_matplotlib(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        plan.draw_speedups(None, tmp_path / "a.svg")  # type: ignore[arg-type]
    assert str(raised.value) == f"a picture {PLOT}"
