"""The objects that all routes share: one Service for each app, nothing global."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from distbp_service.api.config import ApiConfig
from distbp_service.api.hub import Hub
from distbp_service.api.limits import Buckets, Links, Slots, Turns
from distbp_service.api.places import Places
from distbp_service.api.prediction import Predictions
from distbp_service.api.telemetry import Telemetry
from distbp_service.store import Store


@dataclass(frozen=True)
class Service:
    """`buckets`: the rates of requests, by caller. `failures`: the rates of wrong tokens, by address.
    `streams`: the open streams, by caller. `uploads`, `bodies`: those being received, by project. `work`,
    `checks`: the requests in work, by project. `dispatcher_seen`: returns the time of the dispatcher's last
    sign of life, in seconds since 1970; None: never."""

    store: Store
    config: ApiConfig
    places: Places
    hub: Hub
    buckets: Buckets
    failures: Buckets
    links: Links
    streams: Slots
    uploads: Slots
    bodies: Slots
    work: Turns
    checks: Turns
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
        buckets=Buckets(
            limits.requests_per_s, limits.requests_burst, clock, "this token sends too many requests"
        ),
        failures=Buckets(
            limits.failures_per_s, limits.failures_burst, clock, "too many sign-ins failed from this address"
        ),
        links=Links(clock),
        streams=Slots(limits.streams, limits.streams_per_token, "streams are open"),
        uploads=Slots(limits.uploads_at_once, limits.uploads_of_project, "uploads are on their way"),
        bodies=Slots(limits.bodies_at_once, limits.bodies_of_project, "bodies are on their way"),
        work=Turns(limits.work_at_once, limits.work_of_project, limits.waiting_of_project),
        checks=Turns(limits.checks_at_once, limits.checks_of_project, limits.waiting_of_project),
        predictions=Predictions(places, limits),
        telemetry=Telemetry(store),
        dispatcher_seen=dispatcher_seen or places.dispatcher_seen,
    )
