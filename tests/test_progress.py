"""The displays of a running job: lines for people, JSON for programs, a live line on a terminal."""

from __future__ import annotations

import io
import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from distbp.core.words import snake_case
from distbp.run import events
from distbp.run.epoch_table import number
from distbp.run.live import Pace, counting, duration
from distbp.run.progress import json_lines, never_silent, plain_lines, show, summary
from distbp.run.result import Result

STARTED = events.Started(
    name="mnist",
    run_dir="runs/mnist",
    job_digest="ab" * 32,
    parameters=23_860,
    rows={"train": 50_000, "validation": 10_000},
    shards=4,
    workers=2,
    exchange="shared memory",
    epochs=10,
    steps_per_epoch=391,
    total_steps=3910,
    first_step=0,
    attempt=1,
    kernels="numpy",
    watched="validation_loss",
)
EPOCH = events.EpochEnded(
    epoch=2,
    step=782,
    metrics={"epoch": 2, "step": 782, "train_loss": 0.25, "validation_loss": math.nan, "validation_f1": 0.9},
    samples_per_second=225_000.4,
    seconds=0.2,
    improved=True,
)
RESULT = Result(
    status="completed",
    job_digest="ab" * 32,
    steps=3910,
    epochs=10.0,
    params_sha256="cd" * 32,
    metrics={"train_loss": 0.1234567, "test_accuracy": 0.956},
    samples_per_second=200_000.0,
    wall_seconds=75.0,
    workers=2,
    shards=4,
    exchange="shared memory",
    numerics={},
    notes=("workers: auto chose 2",),
    path=Path("runs/mnist"),
)


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until, "never came"
        time.sleep(0.01)


def _shown(*told: events.Event) -> list[str]:
    stream = io.StringIO()
    listen = plain_lines(stream, lambda event: [f"{event.shards} shards, for a reason"])
    for event in told:
        listen(event)
    return stream.getvalue().splitlines()


def test_plain_lines() -> None:
    assert _shown(
        STARTED,
        events.Progressed(10, 3910, 1, 1e5),
        EPOCH,
        events.CheckpointSaved(782, "runs/mnist/checkpoints/step-00000782", 0.01),
        events.CheckpointSetAside("step-00000391", "SHA-256 differs"),
        events.TeamChanged(800, 2, "worker 1 died"),
        events.Stopped("validation_loss", 5, 3, 0.125),
        events.Finished({}),
    ) == [
        "mnist: 23,860 parameters, 4 shards, 2 workers, shared memory",
        "50,000 train rows, 10,000 validation rows; 10 epochs of 391 steps",
        "note: 4 shards, for a reason",
        "* marks the best epoch so far, by its validation loss",
        "           train  validation",
        "epoch       loss        loss         f1  samples/s",
        "    2     0.2500         nan     0.9000    225,000  *",
        "warning: the damaged checkpoint step-00000391 was set aside (SHA-256 differs);"
        " the one before is used",
        "step 800, attempt 2: worker 1 died",
        "stopped early: validation_loss has not improved for 5 evaluations; the best was 0.1250 in epoch 3",
    ]


def test_a_resumed_run_says_from_where() -> None:
    resumed = events.Started(**{**vars(STARTED), "first_step": 500, "workers": 0, "epochs": 1, "shards": 1})
    assert _shown(resumed)[:2] == [
        "mnist: 23,860 parameters, 1 shard, in this process",
        "50,000 train rows, 10,000 validation rows; 1 epoch of 391 steps; going on from step 500",
    ]


def epoch(number: int, *, speed: float = 1e5, **metrics: float) -> events.EpochEnded:
    return events.EpochEnded(number, 10 * number, {"epoch": number, **metrics}, speed, 0.1, number == 1)


def test_epochs_are_rows_under_one_head() -> None:
    shown = {"validation_loss": 42156.0, "validation_accuracy": 0.089}
    told = [epoch(n, train_loss=1 / n, **shown, learning_rate=0.1) for n in (1, 2)]  # a line of a service's
    lines = _shown(replace(STARTED, watched=None), *told)
    assert lines[-4:] == [
        "           train  validation",
        "epoch       loss        loss   accuracy  samples/s",
        "    1     1.0000   4.216e+04     0.0890    100,000  *",
        "    2     0.5000   4.216e+04     0.0890    100,000",
    ]
    assert not any("marks" in line for line in lines), "nothing chooses a best epoch"


def test_a_table_has_room_in_80_columns_and_names_what_has_not() -> None:
    names = ("accuracy", "precision", "recall", "f1", "auc", "top_5")
    many = {f"validation_{name}": 0.5 for name in names}
    lines = _shown(STARTED, epoch(1, train_loss=0.1, validation_loss=0.1, **many))
    assert max(map(len, lines)) <= 80
    assert "in metrics.jsonl, and not shown here: validation recall, validation top 5" in lines
    assert lines[-2].split() == ["epoch", "loss", "loss", "accuracy", "f1", "auc", "precision", "samples/s"]


