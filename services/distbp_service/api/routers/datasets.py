"""Datasets, known by their SHA-256: .npz archives of inputs, targets and weights, or zip archives of the
files of a table."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from distbp_service.api import schemas
from distbp_service.api.limits import pieces
from distbp_service.api.routes import CallerArg, Route, ServiceArg, check_type, opens
from distbp_service.api.uploads import Upload, receive, remove

router = APIRouter(prefix="/v1", tags=["datasets"], route_class=Route)
DatasetId = Annotated[str, Path(pattern=schemas.DATASET_ID)]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "/datasets",
    status_code=201,
    operation_id="upload_dataset",
    **opens("submit", body="dataset", raw=True, extra=_BODY),
)
async def upload(
    request: Request,
    response: Response,
    caller: CallerArg,
    service: ServiceArg,
    name: Annotated[str, Query(pattern=schemas.NAME)] = "dataset",
    sha256: Annotated[str | None, Query(pattern=schemas.SHA256, description="of the bytes, to check")] = None,
) -> schemas.DatasetOut:
    """Takes in the bytes of an .npz archive, or of a zip archive of a table's files as they are (`zip -0`),
    chunked or not. The same bytes give the same dataset."""
    check_type(request, "application/octet-stream", "the bytes of an .npz or zip archive")
    assert caller.token is not None
    limits = service.config.limits
    give_back = service.uploads.take(caller.shares)
    try:
        body = pieces(request, limits.dataset_bytes, limits.body_idle_s, limits.body_bytes_per_s)
        wanted = Upload(caller.project, name, caller.token.id, sha256)
        found, _ = await receive(body, wanted, service.store, service.places, limits)
    finally:
        give_back()
    service.telemetry.uploaded.inc(found.bytes)
    response.headers["Location"] = f"/v1/datasets/{found.id}"
    return schemas.DatasetOut.of(found)


@router.get("/datasets", operation_id="list_datasets", **opens("read"))
def page(
    caller: CallerArg,
    service: ServiceArg,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(pattern=schemas.DATASET_ID)] = None,
) -> schemas.DatasetPage:
    """The project's datasets, by id."""
    found = service.store.datasets.page(caller.project, limit=limit, cursor=cursor)
    return schemas.DatasetPage(items=[schemas.DatasetOut.of(d) for d in found.items], cursor=found.cursor)


@router.get("/datasets/{dataset_id}", operation_id="get_dataset", **opens("read", 404))
def get(dataset_id: DatasetId, caller: CallerArg, service: ServiceArg) -> schemas.DatasetOut:
    """What is known of a dataset. Its bytes are for runners only."""
    return schemas.DatasetOut.of(service.store.datasets.get(caller.project, dataset_id))


@router.delete(
    "/datasets/{dataset_id}", status_code=204, operation_id="delete_dataset", **opens("manage", 404)
)
def delete(dataset_id: DatasetId, caller: CallerArg, service: ServiceArg) -> None:
    """Forgets a dataset. Jobs that name it and have not fetched it yet will fail."""
    remove(caller.project, dataset_id, service.store, service.places)
