"""The routes of checkpoints and models."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import StreamingResponse

from distbp_service.api import model_schemas, schemas
from distbp_service.api.model_form import form_of
from distbp_service.api.places import contents, model_tar
from distbp_service.api.routes import CallerArg, JobId, Route, ServiceArg, opens

router = APIRouter(prefix="/v1", tags=["artifacts"], route_class=Route)
ModelId = Annotated[str, Path(pattern=schemas.MODEL_ID)]


def _file(media_type: str, *errors: int) -> dict[str, Any]:
    found = opens("read", *errors)
    found["responses"][200] = {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}
    return {**found, "response_class": StreamingResponse}


def _attachment(name: str, size: int) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(size)}


@router.get("/jobs/{job_id}/checkpoints", operation_id="list_checkpoints", **opens("read", 404))
def checkpoints(job_id: JobId, caller: CallerArg, service: ServiceArg) -> schemas.CheckpointList:
    """The checkpoints that are kept, oldest first."""
    service.store.jobs.get(caller.project, job_id)
    items = [schemas.CheckpointOut.of(found) for found in service.places.checkpoints(job_id)]
    return schemas.CheckpointList(items=items)


@router.get(
    "/jobs/{job_id}/checkpoints/{step}",
    operation_id="download_checkpoint",
    **_file("application/octet-stream", 404),
)
def checkpoint(
    job_id: JobId,
    step: Annotated[int, Path(ge=0, le=10**18 - 1)],
    caller: CallerArg,
    service: ServiceArg,
) -> StreamingResponse:
    """Its state.safetensors; its SHA-256 in Repr-Digest (RFC 9530) and X-Content-SHA256."""
    service.store.jobs.get(caller.project, job_id)
    found, handle = service.places.open_checkpoint(job_id, step)
    headers = _attachment(f"step-{step:08d}.safetensors", found.bytes)
    headers["X-Content-SHA256"] = found.sha256
    headers["Repr-Digest"] = f"sha-256=:{b64encode(bytes.fromhex(found.sha256)).decode()}:"
    return StreamingResponse(contents(handle), media_type="application/octet-stream", headers=headers)


@router.get("/models", operation_id="list_models", **opens("read"))
def models(
    caller: CallerArg,
    service: ServiceArg,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(pattern=schemas.MODEL_ID)] = None,
) -> schemas.ModelPage:
    """The project's models, newest first."""
    found = service.store.models.page(caller.project, limit=limit, cursor=cursor)
    return schemas.ModelPage(items=[schemas.ModelOut.of(m) for m in found.items], cursor=found.cursor)


@router.get("/models/{model_id}", operation_id="get_model", **opens("read", 404))
def model(model_id: ModelId, caller: CallerArg, service: ServiceArg) -> schemas.ModelOut:
    """What is known of a model."""
    return schemas.ModelOut.of(service.store.models.get(caller.project, model_id))


@router.get("/models/{model_id}/download", operation_id="download_model", **_file("application/x-tar", 404))
def download(model_id: ModelId, caller: CallerArg, service: ServiceArg) -> StreamingResponse:
    """A tar archive of the folder `model`, for distbp.load_model."""
    found = service.store.models.get(caller.project, model_id)
    size, pieces = model_tar(service.places.model(found.path))
    return StreamingResponse(
        pieces, media_type="application/x-tar", headers=_attachment(f"{model_id}.tar", size)
    )


@router.get("/models/{model_id}/inputs", operation_id="get_model_inputs", **opens("read", 404, 409, 413))
def inputs(model_id: ModelId, caller: CallerArg, service: ServiceArg) -> model_schemas.ModelInputs:
    """What a model takes, and what it predicts: enough to make a form of it."""
    found = service.store.models.get(caller.project, model_id)
    return form_of(service.predictions.loaded(found))


@router.post(
    "/models/{model_id}:predict",
    operation_id="predict",
    **opens("read", 404, 409, body="predict", files=True),
)
def predict(
    model_id: ModelId,
    body: model_schemas.Inputs,
    caller: CallerArg,
    service: ServiceArg,
    probabilities: Annotated[bool, Query(description="as in the body; for files")] = False,
) -> model_schemas.Predictions:
    """Predictions for rows of inputs, as they were before training scaled them. A model of a table takes CSV,
    too: its columns by name, in any order. A model of images takes a picture, and resizes it."""
    found = service.store.models.get(caller.project, model_id)
    made = service.predictions.predict(found, body.inputs, body.probabilities or probabilities)
    return model_schemas.Predictions.of(made)


@router.delete("/models/{model_id}", status_code=204, operation_id="delete_model", **opens("manage", 404))
def delete(model_id: ModelId, caller: CallerArg, service: ServiceArg) -> None:
    """Removes a model with its files, and what its job has left, where that was deleted before."""
    found, keep_job = service.store.models.delete(caller.project, model_id)
    service.predictions.forget(model_id)
    service.places.remove_model(found.job_id, keep_job=keep_job)
