"""Runs a program of Ray's, with faster imports: `python lean_ray.py PROGRAM ARGUMENTS`.

Ray imports packages that it uses for cloud machines and for environments of tasks, none of which an embedded
Ray has. Here each is loaded when it is first used. Before its first answer a worker imports pydantic,
Starlette and pyarrow, to pack objects of theirs in a way of its own; no actor of ours sends any. The garbage
collector finds nothing while Ray is imported. All that takes almost half of the processor time in which a
process of Ray's starts, before it loads anything of ours.

For processes of our own only. This file imports nothing of distbp: Ray tells a worker where that lies once it
has started.
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
    """Stands for a module until one of its names is asked for. (The lazy loader of Python loads it at the
    second import.)"""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def load_when_used(name: str) -> None:
    """A module that is missing stays so."""
    spec = importlib.util.find_spec(name)
    if name not in sys.modules and spec is not None:
        later = sys.modules[name] = _Later(name)
        later.__file__ = spec.origin  # who looks for a module by its file asks all of them


def main() -> None:
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)  # as Python has it for the program
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
