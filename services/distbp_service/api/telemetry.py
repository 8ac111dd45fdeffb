"""Counters for Prometheus, in a registry of the app. They name no project, job or token."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from distbp_service.store import Store

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Telemetry:
    """The counters of one app. Call `answered` once for every answer."""

    def __init__(self, store: Store) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "distbp_http_requests",
            "Answers of the API",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "distbp_http_request_seconds",
            "Time until an answer began",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.uploaded = Counter(
            "distbp_dataset_upload_bytes", "Bytes of datasets taken in", registry=self._registry
        )
        self._streams = Gauge(
            "distbp_streams", "Streams of server-sent events that are open", registry=self._registry
        )
        self._age = Gauge(
            "distbp_dispatcher_age_seconds",
            "Seconds since the dispatcher last gave a sign; NaN: never",
            registry=self._registry,
        )
        self._registry.register(_Jobs(store))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def observe(self, streams: Callable[[], int], age_s: Callable[[], float]) -> None:
        """Sets the functions that the gauges call at each scrape."""
        self._streams.set_function(streams)
        self._age.set_function(age_s)

    def text(self) -> bytes:
        """The page that Prometheus reads. It queries the store, so it waits."""
        return generate_latest(self._registry)


class _Jobs(Collector):
    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("distbp_jobs", "Jobs by state", labels=("state",))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = next(self.describe())
        for state, number in self._store.jobs.counts().items():
            family.add_metric((state,), number)
        yield family
