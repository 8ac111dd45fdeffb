"""Takes the pictures in docs/images: a real service, jobs that it really trained, a real browser.

python tests/services/dashboard/pictures.py [FOLDER]
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(folder) for folder in (HERE.parents[2], HERE.parents[1], HERE.parent, HERE)]

from browser import DESKTOP, PHONE, Browser  # noqa: E402
from mortal import House, until  # noqa: E402

SLOW = {"type": "sgd", "learning_rate": 0.002}  # so that its curves still move
IMAGES = HERE.parents[2] / "docs" / "images"


def jobs() -> list[dict[str, Any]]:
    """The recorded jobs of the tests, and some that end otherwise."""
    adam, momentum, wide = (
        json.loads((HERE / "recorded" / f"{name}.json").read_text())["job"]
        for name in ("adam", "momentum", "wide")
    )
    diverges = {
        **momentum,
        "name": "digits too fast",
        "optimizer": {"type": "sgd", "learning_rate": 1e30},
        "loss": "mse",
    }
    return [
        {**adam, "epochs": 40, "early_stopping": {"patience": 12}},  # its model is of the best epoch
        {**momentum, "epochs": 40},
        diverges,
        {**wide, "epochs": 20000},  # paused while it runs
        {
            **momentum,
            "name": "digits long",
            "epochs": 4000,
            "seed": 3,
            "optimizer": SLOW,
        },  # runs while the pictures are taken
        {**adam, "name": "digits next"},
    ]


def state(house: House, job: str) -> str:
    return str(house.ask("GET", f"/v1/jobs/{job}")["state"])


def train(house: House) -> list[str]:
    ids = []
    for number, job in enumerate(jobs()):
        ids.append(house.ask("POST", "/v1/jobs", json={"job": job})["id"])
        if number < 3:
            until(lambda: state(house, ids[-1]) in ("completed", "failed"), house.story)
        elif number < 5:
            until(lambda: state(house, ids[-1]) == "running", house.story)
            time.sleep(3)  # some epochs for the curves
        if number == 3:
            house.ask("POST", f"/v1/jobs/{ids[-1]}:pause")
            until(lambda: state(house, ids[-1]) == "paused", house.story)
    return ids


def take(page: Browser, house: House, ids: list[str], folder: Path) -> None:
    done, momentum, failed, paused, running, _ = ids
    model = house.ask("GET", f"/v1/jobs/{done}")["model_id"]
    both = f"#/compare?jobs={done},{momentum}"
    page.fresh(house.url)
    for look in ("light", "dark"):
        page.screen(*DESKTOP)
        page.colors(look)
        shot(page, folder, f"sign-in-desktop-{look}")
    page.sign_in(house.token)
    places = {
        "jobs": "#/jobs",
        "job": f"#/jobs/{running}",
        "done": f"#/jobs/{done}",
        "failed": f"#/jobs/{failed}",
        "paused": f"#/jobs/{paused}",
        "compare": both,
        "models": "#/models",
        "model": f"#/models/{model}",
    }
    for size, phone in ((DESKTOP, False), (PHONE, True)):
        page.screen(*size, phone=phone)
        for look in ("light", "dark"):
            page.colors(look)
            for name, place in places.items():
                page.run("location.hash = arguments[0]", place)
                shot(page, folder, f"{name}-{'phone' if phone else 'desktop'}-{look}")
                wide = page.run("return document.documentElement.scrollWidth - window.innerWidth")
                if wide > 0:
                    print(f"{name}: {wide} px wider than the screen")


def shot(page: Browser, folder: Path, name: str) -> None:
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 1, "y": 1})
    time.sleep(1.0)  # curves are drawn, fonts are there
    page.shot(folder / f"dashboard-{name}.png")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        raise SystemExit("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    with tempfile.TemporaryDirectory() as home, House(Path(home), slots=1) as house:
        ids = train(house)
        browser = Browser(program, driver, Path(home) / "profile")
        try:
            take(browser, house, ids, folder)
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
