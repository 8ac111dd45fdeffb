"""The dashboard as people use it, in a real Chromium. `page` also checks, after each test, that the console
has no errors, the content security policy was kept, and no other host was asked."""

from __future__ import annotations

import scene
from browser import PHONE, Browser
from fake_service import READER, TOKEN, FakeService
from selenium.webdriver.common.keys import Keys

JOB = f"#/jobs/{scene.RUNNING}"


def loss_told(page: Browser) -> str:
    """What the loss plot says to those who cannot see it."""
    return page.find(".plot")[0].get_attribute("aria-label") or ""


def test_a_wrong_token_is_refused_in_words_and_a_right_one_stays_out_of_the_address(
    page: Browser, service: FakeService
) -> None:
    page.see("#token").send_keys("dbp_wrong_one")
    page.see(".sign-in button").click()
    page.see(".fault", "This token opens nothing: it is wrong, revoked or expired.")
    page.see("#token").clear()
    page.see("#token").send_keys("not a token")
    page.see(".sign-in button").click()
    page.see(".fault", "A token begins with dbp_ and has no spaces.")
    page.see("#token").clear()
    page.see("#token").send_keys(TOKEN, Keys.ENTER)
    page.see(".job-name", "digits momentum")
    secret = TOKEN.rsplit("_", 1)[1]
    assert not [path for _, path, _, _ in service.asked if secret in path]
    assert secret not in page.driver.current_url
    assert page.run("return localStorage.length") == 0
    page.see("#leave").click()
    page.see("#token")
    assert page.run("return sessionStorage.length") == 0


def test_the_list_shows_every_state_and_filters(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN)
    page.see(".job-row .badge", "running")
    states = [badge.text for badge in page.find(".job-row .badge")]
    assert states == ["queued", "running", "completed", "failed", "paused"]
    page.see(".choice:nth-child(3)", "Completed").click()
    page.until(lambda: [b.text for b in page.find(".job-row .badge")] == ["completed"], "only completed ones")
    page.see(".choice", "All").click()
    page.see("input[type=search]").send_keys("wide")
    page.until(lambda: [a.text for a in page.find(".job-name")] == ["digits wide"], "only those named so")
    page.see("input[type=search]").send_keys(" no such")
    page.see(".empty", "No such jobs")


def test_the_list_is_live(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN)
    row = page.see(f'.job-row:has([href="#/jobs/{scene.RUNNING}"])')
    page.until(lambda: "187 of 480" in row.text, "the steps")
    service.push(scene.RUNNING, progress={**scene.progress(service, scene.RUNNING), "step": 199})
    page.until(lambda: "199 of 480" in row.text, "the next steps")
    service.push(scene.RUNNING, state="completed")
    page.until(lambda: "completed" in row.text, "its end")


def test_a_project_without_jobs_says_how_to_begin(page: Browser, service: FakeService) -> None:
    service.jobs.clear()
    page.sign_in(TOKEN)
    page.see(".empty", "distbp.submit(job)")


def test_curves_are_live_and_go_back_with_a_new_attempt(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN, JOB)
    page.see(".plot canvas")
    page.until(lambda: "Loss, epoch 9: validation 0.2343" in loss_told(page), "the curve so far")
    row = scene.next_row(service, scene.RUNNING)
    scene.tell_row(service, scene.RUNNING, row)
    page.until(lambda: f"epoch 10: validation {row['validation_loss']}" in loss_told(page), "the next point")
    page.see(".tile", f"{row['validation_loss']}")
    again = {**service.jobs[scene.RUNNING].rows[3]["data"], "validation_loss": 0.5}
    service.push(scene.RUNNING, row=again)  # a new attempt went back to step 80
    page.until(lambda: "epoch 4: validation 0.5000" in loss_told(page), "the curve cut")
    service.push(scene.RUNNING, state="failed", error={"code": "lost", "message": "the head node is gone"})
    page.see(".problem", "the head node is gone")
    page.see(".badge", "failed")


def test_a_broken_stream_is_taken_up_where_it_was(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN, JOB)
    page.until(lambda: "epoch 9" in loss_told(page), "the curve so far")
    page.see("#link", "Live")
    service.away = True
    service.wake()
    page.see("#link", "Reconnecting")
    scene.tell_row(service, scene.RUNNING, scene.next_row(service, scene.RUNNING))
    service.away = False
    page.until(lambda: "epoch 10" in loss_told(page), "what was missed")
    page.see("#link", "Live")


