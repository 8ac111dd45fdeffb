"""The forms of models that take no table, in a real browser in front of the real API: a file of a picture,
several inputs, rows of different lengths."""

from __future__ import annotations

import json
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
    page.see("#rows-help", "One row a line, 36 numbers between commas or spaces; or JSON.")
    lines = "\n".join(" ".join(map(str, image.ravel())) for image in images[:3])
    page.see("#rows").send_keys(lines)
    page.see(".predict button", "Predict").click()
    page.until(lambda: len(page.find(".prediction")) == 3, "three answers")
    assert [one.text for one in page.find(".prediction")] == model.predict(images[:3]).tolist()


def test_several_inputs_are_named_and_taken_as_json(real: Real, watched: Browser, tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    x = {
        "picture": draw.normal(size=(16, 1, 2, 2)),
        "series": [draw.normal(size=(n % 4, 2)) for n in range(16)],
        "facts": draw.normal(size=(16, 3)),
    }
    layers = [
        {"type": "input", "name": "picture", "shape": [1, 2, 2]},
        {"type": "input", "name": "series", "shape": [3, 2], "ragged": True},
        {"type": "input", "name": "facts", "shape": [3]},
        {"type": "flatten", "inputs": ["picture"], "name": "flat"},
        {"type": "elman", "units": 2, "inputs": ["series"], "name": "heard"},
        {"type": "concatenate", "inputs": ["flat", "heard", "facts"]},
        {"type": "dense", "units": 1},
    ]
    job = distbp.TrainingJob(model={"layers": layers}, loss="mse", epochs=1, workers=0)
    with settings.environment({"DISTBP_KERNELS": "numpy"}):
        model = distbp.train(job, data=(x, draw.normal(size=16)), output=tmp_path / "run").model()
    row = {"picture": [[[1, 2], [3, 4]]], "series": [[1, 2]], "facts": [1, 2, 3]}
    _, model_id = real.finished(tmp_path / "run", "several", SENT | {"loss": "mse"})
    page = watched
    page.fresh(real.address)
    page.sign_in(real.token, f"#/models/{model_id}")
    help = "picture (1 × 2 × 2 numbers), series (up to 3 steps of 2 numbers), facts (3 numbers)"
    page.see("#rows-help", help)
    page.see(".use .source", "# x: a mapping of picture, series, facts")
    page.see("#rows").send_keys(json.dumps(row))
    page.see(".predict button", "Predict").click()
    assert float(page.see(".prediction").text) == pytest.approx(float(model.predict([row])[0]), rel=1e-3)


def test_rows_of_ids_have_different_lengths(real: Real, watched: Browser, tmp_path: Path) -> None:
    layers = [{"type": "embedding", "entries": 9, "size": 2}, "average_steps", {"type": "dense", "units": 2}]
    job = distbp.TrainingJob(model={"layers": layers}, loss="softmax_cross_entropy", epochs=1, workers=0)
    ids = [list(range(n % 5)) for n in range(16)]
    with settings.environment({"DISTBP_KERNELS": "numpy"}):
        model = distbp.train(job, data=(ids, np.arange(16) % 2), output=tmp_path / "run").model()
    _, model_id = real.finished(tmp_path / "run", "ids", SENT | {"loss": "softmax_cross_entropy"})
    page = watched
    page.fresh(real.address)
    page.sign_in(real.token, f"#/models/{model_id}")
    page.see("#rows-help", "One row a line, or JSON: up to 4 steps.")
    page.see("#rows").send_keys("1, 2, 3\n8")
    page.see(".predict button", "Predict").click()
    page.see(".prediction")
    told = [int(one.text) for one in page.find(".prediction")]
    assert told == model.predict([[1, 2, 3], [8]]).tolist()
