"""Fixtures for all tests. Heavy things belong to the folder that needs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from leftovers import Watch

from distbp import settings

# No deadline: machines under load are slow, not wrong.
hypothesis.settings.register_profile("distbp", deadline=None, max_examples=50)
hypothesis.settings.load_profile("distbp")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fails the run (as an error of its last test) when processes, shared memory or files remain."""
    watch = Watch()
    yield
    leftovers = watch.leftovers()
    assert not leftovers, "the tests left behind:\n" + "\n".join(leftovers)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with `data/` and `golden/`: DISTBP_TEST_DATA, or `shared` beside the repository."""
    named = settings.get("DISTBP_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"no test data: {folder / 'data'} does not exist; set DISTBP_TEST_DATA")
    return folder