def test_jobs_are_compared_in_one_plot(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN)
    for job_id in (scene.RUNNING, scene.DONE):
        page.see(f'.job-row:has([href="#/jobs/{job_id}"]) input').click()
    page.see("button.main", "Compare 2").click()
    page.see(".plots.one .plot canvas")
    page.until(lambda: "digits momentum 0.2343, digits adam 0.1077" in loss_told(page), "two curves")
    scene.tell_row(service, scene.RUNNING, row := scene.next_row(service, scene.RUNNING))
    page.until(lambda: f"digits momentum {row['validation_loss']}" in loss_told(page), "a live curve")
    page.see("select[aria-label='Curve'] option[value=validation_accuracy]").click()
    page.until(lambda: "digits adam 96.67 %" in loss_told(page), "the other curve")
    page.see("select[aria-label='Horizontal axis'] option[value=step]").click()
    page.until(lambda: "step 480" in loss_told(page), "by step")
    page.see(f"select[aria-label='Add a job'] option[value={scene.PAUSED}]").click()
    page.until(lambda: len(page.find(".legend-row")) == 3, "a third job")


def test_layers_workers_events_log_yaml_and_checkpoints(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN, JOB)
    page.until(
        lambda: (
            ["layer 0" in (p.get_attribute("aria-label") or "") for p in page.find(".panel .plot")]
            == [True] * 3
        ),
        "three curves of health",
    )
    page.see("#tab-workers").click()
    workers = [worker.text.split("\n") for worker in (page.see(".worker"), *page.find(".worker")[1:])]
    assert workers == [["worker 0", "0", "1"], ["worker 1", "2", "3", "4"], ["worker 2", "5", "6", "7"]]
    page.see("#tab-events").click()
    page.see(".events li", "from step 0 of 480, 8 shards on 3 workers")
    service.push(
        scene.RUNNING,
        event={"kind": "team_changed", "step": 187, "attempt": 1, "reason": "worker 2 was lost"},
    )
    page.see(".events li", "step 187: worker 2 was lost")
    page.see("#tab-log").click()
    page.see(".log", "training from step 0")
    service.push(scene.RUNNING, log="<b>not markup</b>\n")
    page.see(".log", "<b>not markup</b>")
    page.see("#tab-job").click()
    source = page.see(".source").text
    assert "name: digits momentum\n" in source
    assert "optimizer:" in source
    page.see("#tab-checkpoints").click()
    page.see(".panel td", "160")


def test_a_long_log_and_many_events_do_not_hold_the_page_up(page: Browser, service: FakeService) -> None:
    for number in range(8000):
        service.push(scene.RUNNING, log=f"line {number}\n", event={"kind": "noted", "text": f"note {number}"})
    page.sign_in(TOKEN, JOB)
    page.see("#tab-log").click()
    page.see(".log p:last-child", "line 7999")
    assert len(page.find(".log p")) == 5000
    page.see("#tab-events").click()
    page.see(".events li:first-child", "note 7999")
    assert len(page.find(".events li")) == 500


def test_curves_of_several_networks_are_their_means(page: Browser, service: FakeService) -> None:
    rows = service.jobs[scene.RUNNING].rows
    first = [row["data"] for row in rows]
    rows.clear()
    for member, shift in ((0, 0.0), (1, 0.5)):
        for row in first:
            loss = round(row["validation_loss"] + shift, 4)
            place = row["step"] + member * 480
            data = {**row, "step": place, "member": member, "validation_loss": loss}
            service.push(scene.RUNNING, row=data)
    page.sign_in(TOKEN, JOB)
    page.until(lambda: "Loss, epoch 9: validation, mean 0.4843" in loss_told(page), "means")
    last = {**rows[8]["data"], "step": rows[8]["step"] + 1, "epoch": 10, "validation_loss": 0.3}
    service.push(scene.RUNNING, row=last)  # of network 0, while those of network 1 stay
    page.until(lambda: "Loss, epoch 10: validation, mean 0.3000" in loss_told(page), "one more")
    page.see("#tab-layers").click()
    page.see(".panel .quiet", "These are the layers of network 0.")
    page.see("#tab-metrics").click()
    page.see(".panel td", "0.3000 at 10")


