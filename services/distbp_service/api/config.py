"""The settings of an installation's API."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from distbp.core import settings
from distbp.core.errors import SettingsError
from distbp_service.store import Store
from distbp_service.store.disk import DiskQuota

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Limits:
    """The limits of the API. Sizes are in bytes, times in seconds. Rates of requests are per token."""

    small_bytes: int = 2**16
    job_bytes: int = 2**20
    predict_bytes: int = 16 * 2**20
    report_bytes: int = 8 * 2**20
    dataset_bytes: int = 4 * 2**30
    head_bytes: int = 2**15  # of the address and the headers of a request
    head_s: float = 10.0  # the longest wait for a request or its headers
    unread_s: float = 30.0  # the longest time in which a client reads nothing of its answer
    body_idle_s: float = 10.0  # the longest wait between two pieces of a body
    body_bytes_per_s: int = 1024  # the lowest rate of a body, after its first `body_idle_s`
    bodies_at_once: int = 128  # bodies that are being received
    bodies_of_project: int = 64
    connections: int = 4096  # fewer if this process may open fewer files
    requests_per_s: float = 200.0
    requests_burst: int = 1000
    failures_per_s: float = 0.5  # wrong tokens from each address
    failures_burst: int = 50
    work_at_once: int = 24  # requests in work; the others wait in line
    work_of_project: int = 8
    checks_at_once: int = 2  # checks of jobs, and predictions
    checks_of_project: int = 1
    waiting_of_project: int = 100  # requests that wait in one of these lines
    streams: int = 1024
    streams_per_token: int = 256
    waiting_jobs: int = 100_000  # of a project that have not ended
    deadline_s: float = 30 * 86400.0  # of a job that is submitted without a deadline
    datasets: int = 1000  # of a project; at most 1000
    disk: DiskQuota = field(default_factory=lambda: DiskQuota(64 * 2**30, 64 * 2**30))
    tokens: int = 1000  # of a project that have not been revoked
    uploads_at_once: int = 8
    uploads_of_project: int = 4
    predict_rows: int = 10_000
    predict_values: int = 1_000_000  # of one answer
    predict_numbers: int = 2**25  # in the padded rows of one request
    predict_model_bytes: int = 2 * 2**30
    models_kept: int = 4  # in memory, for more predictions

    def body(self, kind: str) -> int:
        """The most bytes of a body of this kind ("small", "job", "predict", "report", "dataset")."""
        most: int = getattr(self, f"{kind}_bytes")
        return most


@dataclass(frozen=True)
class ApiConfig:
    """`work`: the volume shared with runners (see `places`). `data_folder`: the folder of the files that jobs
    may name; None: jobs use uploaded datasets only. `hosts`: the names allowed in the Host header, without
    ports. `origins`: other origins whose pages may call, such as `https://example.org`. `dashboard`: its
    folder; None: not served. `lease_s`: of a runner. `heartbeat_s`: the longest silence of a stream.
    `poll_s`: between two looks at the store for streams. `dispatcher_late_s`: the service is not ready if the
    dispatcher's last sign of life is older. `metrics_open`: /metrics (totals only) needs no token.
    """

    work: Path
    data_folder: Path | None = None
    hosts: tuple[str, ...] = LOOPBACK_NAMES
    origins: tuple[str, ...] = ()
    dashboard: Path | None = None
    limits: Limits = field(default_factory=Limits)
    lease_s: float = 30.0
    heartbeat_s: float = 15.0
    poll_s: float = 0.25
    dispatcher_late_s: float = 30.0
    metrics_open: bool = True


def config_from_settings(work: Path) -> ApiConfig:
    """The configuration from the variables DISTBP_SERVICE_..., with this package's dashboard. Raises
    SettingsError."""
    folder = settings.get("DISTBP_SERVICE_DATA")
    if folder and not Path(folder).is_dir():
        raise SettingsError(f"DISTBP_SERVICE_DATA={folder} is not a folder. Make it, or unset the variable.")
    dashboard = Path(__file__).parent.parent / "dashboard"
    return ApiConfig(
        work,
        data_folder=Path(folder) if folder else None,
        hosts=(
            *LOOPBACK_NAMES,
            *_listed("DISTBP_SERVICE_HOSTS", _is_host, "hosts without ports or patterns, as api.example.org"),
        ),
        origins=_listed(
            "DISTBP_SERVICE_ORIGINS", _is_origin, "origins without a path, as https://example.org"
        ),
        dashboard=dashboard if (dashboard / "index.html").is_file() else None,
        limits=Limits(
            dataset_bytes=settings.get("DISTBP_SERVICE_DATASET_BYTES"),
            disk=DiskQuota(
                settings.get("DISTBP_SERVICE_PROJECT_BYTES"), settings.get("DISTBP_SERVICE_JOB_BYTES")
            ),
            requests_per_s=float(settings.get("DISTBP_SERVICE_REQUESTS_PER_S")),
            waiting_jobs=settings.get("DISTBP_SERVICE_WAITING_JOBS"),
            deadline_s=float(settings.get("DISTBP_SERVICE_DEADLINE_S")),
            uploads_of_project=settings.get("DISTBP_SERVICE_PROJECT_UPLOADS"),
        ),
        metrics_open=settings.get("DISTBP_SERVICE_METRICS") == "open",
    )


def _listed(name: str, fits: Callable[[str], bool], what: str) -> tuple[str, ...]:
    """The entries of a setting. Raises SettingsError for an entry that no request can ever match."""
    found = tuple(part.strip() for part in settings.get(name).split(",") if part.strip())
    for one in found:
        if not fits(one.lower()):
            raise SettingsError(
                f"{name} has {one!r}, but takes {what}, with commas between. Mend or unset it."
            )
    return found


def _is_host(text: str) -> bool:
    """Whether `text` is a host as `guard` compares it: without a port, and not a pattern."""
    return host_name(text) == text and "*" not in text


def _is_origin(text: str) -> bool:
    scheme, _, place = text.partition("://")
    return scheme in ("http", "https") and host_name(place) != "" and "*" not in place


def host_name(host: str) -> str:
    """The host in a Host header, without its port; "" if the header is invalid."""
    try:
        found = urlsplit(f"//{host}")
        name = found.hostname or ""
        _ = found.port
    except ValueError:
        return ""
    if found.path or found.query or found.fragment or "@" in host:
        return ""
    return f"[{name}]" if ":" in name else name


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address. Of names only localhost is trusted."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def check_protected(address: str, store: Store) -> None:
    """Raises SettingsError if other machines can reach `address` and no valid token exists."""
    if not is_loopback(address) and not store.tokens.any():
        raise SettingsError(
            f"refusing to listen on {address}: other machines reach it, and there is no token yet. Create one"
            " with 'distbp token create', or listen on 127.0.0.1"
        )
