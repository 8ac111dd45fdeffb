"""Downloads, unpacks and checks models of a service."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from distbp.client.transport import Patience, Transport
from distbp.core.errors import ModelError, UnreachableError
from distbp.core.storage import explained
from distbp.model.archive import unpack_model
from distbp.model.folder import load_model
from distbp.model.predictor import Model

FILE = ".tar"
_PIECE = 2**20
_SILENCE_S = 60.0


def fetch_model(transport: Transport, about: Mapping[str, Any], place: Path | None = None) -> Model:
    """Downloads a model and loads it; waits. about: the service's description of the model. place: where it
    is kept: a folder (absent or empty), or a file whose name ends in .tar (absent); None: nowhere.

    Checks the digests of the files, and that the parameters are those of the job's result. Raises ModelError,
    RemoteError, StorageError and OSError.
    """
    with tempfile.TemporaryDirectory(prefix="distbp-model-") as temporary:
        inner = Path(temporary) / "model"
        with tempfile.TemporaryFile() as archive:
            _download(transport, f"/v1/models/{about['id']}/download", archive)
            unpack_model(archive, inner, "what the service sent", "fetch it again")
            model = load_model(inner)
            wanted = about["info"].get("params_sha256")
            found = model.facts["params_sha256"]
            if wanted is not None and found != wanted:
                raise ModelError(
                    f"the model {about['id']} arrived with the parameters {found}, but its job ended with"
                    f" {wanted}; fetch it again"
                )
            if place is not None and place.suffix == FILE:
                _keep_file(archive, place)
        if place is not None and place.suffix != FILE:
            _keep(inner, place)
    return model


def _download(transport: Transport, path: str, file: BinaryIO) -> None:
    patience = Patience(transport)
    while True:
        file.seek(0)
        file.truncate()
        try:
            with transport.open(path, timeout=transport.timeout(_SILENCE_S)) as answer:
                for piece in answer.iter_bytes(_PIECE):
                    file.write(piece)
            return
        except UnreachableError as error:
            if not transport.met:
                raise
            patience.wait(error)


def _keep_file(archive: BinaryIO, file: Path) -> None:
    with explained(file):
        if file.exists():
            raise ModelError(f"{file} exists; name a file that is absent")
        file.parent.mkdir(parents=True, exist_ok=True)
        near = file.with_name(f".{file.name}.fetching")
        archive.seek(0)
        with open(near, "wb") as out:
            shutil.copyfileobj(archive, out, _PIECE)
        near.replace(file)


def _keep(made: Path, folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder} exists and is not empty; name a folder that is absent or empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    near = folder.with_name(f".{folder.name}.fetching")
    with suppress(FileNotFoundError):
        shutil.rmtree(near)
    shutil.copytree(made, near)
    near.replace(folder)
