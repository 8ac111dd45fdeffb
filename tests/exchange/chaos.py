"""Chaos from seeds: what happens to a run on Ray, when, and how it is done."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leftovers import MARK
from rigs import classes, make_job

from distbp import TrainingJob
from distbp.core.interrupts import Control
from distbp.data.batches import WholeData
from distbp.engine import numerics
from distbp.engine.blueprint import Blueprint
from distbp.engine.evaluation import Evaluation
from distbp.optim.schedules import PlateauState
from distbp.run.control import Requests
from distbp.run.result import Result
from distbp.run.run_directory import RunDirectory
from distbp.run.splits import open_splits
from distbp.run.train import make_blueprint
from distbp.run.trainer import Trainer
from distbp.team.base import Snapshot
from distbp.team.exchange.faults import FaultPlan
from distbp.team.exchange.shared_data import share_rows
from distbp.team.membership import Options

DATA = {"train": classes(310, weighted=True), "validation": classes(60, seed=1), "test": classes(50, seed=2)}
LAYERS = (
    {"type": "dense", "units": 7, "activation": "tanh"},
    {"type": "dropout", "rate": 0.2},
    {"type": "batch_normalization"},
    {"type": "dense", "units": 3},
)
DENSE: tuple[dict[str, Any], ...] = (
    {"type": "dense", "units": 7, "activation": "tanh"},
    {"type": "dense", "units": 3},
)
OPTIMIZERS: tuple[dict[str, Any], ...] = (
    {"type": "sgd", "learning_rate": 0.1},
    {"type": "momentum", "learning_rate": 0.05, "schedule": {"type": "reduce_on_plateau", "patience": 0}},
    {"type": "adam", "learning_rate": 0.01},
)
FROZEN_S = 2.0
ACTIONS = ("kill worker", "stop worker", "kill all workers", "kill server", "stop server", "scale")
LIKELY = (6, 2, 1, 2, 1, 4)


def job_of(optimizer: int, layers: tuple[dict[str, Any], ...] = LAYERS) -> TrainingJob:
    """240 steps, 8 a time through the rows; a second or so."""
    return make_job(
        layers,
        batch_size=40,
        shards=8,
        max_steps=240,
        optimizer=OPTIMIZERS[optimizer],
        checkpoint={"every_steps": 60},
        early_stopping={"metric": "validation_loss", "patience": 60},
    )


@dataclass(frozen=True)
class Event:
    """`at_s`: after the first team was ready, or (early) was asked for. `number`: which worker, how many."""

    early: bool
    at_s: float
    action: str
    number: int


@dataclass(frozen=True)
class Schedule:
    optimizer: int
    workers: int
    faults: FaultPlan | None
    events: tuple[Event, ...]


def schedule_of(seed: int) -> Schedule:
    dice = random.Random(seed)
    faults = FaultPlan(seed, drop=0.003, repeat=0.1, delay=0.02, reorder=0.003)
    events = []
    for _ in range(dice.choice((1, 1, 2, 3))):
        early = dice.random() < 0.2
        at_s = dice.uniform(0.2, 1.6) if early else dice.uniform(0.0, 1.2)
        events.append(Event(early, at_s, dice.choices(ACTIONS, LIKELY)[0], dice.randrange(1, 5)))
    events.sort(key=lambda e: (not e.early, e.at_s))
    workers = dice.choice((1, 2, 2, 3))
    return Schedule(dice.randrange(3), workers, faults if dice.random() < 0.5 else None, tuple(events))


class Checked:
    """A `Team` whose server's ledger is checked after every stretch: no step is applied twice."""

    def __init__(self, team: Any, first: int, attempt: int) -> None:
        self.team = team
        self._first = first
        self._attempt = attempt
        self.exchange = team.exchange

    @property
    def workers(self) -> int:
        return int(self.team.workers)

    def run(self, first: int, stop: int, plateau: PlateauState, stopping: Callable[[], bool]) -> int:
        reached: int = self.team.run(first, stop, plateau, stopping)
        attempt, step, applied = self.team.ledger()
        assert attempt == self._attempt
        assert reached == step == self._first + applied
        return reached

    def evaluate(self, split: str) -> Evaluation:
        found: Evaluation = self.team.evaluate(split)
        return found

    def snapshot(self, whole: bool = True) -> Snapshot:
        found: Snapshot = self.team.snapshot(whole)
        return found

    def adopt(self, vector: Any) -> bool:
        return bool(self.team.adopt(vector))

    def close(self) -> None:
        self.team.close()


