"""HTTP requests to a service: repeats them while the service is away, and turns refusals into errors."""

from __future__ import annotations

import random
import re
import socket
import ssl
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from distbp.client import arguments as given
from distbp.client.settings_file import Access, find_access
from distbp.core.errors import Fault, JobError, RemoteError, UnreachableError
from distbp.core.imports import missing

if TYPE_CHECKING:
    import httpx

PATIENCE_S = 60.0
CONNECT_S, ANSWER_S = 5.0, 60.0
_AGAIN = frozenset({408, 425, 429, 502, 503, 504})
_PAUSE_FIRST_S, _PAUSE_MOST_S = 0.1, 2.0
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,2000}")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Transport:
    """Requests to one service, with one token. May be used from several threads.

    patience_s: seconds for which a service that has answered before may be away. A service that has never
    answered raises UnreachableError at once. clock: returns seconds. sleep: waits for seconds.
    """

    def __init__(
        self,
        access: Access,
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._httpx = _library()
        self.access = access
        self.patience_s = patience_s
        self.clock, self.sleep = clock, sleep
        self.met = False
        headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
        self._client = self._httpx.Client(
            base_url=access.url,
            headers=headers,
            timeout=self._httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            trust_env=urlsplit(access.url).hostname not in _LOOPBACK,  # no proxy for this machine
        )

        # Connections are closed when this object is deleted, at the latest.
        self.close = weakref.finalize(self, self._client.close)

    def call(self, method: str, path: str, *, repeatable: bool = True, **more: Any) -> Any:
        """Sends a request, waits, and returns the JSON of the answer; None: the answer is empty. more: the
        options of `send` and of httpx.

        repeatable: whether a second request does no harm; then it is sent again if an answer was lost. Raises
        JobError, RemoteError, UnreachableError.
        """
        answer = self.send(method, path, repeatable=repeatable, **more)
        if answer.status_code == 204 or not answer.content:
            return None
        try:
            return answer.json()
        except ValueError:
            raise self._stranger(answer.status_code) from None

    def send(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool = True,
        body: Callable[[], Iterable[bytes]] | None = None,
        answer_s: float | None = None,
        accepted: tuple[int, ...] = (),
        **more: Any,
    ) -> httpx.Response:
        """Does what `call` does, and returns the whole answer. body: returns the pieces of the body; called
        for each try. answer_s: the most seconds without an answer. accepted: statuses from 300 on that are
        not errors."""
        if answer_s is not None:
            more["timeout"] = self._httpx.Timeout(answer_s, connect=CONNECT_S)
        patience = Patience(self)
        while True:
            if body is not None:
                more["content"] = body()
            try:
                answer: httpx.Response = self._client.request(method, path, **more)
            except self._httpx.TransportError as error:
                if not (self.met and (repeatable or isinstance(error, self._httpx.ConnectError))):
                    raise self._away(error) from None
                patience.wait(self._away(error))
                continue
            self.met = True
            if answer.status_code < 300 or answer.status_code in accepted:
                return answer
            failure = self.refusal(answer)
            if answer.status_code not in _AGAIN or not repeatable:
                raise failure
            patience.wait(failure, _retry_after(answer))

    @contextmanager
    def open(self, path: str, **more: Any) -> Iterator[httpx.Response]:
        """Sends a GET request and yields the answer, which the block reads as it arrives. Raises RemoteError
        if the service refuses, and UnreachableError if the connection breaks, at any time within the
        block."""
        try:
            with self._client.stream("GET", path, **more) as answer:
                self.met = True
                if answer.status_code >= 300:
                    answer.read()
                    raise self.refusal(answer)
                yield answer
        except self._httpx.TransportError as error:
            raise self._away(error) from None

    def timeout(self, silence_s: float) -> Any:
        """The `timeout` of `open`. silence_s: the most seconds without data."""
        return self._httpx.Timeout(silence_s, connect=CONNECT_S)

    def refusal(self, answer: httpx.Response) -> JobError | RemoteError:
        try:
            problem: Any = answer.json()
            code, message = str(problem["code"]), str(problem["message"])
        except (ValueError, KeyError, TypeError):
            return self._stranger(answer.status_code)
        if code == "invalid_job":
            faults = [Fault(str(f["path"]), str(f["message"])) for f in problem.get("faults") or ()]
            return JobError(faults)
        if code == "unauthorized":
            if self.access.token:
                message += ". Set DISTBP_TOKEN to one that does (`distbp token create` makes them)"
            else:
                message = f"the service at {self.access.url} wants a token: set DISTBP_TOKEN"
        return RemoteError(message, code=code, status=answer.status_code, param=problem.get("param"))

    def _stranger(self, status: int) -> RemoteError:
        return RemoteError(
            f"what answers at {self.access.url} is not a distbp service (HTTP status {status}); check"
            " DISTBP_URL",
            status=status,
        )

    def _away(self, error: Exception) -> UnreachableError:
        url = self.access.url
        if isinstance(error, self._httpx.ConnectError | self._httpx.ConnectTimeout):
            return UnreachableError(_unconnected(url, error))
        what = "did not answer in time" if isinstance(error, self._httpx.TimeoutException) else "hung up"
        return UnreachableError(f"the service at {url} {what}; try again")


class Patience:
    """Waits between tries, up to 2 s and longer each time, until the transport's `patience_s` have passed
    without success."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._since: float | None = None
        self._pause = _PAUSE_FIRST_S

    def wait(self, failure: Exception, at_least_s: float = 0.0) -> None:
        """Waits before the next try, or raises `failure` if `patience_s` have passed since the first
        failure."""
        now = self._transport.clock()
        if self._since is None:
            self._since = now
        if now - self._since >= self._transport.patience_s:
            raise failure from None
        self._transport.sleep(max(at_least_s, self._pause * (0.5 + random.random() / 2)))
        self._pause = min(2 * self._pause, _PAUSE_MOST_S)

    def renew(self) -> None:
        """Starts anew after a success."""
        self._since, self._pause = None, _PAUSE_FIRST_S


def connect(url: str | None, token: str | None, patience_s: float | None) -> Transport:
    """The transport to a service; see `distbp.connect` and `find_access`. Sends no request. Raises
    UnreachableError, SettingsError, RemoteError."""
    if url is not None:
        given.text("url", url, _PRINTABLE, "an address, as http://host:8470")
    if token is not None:
        given.text("token", token, given.KEY, "the text of a token, as dbp_...")
    if patience_s is not None:
        patience_s = given.seconds("patience_s", patience_s, zero=True)
    access = find_access(url, token)
    if access is None:
        raise UnreachableError(
            "no service found: start one with `distbp serve`, or set DISTBP_URL (and DISTBP_TOKEN) to one"
            " that runs"
        )
    return Transport(access, patience_s=PATIENCE_S if patience_s is None else patience_s)


def _unconnected(url: str, error: BaseException) -> str:
    """The message for a person: why there is no connection, and what to do. error: of httpx; its causes tell
    the reason."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError | socket.gaierror):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {url} is not trusted here ({cause.verify_message}). Where your own authority"
            " has signed it, set SSL_CERT_FILE to the file with that one's certificate"
        )
    if isinstance(cause, ssl.SSLError):
        return (
            f"what answers at {url} does not speak TLS ({cause.reason}); set DISTBP_URL to http://... there"
        )
    if isinstance(cause, socket.gaierror):
        return f"the name of the host in {url} is not known here; set DISTBP_URL to where the service is"
    return f"no service answers at {url}. Start one with `distbp serve`, or set DISTBP_URL to where one is"


def _retry_after(answer: httpx.Response) -> float:
    text = answer.headers.get("retry-after", "")
    return min(float(text), 60.0) if text.isdecimal() else 0.0


def _library() -> Any:
    try:
        import httpx
    except ImportError:
        raise UnreachableError(missing("talking to a service", "httpx", "distbp[client]")) from None
    return httpx


def fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not None, by name."""
    return {name: value for name, value in values.items() if value is not None}
