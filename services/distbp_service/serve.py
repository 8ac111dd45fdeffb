"""The service in one process, or its parts: the API with the dashboard, and the dispatcher.

    serve(Plan(...), say=print)         until SIGINT or SIGTERM

Runners are processes of their own. At the end they are asked to leave checkpoints; their jobs go on when the
service is started again. In the folder (`ServePlan.home`):

    distbp.db     the SQLite database, unless another database is named
    token         the first token, made at the first start; mode 0600
    work/         shared with runners (see `api.places`)
"""

from __future__ import annotations

import errno
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal, cast

import httpx
import uvicorn
from sqlalchemy.exc import SQLAlchemyError
from uvicorn.protocols.http.h11_impl import H11Protocol

from distbp.client.settings_file import check_url
from distbp.core import settings
from distbp.core.errors import SettingsError
from distbp.data import addresses
from distbp.engine.memory_need import total_bytes
from distbp_service.api import check_protected, config_from_settings, create_app
from distbp_service.api.connections import Connections, allowed_connections
from distbp_service.dispatcher import Dispatcher
from distbp_service.dispatcher import Limits as DispatcherLimits
from distbp_service.errors import StoreError
from distbp_service.first_token import ensure_token
from distbp_service.folders import make_folders, only_dispatcher
from distbp_service.launchers import Launcher, LocalProcess, RayJobs
from distbp_service.store import Store

log = logging.getLogger("distbp.serve")
ServicePart = Literal["api", "dispatcher"]
_STREAMS_END_S = 2  # at the end, open streams are cut after this time; their clients connect again later
_RUNNERS_END_S = 60.0  # the most time to wait for runners at the end
_LOOK_S = 0.1
_WAITING = 2048  # the most connections that wait to be accepted
_ACCEPTED_AT_ONCE = 64  # the most connections that are accepted before any is examined; each is an open file


@dataclass(frozen=True)
class ServePlan:
    """What to start, and where.

    port: 0 for any free port. work: None for `home / "work"`. database: a URL; "": SQLite in `home`. files:
    the folder with files that jobs may name; None: jobs may not name files. api_url: the address at which
    runners reach the API; "": on this machine. ray: the address of Ray's dashboard, for the launcher
    "ray-jobs". slots: the most workers that run at the same time, over all jobs.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 8470
    work: Path | None = None
    database: str = ""
    files: Path | None = None
    api_url: str = ""
    launcher: Literal["local", "ray-jobs"] = "local"
    ray: str = ""
    slots: int = 1
    parts: frozenset[ServicePart] = field(default_factory=lambda: frozenset({"api", "dispatcher"}))

    @property
    def work_folder(self) -> Path:
        return self.work if self.work is not None else self.home / "work"

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.home.absolute() / 'distbp.db'}"


@dataclass(frozen=True)
class Serving:
    """The facts about a started service. `url`, `token`: of the API; None without the API. `link`: the
    address of the dashboard that signs in, once."""

    plan: ServePlan
    url: str | None
    token: str | None
    link: str | None = None


class Stop:
    """Counts SIGINT and SIGTERM in a plain number, which is polled. A handler that took a lock, such as that
    of an Event, might wait forever for the thread that it interrupts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    @property
    def asked(self) -> bool:
        return self.count > 0

    @property
    def hurry(self) -> bool:
        return self.count > 1


