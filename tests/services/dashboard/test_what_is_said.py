"""What the pages say of a job is so: the model's epoch, every metric, why it waits, what went wrong."""

from __future__ import annotations

import pytest
import scene
from browser import PHONE, Browser
from fake_service import TOKEN, FakeService
from selenium.webdriver.common.keys import Keys


@pytest.fixture(autouse=True)
def more(service: FakeService) -> None:
    scene.set_up_more(service)


def plots(page: Browser) -> list[str]:
    """What the plots above the tabs say to those who cannot see them."""
    page.see(".plots.metrics .plot")
    return [one.get_attribute("aria-label") or "" for one in page.find(".plots.metrics .plot")]


def tile(page: Browser, number: int) -> list[str]:
    page.see(".tile")
    return page.find(".tile")[number].text.split("\n")


def row(page: Browser, job_id: str) -> list[str]:
    found = page.see(f'.job-row:has([href="#/jobs/{job_id}"])')
    return found.text.split("\n")


def test_a_regression_shows_all_that_it_measures(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN)
    page.until(lambda: "0.9336" in row(page, scene.VALUES), "R² in the list")
    note = "return getComputedStyle(arguments[0], '::after').content"
    values = page.find(f'.job-row:has([href="#/jobs/{scene.VALUES}"]) .value')
    assert [page.run(note, value) for value in values] == ['"validation"', '"R²"']
    page.run("location.hash = arguments[0]", f"#/jobs/{scene.VALUES}")
    page.until(lambda: len(plots(page)) == 4 and all("epoch 12" in one for one in plots(page)), "four plots")
    assert [one.split(",")[0] for one in plots(page)] == ["Loss", "R²", "MAE", "RMSE"]
    assert tile(page, 1)[0] == "R²" and tile(page, 1)[1] == "0.9336"
    page.see("#tab-metrics").click()
    table = page.see(".panel table").text
    assert "Now, of epoch 12" in table
    assert "R² – 0.9336 – 0.9336 at 12" in table


def test_a_job_without_other_metrics_leaves_no_half_of_the_page_empty(
    page: Browser, service: FakeService
) -> None:
    for held in service.jobs[scene.VALUES].rows:
        held["data"] = {"epoch": held["data"]["epoch"], "train_loss": held["data"]["train_loss"]}
    page.sign_in(TOKEN, f"#/jobs/{scene.VALUES}")
    page.until(lambda: plots(page) and "epoch 12: train" in plots(page)[0], "the curve")
    figures = page.find(".plots.metrics figure")
    assert len(figures) == 1 and figures[0].size["width"] > 1000


def test_a_run_that_diverged_is_said_to_be_one_and_is_drawn_on_a_log_axis(
    page: Browser, service: FakeService
) -> None:
    page.sign_in(TOKEN)
    badge = page.see(f'.job-row:has([href="#/jobs/{scene.DIVERGED}"]) .badge')
    assert (badge.text.split("\n"), badge.get_attribute("data-tone")) == (["completed", "diverged"], "held")
    page.see(f'[href="#/jobs/{scene.DIVERGED}"]').click()
    page.see(".verdict", "the training loss ended at 42,156, far above the 2.303 of a constant prediction")
    log = page.see(".plots.metrics .chart button", "log")
    page.until(lambda: log.get_attribute("aria-pressed") == "true", "a logarithmic axis")
    log.click()
    page.until(lambda: log.get_attribute("aria-pressed") == "false", "a straight one, as was asked for")
    page.run("location.hash = arguments[0]", f"#/jobs/{scene.DONE}")
    page.see(".plots.metrics .plot canvas")
    assert not [one for one in page.find(".verdict") if one.is_displayed()]
    assert page.see(".badge").get_attribute("data-tone") == "good"


def test_a_running_job_that_does_not_learn_says_so_from_its_newest_epoch(
    page: Browser, service: FakeService
) -> None:
    page.sign_in(TOKEN, f"#/jobs/{scene.RUNNING}")
    page.see(".plot canvas")
    following = scene.next_row(service, scene.RUNNING)
    sentence = "the training loss was never below the 2.303 of a constant prediction"
    health = {**following["health"], "unhealthy": {"no_better": sentence}}
    scene.tell_row(service, scene.RUNNING, {**following, "health": health})
    page.see(".verdict li", sentence)
    page.see(".badge small", "no better than a constant")