def test_where_not_every_epoch_is_evaluated_the_head_comes_again_with_all_columns() -> None:
    first, second = epoch(1, train_loss=0.5), epoch(2, train_loss=0.4, validation_loss=0.3)
    lines = _shown(STARTED, first, second, epoch(3, train_loss=0.3))
    assert lines[-1] == "    3     0.3000                100,000"
    assert [line for line in lines if line.startswith("epoch")] == [
        "epoch       loss  samples/s",
        "epoch       loss        loss  samples/s",
    ]


def test_a_speed_that_is_not_known_yet_is_not_told() -> None:
    assert _shown(epoch(1, speed=0.0, train_loss=0.5))[-1] == "    1     0.5000             *"


def test_nothing_is_silent_for_long() -> None:
    """A clock that stands at 5 s after each event: more than may be waited for in silence."""
    stream, now, over = io.StringIO(), [0.0], threading.Event()
    with never_silent(stream, plain_lines(stream), clock=lambda: now[0], over=over) as listen:
        for event, said in (
            (events.Waiting("starting Ray"), "... starting Ray (for 5 s)\n"),
            (STARTED, ""),
            (events.Progressed(391, 3910, 1, 2e5), "... epoch 1 of 10, step 391 of 3,910, 200,000 samples/s"),
        ):
            listen(event)
            now[0] += 5.0
            wait_until(lambda said=said: said in stream.getvalue())
    assert over.is_set()


def test_on_a_terminal_what_is_waited_for_is_shown_at_once() -> None:
    stream = Terminal()
    with show(stream) as listen:
        listen(events.Waiting("starting Ray"))
    assert "starting Ray" in stream.getvalue()


def test_json_lines_hold_every_event_and_only_json_numbers() -> None:
    stream = io.StringIO()
    listen = json_lines(stream, lambda _: ["a note"])
    for event in (STARTED, EPOCH):
        listen(event)
    first, second = (
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
        for line in stream.getvalue().splitlines()
    )
    assert (first["event"], first["notes"], first["total_steps"]) == ("started", ["a note"], 3910)
    assert (second["event"], second["metrics"]["validation_loss"]) == ("epoch_ended", None)


@pytest.mark.parametrize("kind", events.Event.__args__)
def test_every_event_has_a_name_for_programs(kind: type) -> None:
    name = snake_case(kind.__name__)
    assert name.replace("_", "") == kind.__name__.lower()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_lines_and_a_display_that_goes_away() -> None:
    stream = Terminal()
    with show(stream) as listen:
        listen(STARTED)
        for step in range(1, 400):
            listen(events.Progressed(step, 3910, 1, 2e5))
        listen(EPOCH)
    shown = stream.getvalue()
    assert "mnist: 23,860 parameters" in shown
    assert "    2     0.2500         nan     0.9000" in shown
    assert "samples/s" in shown


def test_a_count_is_shown_on_a_terminal_alone() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        with counting(stream, "entries checked") as tell:
            for done in range(1, 1201):
                tell(done, 1200)
    assert "1,200 of 1,200 entries checked, 0.0 s left" in terminal.getvalue()
    assert pipe.getvalue() == ""


def test_a_file_gets_plain_lines_and_a_program_json() -> None:
    plain, as_json = io.StringIO(), io.StringIO()
    for stream, flag in ((plain, False), (as_json, True)):
        with show(stream, as_json=flag) as listen:
            listen(EPOCH)
    assert "    2     0.2500" in plain.getvalue()
    assert json.loads(as_json.getvalue())["event"] == "epoch_ended"
    assert "\x1b" not in plain.getvalue()


def test_time_left_follows_the_speed_of_the_last_seconds() -> None:
    pace = Pace(0, 1000, 0.0)
    assert pace.seconds_left(0, 1.0) is None
    assert pace.seconds_left(100, 10.0) == pytest.approx(90.0)  # 10 steps a second
    assert pace.seconds_left(100, 11.0) == pytest.approx(90.0)  # nothing new
    # Five seconds at 20 steps a second count half: 15 steps a second, 800 steps left.
    assert pace.seconds_left(200, 15.0) == pytest.approx(800 / 15)
    assert pace.seconds_left(1000, 20.0) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (7.25, "7.2 s"), (200, "3 min 20 s"), (59.99, "60.0 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.25, "0.2500"),
        (12.5, "12.5000"),
        (0.0001234567, "0.0001235"),
        (123456.0, "1.235e+05"),
        (math.nan, "nan"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_the_summary_says_what_came_out_and_where_it_lies() -> None:
    assert summary(RESULT).splitlines() == [
        "completed: 3,910 steps (10 epochs) in 1 min 15 s, 200,000 samples/s",
        "  train loss            0.1235",
        "  test accuracy         0.9560",
        "  weights       " + "cd" * 32,
        "  model                 runs/mnist/model",
        "  note: workers: auto chose 2",
    ]


def test_the_summary_says_of_which_epoch_the_model_is_and_fits_80_columns() -> None:
    note = "workers: auto chose 0 (steps a second: 0 workers 100; 40 s are left, too few to repay the start)"
    lines = summary(replace(RESULT, model_epoch=7, notes=(note,))).splitlines()
    assert lines[1] == "  the model is that of epoch 7, the best; so are these:"
    assert max(map(len, lines)) <= 80
    assert "\n".join(lines[-2:]).replace("\n   ", "") == f"  note: {note}"
