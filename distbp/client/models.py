"""Models that a service keeps: fetched, unpacked, checked."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from distbp.client.transport import Patience, Transport
from distbp.core.errors import ModelError, UnreachableError
from distbp.model.folder import MODEL, WEIGHTS, load_model
from distbp.model.predictor import Model

_PIECE = 2**20
_SILENCE_S = 60.0


def fetch_model(transport: Transport, about: Mapping[str, Any], folder: Path | None = None) -> Model:
    """Downloads a model and loads it. about: the service's description of it. folder: where it is kept
    (absent or empty); None: nowhere.

    Every digest is checked: that of the weights, and that the parameters are those of the job's result.
    Raises ModelError, RemoteError, OSError.
    """
    with tempfile.TemporaryDirectory(prefix="distbp-model-") as temporary:
        inner = Path(temporary) / "model"
        with tempfile.TemporaryFile() as archive:
            _download(transport, f"/v1/models/{about['id']}/download", archive)
            _unpack(archive, inner)
        model = load_model(inner)
        wanted = about["info"].get("params_sha256")
        found = model.facts["params_sha256"]
        if wanted is not None and found != wanted:
            raise ModelError(
                f"the model {about['id']} arrived with the parameters {found}, but its job ended with"
                f" {wanted}; fetch it again"
            )
        if folder is not None:
            _keep(inner, folder)
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


def _unpack(archive: BinaryIO, folder: Path) -> None:
    """The two files of a model, and nothing else, whatever the archive holds."""
    folder.mkdir()
    archive.seek(0)
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for name in (MODEL, WEIGHTS):
                entry = tar.extractfile(tar.getmember(f"model/{name}"))
                if entry is None:
                    raise ModelError(f"what the service sent as a model has no file {name}")
                with entry, open(folder / name, "wb") as file:
                    shutil.copyfileobj(entry, file, _PIECE)
    except (tarfile.TarError, KeyError) as error:
        raise ModelError(f"what the service sent is not a model ({error}); fetch it again") from None


def _keep(made: Path, folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder} exists and is not empty; name a folder that is absent or empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    near = folder.with_name(f".{folder.name}.fetching")
    with suppress(FileNotFoundError):
        shutil.rmtree(near)
    shutil.copytree(made, near)
    near.replace(folder)