class Chaos:
    """Makes the teams of a run, and does to them what the schedule says."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._team: Any = None
        self._up, self._over = threading.Event(), threading.Event()
        self._stack = ExitStack()
        self._handles: dict[str, Any] = {}
        self._thread: threading.Thread | None = None
        self.told: list[str] = []

    def __call__(
        self,
        blueprint: Blueprint,
        data: WholeData,
        snapshot: Snapshot,
        attempt: int,
        changed: Callable[[str], None],
    ) -> Checked:
        from distbp.team.ray.head_start import HeadStart
        from distbp.team.ray.ray_team import RayTeam  # imports Ray: only within the session

        chaos = self

        class Seen(RayTeam):
            """Can be harmed while it is being made."""

            def __init__(self, *args: Any) -> None:
                chaos._team = self
                super().__init__(*args)

        early = None
        if not self._handles:
            early = HeadStart(self._schedule.workers, blueprint.kernels)
            self._stack.callback(early.dismiss)
            for name, rows in data.splits.items():
                memory, self._handles[name] = share_rows(rows)  # type: ignore[arg-type]
                self._stack.callback(memory.close)
            self._thread = threading.Thread(target=self._act, name="chaos")
            self._thread.start()
        options = Options(self._schedule.workers, frozen_s=FROZEN_S, faults=self._schedule.faults)
        team = Seen(blueprint, data, snapshot, attempt, options, self._handles, changed, early)
        self._up.set()
        return Checked(team, snapshot.step, attempt)

    def close(self) -> None:
        self._over.set()
        self._up.set()
        if self._thread:
            self._thread.join()
        self._stack.close()

    def _act(self) -> None:
        for early in (True, False):
            if not early:
                self._up.wait()
            began = time.monotonic()
            for event in self._schedule.events:
                if event.early == early:
                    if self._over.wait(max(0.0, event.at_s - (time.monotonic() - began))):
                        return
                    self._do(event)

    def _do(self, event: Event) -> None:
        with suppress(AttributeError):  # the team is not made yet
            pids = {name: place.pid for name, place in self._team.places().items()}
            server = [pids.pop("server")] if "server" in pids else []
            workers = sorted(pids.values())
            if event.early and "kill" in event.action:  # those who have not joined, too
                server = server or _named("ray::ServerActor")
                workers = workers or _named("ray::WorkerActor")
            self.told.append(f"{event.action} of {workers}")
            if event.action == "scale":
                self._team.scale(event.number)
                return
            victims = server if "server" in event.action else workers
            if "all" not in event.action and victims:
                victims = [victims[event.number % len(victims)]]
            for pid in victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP if "stop" in event.action else signal.SIGKILL)


def drive(path: Path, job: TrainingJob, make_team: Any) -> Result:
    """As `distbp.train` does it, with another maker of teams."""
    splits = open_splits(job, Path(), DATA)
    blueprint = make_blueprint(job, splits)
    with RunDirectory.create(path, job.to_yaml()) as run, numerics.one_blas_thread():
        control, data = Control(), splits.ready(blueprint)
        requests = Requests(control, path)
        trainer = Trainer(run, blueprint, splits, data, make_team, lambda event: None, control, requests)
        return trainer.train(None)


def actors() -> dict[int, str]:
    """The living actors of this test run: process -> its name."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name = (entry / "cmdline").read_bytes().decode(errors="replace").strip("\0")
            if name.startswith(("ray::WorkerActor", "ray::ServerActor", "ray::RelayActor")) and (
                mark in (entry / "environ").read_bytes()
            ):
                found[int(entry.name)] = name
    return found


def _named(kind: str) -> list[int]:
    return sorted(pid for pid, name in actors().items() if name.startswith(kind))
