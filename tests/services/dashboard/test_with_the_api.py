"""The page in front of the real API and its store: what a runner reports is seen, what is pressed arrives."""

from __future__ import annotations

import httpx
import pytest
from browser import Browser
from fake_service import DASHBOARD, recorded
from real_service import Real


def test_a_job_is_watched_paused_and_its_end_is_seen(real: Real, watched: Browser) -> None:
    page, run = watched, recorded("adam")
    job_id = real.submit(run)
    page.fresh(real.address)
    page.sign_in(real.token)
    page.see(".job-row .badge", "queued")
    page.see(".job-name", "digits adam").click()
    runner = real.runner()
    start = {"kind": "attempt_started", **run["started"], "from_step": 0, "attempt": 1}
    runner.report(events=[start], log="training from step 0\n")
    runner.report(metrics=run["metrics"][:5])
    page.see(".badge", "running")

    def told() -> str:
        return page.find(".plot")[0].get_attribute("aria-label") or ""

    page.until(lambda: f"epoch 5: validation {run['metrics'][4]['validation_loss']}" in told(), "the curve")
    runner.report(metrics=run["metrics"][5:6])
    page.until(lambda: "epoch 6" in told(), "the next point")
    page.see("#tab-log").click()
    page.see(".log", "training from step 0")
    page.see("#tab-events").click()
    page.see(".events li", "attempt started")
    page.see("#tab-checkpoints").click()
    page.see(".panel", "No checkpoint is kept.")
    page.see(".actions button", "Pause").click()
    page.see(".badge", "pausing")
    answer = runner.report(end={"outcome": "interrupted"})
    assert answer["command"] in (None, "pause")
    page.see(".badge", "paused")
    page.see(".actions button", "Resume").click()
    page.see(".badge", "queued")
    page.see(".actions button", "Cancel").click()
    page.see("dialog button.danger").click()
    page.see(".badge", "cancelled")
    assert real.store.jobs.get("blue", job_id).state == "cancelled"


def test_a_run_that_ended_badly_is_seen_in_the_list(real: Real, watched: Browser) -> None:
    page, run = watched, recorded("adam")
    job_id = real.submit(run)
    runner = real.runner()
    runner.report(events=[{"kind": "attempt_started", **run["started"], "from_step": 0, "attempt": 1}])
    runner.report(metrics=run["metrics"][:5], progress={"step": 100, "total_steps": 480})
    wrong = {"diverged": "the loss ended far above that of a constant"}
    result = {**run["result"], "unhealthy": wrong, "model_epoch": 4}
    runner.report(end={"outcome": "completed", "result": result})
    page.fresh(real.address)
    page.sign_in(real.token)
    page.see(".job-row .badge small", "diverged")
    page.see(".job-row .steps", "100 of 480")
    page.see(".job-name", "digits adam").click()
    page.see(".verdict", wrong["diverged"])
    page.until(lambda: "epoch 4" in page.find(".tile")[0].text, "the model's epoch")
    assert real.store.jobs.get("blue", job_id).state == "completed"


@pytest.mark.parametrize("kind", ["token", "link"])  # `distbp serve` prints the second
def test_a_link_signs_in_and_is_forgotten(kind: str, real: Real, watched: Browser) -> None:
    page = watched
    page.fresh(real.address)
    handed = real.token if kind == "token" else real.app.state.service.links.make(real.token)
    page.driver.get(f"{real.address}/#{kind}={handed}")
    page.gone(".sign-in")
    page.until(lambda: page.driver.current_url == f"{real.address}/#/jobs", "the address without it")
    page.driver.refresh()  # it is this tab's now
    page.gone(".sign-in")


def test_no_answer_of_the_page_lets_in_what_is_not_its_own(real: Real) -> None:
    answer = httpx.get(real.address, trust_env=False)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    for file in DASHBOARD.rglob("*"):
        if file.suffix in (".html", ".css", ".js", ".svg") and "vendor" not in file.parts:
            text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "http://" not in text and "https://" not in text, file
            assert "innerHTML" not in text and "eval(" not in text, file
