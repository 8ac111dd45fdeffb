"""The form of a model of a table, in a real browser in front of the real API and a model that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("selenium")

from browser import PHONE, Browser
from real_service import Real
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

import distbp
from distbp.core import settings

pytestmark = pytest.mark.heavy

TABLE = {"train": {"format": "table", "path": "homes.csv"}}
JOB = {"epochs": 4, "workers": 0, "optimizer": {"type": "adam", "learning_rate": 0.1}}
KINDS = {
    "price": {
        "data": {**TABLE, "target": {"column": "price", "scale": "standard"}, "columns": {"size": "drop"}},
        "model": {"layers": [{"type": "dense", "units": 1}]},
        "loss": "mse",
    },
    "size": {
        "data": {**TABLE, "target": "size", "columns": {"price": "drop"}},
        "model": {"layers": [{"type": "dense", "units": 2}]},
        "loss": "softmax_cross_entropy",
    },
}
SENT = {"data": {"train": {"format": "blobs"}}, "model": {"layers": [{"type": "dense", "units": 3}]}}


def homes() -> str:
    lines = ["rooms,city,built,garden,price,size"]
    for n in range(60):
        rooms, city = 1 + n % 5, ("Oslo", "Oslo", "Ghent")[n % 3]
        cells = (rooms, city if n % 20 else "", f"19{50 + n % 50}-02-03", ("yes", "no")[n % 2], 50 * rooms)
        lines.append(",".join(map(str, (*cells, "large" if rooms > 2 else "small"))))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directories by target, beside homes.csv."""
    folder = tmp_path_factory.mktemp("homes")
    (folder / "homes.csv").write_text(homes())
    for name, fields in KINDS.items():
        data: Any = {
            **fields["data"],
            "columns": {**fields["data"]["columns"], "rooms": {"kind": "number", "bins": 4}},
        }  # type: ignore[dict-item]
        with settings.environment({"DISTBP_KERNELS": "numpy"}):
            job = distbp.TrainingJob.from_mapping({**JOB, **fields, "data": data})
            distbp.train(job, folder=folder, output=folder / name)
    return folder


def field(page: Browser, name: str) -> Any:
    """By its label, as who does not see the page finds it."""
    label = next(one for one in page.find(".fields label") if one.text == name)
    return page.driver.find_element(By.ID, label.get_attribute("for") or "")


def value(page: Browser) -> float:
    return float(page.see(".verdict-line .prediction").text.replace(",", ""))


def test_a_value_is_predicted_on_the_page_of_its_job(real: Real, watched: Browser, runs: Path) -> None:
    page, model = watched, distbp.load_model(runs / "price" / "model")
    job_id, _ = real.finished(runs / "price", "home prices", SENT | {"loss": "softmax_cross_entropy"})
    page.fresh(real.address)
    page.sign_in(real.token, f"#/jobs/{job_id}")
    page.see("#tab-predict").click()
    page.see(".fields")
    assert field(page, "rooms").get_attribute("type") == "number"
    hint = page.driver.find_element(By.ID, field(page, "rooms").get_attribute("aria-describedby"))
    assert hint.text == "1 to 5 in training; empty counts as 3"
    city = Select(field(page, "city"))
    assert [one.text for one in city.options] == ["Oslo", "Ghent", "missing", "another …"]
    assert [one.text for one in Select(field(page, "garden")).options] == ["yes", "no", "missing"]
    assert field(page, "built").get_attribute("type") == "date"
    row = {"rooms": 3, "city": "Oslo", "garden": "yes", "built": field(page, "built").get_attribute("value")}
    page.see(".predict button.main").click()
    assert value(page) == pytest.approx(model.predict(row)[0], rel=1e-4)
    assert page.see(".verdict-line").text.startswith("price")
    assert page.find(".shares-of") == page.find(".noticed") == []

    city.select_by_visible_text("another …")
    page.see(".level input").send_keys("Rome")
    rooms = field(page, "rooms")
    rooms.clear()
    rooms.send_keys("9", Keys.ENTER)
    page.see(".noticed", "rooms: training saw 1 to 5 only.")
    page.see(".noticed", "city: this level has no column of its own in the model")
    with pytest.warns(UserWarning, match="'city'"):
        assert value(page) == pytest.approx(model.predict({**row, "rooms": 9, "city": "Rome"})[0], rel=1e-4)
    rooms.clear()
    page.run("arguments[0].value = ''", field(page, "built"))
    Select(field(page, "garden")).select_by_visible_text("missing")
    city.select_by_visible_text("missing")
    page.see(".predict button.main").click()
    page.until(lambda: not page.find(".noticed"), "nothing noticed")
    none = {**dict.fromkeys(row), "city": None}
    page.until(lambda: value(page) == pytest.approx(model.predict([none])[0], rel=1e-4), "all missing")
    page.see(".predict button", "Example").click()
    assert rooms.get_attribute("value") == "3"

    new = runs / "new.csv"
    new.write_text("city,rooms,built,garden,note\nOslo,2,1999-01-01,no,x\nRome,4,,yes,y\n")
    page.driver.find_element(By.CSS_SELECTOR, ".predict input[type=file]").send_keys(str(new))
    page.see(".noticed", "Not used by the model: note.")
    assert len(page.find(".answer tbody tr")) == 2
    new.write_text("city,rooms,built,garden\nOslo,2,soon,no\n")
    page.driver.find_element(By.CSS_SELECTOR, ".predict input[type=file]").send_keys(str(new))
    page.see(".fault", "row 0, column 'built': 'soon' is not a date")

    code = page.see(".use .source").text
    assert code.startswith(
        'import distbp\nmodel = distbp.load_model("home-prices.tar")\nprint(model.predict({"rooms": 3'
    )
    page.see("#tab-data").click()
    page.see(".data table caption", "4 columns enter")
    page.see(".data", "3 rows: a wrong number of cells")
    page.see(".data .noticed", "columns left out: 'note'")
    page.see(".data", "2 levels: Oslo, Ghent")


def test_classes_are_bars_on_the_page_of_the_model(real: Real, watched: Browser, runs: Path) -> None:
    page, model = watched, distbp.load_model(runs / "size" / "model")
    _, model_id = real.finished(runs / "size", "sizes", SENT | {"loss": "softmax_cross_entropy"})
    page.fresh(real.address)
    page.sign_in(real.token, f"#/models/{model_id}")
    page.screen(*PHONE, phone=True)
    page.see(".fields")
    row = {"rooms": 3, "city": "Oslo", "garden": "yes", "built": field(page, "built").get_attribute("value")}
    page.run("document.querySelector('.predict button.main').click()")
    page.see(".shares-of")
    found = dict(zip(model.classes or (), model.predict_proba(row)[0].tolist(), strict=True))
    wanted = sorted(found.items(), key=lambda one: -one[1])
    shown = [one.text.split("\n") for one in page.find(".shares-of li")]
    assert shown == [[name, f"{100 * share:.2f} %"] for name, share in wanted]
    assert page.see(".verdict-line").text.split() == ["size", wanted[0][0]]
    assert page.run("return document.documentElement.scrollWidth") == PHONE[0]
    unnamed = page.run(
        "return [...document.querySelectorAll('.predict :is(input, select, textarea, meter)')].filter((e) =>"
        " !e.labels?.length && !e.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
