"""The trainer: steps in stretches, evaluation, checkpoints, early stopping. It knows no exchange.

`train` and `resume` are the ways in; `Trainer` is the loop they share. A run can be killed at any moment: it
goes on from its last checkpoint, in the middle of an epoch, to the same bits and the same metrics.jsonl.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from distbp import checkpoint, events, numerics
from distbp.blueprint import Blueprint
from distbp.checkpoint import Checkpoint
from distbp.control import NOTHING, Control, take_file
from distbp.data.batches import WholeData
from distbp.data.splits import Splits
from distbp.diagnosis import diagnose
from distbp.errors import CheckpointError, Interrupted, ServerLostError
from distbp.evaluation import values
from distbp.exchange.base import Snapshot, Team
from distbp.imports import missing
from distbp.interrupts import Interrupts
from distbp.model import params_digest
from distbp.nn.arrays import Array
from distbp.parameter_server import NotFiniteError
from distbp.result import Result
from distbp.run_directory import RunDirectory
from distbp.run_state import RunState, after_evaluation, out_of_patience, watched
from distbp.totals import LOSS, SATURATION, WEIGHT, saturating_layers

PROGRESS_S = 0.5  # between two Progressed events
REQUESTS_S = 0.25  # between two looks for requests in the run directory
BARREN_ATTEMPTS = 5  # servers lost one after the other, no step further: then it is not by chance
# (blueprint, data, start, attempt, whom to tell why the team changed) -> team
MakeTeam = Callable[[Blueprint, WholeData, Snapshot, int, Callable[[str], None]], Team]

# Hashing takes some 10 ns a parameter, a row of an epoch some 0.06: for so many rows it is 0.3 % of the time.
ROWS_WORTH_A_DIGEST = 65536
SMALL_BYTES = 1 << 20  # of parameters that are hashed at every epoch all the same


def digest_every(parameter_bytes: int, rows: int) -> int:
    """At every how many epochs metrics.jsonl tells the digest of the parameters; and at the last one."""
    return 1 if parameter_bytes <= SMALL_BYTES else max(1, -(-ROWS_WORTH_A_DIGEST // rows))


class Trainer:
    """Drives one run. `run` is locked by this process; `make_team` starts server and workers.

    Call `train` within `one_blas_thread`.
    """

    def __init__(
        self,
        run: RunDirectory,
        blueprint: Blueprint,
        splits: Splits,
        make_team: MakeTeam,
        listener: events.Listener,
        interrupts: Interrupts,
        *,
        control: Control | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run = run
        self._control = control or Control()
        self._asked_at = 0.0  # when the run directory was last looked at for requests
        self._asked_workers: int | None = None
        self.blueprint = blueprint
        self.job = blueprint.job
        self._listener = listener
        self._interrupts = interrupts
        self._clock = clock
        self._make_team = make_team
        network = blueprint.network()
        self._network = network
        self._data = splits.ready(blueprint)
        self._splits = splits
        self._samples = splits.samples()
        self._per_epoch = blueprint.steps_per_epoch
        self._total = blueprint.total_steps
        self._watched = watched(self.job, set(blueprint.rows))
        self._saturating = saturating_layers(blueprint)
        self._state = RunState()
        self._saved = Snapshot(0, {})
        self._saved_at = 0.0
        self._step = 0
        self._train_seconds = 0.0
        self._train_samples = 0
        self.notes: list[str] = []

    def train(self, start: Checkpoint | None) -> Result:
        """Trains to the end from `start` (None: the beginning), writes model and result; waits.

        Raises Interrupted after a checkpoint when a signal came; NumericsError, StorageError, DataError.
        """
        began = self._clock()
        self._restore(start)
        take_file(self.run.path)  # it was meant for a process that is gone
        announced, furthest, barren = False, 0, 0
        while True:
            try:
                with closing(self._start_team()) as team:
                    if not announced:
                        self._announce(team)
                        announced = True
                    if self._asked_workers is not None:
                        team.scale(self._asked_workers)
                    self._train(team)
                    vector, metrics = self._finish(team)
                    result = self._result(team, vector, metrics, self._clock() - began)
                break
            except ServerLostError as error:
                barren = 0 if self._step > furthest else barren + 1
                furthest = max(furthest, self._step)
                if barren == BARREN_ATTEMPTS:
                    raise
                self._begin_attempt(error)
        self.run.write_result(result.to_json())
        self._emit(events.Finished(result.to_json()))
        return result

    # Steps ---------------------------------------------------------------------------------------------

    def _train(self, team: Team) -> None:
        step = self._saved.step
        while not self._state.ended:
            step = self._step = self._advance(team, step)

    def _begin_attempt(self, error: ServerLostError) -> None:
        """The server is gone: all goes back to the last checkpoint, as if nothing had come after it."""
        attempt = self._state.attempt + 1
        step = self._step = self._rewind()
        self._state = replace(self._state, attempt=attempt)
        self._team_changed(f"{error}; attempt {attempt} goes on from step {step}")

    def _advance(self, team: Team, step: int) -> int:
        """Trains up to the next event: an epoch's end, a checkpoint, a progress report, a signal."""
        stop = min((step // self._per_epoch + 1) * self._per_epoch, self._total)
        every = self.job.checkpoint.every_steps
        if every:
            stop = min(stop, (step // every + 1) * every)
        began = self._clock()
        until = began + PROGRESS_S
        clock, interrupted = self._clock, self._interrupts.is_set
        try:
            reached = team.run(step, stop, self._state.plateau, lambda: clock() > until or interrupted())
        except NotFiniteError as error:
            vector = team.snapshot().arrays["vector"]
            number = self._splits.tables["train"].row_number
            raise diagnose(self.blueprint, vector, self._data, error.step, number) from None
        self._count(step, reached, self._clock() - began)
        self._obey(team, reached)
        ended = reached % self._per_epoch == 0 or reached == self._total
        if reached > step and ended:
            self._end_epoch(team, reached)
        if self._interrupts.is_set() and not self._state.ended:
            self._save(team, reached)
            raise Interrupted(str(self.run.path), reached, self._interrupts.name)
        if reached > step and self._checkpoint_due(reached):
            self._save(team, reached)
        return reached

    def _obey(self, team: Team, step: int) -> None:
        """Does what was asked for while steps ran (see `distbp.control`)."""
        asked = self._control.take()
        if self._clock() - self._asked_at >= REQUESTS_S:
            self._asked_at = self._clock()
            asked = asked if asked != NOTHING else take_file(self.run.path)
        if asked.stop:
            self._interrupts.request("a call of stop()")
        if asked.workers is None:
            return
        self._step = step
        refused = team.scale(asked.workers)
        if refused is None:
            self._asked_workers = asked.workers
            self._team_changed(f"{asked.workers} workers were asked for; there are {team.workers} now")
        else:
            self._team_changed(f"{asked.workers} workers were asked for, but cannot be, because {refused}")

    def _count(self, first: int, stop: int, seconds: float) -> None:
        sharding = self.blueprint.sharding()
        samples = sharding.rows_before(stop) - sharding.rows_before(first)
        self._train_samples += samples
        self._train_seconds += seconds
        speed = samples / seconds if seconds > 0 else 0.0
        epoch = max(0, stop - 1) // self._per_epoch + 1
        self._emit(events.Progressed(stop, self._total, epoch, speed))

    # Epochs --------------------------------------------------------------------------------------------

    def _end_epoch(self, team: Team, step: int) -> None:
        began = self._clock()
        epoch = -(-step // self._per_epoch)
        last = step == self._total
        parameters = self._network.parameter_count
        every = digest_every(parameters * self._network.dtype.itemsize, self.blueprint.rows["train"])
        whole = last or epoch % every == 0  # else perhaps nobody asks for the parameters
        snapshot = team.snapshot(whole)
        line: dict[str, Any] = {"epoch": epoch, "step": step, **self._training_values(snapshot)}
        evaluated = epoch % self.job.evaluate_every == 0 or last
        if evaluated and "validation" in self.blueprint.rows:
            line.update(values(self.blueprint, self._network, team.evaluate("validation"), "validation"))
        rate = self.blueprint.learning_rate()(step - 1, self._state.plateau)
        measured: dict[str, Any] = {"learning_rate": rate}
        if whole:
            measured["params_sha256"] = params_digest(snapshot.arrays["vector"][:parameters])
        measured.update(self._health(snapshot, step))
        self.run.append_metric({**line, **measured})
        improved = False
        if evaluated:
            self._state, improved = after_evaluation(self._state, self.job, self._watched, line, epoch, step)
        if last:
            self._state = replace(
                self._state, ended="max_steps" if self._total == self.job.max_steps else "epochs"
            )
        elif evaluated and out_of_patience(self._state, self.job):
            self._state = replace(self._state, ended="early_stopping")
            assert self._state.best is not None
            self._emit(
                events.Stopped(
                    str(self._watched), self._state.waited, self._state.best_epoch, self._state.best
                )
            )
        if (improved and self._keeps_best) or self._state.ended:
            self._save(team, step, snapshot if whole else None)
        speed = self._train_samples / self._train_seconds if self._train_seconds else 0.0
        self._emit(events.EpochEnded(epoch, step, line, speed, self._clock() - began, improved))

    def _training_values(self, snapshot: Snapshot) -> dict[str, Any]:
        totals = snapshot.arrays["epoch_totals"]
        return {"train_loss": float(totals[LOSS] / totals[WEIGHT]) if totals[WEIGHT] else math.nan}

    def _health(self, snapshot: Snapshot, step: int) -> dict[str, Any]:
        """Per-layer signs of slow learning, measured at the last step of a whole epoch."""
        if step % self._per_epoch:
            return {}
        tensors = {
            h.path: {"gradient_norm": h.gradient_norm, "update_ratio": h.update_ratio}
            for h in snapshot.health
        }
        totals = snapshot.arrays["epoch_totals"]
        saturated = {}
        for number, layer in enumerate(self._saturating):
            place = SATURATION + 2 * number
            count, units = totals[place], totals[place + 1]
            saturated[f"layers.{layer}"] = float(count / units) if units else 0.0
        return {"health": {"tensors": tensors, "saturated": saturated}}

    # Checkpoints ---------------------------------------------------------------------------------------

    @property
    def _restores_best(self) -> bool:
        return self.job.early_stopping is not None and self.job.early_stopping.restore_best

    @property
    def _keeps_best(self) -> bool:
        return self.job.checkpoint.keep_best or self._restores_best

    def _checkpoint_due(self, step: int) -> bool:
        if self._saved.step == step:
            return False
        every, seconds = self.job.checkpoint.every_steps, self.job.checkpoint.every_seconds
        if every and step % every == 0:
            return True
        return seconds is not None and self._clock() - self._saved_at >= seconds

    def _save(self, team: Team, step: int, snapshot: Snapshot | None = None) -> None:
        began = self._clock()
        snapshot = snapshot or team.snapshot()
        self._state = replace(self._state, metrics_offset=self.run.metrics_offset())
        state = {
            "run": self._state.to_json(),
            "job_digest": self.job.digest,
            "data": self._samples,
            "numerics": numerics.fingerprint(self.blueprint.kernels),
        }
        path = checkpoint.save(self.run.checkpoints, step, snapshot.arrays, state)
        keep = {self._state.best_step} if self._state.best is not None and self._keeps_best else set()
        checkpoint.prune(self.run.checkpoints, keep_last=self.job.checkpoint.keep_last, keep=keep)
        self._saved, self._saved_at = snapshot, self._clock()
        self._emit(events.CheckpointSaved(step, str(path), self._clock() - began))

    def _restore(self, start: Checkpoint | None) -> None:
        self._saved_at = self._clock()
        if start is None:
            self._state = RunState()
            self._saved = Snapshot(0, {"vector": self._network.initialize(self.job.seed)})
            self.run.rewind_metrics(0)
            return
        if start.state["job_digest"] != self.job.digest:
            raise CheckpointError(
                f"the checkpoint of step {start.step} belongs to another job: job.yaml was changed after it"
                " was written. Put the old job.yaml back, or train the new one in a fresh directory"
            )
        for name, digest in start.state["data"].items():
            if self._samples.get(name) != digest:
                raise CheckpointError(
                    f"the {name} data is not what it was when the checkpoint of step {start.step} was"
                    " written. Give the same data, or train in a fresh directory"
                )
        numerics.check_same(
            numerics.fingerprint(self.blueprint.kernels),
            start.state["numerics"],
            "this run was begun on a machine that",
        )
        state = RunState.from_json(start.state["run"])
        self._state = replace(state, attempt=state.attempt + 1)
        self._saved = Snapshot(start.step, start.arrays)
        self.run.rewind_metrics(state.metrics_offset)

    def _rewind(self) -> int:
        """Goes back to the last checkpoint (or the beginning) within this process; returns its step."""
        latest = checkpoint.load_latest(self.run.checkpoints)
        for aside in latest.set_aside if latest else ():
            self._emit(events.CheckpointSetAside(str(aside.path), aside.reason))
        self._restore(latest)
        return self._saved.step

    def _start_team(self) -> Team:
        fresh = {name: array.copy() for name, array in self._saved.arrays.items()}
        start = Snapshot(self._saved.step, fresh)
        return self._make_team(self.blueprint, self._data, start, self._state.attempt, self._team_changed)

    def _team_changed(self, reason: str) -> None:
        self.notes.append(reason)
        self._emit(events.TeamChanged(self._step, self._state.attempt, reason))

    # The end -------------------------------------------------------------------------------------------

    def _finish(self, team: Team) -> tuple[Array, dict[str, Any]]:
        """The vector of the model, and all final metrics."""
        snapshot = team.snapshot()
        vector = snapshot.arrays["vector"]
        metrics = {k: v for k, v in self._state.last_metrics.items() if k not in ("epoch", "step")}
        best_step = self._state.best_step
        if self._restores_best and self._state.best is not None and best_step != snapshot.step:
            best = checkpoint.load(self.run.checkpoints, best_step)
            vector = best.arrays["vector"]
            metrics = {
                k: v for k, v in best.state["run"]["last_metrics"].items() if k not in ("epoch", "step")
            }
            self._saved = Snapshot(best.step, best.arrays)
            metrics.update(self._test(team, vector))
        else:
            metrics.update(self._test(team))
        self._save_model(vector)
        return vector, metrics

    def _test(self, team: Team, saved: Array | None = None) -> Mapping[str, float]:
        """The metrics of the test set, if there is one; with the parameters of the checkpoint in `_saved`
        where they are given, for which a team that cannot take them makes room for another."""
        if "test" not in self.blueprint.rows:
            return {}
        if saved is None or team.adopt(saved):
            return values(self.blueprint, self._network, team.evaluate("test"), "test")
        team.close()
        with closing(self._start_team()) as other:
            return values(self.blueprint, self._network, other.evaluate("test"), "test")

    def _save_model(self, vector: Array) -> None:
        from distbp.model import save_model
        from distbp.run_directory import METRICS, read_lines

        save_model(
            self.run.model,
            job=self.job,
            network=self._network,
            vector=vector,
            preprocessing=self._splits.preprocessing,
            numerics=numerics.fingerprint(self.blueprint.kernels),
        )
        lines = read_lines(self.run.path / METRICS)
        if not lines:
            return
        try:
            from distbp.curves import draw
        except ModuleNotFoundError:  # of a slim install
            self.notes.append(missing("curves.svg", "matplotlib", "distbp[plot]"))
        else:
            draw(lines, self.run.path / "curves.svg")

    def _result(self, team: Team, vector: Array, metrics: Mapping[str, Any], seconds: float) -> Result:
        steps = self._state.last_metrics.get("step", self._total)
        return Result(
            status="stopped early" if self._state.ended == "early_stopping" else "completed",
            job_digest=self.job.digest,
            steps=steps,
            epochs=steps / self._per_epoch,
            params_sha256=params_digest(vector[: self._network.parameter_count]),
            metrics=dict(metrics),
            samples_per_second=self._train_samples / self._train_seconds if self._train_seconds else 0.0,
            wall_seconds=seconds,
            workers=team.workers,
            shards=self.blueprint.shards,
            exchange=team.exchange,
            numerics=numerics.fingerprint(self.blueprint.kernels),
            attempt=self._state.attempt,
            notes=tuple(self.notes),
            path=self.run.path,
        )

    def _announce(self, team: Team) -> None:
        self._emit(
            events.Started(
                name=self.job.name,
                run_dir=str(self.run.path),
                job_digest=self.job.digest,
                parameters=self._network.parameter_count,
                rows=dict(self.blueprint.rows),
                shards=self.blueprint.shards,
                workers=team.workers,
                exchange=team.exchange,
                epochs=-(-self._total // self._per_epoch),
                steps_per_epoch=self._per_epoch,
                total_steps=self._total,
                first_step=self._saved.step,
                attempt=self._state.attempt,
                kernels=self.blueprint.kernels,
            )
        )

    def _emit(self, event: events.Event) -> None:
        self._listener(event)