def test_the_yaml_that_is_shown_is_the_job(page: Browser, service: FakeService) -> None:
    import yaml

    page.sign_in(TOKEN, JOB)
    page.see("#tab-job").click()
    page.see(".source")
    assert yaml.safe_load(page.run("return document.querySelector('.source').textContent")) == (
        service.jobs[scene.RUNNING].job
    )


def test_cancel_asks_first_and_posts(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN, JOB)
    page.see(".actions button", "Cancel").click()
    page.see("dialog h2", "Cancel digits momentum?")
    page.see("dialog button", "Keep it").click()
    page.gone("dialog")
    assert service.posts() == []
    page.see(".actions button", "Cancel").click()
    page.see("dialog button.danger").click()
    page.see(".badge", "cancelling")
    assert service.posts() == [(f"/v1/jobs/{scene.RUNNING}:cancel", None)]


def test_pause_resume_and_scale_post(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN, JOB)
    page.see(".actions button", "Scale").click()
    field = page.see("dialog input")
    field.clear()
    field.send_keys("5", Keys.ENTER)
    page.until(lambda: service.jobs[scene.RUNNING].fields["workers"] == 5, "the scaling")
    page.gone("dialog")
    page.see(".actions button", "Pause").click()
    page.see(".badge", "pausing")
    service.push(scene.RUNNING, state="paused", event={"kind": "state", "from": "pausing", "to": "paused"})
    page.see(".actions button", "Resume").click()
    page.see(".badge", "queued")
    verbs = [(path.rpartition(":")[2], body) for path, body in service.posts()]
    assert verbs == [("scale", {"workers": 5}), ("pause", None), ("resume", None)]


def test_short_epochs_do_not_hold_up_the_state(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN, JOB)
    badge = page.see(".job-header .badge", "running")
    service.push(scene.RUNNING, state="paused", event={"kind": "state", "from": "pausing", "to": "paused"})

    def paused_in_spite_of_epochs() -> bool:
        service.push(scene.RUNNING, event={"kind": "epoch_ended", "epoch": 1, "step": 1})
        return badge.text == "paused"

    page.until(paused_in_spite_of_epochs, "the state, while an epoch ends every few milliseconds")
    for _ in range(50):
        service.push(scene.RUNNING, event={"kind": "epoch_ended", "epoch": 1, "step": 1})
    page.see(".job-header .badge", "paused")
    asked = [path for _, path, _, _ in service.asked if path == f"/v1/jobs/{scene.RUNNING}"]
    assert len(asked) <= 4, "the page does not ask for the job at every epoch"


def test_a_token_that_only_reads_cannot_press_what_it_may_not(page: Browser, service: FakeService) -> None:
    page.sign_in(READER, JOB)
    page.see(".actions button", "Cancel")
    assert not any(button.is_enabled() for button in page.find(".actions button") if button.is_displayed())


def test_a_model_predicts(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN, "#/models")
    page.see(".model-row", "98.52 %").click()
    rows = page.see("#rows")
    rows.send_keys("1, 2, x")
    page.see("button.main", "Predict").click()
    page.see(".fault", "Line 1: “x” is not a number.")
    rows.clear()
    rows.send_keys("1, 2, 3")
    page.see("button.main", "Predict").click()
    page.see(".fault", "inputs have 3 numbers in a row; the model takes 64")
    rows.clear()
    rows.send_keys("\n".join([",".join(["1"] * 64), " ".join(["0"] * 63 + ["7.5"])]))
    page.see("button.main", "Predict").click()
    page.see(".prediction", "4")
    assert [one.text for one in page.find(".prediction")] == ["4", "7"]
    assert "91.00 %" in page.see(".chance").text
    assert service.posts()[-1][1] == {"inputs": [[1] * 64, [0] * 63 + [7.5]], "probabilities": True}


def test_models_with_few_metrics_stand_in_the_same_columns(page: Browser, service: FakeService) -> None:
    one = service.models[scene.MODEL]
    other = "mdl_00000000000000000002"
    service.models[other] = {**one, "id": other, "info": {**one["info"], "metrics": {"train_loss": 1.0}}}
    page.sign_in(TOKEN, "#/models")
    page.until(lambda: len(page.find(".model-row")) == 2, "two models")
    places = [element.rect["x"] for element in page.find(".model-row .right")]
    assert places[:2] == places[2:]


