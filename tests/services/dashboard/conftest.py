"""A real Chromium without a window, and the service it looks at.

Needs chromium and chromedriver (Debian: `apt-get install chromium chromium-driver`) and selenium. Tests skip
where one is missing; they install nothing.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import scene
from distbp_service.api import ApiConfig, create_app
from distbp_service.store import Store
from fake_service import DASHBOARD, FakeService
from serving import Serving

pytest.importorskip("selenium", reason="selenium is not installed (it is in the extra 'dev')")

from browser import Browser
from real_service import Real


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no chromium and chromedriver on PATH (Debian: apt-get install chromium chromium-driver)")
    browser = Browser(program, driver, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.quit()


@pytest.fixture
def service() -> Iterator[FakeService]:
    """With the jobs of `scene`; `address` is where it listens."""
    found = FakeService()
    scene.set_up(found)
    found.address = found.start()
    yield found
    found.stop()


@pytest.fixture
def watched(chromium: Browser) -> Iterator[Browser]:
    """The browser; after each test: nothing failed that nobody saw, and no other host was asked."""
    yield chromium
    chromium.leave()
    assert chromium.complaints() == []
    assert {host for host in chromium.hosts() if host} <= {chromium.address}


@pytest.fixture
def page(service: FakeService, watched: Browser) -> Browser:
    """A desktop's window, light, nobody signed in. (`watched` last: it leaves before the service does.)"""
    watched.fresh(service.address)
    return watched


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    store = Store(f"sqlite:///{tmp_path}/service.db")
    work = tmp_path / "work"
    work.mkdir()
    token = store.tokens.create("blue", ("read", "submit", "manage"), name="Ada")[1]
    config = ApiConfig(work, dashboard=DASHBOARD, poll_s=0.05, heartbeat_s=0.5)
    app = create_app(store, config, dispatcher_seen=time.time)
    serving = Serving(app)
    yield Real(store, serving.address, token, app, work)
    serving.stop()
    store.close()
