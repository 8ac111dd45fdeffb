"""What several networks tell, told as one run."""

from __future__ import annotations

from pathlib import Path

from rigs import make_job

from distbp.run import events
from distbp.run.members_told import MembersTold
from distbp.run.run_directory import RunDirectory


def test_what_all_networks_say_is_told_once_and_what_happens_each_time(tmp_path: Path) -> None:
    heard: list[events.Event] = []
    with RunDirectory.create(tmp_path / "run", "job") as run:
        told = MembersTold(run, heard.append, make_job(members=2), 2, 10, ())
        for number in (0, 1):
            hear = told.listener(number)
            hear(events.Noted("the data has one class"))
            hear(events.TeamChanged(4, 1, "1 worker was asked for; there is 1 now"))
    assert heard == [
        events.Noted("the data has one class"),
        events.TeamChanged(4, 1, "1 worker was asked for; there is 1 now"),
        events.TeamChanged(14, 1, "1 worker was asked for; there is 1 now"),
    ]
