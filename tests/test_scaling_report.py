"""The tables of docs/scaling.md, from made-up measurements. Nothing is timed here."""

from __future__ import annotations

from pathlib import Path

from benchmarks import scaling
from distbp.run.plan.speed_model import Machine, Work

MACHINE = Machine(cores=8)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"


def test_the_bars_of_the_exchange():
    times = {25_000: [0.1e-3] * 10, 1_000_000: [2e-3] * 10, 10_000_000: [14e-3] * 10}
    lines = scaling.exchange_table(times).splitlines()[2:]
    assert lines[0] == "| 25,000 | 0.100 ms | 0.100 ms | 0.15 ms | met |"
    assert lines[1] == "| 1,000,000 | 2.000 ms | 2.000 ms | 1 ms | NOT met |"
    assert lines[2].endswith("| met |")


def test_constants_that_were_not_measured_say_so():
    assert "not measured" not in scaling.constants_table(MACHINE, True)
    assert scaling.constants_table(MACHINE, False).count("(not measured in this run)") == 2


def test_the_rows():
    works = {name: Work(2, 1e-3, 4_000, 1e-4) for name in scaling.ROWS}
    lines = scaling.rows_table(works, MACHINE).splitlines()
    assert len(lines) == 8
    assert lines[2].startswith("| 784-30-10, 10 | 1.000 ms | 0.100 ms | 2.100 ms | ")


def test_model_and_simulation_to_1024_workers():
    large = Work(scaling.LARGE_SHARDS, 3e-3, 25_000_000, 2e-3, jitter=0.05)
    text, worst = scaling.simulation_table(large, MACHINE)
    assert worst < 0.25
    lines = text.splitlines()
    assert lines[-2].startswith("| 1,024 | ")
    limits = [int(cell) for cell in lines[-1].split("|")[2:-1]]
    assert limits == sorted(limits) and limits[0] < limits[1]


def test_the_page_has_a_place_for_the_tables(tmp_path: Path):
    page = tmp_path / "scaling.md"
    page.write_text(PAGE.read_text("utf-8"))
    scaling.replace_section(page, "measured", "new tables")
    assert "new tables" in page.read_text()
    scaling.draw(Work(1024, 3e-3, 25_000_000, 2e-3), MACHINE, tmp_path / "scaling.svg")
    assert (tmp_path / "scaling.svg").stat().st_size > 1000
