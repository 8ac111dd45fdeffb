"""Models as single files: the tar archive of a model's folder, as a service gives it."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from distbp.core.errors import ModelError

MODEL, WEIGHTS = "model.json", "weights.safetensors"
_PIECE = 2**20


@contextmanager
def unpacked(file: Path) -> Iterator[Path]:
    """Unpacks the model in a file into a temporary folder for the time of the block. A ModelError names the
    file, even if the block raises it."""
    with tempfile.TemporaryDirectory(prefix="distbp-model-") as temporary, file.open("rb") as archive:
        folder = Path(temporary) / "model"
        again = "give the folder of a model, or the .tar file of a service"
        unpack_model(archive, folder, str(file), again)
        try:
            yield folder
        except ModelError as error:
            raise ModelError(str(error).replace(str(folder), str(file))) from None


def unpack_model(archive: BinaryIO, folder: Path, name: str, again: str) -> None:
    """Makes `folder` and writes the two files of a model into it. Other entries of the archive are ignored.
    Raises ModelError; its message has the archive's `name` and the advice `again`."""
    folder.mkdir()
    archive.seek(0)
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for part in (MODEL, WEIGHTS):
                member = tar.getmember(f"model/{part}")
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):  # a sparse file can be of any size
                    raise KeyError(f"{part} is not a plain file")
                entry = tar.extractfile(member)
                assert entry is not None
                with entry, open(folder / part, "wb") as file:
                    shutil.copyfileobj(entry, file, _PIECE)
    except (tarfile.TarError, KeyError) as error:
        raise ModelError(f"{name} is not a model ({error}); {again}") from None
