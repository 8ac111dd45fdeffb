"""Programs of Python, each in a process of its own that begins with all imports done.

A fresh interpreter takes a second and more to load what a program that trains needs. Here one process loads
it and forks itself for each program. Run as a program, this file is that process; `Forks` starts it and asks
it. Tests whose promise is the start of an interpreter start one.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PATH = str(Path(__file__).resolve().parents[1])
# What programs that train load in the end, but for Ray.
_LOADED = (
    "distbp.run.train", "distbp.run.curves", "distbp.run.progress", "distbp.run.explain.step",
    "distbp.cli.errors", "distbp.model.predictor", "distbp.nn.run_compiled", "distbp.optim.compiled",
)  # fmt: skip


class Forks:
    """The process that forks, and what it is asked."""

    def __init__(self) -> None:
        """Waits until all is loaded."""
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__],
            env={**os.environ, "PYTHONPATH": _PATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def run(self, *words: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
        """`python *words`: -c and a text, -m and a module, or a script, with its arguments. `more`: of the
        environment. Waits."""
        said = [str(word) for word in words]
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            files = [f"/proc/{os.getpid()}/fd/{one.fileno()}" for one in (out, err)]
            asked = {
                "words": said,
                "cwd": str(cwd),
                "environment": {**os.environ, "PYTHONPATH": _PATH, **more},
                "files": files,
            }
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
            return subprocess.CompletedProcess(said, code, out.read(), err.read())

    def close(self) -> None:
        self._process.communicate()


def _load() -> None:
    from distbp.engine.numerics import kernel_set
    from distbp.nn import kernels

    for name in _LOADED:
        importlib.import_module(name)
    kernels.load(kernel_set("auto"))


def _next() -> Mapping[str, Any] | None:
    """In the process that forks: None, when nobody asks anymore. In a forked one: what it is to run."""
    with os.fdopen(os.dup(0)) as questions, os.fdopen(os.dup(1), "w", buffering=1) as answers:
        answers.write("ready\n")
        for line in questions:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # BLAS has threads, which wait
                child = os.fork()
            if not child:
                return json.loads(line)
            answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
    return None


def _run(asked: Mapping[str, Any]) -> int:
    """Runs the program as `python` does, as the module `__main__`. Returns its exit code."""
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for number, path in enumerate((os.devnull, *asked["files"])):
        file = os.open(path, os.O_RDWR)
        os.dup2(file, number)
        os.close(file)
    kind, *words = asked["words"]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if kind == "-c":
        sys.argv[:], sys.path[0] = ["-c", *words[1:]], ""
        code = compile(words[0], "<string>", "exec")
    else:
        script = importlib.util.find_spec(words.pop(0)).origin if kind == "-m" else kind
        sys.argv[:] = [script, *words]
        sys.path[0] = asked["cwd"] if kind == "-m" else str(Path(script).parent)
        main.__file__ = script
        code = compile(Path(script).read_bytes(), script, "exec")
    try:
        exec(code, main.__dict__)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> None:
    """Does what an interpreter does at its end, but frees nothing. That takes a second, since what is freed
    is first copied from the process that forked."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _load()
    gc.freeze()
    found = _next()
    if found is not None:
        _end(_run(found))
