"""What this project needs, one requirement a line: python requirements.py PYPROJECT [EXTRA...]

To be built and to run, with the extras named and those that they name in turn. So an image can hold all that
before it has the code, and keep it while only the code changes.
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
    print(*dict.fromkeys(requirements(Path(sys.argv[1]), sys.argv[2:])), sep="\n")
