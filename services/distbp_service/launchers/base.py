"""The contract of launchers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from distbp_service.errors import ServiceError

Handle = Mapping[str, Any]


class LaunchError(ServiceError):
    """A runner could not be started, or nobody can say how it is."""

    code = "launch"
    status = 503


@dataclass(frozen=True)
class Start:
    """What to start. `secret`: a token or a claim code, as the launcher's `wants` says."""

    job_id: str
    attempt: int
    api_url: str
    secret: str


class ClusterAwayError(LaunchError):
    """What would start it does not answer; it may be back later. `code` is also the class of the failure."""

    code = "away"


class Launcher(Protocol):
    """`wants`: the secret it hands on. "token": nobody else can see it. "claim": others may, so it is a code
    that works once, and for minutes.

    Every call but `handle` may raise LaunchError: it is not known what happened.
    """

    wants: ClassVar[Literal["token", "claim"]]

    def handle(self, job_id: str, attempt: int) -> Handle:
        """By which this runner is known; plain values that JSON holds."""

    def start(self, start: Start) -> Handle:
        """Starts a runner. Where this attempt was started before, that one stays the only one."""

    def alive(self, handle: Handle) -> bool:
        """Whether it runs, or waits to."""

    def last_words(self, handle: Handle) -> str:
        """The last line that a runner wrote, for one that has ended; "" where nobody knows. (How an attempt
        went, it reports. This is for one that could not, since it did not even start.)"""

    def stop(self, handle: Handle) -> None:
        """Asks it to leave a checkpoint and end; does not wait. Fine where it is gone."""

    def kill(self, handle: Handle) -> None:
        """Ends it, and waits until it is gone. Fine where it is gone."""


def last_line(log: str, most: int = 300) -> str:
    """The last line of a log that says something, without control characters, and files by their names only:
    where they lie on that machine is not for everybody."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    plain = "".join(c for c in lines[-1] if c.isprintable()) if lines else ""
    return re.sub(r"(?<![\w.:/])/(?:[^\s/'\":]+/)+", "", plain)[:most]
