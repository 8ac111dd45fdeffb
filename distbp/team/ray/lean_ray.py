"""Runs a program of Ray's, with faster imports: `python lean_ray.py PROGRAM ARGUMENTS`.

Ray imports packages for cloud machines and for environments of tasks, which an embedded Ray does not need.
Here each package is loaded when it is first used. Before its first answer, a worker of Ray's also imports
pydantic, Starlette and pyarrow to register serializers for their objects; our actors send no such objects.
And the garbage collector frees nothing while Ray is imported. All this is almost half of the processor time
in which a process of Ray's starts, before it loads any of our code.

Only embedded Rays use this file. It imports nothing of distbp, because a worker learns the import path only
after it has started.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import runpy
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

_SELDOM_USED = ("jsonschema", "requests")


class _Later(ModuleType):
    """Stands for a module until one of its names is used. (Python's `LazyLoader` would load the module at its
    second import.)"""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def load_when_used(name: str) -> None:
    """Replaces a module by a `_Later`. Does nothing if the module is loaded already or is not installed."""
    spec = importlib.util.find_spec(name)
    if name not in sys.modules and spec is not None:
        later = sys.modules[name] = _Later(name)
        later.__file__ = spec.origin  # code that finds a module by its file must not load this one


def main() -> None:
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)  # as Python sets it when it runs the program
    for name in _SELDOM_USED:
        load_when_used(name)
    gc.disable()
    with suppress(ImportError, AttributeError):  # another version of Ray may not have it
        addons = importlib.import_module("ray.util.serialization_addons")
        setattr(addons, "apply", lambda context: None)  # noqa: B010 - a name of Ray's own
    gc.enable()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