def test_everything_is_reached_by_keyboard(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN)
    page.see(".job-name", "digits momentum")
    page.driver.refresh()
    page.see(".job-name", "digits momentum")
    page.press(Keys.TAB)
    assert page.focus() == "Skip to content"
    page.press("j", "j")
    assert page.focus() == "digits momentum"
    page.press("x")
    assert page.find(".job-row input")[1].is_selected()
    page.press("j", Keys.ENTER)
    page.see("h1", "digits adam")
    tab = page.see("#tab-layers")
    page.run("arguments[0].focus()", tab)
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.focus() == "Events"
    assert page.see("#tab-events").get_attribute("aria-selected") == "true"
    page.see(".plot canvas")
    page.run("arguments[0].focus()", page.find(".plot")[0])
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)  # the last point, and the one before it
    page.see(".readout", "epoch 23")
    page.press("?")
    page.see("dialog dl", "Pause or resume the job")
    page.press(Keys.ESCAPE)
    page.gone("dialog")
    page.press(Keys.ESCAPE)
    page.see("h1", "Jobs")
    page.press("/")
    assert page.focus() == "Find by name"
    page.press("3", Keys.ESCAPE)  # typed into the field, no shortcut
    assert page.see("h1").text == "Jobs"
    page.press("3")
    page.see("h1", "Models")


def background(page: Browser) -> str:
    found: str = page.run("return getComputedStyle(document.body).backgroundColor")
    return found


def test_dark_follows_the_system_and_can_be_chosen(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN, JOB)
    page.see(".plot canvas")
    assert background(page) == "rgb(250, 250, 248)"
    page.colors("dark")
    page.until(lambda: background(page) == "rgb(17, 19, 21)", "dark paper")
    theme = page.see("#theme")
    theme.click()
    page.until(lambda: background(page) == "rgb(250, 250, 248)", "light, chosen")
    page.run("location.reload()")
    page.see(".plot canvas")
    assert background(page) == "rgb(250, 250, 248)", "the choice is kept, and so is the token"
    page.see("#theme").click()
    page.until(lambda: background(page) == "rgb(17, 19, 21)", "dark, chosen")


def test_a_phone_needs_no_scrolling_to_the_side_and_no_small_targets(
    page: Browser, service: FakeService
) -> None:
    page.sign_in(TOKEN)
    page.screen(*PHONE, phone=True)
    pages = {
        "#/jobs": ".job-row",
        JOB: ".plot canvas",
        f"#/jobs/{scene.FAILED}": ".problem",
        f"#/compare?jobs={scene.RUNNING},{scene.DONE}": ".plot canvas",
        "#/models": ".model-row",
        f"#/models/{scene.MODEL}": "#rows",
    }
    for place, there in pages.items():
        page.run("location.hash = arguments[0]", place)
        page.see(there)
        assert page.run("return document.documentElement.scrollWidth") == PHONE[0], place
        small = page.run(
            "return [...document.querySelectorAll('button, .button')]"
            ".filter((e) => e.offsetParent && e.offsetHeight < 36).map((e) => e.textContent)"
        )
        assert set(small) <= {"log"}, place


def test_nothing_moves_as_a_job_page_fills(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN)
    page.see(".job-name")
    page.run(
        "window.shifted = 0; new PerformanceObserver((list) => {"
        "for (const e of list.getEntries()) window.shifted += e.value;"
        "}).observe({type: 'layout-shift', buffered: false})"
    )
    page.run("location.hash = arguments[0]", JOB)
    page.see(".plot canvas")
    scene.tell_row(service, scene.RUNNING, scene.next_row(service, scene.RUNNING))
    page.until(lambda: "epoch 10" in loss_told(page), "the next point")
    assert page.run("return window.shifted") < 0.02


def test_what_is_not_there_and_what_is_away_is_said(page: Browser, service: FakeService) -> None:
    page.sign_in(TOKEN, "#/jobs/job_0000000000000000000z")
    page.see(".empty", "there is no job with this id")
    service.away = True
    page.run("location.hash = '#/models'")
    page.see(".empty", "the database does not answer; try again")
    service.away = False
    page.see(".empty button", "Try again").click()
    page.see(".model-row", "digits adam")
