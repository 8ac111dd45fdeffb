"""Chromium under test: only what the tests need, a record of its complaints and of whom it asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    # One process draws all pages, none waits in store, and nothing runs that no page asks for.
    "--renderer-process-limit=1",
    "--disable-extensions",
    "--disable-breakpad",
    "--disable-features=SpareRendererForSitePerProcess,BackForwardCache,OptimizationHints,MediaRouter,Translate",
]
WAIT_S = 30.0
DESKTOP, PHONE = (1280, 860), (390, 844)


class Browser:
    def __init__(self, program: str, driver: str, profile: Path) -> None:
        options = ChromeOptions()
        options.binary_location = program
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = Chrome(options=options, service=ChromeService(executable_path=driver))
        self.address = ""
        self._asked: list[str] = []

    def quit(self) -> None:
        self.driver.quit()

    def fresh(self, address: str) -> None:
        """As after opening a new tab for the first time. (A port may come again: the same origin then.)"""
        self.address = address
        self.driver.get("about:blank")
        storage = {"origin": address, "storageTypes": "all"}
        self.driver.execute_cdp_cmd("Storage.clearDataForOrigin", storage)
        self.screen(*DESKTOP)
        self.colors("light")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(f"{address}/")
        self.see("#token")

    def leave(self) -> None:
        self.driver.get("about:blank")

    def sign_in(self, token: str, to: str = "#/jobs") -> None:
        self.run("location.hash = arguments[0]", to)
        self.see("#token").send_keys(token)
        self.see(".sign-in button").click()
        self.gone(".sign-in")

    def screen(self, width: int, height: int, *, phone: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})

    def colors(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    # Looking

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, true: Callable[[], Any], what: str) -> Any:
        wait = WebDriverWait(
            self.driver,
            WAIT_S,
            poll_frequency=0.1,
            ignored_exceptions=[NoSuchElementException, StaleElementReferenceException],
        )
        return wait.until(lambda _: true(), f"never came: {what}")

    def find(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def see(self, css: str, text: str = "") -> WebElement:
        """The first visible element, once it is there and holds `text`."""

        def look() -> WebElement | None:
            found = (one for one in self.find(css) if one.is_displayed() and text in one.text)
            return next(found, None)

        element: WebElement = self.until(look, f"{css} {text!r}")
        return element

    def gone(self, css: str) -> None:
        self.until(lambda: not self.find(css), f"no {css}")

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def focus(self) -> str:
        """What has the focus, in words: its label or text."""
        text: str = self.run(
            "const e = document.activeElement; return e.getAttribute('aria-label') || e.textContent || e.id"
        )
        return text.strip()

    def shot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))

    # Afterwards

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, violations of the content security policy among them. What the
        network says of an answer of 400 or above is left out: the page shows those."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING") and entry["source"] != "network"
        ]

    def hosts(self) -> set[str]:
        """Origins that were asked for anything since `fresh`."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._asked.append(message["params"]["request"]["url"])
        found = set()
        for url in self._asked:
            parts = urlsplit(url)
            found.add(f"{parts.scheme}://{parts.netloc}" if parts.netloc else "")
        self._asked.clear()
        return found
