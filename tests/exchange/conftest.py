"""What the exchange's tests share: worker processes, and one embedded Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from local_team import Pool

from distbp.core import settings
from distbp.team.ray.session import RaySession

RAY_CPUS = 10  # logical ones: enough for eight workers


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """An embedded Ray for all tests that need one: it takes seconds to start."""
    # Without processes that wait for work: a test that kills some would start ten others.
    with settings.environment({"RAY_prestart_worker_first_driver": "0"}):
        session = RaySession(RAY_CPUS)
        session.wait()
        yield
        session.close()
