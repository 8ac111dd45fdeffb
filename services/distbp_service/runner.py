"""The runner: a separate process that trains one attempt of one job and reports to the API.

    python -m distbp_service.runner --job ID --attempt N --api URL --work DIR (--token-fd FD | --claim CODE)

In the folder `--work`, which all runners share, each job has a folder:

    <job id>/run/               the run directory; an attempt goes on where the previous one ended
    <job id>/data/              uploaded datasets, under the names that the job uses
    <job id>/reports-N.jsonl    the reports of attempt N (see `distbp_service.spool`)

SIGTERM, pause and cancel end the attempt with a checkpoint. The number of workers changes during training.
All of these go through one `distbp.Control`. When a newer attempt has begun, the process ends at once with
the exit status 75. Status 0 means that the end of the attempt was reported.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from distbp.core import settings
from distbp.core.arguments import MAX_WORKERS
from distbp.core.errors import Fault, Interrupted, JobError
from distbp.core.imports import without_collections_at_the_end
from distbp.core.interrupts import Control, Interrupts
from distbp.job import TrainingJob, WorkerRange
from distbp.run import events
from distbp.run.result import Result
from distbp.run.run_directory import METRICS, is_run
from distbp.run.train import resume, train
from distbp_service.allotment import Allotment
from distbp_service.error_classes import class_of, described
from distbp_service.errors import FencedError
from distbp_service.fetching import fetch_data
from distbp_service.reporter import Reporter
from distbp_service.reports import Answer, Assignment, End
from distbp_service.spool import Spool, left_over
from distbp_service.telling import listener, plain, tell_metrics
from distbp_service.transport import AwayError, HttpTransport, Transport, claim

FENCED_STATUS = 75


class RunnerOrders:
    """Passes the service's answers on to the `Control` of the training."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.workers: int | None = None  # None: as the job says

    def hear(self, answer: Answer) -> None:
        if answer.command in ("pause", "cancel"):
            self.control.stop(f"a request to {answer.command}")
        elif answer.workers is not None and answer.workers != self.workers:
            self.workers = answer.workers
            self.control.scale(answer.workers)


def run(
    job_id: str,
    attempt: int,
    work: Path,
    transport: Transport,
    *,
    data: Path | None = None,
    over: Callable[[str], None] | None = None,
) -> End:
    """Trains one attempt, waits until the service has all of its reports, and returns its end.

    data: the folder with files that jobs may name; None: only uploaded datasets. over: called with the reason
    if a newer attempt has begun (default: ends the process).
    """
    control = Control()
    orders = RunnerOrders(control)
    home = work / job_id
    with Interrupts(control):
        assignment = _patiently(transport.assignment, over or _leave)
        orders.workers = assignment.workers
        spool = Spool(home / f"reports-{attempt}.jsonl", attempt)
        disk = Allotment(home, assignment.disk)

        def hear(answer: Answer) -> None:
            disk.hear(answer.disk)
            orders.hear(answer)

        reporter = Reporter(transport, spool, hear, over or _leave)
        reporter.disk = lambda: disk.used
        try:
            _hand_in(assignment, home, spool)
            reporter.start()
            end = _attempt(assignment, home, data, transport, spool, reporter, control, disk)
            disk.measure()
            spool.append(end=end, log=_last_words(end))
            reporter.finish()
            return end
        except BaseException:
            reporter.stop()
            raise
        finally:
            spool.close()


def _attempt(
    assignment: Assignment,
    home: Path,
    data: Path | None,
    transport: Transport,
    spool: Spool,
    reporter: Reporter,
    control: Control,
    disk: Allotment,
) -> End:
    tell, started = listener(spool, reporter), False

    def hear(event: events.Event) -> None:
        nonlocal started
        started = started or isinstance(event, events.Started)
        tell(event)

    try:
        result = _drive(assignment, home, data, transport, hear, control, disk)
        if not started:  # an earlier attempt had finished, and was lost before it could report that
            tell_metrics(spool, result.path / METRICS)
    except Interrupted:
        return End("interrupted")
    except Exception as error:
        if class_of(error) == "internal":
            with suppress(Exception):
                spool.append(log="".join(traceback.format_exception(error)))
        return End("failed", error=described(error, home.parent))
    return End("completed", result=plain(result.to_json()), model=_model(result, home))


