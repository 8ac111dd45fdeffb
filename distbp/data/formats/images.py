"""Folders of images: one folder for each class, whose name is the label; or images without labels.

Pillow (an extra) reads the images. Files are read in the order of their names, so the order of rows does not
depend on the file system.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distbp.core import settings
from distbp.core.arrays import Array, Shape
from distbp.core.errors import DataError, HostileFileError
from distbp.core.imports import missing
from distbp.core.options import option
from distbp.data.formats.base import RowRange
from distbp.data.safety import DataFile, check_claim, find, resolve
from distbp.data.table import Table, build, check_range
from distbp.machine.memory import mapped

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".pgm", ".ppm", ".tif", ".tiff")
_READERS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images in a folder, as (channels, height, width) of numbers from 0 to 255 (`data.scale: 255`)."""

    type: Literal["images"] = "images"
    path: str = option(
        help="a folder with one folder of images for each class, a folder of images, or one image",
        path=True,
        min_length=1,
    )
    resize: tuple[int, int] | None = option(
        None, help="[height, width] that all images get; left out: all must have the same size"
    )
    color: bool = option(False, help="three channels (red, green, blue); else one channel of gray values")
    rows: RowRange = option(None, help="[first, one past the last] image to use, counted from 0")

    def open(self, folder: Path, confined: bool = False) -> Table:
        if self.resize is not None and not all(1 <= n <= 65_535 for n in self.resize):
            raise DataError(f"resize: {list(self.resize)} is not the size of an image; give [height, width]")
        files, labels = _listed(folder, self.path, confined)
        start, stop = check_range(self.rows, len(files), self.path)
        found = [find(folder, name, confined) for name in files[start:stop]]
        table = build(
            self._pixels(found),
            None if labels is None else np.array(labels[start:stop]),
            name=self.path,
            marks=tuple(file.mark for file in found),
        )
        return replace(table, row_names=tuple(files), first_row=start)

    def _pixels(self, files: list[DataFile]) -> Array:
        """(rows, channels, height, width) uint8, in memory up to DISTBP_PREPARE_BYTES, else mapped from an
        unnamed file."""
        height, width = self.resize or _size_of(files[0])
        channels = 3 if self.color else 1
        shape = (len(files), channels, height, width)
        check_claim(self.path, math.prod(shape), sum(file.size for file in files))
        pixels = _room(shape)
        for row, file in enumerate(files):
            image = _read(file, self.color, self.resize)
            if image.shape[:2] != (height, width):
                raise DataError(
                    f"{file.name}: the image has {image.shape[0]} x {image.shape[1]} pixels, but"
                    f" {files[0].name} has {height} x {width}; write resize: [height,"
                    " width] for one size of all"
                )
            pixels[row] = image.reshape(height, width, channels).transpose(2, 0, 1)
        return pixels


def _listed(folder: Path, path: str, confined: bool) -> tuple[list[str], list[str] | None]:
    """The paths of the images, which begin with `path`, and their labels (None without folders of classes).
    Raises DataError."""
    place = resolve(folder, path, confined)
    if place.is_file():
        return [path], None
    if not place.is_dir():
        raise DataError(f"{path}: there is no such folder; name the folder of the images")
    classes = sorted(entry.name for entry in place.iterdir() if entry.is_dir() and entry.name[0] != ".")
    here = [f"{path}/{name}" for name in _names(place)]
    if here and classes:
        raise DataError(
            f"{path}: holds images ({here[0]}) and folders ({classes[0]}); put every image into the folder of"
            " its class, or none"
        )
    by_class = {name: [f"{path}/{name}/{image}" for image in _names(place / name)] for name in classes}
    files = here + [image for images in by_class.values() for image in images]
    if not files:
        raise DataError(f"{path}: holds no images ({', '.join(SUFFIXES)}), nor do the folders in it")
    return files, [name for name, images in by_class.items() for _ in images] if classes else None


def _names(place: Path) -> Iterator[str]:
    found = (entry.name for entry in place.iterdir() if entry.suffix.lower() in SUFFIXES)
    return iter(sorted(name for name in found if name[0] != "."))


def _room(shape: Shape) -> Array:
    size = math.prod(shape)
    if size <= settings.get("DISTBP_PREPARE_BYTES"):
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the space; it is freed with the array
        file.truncate(size)
        return np.asanyarray(mapped(file, shape, np.uint8, "r+"))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise DataError(missing("the format images", "Pillow", "distbp[images]")) from None
    return Image


def _opened(file: DataFile) -> Any:
    """Opens an image and reads its header. Raises DataError, HostileFileError."""
    pillow = _pillow()
    try:
        with warnings.catch_warnings(action="error", category=pillow.DecompressionBombWarning):
            return pillow.open(file.path, formats=_READERS)
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning):
        raise HostileFileError(
            f"{file.name}: claims more than {pillow.MAX_IMAGE_PIXELS:,} pixels, as decompression bombs do;"
            " make the image smaller"
        ) from None
    except (OSError, ValueError, SyntaxError):
        raise DataError(f"{file.name}: cannot be read as an image; mend it, or take it away") from None


def _size_of(file: DataFile) -> tuple[int, int]:
    with _opened(file) as image:
        width, height = image.size
        return height, width


def _read(file: DataFile, color: bool, size: tuple[int, int] | None) -> Array:
    """The pixels of an image, (height, width) or (height, width, 3) uint8. size: (height, width) wanted."""
    with _opened(file) as image:
        try:
            found = image.convert("RGB" if color else "L")
            if size is not None and found.size != (size[1], size[0]):
                found = found.resize((size[1], size[0]), resample=_pillow().Resampling.BILINEAR)
            return np.asarray(found)
        except (OSError, ValueError, SyntaxError, EOFError):
            raise DataError(
                f"{file.name}: the image is damaged or cut off; mend it, or take it away"
            ) from None
