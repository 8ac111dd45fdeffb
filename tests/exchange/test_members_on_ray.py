"""Several networks of one job, on workers: the same bits as in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from rigs import classes, make_job

from distbp import train


@pytest.mark.usefixtures("ray_here")
def test_on_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distbp.run.curves.draw", lambda lines, path: None)
    layers = ({"type": "dense", "units": 7, "activation": "tanh"}, {"type": "dense", "units": 3})
    job = make_job(layers, batch_size=16, epochs=2, members=2)
    data = {"train": classes(70), "test": classes(20, seed=1)}
    alone = train(job, data=data, output=tmp_path / "alone")
    for workers in (1, 3):
        shared = train(job, data=data, output=tmp_path / f"shared-{workers}", workers=workers)
        assert shared.workers == workers
        assert (shared.params_sha256, shared.metrics) == (alone.params_sha256, alone.metrics)