def _drive(
    assignment: Assignment,
    home: Path,
    data: Path | None,
    transport: Transport,
    listen: events.Listener,
    control: Control,
    disk: Allotment,
) -> Result:
    job = TrainingJob.from_mapping(assignment.job)
    here = home / "data"
    attempt = assignment.attempt
    uploaded = fetch_data(job, here, transport, attempt, _patiently, lambda: control.stopping)
    folder = here if uploaded or data is None else data  # the job's paths are relative to this folder
    disk.measure()
    path = home / "run"
    init = None if assignment.init is None else home.parent / assignment.init
    if job.init is not None and init is None and not is_run(path):
        raise JobError([Fault("init", f"{job.init}: the model was deleted; begin with another")])
    workers, processors = _within(assignment.slots, job, assignment.workers)
    # No curves are drawn here: the dashboard shows them.
    how: Any = {"workers": workers, "listener": listen, "disk": disk, "control": control, "init": init}
    how["draws"] = False
    with settings.environment({"DISTBP_PROCESSORS": str(processors)}):
        if is_run(path):
            return resume(path, **how)
        return train(job, output=path, folder=folder, confined=True, **how)


def _within(slots: int, job: TrainingJob, scaled: int | None) -> tuple[int | WorkerRange | None, int]:
    """Returns the workers to train with (None: as the job says) and the number of processors to use. A scaled
    job (`scaled`) gets the number of workers to which it was scaled; other jobs are limited by their
    slots."""
    if scaled is not None:
        return scaled, max(1, scaled)
    slots = slots or (1 if isinstance(job.workers, str) else MAX_WORKERS)  # 0: not known
    room = max(1, slots - job.servers + 1)  # each server but the first takes a slot
    if isinstance(job.workers, WorkerRange):
        most = max(job.workers.min, min(job.workers.max, room))
        return WorkerRange(min=job.workers.min, max=most), most
    workers = min(job.workers, room) if isinstance(job.workers, int) else None
    return workers, slots


def _hand_in(assignment: Assignment, home: Path, spool: Spool) -> None:
    """Spools the events and logs that earlier attempts could not report. Their metrics are in the run
    directory, so they are not handed in here."""
    for number in range(1, assignment.attempt):
        path = home / f"reports-{number}.jsonl"
        for report in left_over(path, assignment.received.get(str(number), 0)):
            late = tuple(
                {**event, "kind": "late", "what": event["kind"], "of_attempt": number}
                for event in report.events
                if event["kind"] != "late"
            )
            again = tuple(event for event in report.events if event["kind"] == "late")
            if late or again or report.log:
                spool.append(events=(*late, *again), log=report.log)
        path.unlink(missing_ok=True)  # its reports are in our spool now


def _model(result: Result, home: Path) -> dict[str, Any]:
    folder = result.path / "model"
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "path": str(folder.relative_to(home.parent)),
        "bytes": size,
        "params_sha256": result.params_sha256,
        "job_digest": result.job_digest,
        "metrics": plain(result.metrics),
    }


def _last_words(end: End) -> str:
    if end.error is not None:
        return f"failed: {end.error['message']}\n"
    return "completed\n" if end.outcome == "completed" else "stopped on request; a checkpoint is there\n"


def _patiently(call: Callable[[], Any], over: Callable[[str], None] | None = None) -> Any:
    """Calls a function again and again, with growing pauses, until the API answers. Returns its value. Raises
    FencedError after calling `over`."""
    pause = 0.1
    while True:
        try:
            return call()
        except AwayError:
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
        except FencedError as error:
            (over or _leave)(str(error))
            raise


def _leave(reason: str) -> None:
    """Ends this process at once, because another process has its job. Its workers notice and end, too."""
    print(f"runner: {reason}", file=sys.stderr, flush=True)
    os._exit(FENCED_STATUS)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m distbp_service.runner", description="Drives one attempt at one job."
    )
    parser.add_argument("--job", required=True)
    parser.add_argument("--attempt", required=True, type=int)
    parser.add_argument("--api", required=True, help="address of the API")
    parser.add_argument("--work", required=True, type=Path, help="the work volume")
    parser.add_argument("--data", type=Path, help="folder with files that jobs may name")
    secret = parser.add_mutually_exclusive_group(required=True)
    secret.add_argument("--token-fd", type=int, help="file descriptor from which the token is read")
    secret.add_argument("--claim", help="code to exchange for the token")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    without_collections_at_the_end()
    given = _arguments(arguments)
    with httpx.Client(base_url=given.api, trust_env=False) as client:
        if given.token_fd is not None:
            with open(given.token_fd, encoding="ascii") as pipe:
                token = pipe.read().strip()
            if not token:
                print("runner: the dispatcher ended before it gave the token", file=sys.stderr)
                return FENCED_STATUS
        else:
            token = _patiently(lambda: claim(client, given.job, given.attempt, given.claim))
        transport = HttpTransport(client, given.job, given.attempt, token)
        run(given.job, given.attempt, given.work, transport, data=given.data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
