"""Folders of images: what they become, and what cannot be used."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from distbp import TrainingJob, train
from distbp.cli.main import group
from distbp.core.errors import DataError, HostileFileError
from distbp.data.formats import Images

pillow = pytest.importorskip("PIL.Image")


def write(place: Path, pixels: object) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    pillow.fromarray(np.asarray(pixels, np.uint8)).save(place)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Three images of 2 x 3 grays in two classes; `cats/b` is as dark as its number."""
    for number, name in enumerate(["cats/b.png", "cats/a.png", "dogs/a.png"]):
        write(tmp_path / "pets" / name, np.full((2, 3), 10 * number))
    (tmp_path / "pets/cats/.DS_Store").write_text("not an image")
    (tmp_path / "pets/dogs/notes.txt").write_text("not an image")
    return tmp_path


def test_folders_are_classes_and_names_the_order(pets: Path) -> None:
    table = Images(path="pets").open(pets)
    assert table.inputs.shape == (3, 1, 2, 3)
    assert table.inputs.dtype == np.uint8
    assert table.inputs[:, 0, 0, 0].tolist() == [10, 0, 20]
    assert table.targets is not None
    assert table.targets.tolist() == ["cats", "cats", "dogs"]
    assert table.row_names == ("pets/cats/a.png", "pets/cats/b.png", "pets/dogs/a.png")


def test_rows_are_chosen_before_they_are_read(pets: Path) -> None:
    (pets / "pets/cats/a.png").write_bytes(b"damaged")
    table = Images(path="pets", rows=(1, 3)).open(pets)
    assert table.inputs[:, 0, 0, 0].tolist() == [0, 20]
    assert [table.row_number(row) for row in range(2)] == [1, 2]


def test_colors_are_channels_and_come_first(tmp_path: Path) -> None:
    color = np.zeros((2, 2, 3))
    color[0, 1] = [255, 128, 7]
    write(tmp_path / "one.png", color)
    inputs = Images(path="one.png", color=True).open(tmp_path).inputs
    assert inputs.shape == (1, 3, 2, 2)
    assert inputs[0, :, 0, 1].tolist() == [255, 128, 7]
    gray = Images(path="one.png").open(tmp_path).inputs
    assert gray[0, 0, 0, 1] == round(0.299 * 255 + 0.587 * 128 + 0.114 * 7)  # ITU-R 601-2


def test_images_are_resized(tmp_path: Path) -> None:
    write(tmp_path / "x/wide.png", np.full((4, 8), 90))
    write(tmp_path / "x/small.jpg", np.full((2, 2), 30))
    table = Images(path="x", resize=(2, 4)).open(tmp_path)
    assert table.targets is None
    assert table.inputs.shape == (2, 1, 2, 4)
    assert [np.unique(image).tolist() for image in table.inputs] == [[30], [90]]


def test_large_tables_lie_in_a_file(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_PREPARE_BYTES", "4")
    inputs = Images(path="pets").open(pets).inputs
    assert isinstance(inputs, np.memmap)
    assert inputs[:, 0, 0, 0].tolist() == [10, 0, 20]


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def cut_off(folder: Path) -> None:
    place = folder / "pets/dogs/a.png"
    write(place, np.arange(10_000).reshape(100, 100) % 251)
    place.write_bytes(place.read_bytes()[:-400])


FAULTS: dict[str, tuple[Callable[[Path], object], Images, type[Exception], str]] = {
    "nothing there": (
        lambda f: None,
        Images(path="cars"),
        DataError,
        "cars: there is no such folder; name the folder of the images",
    ),
    "no images": (
        lambda f: (f / "empty").mkdir(),
        Images(path="empty"),
        DataError,
        "empty: holds no images (.png, .jpg, .jpeg, .bmp, .webp, .pgm, .ppm, .tif, .tiff), nor do the folders"
        " in it",
    ),
    "beside folders": (
        lambda f: write(f / "pets/c.png", np.zeros((2, 3))),
        Images(path="pets"),
        DataError,
        "pets: holds images (pets/c.png) and folders (cats); put every image into the"
        " folder of its class, or none",
    ),
    "sizes differ": (
        lambda f: write(f / "pets/dogs/a.png", np.zeros((5, 4))),
        Images(path="pets"),
        DataError,
        "pets/dogs/a.png: the image has 5 x 4 pixels, but pets/cats/a.png has 2 x 3; write resize:"
        " [height, width] for one size of all",
    ),
    "no image": (
        lambda f: (f / "pets/dogs/a.png").write_text("hello"),
        Images(path="pets"),
        DataError,
        "pets/dogs/a.png: cannot be read as an image; mend it, or take it away",
    ),
    "cut off": (
        cut_off,
        Images(path="pets", resize=(2, 2)),
        DataError,
        "pets/dogs/a.png: the image is damaged or cut off; mend it, or take it away",
    ),
    "bomb": (
        lambda f: (f / "pets/cats/a.png").write_bytes(png_that_claims(30_000, 20_000)),
        Images(path="pets", resize=(2, 2)),
        HostileFileError,
        "pets/cats/a.png: claims more than 89,478,485 pixels, as decompression bombs do; make the image"
        " smaller",
    ),
    "resize": (
        lambda f: None,
        Images(path="pets", resize=(0, 3)),
        DataError,
        "resize: [0, 3] is not the size of an image; give [height, width]",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_used(pets: Path, name: str) -> None:
    spoil, images, kind, message = FAULTS[name]
    spoil(pets)
    with pytest.raises(kind) as caught:
        images.open(pets)
    assert str(caught.value) == message


def test_links_out_of_the_folder(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "secret.png", np.zeros((2, 3)))
    (pets / "pets/dogs/z.png").symlink_to(elsewhere / "secret.png")
    assert len(Images(path="pets").open(pets)) == 4
    with pytest.raises(HostileFileError, match=r"pets/dogs/z\.png: a link leads out"):
        Images(path="pets").open(pets, confined=True)


def test_a_model_is_trained_and_predicts_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    rng = np.random.default_rng(0)
    for number in range(20):
        for name, half in (("left", np.s_[:, :4]), ("right", np.s_[:, 4:])):
            pixels = rng.integers(0, 60, (6, 8))
            pixels[half] += 150
            write(tmp_path / f"shapes/{name}/{number:02}.png", pixels)
    job = {
        "data": {"train": {"format": "images", "path": "shapes"}, "scale": 255},
        "model": {
            "layers": [
                {"type": "conv2d", "filters": 2, "kernel_size": 3},
                "relu",
                "flatten",
                {"type": "dense", "units": 2},
            ]
        },
        "loss": "softmax_cross_entropy",
        "optimizer": {"type": "adam", "learning_rate": 0.03},
        "metrics": ["accuracy"],
        "batch_size": 10,
        "epochs": 5,
        "shards": 1,
        "workers": 0,
    }
    monkeypatch.chdir(tmp_path)
    train(TrainingJob.from_mapping(job), folder=tmp_path, output=tmp_path / "run")
    for given in ("shapes/right/07.png", "shapes/right"):
        found = CliRunner().invoke(group, ["predict", "run", given])
        assert found.exit_code == 0, found.output
        head, first, *_ = found.output.splitlines()
        assert head == "file,prediction"
        assert first == f"shapes/right/{'07' if given.endswith('png') else '00'}.png,right"
    found = CliRunner().invoke(group, ["evaluate", "run", "shapes"])
    assert "accuracy        1" in found.output
    refused = CliRunner().invoke(group, ["predict", "run", "shapes", "labels.npy"])
    assert refused.exit_code != 0
