"""A picture as the body of a prediction: what Pillow reads of it is what training read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")

from api_kit import Api, problem_of
from PIL import Image
from test_data_and_models import served

import distbp
from distbp.core import settings
from distbp.data.formats import Images


def trained(folder: Path, channels: int) -> distbp.Model:
    """Of pictures of 6 x 5; the run is folder/run."""
    images = np.random.default_rng(3).integers(0, 256, (16, channels, 6, 5))
    layers: list[dict[str, Any]] = [
        {"type": "conv2d", "filters": 2, "kernel_size": 3},
        {"type": "flatten"},
        {"type": "dense", "units": 2},
    ]
    fields = {"data": {"scale": 255}, "model": {"layers": layers}, "loss": "softmax_cross_entropy"}
    job = distbp.TrainingJob.from_mapping({**fields, "epochs": 1, "workers": 0})
    with settings.environment({"DISTBP_KERNELS": "numpy"}):
        return distbp.train(job, data=(images, np.arange(16) % 2), output=folder / "run").model()


def picture(kind: str, *, seed: int = 0, size: tuple[int, int] = (11, 9)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def send(api: Api, path: str, body: bytes, kind: str = "png") -> Any:
    headers = {"Content-Type": f"image/{kind}"}
    return api.call("POST", f"{path}?probabilities=true", content=body, headers=headers)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_predicted_as_a_file_of_it_would_be(api: Api, tmp_path: Path, channels: int) -> None:
    model = trained(tmp_path, channels)
    path = served(api, tmp_path / "run")
    for kind in ("png", "jpeg"):
        body = picture(kind)
        (tmp_path / "one").write_bytes(body)
        x = Images(path="one", resize=(6, 5), color=channels == 3).open(tmp_path).inputs
        found = send(api, path, body, kind).json()
        assert found["predictions"] == model.predict(x).tolist()
        assert found["probabilities"] == model.predict_proba(x).tolist()


def test_what_is_no_picture_or_for_another_model_is_refused(api: Api, tmp_path: Path) -> None:
    trained(tmp_path, 1)
    path = served(api, tmp_path / "run")
    for body in (b"GIF89a", picture("png")[:60]):
        message = problem_of(send(api, path, body), 422)["message"]
        assert message.startswith("the picture: ") and str(tmp_path) not in message
    job = distbp.TrainingJob(model={"layers": [{"type": "dense", "units": 2}]}, loss="mse", epochs=1)
    with settings.environment({"DISTBP_KERNELS": "numpy"}):
        distbp.train(job, data=(np.zeros((4, 3)), np.zeros((4, 2))), output=tmp_path / "b" / "run", workers=0)
    message = problem_of(send(api, served(api, tmp_path / "b" / "run"), picture("png")), 422)["message"]
    assert message.startswith("the model takes 3 numbers a row, and no picture")
