"""A model as one file, as a service gives it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import distbp
from distbp.cli.data import open_model
from distbp.core.errors import ModelError

X = np.array([[0.5, -1.0], [2.0, 0.0]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = distbp.TrainingJob(
        data={"train": {"format": "blobs", "samples": 30}},
        model={"layers": [{"type": "dense", "units": 3}]},
        loss="softmax_cross_entropy",
        epochs=1,
        workers=0,
    )
    return distbp.train(job, output=tmp_path_factory.mktemp("run") / "run").path / "model"


def packed(
    folder: Path, *, only: tuple[str, ...] = ("model.json", "weights.safetensors"), kind: bytes = b"0"
) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in only:
            content = (folder / name).read_bytes()
            info = tarfile.TarInfo(f"model/{name}")
            info.size, info.type = len(content), kind
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def test_it_loads_and_predicts_as_its_folder_does(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "blobs.tar"
    file.write_bytes(packed(folder))
    wanted = distbp.load_model(folder)
    for model in (distbp.load_model(file), distbp.load_model(str(file)), open_model(file)):
        assert model.facts == wanted.facts
        assert model.outputs(X).tolist() == wanted.outputs(X).tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["blobs.tar"]


BAD: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "no archive": (lambda folder: b"x" * 2000, "is not a model"),
    "half": (lambda folder: packed(folder)[:1500], "is not a model"),
    "no weights": (
        lambda folder: packed(folder, only=("model.json",)),
        "is not a model .*weights.safetensors",
    ),
    "links": (lambda folder: packed(folder, kind=tarfile.SYMTYPE), "model.json is not a plain file"),
    "sparse": (lambda folder: packed(folder, kind=tarfile.GNUTYPE_SPARSE), "is not a (model|plain file)"),
    "another byte": (
        lambda folder: packed(folder).replace(b'"dense"', b'"densf"', 1),
        r"m\.tar is not a usable model: model.json does not match its own digest",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_files_that_are_no_models(what: str, folder: Path, tmp_path: Path) -> None:
    made, said = BAD[what]
    (tmp_path / "m.tar").write_bytes(made(folder))
    with pytest.raises(ModelError, match=said):
        distbp.load_model(tmp_path / "m.tar")
