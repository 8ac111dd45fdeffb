"""What is compiled is kept as long as the sources are what they were."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba")

from numba import types

from distbp.machine import jit
from distbp.machine.lean_numba import told

FUNCTION = """
from distbp.machine.jit import jit
@jit
def twice(x):
    return 2 * x
"""


@pytest.fixture
def hits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Compiles a function as a new process does; whether it was taken from the cache."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_function.py").write_text(FUNCTION)
    module = importlib.import_module("a_function")

    def found() -> bool:
        twice = importlib.reload(module).twice
        assert twice(3) == 6
        return sum(twice.stats.cache_hits.values()) == 1

    yield found
    del importlib.sys.modules["a_function"]  # type: ignore[attr-defined]


def test_it_is_kept(hits) -> None:
    assert [hits(), hits(), hits()] == [False, True, True]


ONE_OF_SEVERAL = """
import sys
import a_function
assert sys.stdin.readline()
assert a_function.twice(3) == 6
print(sum(a_function.twice.stats.cache_misses.values()))
"""


def _started(code: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes)


CALLED_BACK = """
def double(x):
    return 2 * x
"""
CALLBACK_OF_SEVERAL = """
import sys
import a_function
from numba import types
from distbp.machine.jit import callback
assert sys.stdin.readline()
twice = callback(types.int64(types.int64), a_function.double)
assert twice.ctypes(3) == 6
print(1 - twice.cache_hits)
"""


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("source", "code"),
    [(FUNCTION, ONE_OF_SEVERAL), (CALLED_BACK, CALLBACK_OF_SEVERAL)],
    ids=["function", "callback"],
)
def test_of_several_processes_one_compiles(tmp_path: Path, source: str, code: str) -> None:
    """The others wait for its code. Numba alone has no order among them: they compile the same, or overwrite
    what another has just kept."""
    (tmp_path / "a_function.py").write_text(source)
    processes = [_started(code, tmp_path) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert sorted(process.communicate()[0].strip() for process in processes) == ["0", "0", "1"]


HOLDER = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_process_that_stands_still_does_not_hold_up_the_others_for_ever(
    hits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hits() is False
    (lock,) = (tmp_path / "__pycache__").glob("*.lock")
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], text=True, **pipes) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        monkeypatch.setattr(jit, "PATIENCE", 0)
        assert hits() is True
        holder.communicate()


def test_another_source_has_changed(hits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba alone goes on with what it has: the function's own file is the same."""
    assert [hits(), hits()] == [False, True]
    monkeypatch.setattr(jit, "stamp", lambda: "other")
    assert [hits(), hits()] == [False, True]


@pytest.mark.parametrize("gone", ["distbp.machine.jit\nGone", "distbp.machine.gone\nGone"])
def test_what_an_earlier_version_kept_may_name_classes_that_are_gone(hits, tmp_path: Path, gone: str) -> None:
    """Numba reads the types of the arguments before it looks at the stamp."""
    assert [hits(), hits()] == [False, True]
    (index,) = (tmp_path / "__pycache__").glob("*.nbi")
    with index.open("rb") as file:
        version = pickle.load(file)
    index.write_bytes(pickle.dumps(version) + f"c{gone}\n.".encode())
    assert [hits(), hits()] == [False, True]


def test_the_stamp_is_of_what_the_sources_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "SOURCES", ("one", "two"))
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "nn" / "jit.py"))
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("A = 1")
    two.write_text("B = 1")
    first = jit.stamp.__wrapped__()
    os.utime(two, (1, 1))  # as a copy in an image has it
    assert jit.stamp.__wrapped__() == first
    two.write_text("B = 2")
    assert jit.stamp.__wrapped__() != first


def test_the_sources_are_all_that_is_compiled() -> None:
    folder = Path(jit.__file__).parents[1]
    found = {file for name in jit.SOURCES for file in folder.glob(name.replace(".", "/") + ".py")}
    parts = ("nn/run_compiled", "nn/ops/loops_losses", "optim/loops", "machine/vector_math", "machine/futex")
    assert found >= {folder / f"{part}.py" for part in parts}


def test_compiling_is_told_of_once(hits) -> None:
    said: list[str] = []
    for kept in (False, True):
        with told(lambda: said.append("compiles")):
            assert hits() is kept
    assert said == ["compiles"]


def test_a_callback_that_calls_nothing_is_told_of() -> None:
    """Numba tells of functions alone."""
    said: list[str] = []
    with told(lambda: said.append("compiles")):
        namespace: dict[str, Any] = {}
        exec("def nothing(number): return number", namespace)
        jit.callback(types.int64(types.int64), namespace["nothing"])
    assert said == ["compiles"]


def test_without_a_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is compiled in every process."""
    namespace: dict[str, object] = {}
    exec(FUNCTION, namespace)  # of no file: Numba finds no folder for it
    twice = namespace["twice"]
    assert twice(3) == 6 and not twice.stats.cache_path  # type: ignore[operator, attr-defined]
