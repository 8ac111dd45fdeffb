"""A job that begins with a model, on workers: the same bits as in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from rigs import classes, make_job

from distbp import train
from distbp.run import events


@pytest.mark.usefixtures("ray_here")
def test_on_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")  # nothing is to be compiled
    layers = (
        {"type": "dense", "units": 7, "activation": "tanh"},
        {"type": "dropout"},
        {"type": "dense", "units": 3},
    )
    job = make_job(layers, batch_size=16, epochs=2)
    first = train(job, data=classes(70), output=tmp_path / "first")
    tuned = job.replace(init=str(first.path), init_keeps=["optimizer"])
    alone = train(tuned, data=classes(70), output=tmp_path / "alone")
    told: list[object] = []
    shared = train(tuned, data=classes(70), output=tmp_path / "shared", workers=2, listener=told.append)
    assert shared.workers == 2
    waits = [event.what for event in told if isinstance(event, events.Waiting)]
    assert any("Ray" in what for what in waits), waits  # starts, or is joined
    assert "starting the parameter server and 2 workers" in waits
    assert shared.params_sha256 == alone.params_sha256 != first.params_sha256
    once = train(job.replace(epochs=4), data=classes(70), output=tmp_path / "once")
    assert alone.params_sha256 == once.params_sha256
    apart = tuned.replace(servers=2)
    ranges = train(apart, data=classes(70), output=tmp_path / "ranges", workers=2)
    assert ranges.params_sha256 == once.params_sha256
