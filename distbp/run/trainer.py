"""The trainer's loop: steps in stretches, evaluation, checkpoints, early stopping. It knows no exchange.

`train` and `resume` call it. A run may be killed at any moment. It then goes on from its last checkpoint, in
the middle of an epoch, to the same bits and the same metrics.jsonl.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from distbp.core.arrays import Array
from distbp.core.errors import Interrupted, ServerLostError
from distbp.core.interrupts import Control
from distbp.core.words import counted
from distbp.data.batches import WholeData
from distbp.engine.blueprint import Blueprint
from distbp.engine.diagnosis import diagnose
from distbp.engine.evaluation import values
from distbp.engine.parameter_server import NotFiniteError
from distbp.engine.totals import saturating_layers
from distbp.model.folder import params_digest
from distbp.run import accounts, checkpoint, events
from distbp.run.checkpoint import Checkpoint
from distbp.run.checkpointer import Checkpointer
from distbp.run.control import Requests
from distbp.run.result import Result
from distbp.run.run_directory import RunDirectory
from distbp.run.run_state import RunState, after_evaluation, out_of_patience, undefined, watched
from distbp.run.splits import Splits
from distbp.run.throughput import Throughput
from distbp.run.verdict import expected, unhealthy
from distbp.team.base import Snapshot, Team

PROGRESS_S = 0.5  # the time between two Progressed events
BARREN_ATTEMPTS = 5  # after so many attempts in a row that lost their server and made no step, training fails
# (blueprint, data, start, attempt, a function to call with the reason of a change of the team) -> team
MakeTeam = Callable[[Blueprint, WholeData, Snapshot, int, Callable[[str], None]], Team]


class Trainer:
    """Drives one run. `run`: locked by this process. `data`: of `splits.ready`. `make_team`: starts server
    and workers. `control`, `requests`: ask to stop, and for other workers. `draws`: whether to draw
    curves.svg. `clock`: returns seconds. `notes`: for the user, known so far.

    Call `train` within `one_blas_thread`.
    """

    def __init__(
        self,
        run: RunDirectory,
        blueprint: Blueprint,
        splits: Splits,
        data: WholeData,
        make_team: MakeTeam,
        listener: events.Listener,
        control: Control,
        requests: Requests,
        *,
        draws: bool = True,
        clock: Callable[[], float] = time.monotonic,
        notes: Sequence[str] = (),
    ) -> None:
        self.run = run
        self._control = control
        self._requests = requests
        self.blueprint = blueprint
        self.job = blueprint.job
        self._listener = listener
        self._clock = clock
        self._make_team = make_team
        self._network = blueprint.network()
        self._data = data
        self._splits = splits
        self._sharding = blueprint.sharding()
        self._per_epoch = self._sharding.steps_per_epoch
        self._total = blueprint.total_steps
        self._rate = blueprint.learning_rate()
        self._saturating = saturating_layers(blueprint)
        self._watched = watched(self.job, set(blueprint.rows))
        self._state = RunState()
        self._checkpointer = Checkpointer(run, blueprint, splits, clock)
        self._saved = Snapshot(0, {})
        self._best: Array | None = None  # the vector of the best evaluation, where it is kept
        self._step = 0
        self._throughput = Throughput(self._per_epoch)
        self._draws = draws
        self._expected = expected(blueprint, self._data.splits["train"])
        self.notes = [*notes, *blueprint.notes]

    def train(self, start: Checkpoint | None, job_text: str | None = None) -> Result:
        """Trains to the end from `start` (None: the beginning), writes model and result; waits. `job_text`:
        of a longer job, written to job.yaml once the checkpoint is restored.

        Raises Interrupted, after a checkpoint, when asked to stop; NumericsError, StorageError, DataError.
        """
        began = self._clock()
        self.notes += self._restore(start)
        if job_text is not None:
            self.run.write_job(job_text)
        announced, furthest, barren = False, 0, 0
        while True:
            try:
                with closing(self._start_team()) as team:
                    if not announced:
                        self._announce(team)
                        for text in accounts.notes_beforehand(self.blueprint, self._splits):
                            self._note(text)
                        announced = True
                    if self._requests.latest is not None:
                        team.scale(self._requests.latest)
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
        """The server is lost: goes back to the last checkpoint, and begins a new attempt."""
        attempt = self._state.attempt + 1
        step = self._step = self._rewind()
        self._state = replace(self._state, attempt=attempt)
        self._team_changed(f"{error}; attempt {attempt} goes on from step {step}")

    def _advance(self, team: Team, step: int) -> int:
        """Trains up to the next event: an epoch's end, a checkpoint, a progress report, a signal. Returns the
        step reached."""
        stop = min((step // self._per_epoch + 1) * self._per_epoch, self._total)
        every = self.job.checkpoint.every_steps
        if every:
            stop = min(stop, (step // every + 1) * every)
        stop, counted = self._throughput.stretch(step, stop)
        workers = team.workers
        began = self._clock()
        until = began + PROGRESS_S
        clock, control = self._clock, self._control
        try:
            reached = team.run(step, stop, self._state.plateau, lambda: clock() > until or control.stopping)
        except NotFiniteError as error:
            vector = team.snapshot().arrays["vector"]
            number = self._splits.tables["train"].row_number
            raise diagnose(self.blueprint, vector, self._data, error.step, number) from None
        changed = team.workers != workers  # the time then includes starting workers
        self._count(team, step, reached, self._clock() - began, counted, changed)
        ended = reached % self._per_epoch == 0 or reached == self._total
        if reached > step and ended:  # before the team may change: a new team lacks the last step's health
            self._end_epoch(team, reached)
        if not self._state.ended:
            self._obey(team, reached)
        if self._control.stopping and not self._state.ended:
            self._save(team, reached)
            raise self._interrupted(reached)
        if reached > step and self._saved.step != reached and self._checkpointer.due(reached):
            self._save(team, reached)
        return reached

    def _obey(self, team: Team, step: int) -> None:
        """Changes the workers if that was asked for while steps ran (see `distbp.run.control`)."""
        asked = self._requests.asked()
        if asked is None or self._control.stopping:
            return
        self._step = step
        refused = team.scale(asked)
        wanted = f"{counted(asked, 'worker')} {'was' if asked == 1 else 'were'} asked for"
        if refused is None:
            self._team_changed(f"{wanted}; there {'is' if team.workers == 1 else 'are'} {team.workers} now")
        else:
            self._team_changed(f"{wanted}, but this is not possible: {refused}")

    def _interrupted(self, step: int) -> Interrupted:
        return Interrupted(str(self.run.path), step, self._control.stopped_by)

    def _count(self, team: Team, first: int, stop: int, seconds: float, counted: bool, changed: bool) -> None:
        sharding, counted = self._sharding, counted and not changed
        rows = sharding.rows_before(stop) - sharding.rows_before(first) if counted else 0
        self._throughput.count(rows, seconds, stop > first, changed)
        speed = rows / seconds if seconds > 0 else 0.0
        epoch = max(0, stop - 1) // self._per_epoch + 1
        self._emit(events.Progressed(stop, self._total, epoch, speed, workers=team.workers))

    # Epochs --------------------------------------------------------------------------------------------

    def _end_epoch(self, team: Team, step: int) -> None:
        began = self._clock()
        self._throughput.epoch_ended()
        epoch = -(-step // self._per_epoch)
        parameters = self._network.parameter_count
        every = accounts.digest_every(parameters * self._network.dtype.itemsize, self.blueprint.rows["train"])
        whole = step == self._total or epoch % every == 0  # whether the line gets the parameters' digest
        snapshot = team.snapshot(whole)
        converged = snapshot.verdict
        if converged and not whole:
            whole, snapshot = True, team.snapshot()
        last = step == self._total or bool(converged)
        line: dict[str, Any] = {"epoch": epoch, "step": step, **accounts.training_values(snapshot)}
        rate = self._rate(step - 1, self._state.plateau)
        before, seal = self._state, self.run.metrics_seal() if last else (0, "")
        saturating = None if step % self._per_epoch else self._saturating
        self._state = accounts.observed(before, snapshot, saturating)
        digest = params_digest(snapshot.arrays["vector"][:parameters]) if whole else None
        in_turn = epoch % self.job.evaluate_every == 0 and step % self._per_epoch == 0
        if step % self._per_epoch == 0:
            before = self._state
        # The line of a longer run, which does not end here and evaluates only every `evaluate_every` epochs.
        usual = {**line, "learning_rate": rate, **self._health(snapshot, step, False)}
        usual |= {"params_sha256": digest} if epoch % every == 0 else {}
        evaluated = in_turn or last
        if evaluated and "validation" in self.blueprint.rows:
            found = self._evaluate(team, "validation")
            line.update(found)
            usual |= found if in_turn else {}
        measured: dict[str, Any] = {"learning_rate": rate, **self._health(snapshot, step, last)}
        if whole:
            measured["params_sha256"] = digest
        self.run.append_metric({**line, **measured})
        improved = False
        if evaluated:
            self._state, improved = after_evaluation(self._state, self.job, self._watched, line, epoch, step)
            for text in undefined(self.job, self._watched, line):
                self._note(text)
        if improved and self._keeps_best:
            self._best = (snapshot if whole else team.snapshot()).arrays["vector"]
        if converged:
            self._note(converged)
            self._state = replace(self._state, ended="converged")
        elif last:
            aside = None
            if not in_turn or accounts.differ(usual, {**line, **measured}):
                would = None if step % self._per_epoch else usual
                aside = accounts.aside(self._state if in_turn else before, would, seal)
            ended = "max_steps" if self._total == self.job.max_steps else "epochs"
            self._state = replace(self._state, ended=ended, aside=aside)
        elif evaluated and out_of_patience(self._state, self.job):
            self._state = replace(self._state, ended="early_stopping")
            assert self._state.best is not None
            self._emit(
                events.Stopped(
                    str(self._watched), self._state.waited, self._state.best_epoch, self._state.best
                )
            )
        if self._state.ended:
            self._save(team, step, snapshot if whole else None)
        seconds, wrong = self._clock() - began, self._unhealthy(last)
        speed = self._throughput.rows_per_second
        self._emit(events.EpochEnded(epoch, step, line, speed, seconds, improved, wrong))
        if self._state.ended:
            self._emit(events.Waiting("writing the model"))

    def _health(self, snapshot: Snapshot, step: int, last: bool) -> dict[str, Any]:
        whole = step % self._per_epoch == 0
        return accounts.health(self._state, snapshot, self._unhealthy(last)) if whole else {}

    def _unhealthy(self, ended: bool) -> dict[str, str]:
        state = self._state
        return {} if state.losses is None else unhealthy(self._expected, state.losses, state.dead, ended)

    # Checkpoints ---------------------------------------------------------------------------------------

    @property
    def _restores_best(self) -> bool:
        return self.job.early_stopping is not None and self.job.early_stopping.restore_best

    @property
    def _keeps_best(self) -> bool:
        return self.job.checkpoint.keep_best or self._restores_best

    def _save(self, team: Team | None, step: int, snapshot: Snapshot | None = None) -> None:
        began = self._clock()
        if snapshot is None:
            assert team is not None
            snapshot = team.snapshot()
        self._state, path = self._checkpointer.save(step, snapshot, self._state, self._best)
        self._saved = snapshot
        self._emit(events.CheckpointSaved(step, str(path), self._clock() - began))

    def _restore(self, start: Checkpoint | None) -> list[str]:
        """Restores the run from a checkpoint (None: from the beginning); returns notes."""
        self._saved, self._state, best, notes = self._checkpointer.restore(start)
        self._best = best if self._keeps_best else None
        return notes

    def _rewind(self) -> int:
        """Goes back to the last checkpoint (or the beginning) within this process; returns its step."""
        latest = checkpoint.load_latest(self.run.checkpoints)
        for aside in latest.set_aside if latest else ():
            self._emit(events.CheckpointSetAside(str(aside.path), aside.reason))
        self._restore(latest)
        return self._saved.step

    def _start_team(self) -> Team:
        self._throughput.team_started()
        self._emit(events.Waiting("loading the kernels; the first time on a machine they are compiled"))
        fresh = {name: array.copy() for name, array in self._saved.arrays.items()}
        start = Snapshot(self._saved.step, fresh)
        try:
            return self._make_team(self.blueprint, self._data, start, self._state.attempt, self._team_changed)
        except Interrupted:
            if self._saved.step not in checkpoint.list_steps(self.run.checkpoints):
                self._save(None, self._saved.step, self._saved)
            raise self._interrupted(self._saved.step) from None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self._emit(events.Noted(text))

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
        if self._restores_best and self._best is not None and best_step != snapshot.step:
            vector = self._best
            metrics = {k: v for k, v in self._state.best_metrics.items() if k not in ("epoch", "step")}
            self._saved = Snapshot(best_step, {"vector": vector})
            metrics.update(self._test(team, vector))
        else:
            metrics.update(self._test(team))
        accounts.save_model(self.run, self.blueprint, self._splits, vector)
        self.notes += accounts.draw_curves(self.run) if self._draws else []
        return vector, metrics

    def _test(self, team: Team, saved: Array | None = None) -> Mapping[str, float]:
        """The metrics of the test set, if any, with the vector `saved` (None: the team's). A new team
        evaluates if this one cannot take the vector; this one is then closed."""
        if "test" not in self.blueprint.rows:
            return {}
        if saved is None or team.adopt(saved):
            return self._evaluate(team, "test")
        team.close()
        with closing(self._start_team()) as other:
            return self._evaluate(other, "test")

    def _evaluate(self, team: Team, split: str) -> dict[str, float]:
        """Evaluates a split: `{split}_loss` and `{split}_{metric}`."""
        measured = values(self.blueprint.measures(self._network, split), team.evaluate(split))
        return {f"{split}_{name}": value for name, value in measured.items()}

    def _result(self, team: Team, vector: Array, metrics: Mapping[str, Any], seconds: float) -> Result:
        for text in (wrong := self._unhealthy(ended=True)).values():
            self._note(text)
        return accounts.result(
            self.run,
            self.blueprint,
            team,
            self._splits,
            self._state,
            vector=vector,
            metrics=metrics,
            samples_per_second=self._throughput.rows_per_second,
            wall_seconds=seconds,
            notes=self.notes,
            unhealthy=wrong,
            restored=self._restores_best and self._state.best is not None,
        )

    def _announce(self, team: Team) -> None:
        self._emit(
            accounts.started(
                self.run,
                self.blueprint,
                team,
                self._splits,
                first_step=self._saved.step,
                attempt=self._state.attempt,
                notes=self.notes,
                watched=self._watched,
            )
        )

    def _emit(self, event: events.Event) -> None:
        self._listener(event)
