"""The fixture `api`; what it is made of is in api_kit."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_kit import Api, make_api

# `make lowest` installs no schemathesis: it asks for newer versions than the lowest.
collect_ignore = (
    [] if importlib.util.find_spec("schemathesis") else ["test_openapi.py", "test_schemathesis.py"]
)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = make_api(tmp_path)
    yield made
    made.runner.close()
    made.store.close()