def serve(
    plan: ServePlan,
    ready: Callable[[Serving], None] = lambda serving: None,
    say: Callable[[str], None] = print,
) -> None:
    """Runs the parts until SIGINT or SIGTERM, then stops them: the dispatcher first, then runners (each
    leaves a checkpoint), then the API, which receives their reports. Call it in the main thread; it waits.

    ready: called once, when all parts have started. say: called with texts for a person. Raises SettingsError
    if the service cannot start, and StoreError.
    """
    stop = Stop()
    _check(plan)
    with _signals(stop), ExitStack() as stack:
        if "dispatcher" in plan.parts:
            make_folders(plan.home, plan.work_folder)
            stack.enter_context(only_dispatcher(plan.work_folder))
        store = stack.enter_context(opened(plan))
        port = stack.enter_context(_listen(plan)) if "api" in plan.parts else None
        token = None
        api: Api | None = None
        if port is not None:
            plan = replace(plan, port=port.getsockname()[1])
            try:
                token = ensure_token(store, plan.home)
            except StoreError as error:
                raise SettingsError(str(error)) from None
            check_protected(plan.host, store)
            api = Api(plan, store, port)
        dispatcher = Dispatching(plan, store, api) if "dispatcher" in plan.parts else None
        try:
            for part in (api, dispatcher):
                if part is not None:
                    part.start()
            url = None if api is None else _url(plan)
            link = None if api is None or token is None else f"{url}/#link={api.link(token)}"
            ready(Serving(plan, url, token, link))
            while not stop.asked:
                time.sleep(_LOOK_S)
                for part in (api, dispatcher):
                    if part is not None and not part.thread.is_alive():
                        raise StoreError(f"the {part.name} ended unexpectedly; its log has the reason")
        finally:
            if dispatcher is not None:
                dispatcher.stop(stop, say)
            if api is not None:
                api.stop()


class Api:
    """The API under uvicorn, in a thread."""

    name = "API"

    def __init__(self, plan: ServePlan, store: Store, port: socket.socket) -> None:
        config = config_from_settings(plan.work_folder)
        most = allowed_connections(config.limits.connections)
        config = replace(
            config,
            limits=replace(config.limits, streams=min(config.limits.streams, most // 2)),
            data_folder=plan.files,
            hosts=config.hosts if _any_address(plan.host) else (*config.hosts, _in_url(plan.host)),
        )
        self._app = app = create_app(store, config)
        connections = Connections(H11Protocol, most, config.limits)
        self._port = port
        self.server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                http=cast(Any, connections.protocol),
                backlog=_ACCEPTED_AT_ONCE,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_STREAMS_END_S,
            )
        )
        self.thread = threading.Thread(target=self._run, name="api", daemon=True)

    def start(self) -> None:
        self.thread.start()
        while not self.server.started and self.thread.is_alive():
            time.sleep(0.01)
        self._port.listen(_WAITING)  # asyncio has set the backlog to what it accepts at once

    def link(self, token: str) -> str:
        code: str = self._app.state.service.links.make(token)
        return code

    def stop(self) -> None:
        self._app.state.service.hub.end()  # ends streams, which uvicorn would cut with a traceback for each
        self.server.should_exit = True
        self.thread.join()

    def _run(self) -> None:
        self.server.run(sockets=[self._port])


class Dispatching:
    """The dispatcher, in a thread."""

    name = "dispatcher"

    def __init__(self, plan: ServePlan, store: Store, api: Api | None) -> None:
        alive = plan.work_folder / "dispatcher.alive"
        url = plan.api_url or _url(replace(plan, host="127.0.0.1") if _any_address(plan.host) else plan)
        self._dispatcher = Dispatcher(
            store,
            _launcher(plan),
            url,
            DispatcherLimits(
                slots=plan.slots,
                project_slots=settings.get("DISTBP_SERVICE_PROJECT_SLOTS"),
                project_jobs=settings.get("DISTBP_SERVICE_PROJECT_JOBS"),
                memory_bytes=total_bytes() if plan.launcher == "local" else None,
            ),
            api_answers=(lambda: api.server.started) if api is not None else _probe(url),
            sign=alive.touch,
        )
        self._dispatcher.announce()
        self._store = store
        self._runners_are_here = plan.launcher == "local"
        self.thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self, stop: Stop, say: Callable[[str], None]) -> None:
        """Ends the dispatcher. Then asks the runners of this machine to leave checkpoints, and waits for
        them. Runners on a Ray cluster go on."""
        self._dispatcher.stop()
        self.thread.join()
        if not self._runners_are_here:
            return
        with suppress(SQLAlchemyError):
            count = self._dispatcher.stop_runners()
            if count:
                say(f"{count} job{'s' if count > 1 else ''}: waiting for the checkpoint")
            deadline = time.monotonic() + _RUNNERS_END_S
            while count and not stop.hurry and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
                count = len(self._store.queue.working())
            if count:
                say(f"{count} not waited for; what they still report is taken at the next start")

    def _run(self) -> None:
        try:
            self._dispatcher.run()
        except Exception:
            log.exception("an unexpected error")


