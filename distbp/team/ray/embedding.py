"""Keeps an embedded Ray small: it starts only the processes that actors need, on this machine only.

By default `ray.init` starts a monitor that scales clusters, a monitor that sends logs to drivers, and the
server of a dashboard, for which it waits. Each node also waits for its agent, which loads the code of the
dashboard if it is installed. All this takes more processor time than the rest of the start.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

# The Python programs that a node of Ray starts, below Ray's folder. A node ends without the last two, its
# agents.
_PROGRAMS = ("_private/workers/default_worker.py", "dashboard/agent.py", "_private/runtime_env/agent/main.py")


def _nothing(*arguments: Any, **options: Any) -> None:
    """Replaces a method of Ray's that starts a process."""


def _without_dashboard() -> ImportError:
    """Replaces Ray's check for the packages of its dashboard."""
    return ImportError("an embedded Ray has no dashboard")


_EMBEDDED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "ray_constants": {"ENABLE_RAY_CLUSTER": False},
        "utils": {"get_dashboard_dependency_error": _without_dashboard},
        "node.Node": dict.fromkeys(("start_monitor", "start_log_monitor", "start_api_server"), _nothing),
    }
)


@contextmanager
def keeps_signals() -> Iterator[None]:
    """Within this block, a driver that connects keeps SIGTERM. By default Ray's C++ side takes it from this
    process and aborts it."""
    with _replaced("ray_constants", {"RAY_DISABLE_FAILURE_SIGNAL_HANDLER": True}):
        yield


@contextmanager
def embedded() -> Iterator[None]:
    """Within this block, `ray.init` starts a Ray with nothing but what actors need. Its processes listen on
    this machine; by default they listen on every address."""
    with ExitStack() as stack:
        for place, values in _EMBEDDED.items():
            stack.enter_context(_replaced(place, values))
        services = importlib.import_module("ray._private.services")
        start = services.start_ray_process
        stack.enter_context(_replaced("services", {"start_ray_process": _starting_lean(start)}))
        yield


def _starting_lean(start: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps `start`, which starts a process of Ray's from a command. The wrapped function changes the command
    so that the Python programs named in it run under `lean_ray.py`."""
    lean, ray = Path(__file__).with_name("lean_ray.py"), Path(importlib.import_module("ray").__file__ or "")
    if " " in str(lean):  # the commands would need quotes
        return start
    leaner = {f" {ray.parent / program} ": f" {lean} {ray.parent / program} " for program in _PROGRAMS}

    def start_lean(command: list[str], *arguments: Any, **options: Any) -> Any:
        for program, instead in leaner.items():
            command = [word.replace(program, instead) for word in command]
        return start(command, *arguments, **options)

    return start_lean


@contextmanager
def _replaced(place: str, values: Mapping[str, Any]) -> Iterator[None]:
    """Sets names of a module of Ray's, or of a class in it, within this block. Names that this version of Ray
    does not have are left out; Ray then starts more processes than needed."""
    module, _, name = place.partition(".")
    target: Any = importlib.import_module(f"ray._private.{module}")
    target = getattr(target, name) if name else target
    before = {name: getattr(target, name) for name in values if hasattr(target, name)}
    try:
        for name in before:
            setattr(target, name, values[name])
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)
