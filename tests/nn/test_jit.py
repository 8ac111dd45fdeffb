"""What is compiled is kept as long as the sources are what they were."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

pytest.importorskip("numba")

from distbp.nn import jit

FUNCTION = """
from distbp.nn.jit import jit
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


def test_another_source_has_changed(hits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba alone goes on with what it has: the function's own file is the same."""
    assert [hits(), hits()] == [False, True]
    monkeypatch.setattr(jit, "stamp", lambda: ((1, 2),))
    assert [hits(), hits()] == [False, True]


def _sources(folder: Path, name: str) -> list[Path]:
    return list(folder.glob(name.replace(".", "/") + ".py"))


def test_the_stamp_tells_of_every_source() -> None:
    folder = Path(jit.__file__).parents[1]
    names = {path.relative_to(folder).as_posix() for name in jit.SOURCES for path in _sources(folder, name)}
    assert len(jit.stamp()) == len(names)
    assert names >= {
        "nn/run_compiled.py",
        "nn/ops/loops_losses.py",
        "optimizers/loops.py",
        "nn/vector_math.py",
    }
    assert all(changed > 0 and size > 0 for changed, size in jit.stamp())


def test_without_a_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is compiled in every process."""
    namespace: dict[str, object] = {}
    exec(FUNCTION, namespace)  # of no file: Numba finds no folder for it
    twice = namespace["twice"]
    assert twice(3) == 6 and not twice.stats.cache_path  # type: ignore[operator, attr-defined]