def test_after_an_early_stop_the_best_epoch_is_shown_as_the_model_is(
    page: Browser, service: FakeService
) -> None:
    page.sign_in(TOKEN, f"#/jobs/{scene.BEST}")
    page.until(lambda: plots(page)[0].startswith("Loss, epoch 7, the model: validation 0.1838"), "epoch 7")
    assert tile(page, 0) == ["Loss", "0.1838", "epoch 7, train 0.1528"]
    assert tile(page, 2) == ["Step", "240", "of 480"]
    assert page.run("return document.querySelector('progress').value") == 0.5
    page.run("location.hash = arguments[0]", f"#/compare?jobs={scene.BEST},{scene.DIVERGED}")
    page.see(".legend-row")
    page.until(lambda: "0.1838" in page.find(".legend-row")[0].text, "the model's value")
    assert "validation loss, epoch 7, the model" in page.find(".legend-row")[0].text
    assert "digits early 0.1838" in (page.find(".plot")[0].get_attribute("aria-label") or "")


def test_a_job_that_waits_says_why_and_has_not_started(page: Browser, service: FakeService) -> None:
    why = "needs 2 slots of 2, and none is free: alpha uses 2; place 3 in line"
    page.sign_in(TOKEN)
    page.until(lambda: why in page.see(f'.job-row:has([href="#/jobs/{scene.WAITING}"]) .steps').text, "why")
    assert page.find(f'.job-row:has([href="#/jobs/{scene.WAITING}"]) .when')[0].text == ""
    page.see(f'[href="#/jobs/{scene.WAITING}"]').click()
    page.see(".under", why)
    assert tile(page, 4) == ["Time", "–"]


def test_the_time_left_is_told(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN)
    page.until(lambda: "247 of 480 · 1 min 35 s left" in row(page, scene.VALUES), "in the list")
    page.see(f'[href="#/jobs/{scene.VALUES}"]').click()
    page.until(lambda: tile(page, 4)[-1].startswith("about 1 min 3"), "on its page")


def test_the_time_of_a_paused_job_stands_still(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN, f"#/jobs/{scene.PAUSED}")
    page.until(lambda: tile(page, 4) == ["Time", "30 s"], "what it has trained")
    assert tile(page, 3)[1] == "–"
    page.see("#tab-workers").click()
    page.see(".panel", "No worker runs: the job is paused. It had 8 shards on 3 workers.")
    assert not page.find(".worker")


def test_scaling_begins_at_the_number_there_is_and_asks_before_it_halves(
    page: Browser, service: FakeService
) -> None:
    page.sign_in(TOKEN, f"#/jobs/{scene.VALUES}")
    page.see(".plot canvas")
    page.see(".actions button", "Scale").click()
    field = page.see("dialog input")
    assert field.get_attribute("value") == "4"
    field.clear()
    field.send_keys("1", Keys.ENTER)
    page.see("dialog h2", "Go from 4 workers down to 1?")
    page.see("dialog", "about 4 times as long")
    page.see("dialog button", "Keep 4").click()
    page.gone("dialog")
    assert service.posts() == []
    page.see(".actions button", "Scale").click()
    field = page.see("dialog input")
    field.clear()
    field.send_keys("2", Keys.ENTER)
    page.see("dialog button.danger", "Scale down").click()
    page.until(lambda: service.posts() == [(f"/v1/jobs/{scene.VALUES}:scale", {"workers": 2})], "the scaling")


def test_what_is_not_there_leads_back(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN, "#/jobs/job_0000000000000000000z")
    page.see(".empty a", "All jobs").click()
    page.see("h1", "Jobs")
    page.run("location.hash = '#/models/mdl_0000000000000000000z'")
    page.see(".empty a", "All models").click()
    page.see("h1", "Models")


def test_log_lines_have_times(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN, f"#/jobs/{scene.RUNNING}")
    page.see("#tab-log").click()
    first = page.see(".log p", "training from step 0").text
    assert len(first.split("\n")[0]) == len("12:34:56") and first.count(":") >= 2


def test_on_a_phone_nothing_lies_over_anything(page: Browser, service: FakeService) -> None:
    service.push(scene.VALUES, name="a name that is far longer than a phone is wide, and goes on")
    page.sign_in(TOKEN)
    page.screen(*PHONE, phone=True)
    page.see(".job-row")
    over = page.run(
        "const hits = [];"
        "for (const row of document.querySelectorAll('.jobs .job-row')) {"
        "  const parts = [...row.children].filter((e) => e.offsetParent && e.getBoundingClientRect().width);"
        "  const boxes = parts.map((e) => e.getBoundingClientRect());"
        "  boxes.forEach((a, i) => boxes.forEach((b, j) => {"
        "    const across = a.left < b.right - 1 && b.left < a.right - 1;"
        "    if (i < j && across && a.top < b.bottom - 1 && b.top < a.bottom - 1)"
        "      hits.push(`${parts[i].className} ${parts[j].className}: ${row.textContent}`);"
        "  }));"
        "}"
        "return hits"
    )
    assert over == []
