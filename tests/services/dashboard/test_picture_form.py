"""The form of a model of images takes a file of a picture, in a real browser in front of the real API."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("selenium")

from browser import Browser
from PIL import Image
from real_service import Real
from selenium.webdriver.common.by import By

import distbp
from distbp.core import settings

pytestmark = pytest.mark.heavy

LAYERS = [
    {"type": "conv2d", "filters": 2, "kernel_size": 3},
    {"type": "flatten"},
    {"type": "dense", "units": 2},
]
SENT = {"data": {"train": {"format": "blobs"}}, "model": {"layers": [{"type": "dense", "units": 3}]}}


def test_a_picture_is_predicted(real: Real, watched: Browser, tmp_path: Path) -> None:
    images = np.random.default_rng(3).integers(0, 256, (16, 1, 6, 6), dtype=np.uint8)
    loss = "softmax_cross_entropy"
    job = distbp.TrainingJob(model={"layers": LAYERS}, data={"scale": 255}, loss=loss, epochs=2, workers=0)
    with settings.environment({"DISTBP_KERNELS": "numpy"}):
        labels = np.where(np.arange(16) % 2, "cat", "dog")
        model = distbp.train(job, data=(images, labels), output=tmp_path / "run").model()
    _, model_id = real.finished(tmp_path / "run", "pets", SENT | {"loss": loss})
    Image.fromarray(images[0, 0]).save(tmp_path / "pet.png")
    page = watched
    page.fresh(real.address)
    page.sign_in(real.token, f"#/models/{model_id}")
    page.see(".predict button", "From a picture")
    picker = ".predict input[type=file][accept^=image]"
    page.driver.find_element(By.CSS_SELECTOR, picker).send_keys(str(tmp_path / "pet.png"))
    assert page.see(".prediction").text == model.predict(images[:1])[0]