def _launcher(plan: ServePlan) -> Launcher:
    if plan.launcher == "local":
        return LocalProcess(plan.work_folder, data=plan.files)
    if not plan.ray:
        raise SettingsError(
            "the launcher ray-jobs needs the address of Ray's dashboard: give --ray http://head:8265, or set"
            " DISTBP_SERVICE_RAY"
        )
    return RayJobs(RayJobs.connect(plan.ray), plan.work_folder.absolute(), data=plan.files)


def _probe(url: str) -> Callable[[], bool]:
    client = httpx.Client(base_url=url, timeout=2.0, trust_env=False)

    def answers() -> bool:
        try:
            return client.get("/livez").status_code == 200
        except httpx.TransportError:
            return False

    return answers


def _check(plan: ServePlan) -> None:
    """Raises SettingsError for settings that would otherwise only make jobs fail later."""
    for url, given in (
        (plan.api_url, "--api-url (DISTBP_SERVICE_API)"),
        (plan.ray, "--ray (DISTBP_SERVICE_RAY)"),
    ):
        if url:
            check_url(url, given)
    addresses.check_settings()


@contextmanager
def opened(plan: ServePlan) -> Iterator[Store]:
    """Yields the store of a plan. Makes the folders. Raises SettingsError."""
    make_folders(plan.home, plan.work_folder)
    try:
        store = Store(plan.database_url)
    except SQLAlchemyError as error:
        # SQLAlchemy's text may hold the password; the driver's does not.
        reason = str(getattr(error, "orig", "") or type(error).__name__).strip().splitlines()[0]
        if plan.database_url.startswith("sqlite"):
            name = plan.database_url.partition(":///")[2]
            hint = f"Is {name} whole, and used by nothing else? If not, put it back from a backup"
        else:
            hint = "Is its server up, and --database right?"
        raise SettingsError(f"the database cannot be opened: {reason}. {hint}") from None
    except StoreError as error:
        raise SettingsError(str(error)) from None
    try:
        yield store
    finally:
        store.close()


def _listen(plan: ServePlan) -> socket.socket:
    """A listening socket. Raises SettingsError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            plan.host.strip("[]"), plan.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror:
        raise SettingsError(
            f"{plan.host!r} is not an address of this machine; try --host 127.0.0.1, or 0.0.0.0 for all"
        ) from None
    port = socket.socket(family, kind, protocol)
    try:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind(address)
        port.listen(_WAITING)
    except OSError as error:
        port.close()
        raise SettingsError(_why_not(plan, error)) from None
    port.set_inheritable(False)
    return port


def _why_not(plan: ServePlan, error: OSError) -> str:
    place = f"{plan.host}:{plan.port}"
    if isinstance(error, PermissionError):
        return f"{place} may not be used by this user; choose a port above 1023 with --port"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{place} is in use already, perhaps by another `distbp serve`; stop that one, or choose another"
            " port with --port"
        )
    return f"cannot listen on {place}: {(error.strerror or str(error)).lower()}; choose another with --host"


def _any_address(host: str) -> bool:
    return host in ("", "0.0.0.0", "::", "[::]")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _url(plan: ServePlan) -> str:
    host = "127.0.0.1" if _any_address(plan.host) else _in_url(plan.host)
    return f"http://{host}:{plan.port}"


@contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
