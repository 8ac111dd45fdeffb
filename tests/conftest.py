"""Fixtures for all tests, and which of them run here. Heavy things belong to the folder that needs them."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from forked import Forks
from leftovers import MARK, Watch

from distbp.core import settings
from distbp.core.imports import without_collections_at_the_end

# No deadline: machines under load are slow, not wrong. The gate tries the same examples each time; `make
# test-random` tries others, with --hypothesis-profile=random and a seed. `make quick` tries few.
hypothesis.settings.register_profile("distbp", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.register_profile("random", deadline=None, max_examples=50, print_blob=True)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=10, derandomize=True)
hypothesis.settings.load_profile("distbp")

# Folders whose tests share what takes long to start (Ray, a browser). One process runs all tests of a folder.
# The files of _APART may run in others: they share nothing, or take so long that a second start of Ray pays.
_TOGETHER = ("exchange", "services/dashboard", "services", "nodes")
_APART = frozenset(
    f"test_{name}.py"
    for name in (
        "audit",
        "chaos",
        "embedded_ray",
        "faults",
        "fetching",
        "futex",
        "gathering",
        "inline_steps",
        "launchers",
        "memory",
        "moves",
        "relays",
        "segment",
        "server_ranges",
        "sparse_sums",
        "states",
        "submits",
    )
)
# Files that take long by themselves. They come before the other files, lest all wait for the last of them.
_LONG = frozenset(
    f"test_{name}.py"
    for name in (
        "chaos",
        "checkpoint",
        "cli_paths",
        "docs",
        "embedded_ray",
        "examples",
        "explain",
        "faults",
        "job_gradcheck",
        "lanes",
        "layers",
        "ops",
        "realmlp",
        "recurrence",
        "sklearn",
        "sklearn_frames",
        "submits",
    )
)
_WATCH = pytest.StashKey[Watch]()
# What starts Ray, a service, a browser or many processes. Tests with the mark `heavy` do too, or take long.
_HEAVY_FIXTURES = frozenset({"chromium", "pool", "postgresql", "ray_dashboard", "ray_here", "served"})
_HEAVY_FILES = frozenset(
    f"test_{name}.py"
    for name in (
        "chaos",
        "cli_service",
        "crowded",
        "dashboard",
        "embedded_ray",
        "examples",
        "faults",
        "head_start",
        "hosts",
        "launchers",
        "mnist",
        "moves",
        "recovery",
        "reproduce",
        "runner",
        "scale_on_ray",
        "serve",
        "submits",
        "teams",
        "two_raylets",
        "with_the_api",
    )
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="one case of each test, and none that starts Ray or a service"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick") and config.getoption("--hypothesis-profile") is None:
        hypothesis.settings.load_profile("quick")


@pytest.hookimpl(tryfirst=True)  # before other processes start
def pytest_sessionstart(session: pytest.Session) -> None:
    without_collections_at_the_end()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        session.config.stash[_WATCH] = Watch()
    else:
        os.environ[MARK] += f"-{worker}"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`--quick` does not import files none of whose tests it runs."""
    return True if config.getoption("--quick") and collection_path.name in _HEAVY_FILES else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Without the garbage collector, which takes a fifth of the time and finds nothing: what is made stays.
    It is looked at no more afterward."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run when processes, shared memory or files remain."""
    watch = session.config.stash.get(_WATCH, None)
    leftovers = [] if watch is None else watch.leftovers()
    if leftovers:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("\nFAILED: the tests left behind:", *leftovers, sep="\n  ")


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nobody calls it
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deals files and folders of tests to processes, in the order in which they were collected."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return _folder(file) or file

    config.option.loadscopereorder = False
    return Files(config, log)


def _folder(file: str) -> str:
    """The folder of a test file that stays together; "" where it has none."""
    if file.rpartition("/")[2] in _APART:
        return ""
    return next((name for name in _TOGETHER if f"tests/{name}/" in file), "")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where there is no test data, one skip says so for all tests that need it."""
    data = _test_data() / "data"
    gone: set[pytest.Item] = set()
    if not data.is_dir():
        those = [item for item in items if "test_data" in getattr(item, "fixturenames", ())]
        reason = f"no test data: {data} does not exist; set DISTBP_TEST_DATA ({len(those)} tests)"
        for item in those[:1]:
            item.add_marker(pytest.mark.skip(reason=reason))
        gone.update(those[1:])
    if config.getoption("--quick"):
        seen: set[str] = set()
        for item in items:
            name = item.nodeid.partition("[")[0]
            if name in seen or _is_heavy(item):
                gone.add(item)
            elif item not in gone:
                seen.add(name)
    ranks = {name: rank for rank, name in enumerate((*_TOGETHER, ""))}
    items.sort(key=lambda item: (ranks[_folder(item.path.as_posix())], item.path.name not in _LONG))
    if gone:
        config.hook.pytest_deselected(items=list(gone))
        items[:] = [item for item in items if item not in gone]


def _is_heavy(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    marked = item.get_closest_marker("heavy") is not None
    return marked or item.path.name in _HEAVY_FILES or not _HEAVY_FIXTURES.isdisjoint(fixtures)


def _test_data() -> Path:
    named = settings.get("DISTBP_TEST_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def no_pictures() -> Iterator[Callable[..., list[str]]]:
    """Most of a short run's time is the picture of its curves. Who looks at it asks for `pictures`."""
    with pytest.MonkeyPatch.context() as patch:
        from distbp.run import accounts

        draw_curves = accounts.draw_curves
        patch.setattr(accounts, "draw_curves", lambda run: [])
        yield draw_curves


@pytest.fixture
def pictures(no_pictures: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process leave curves.svg, as they do for users."""
    monkeypatch.setattr("distbp.run.accounts.draw_curves", no_pictures)


@pytest.fixture(scope="module")
def numpy_kernels() -> Iterator[None]:
    """NumPy's kernels for all tests of a file, so that nothing is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTBP_KERNELS", "numpy")
        yield


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """For programs of Python whose start is not what is tested."""
    made = Forks()
    yield made
    made.close()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with `data/` and `golden/`: DISTBP_TEST_DATA, or `shared` beside the repository. Tests that
    ask for it are skipped where it is not there."""
    return _test_data()
