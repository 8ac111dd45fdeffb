"""What every route has at hand: one for each app, nothing global."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from services.api.config import ApiConfig
from services.api.hub import Hub
from services.api.limits import Buckets, Slots
from services.api.places import Places
from services.api.prediction import Predictions
from services.api.telemetry import Telemetry
from services.store import Store


@dataclass(frozen=True)
class Service:
    """`dispatcher_seen`: when the dispatcher last gave a sign, in seconds since 1970; None: never."""

    store: Store
    config: ApiConfig
    places: Places
    hub: Hub
    buckets: Buckets
    streams: Slots
    uploads: Slots
    predictions: Predictions
    telemetry: Telemetry
    dispatcher_seen: Callable[[], float | None]


def make_service(
    store: Store,
    config: ApiConfig,
    *,
    dispatcher_seen: Callable[[], float | None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Service:
    limits = config.limits
    places = Places(config.work)
    return Service(
        store=store,
        config=config,
        places=places,
        hub=Hub(store, config.poll_s),
        buckets=Buckets(limits.requests_per_s, limits.requests_burst, clock),
        streams=Slots(limits.streams, limits.streams_per_token),
        uploads=Slots(limits.uploads_at_once, limits.uploads_of_project, "uploads"),
        predictions=Predictions(places, limits),
        telemetry=Telemetry(store),
        dispatcher_seen=dispatcher_seen or places.dispatcher_seen,
    )
