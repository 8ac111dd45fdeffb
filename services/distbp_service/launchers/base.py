"""The contract of launchers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from distbp_service.errors import ServiceError

Handle = Mapping[str, Any]


class LaunchError(ServiceError):
    """A runner could not be started, or its state is not known."""

    code = "launch"
    status = 503


@dataclass(frozen=True)
class Start:
    """The arguments of a runner. `secret`: a token or a claim code, as the launcher's `wants` says."""

    job_id: str
    attempt: int
    api_url: str
    secret: str


class ClusterAwayError(LaunchError):
    """The cluster that would start the runner does not answer, perhaps for a while. `code` is also the class
    of the failure."""

    code = "away"


class Launcher(Protocol):
    """`wants`: the kind of secret that it passes on. "token": no other user can see it. "claim": other users
    may see it, so it is a code that works once, and only for minutes.

    Every call but `handle` may raise LaunchError; its effect is then not known.
    """

    wants: ClassVar[Literal["token", "claim"]]

    def handle(self, job_id: str, attempt: int) -> Handle:
        """The handle of a runner: plain values for JSON."""

    def start(self, start: Start) -> Handle:
        """Starts a runner, unless this attempt has been started before. Does not wait until it has begun."""

    def alive(self, handle: Handle) -> bool:
        """Whether the runner runs, or waits to be started."""

    def last_words(self, handle: Handle) -> str:
        """The last line that an ended runner wrote; "" if it is not known. It tells why a runner ended that
        could not report, for example because it failed to start."""

    def stop(self, handle: Handle) -> None:
        """Asks the runner to leave a checkpoint and end; does not wait. Does nothing if it has ended."""

    def kill(self, handle: Handle) -> None:
        """Kills the runner, and waits until it is gone. Does nothing if it has ended."""


def last_line(log: str, most: int = 300) -> str:
    """The last line of a log that is not blank, without control characters. Paths are shortened to the names
    of files, because users may not see the folders of the runner's machine."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    plain = "".join(c for c in lines[-1] if c.isprintable()) if lines else ""
    return re.sub(r"(?<![\w.:/])/(?:[^\s/'\":]+/)+", "", plain)[:most]
