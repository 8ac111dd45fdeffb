"""What this project needs, one requirement a line: python requirements.py PYPROJECT [--lowest] [EXTRA...]

To be built and to run, with the extras named and those that they name in turn. So an image can hold all that
before it has the code, and keep it while only the code changes. With --lowest: each at its lower bound.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> Iterator[str]:
    content = tomllib.loads(pyproject.read_text("utf-8"))
    project = content["project"]
    own = re.compile(rf"{re.escape(project['name'])}\[([\w, -]+)\]")
    yield from content["build-system"]["requires"]
    yield from project["dependencies"]
    waiting, seen = list(extras), set()
    while waiting:
        extra = waiting.pop(0)
        if extra in seen:
            continue
        seen.add(extra)
        for text in project["optional-dependencies"][extra]:
            inner = own.match(text)
            if inner:
                waiting += [name.strip() for name in inner[1].split(",")]
            else:
                yield text


if __name__ == "__main__":
    pyproject, *words = sys.argv[1:]
    found = dict.fromkeys(requirements(Path(pyproject), [word for word in words if word != "--lowest"]))
    print(*(line.replace(">=", "==") if "--lowest" in words else line for line in found), sep="\n")
