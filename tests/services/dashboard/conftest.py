"""A real Chromium without a window, and the service it looks at.

Needs chromium and chromedriver (Debian: `apt-get install chromium chromium-driver`) and selenium. Tests skip
where one is missing; they install nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import scene
from fake_service import FakeService

pytest.importorskip("selenium", reason="selenium is not installed (it is in the extra 'dev')")

from browser import Browser


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
