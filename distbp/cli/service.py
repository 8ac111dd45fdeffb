"""Commands for jobs on a service. Other commands use `session` and `handle`, too."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distbp.cli.errors import named, reports_errors
from distbp.cli.options import JOB, JSON, SET
from distbp.cli.paths import job_at
from distbp.client.names import JOB_ID
from distbp.core.words import counted

if TYPE_CHECKING:
    from distbp.client.handle import JobHandle
    from distbp.client.service import Service

_JOB_ID = re.compile(r"job_[0-9a-z]+|last")
URL = click.option("--url", help="The service. Default: DISTBP_URL, or the one that `distbp serve` started.")


@contextmanager
def session(url: str | None) -> Iterator[Service]:
    from distbp.client.service import connect

    with connect(url) as service:
        yield service


def is_job_id(text: str) -> bool:
    """Whether the text names a job on a service and not a folder of this machine."""
    return _JOB_ID.fullmatch(text) is not None and not Path(text).exists()


def handle(service: Service, job_id: str) -> JobHandle:
    """The handle of a job. job_id: an id, or `last` for the project's newest job. Raises UsageError if it is
    not an id or there are no jobs."""
    if job_id == "last":
        newest = next(service.jobs(limit=1), None)
        if newest is None:
            raise click.UsageError("there are no jobs yet; submit one with `distbp submit JOB.yaml`")
        job_id = newest["id"]
    if not re.fullmatch(JOB_ID, job_id):
        raise click.UsageError(
            f"{job_id!r} is not a job id; ids look like job_01j9ze3k8xq2v5w7y0ab (`distbp list` shows"
            " them), or say last"
        )
    return service.job(job_id)


@click.command()
@JOB
@SET
@click.option("--wait", is_flag=True, help="Show its progress until it ends.")
@click.option("--priority", type=click.IntRange(-100, 100), default=0, help="Higher runs first (0).")
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(0, min_open=True),
    help="Seconds from now. A job that has not ended by then fails.",
)
@click.option("--key", help="The same key always gives the same job, however often it is submitted.")
@click.option("--no-upload", is_flag=True, help="Upload no files: the job's are in the service's folder.")
@URL
@JSON
@reports_errors
def submit(
    job_file: Path,
    sets: tuple[str, ...],
    wait: bool,
    priority: int,
    deadline_s: float | None,
    key: str | None,
    no_upload: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Submit a job to a service.

    Prints its id. Data files that are on this machine are uploaded, unless the service has them already.

    \b
    Examples:
      distbp submit job.yaml
      distbp submit job.yaml --wait
      id=$(distbp submit job.yaml --priority 10 --key nightly-2026-01-31)

    Ctrl-C ends the waiting, not the job.
    """
    job = job_at(job_file, sets, needs_data=False)
    with session(url) as service, named(job_file):
        made = service.submit(
            job,
            folder=job_file.parent,
            upload=not no_upload,
            priority=priority,
            deadline_s=deadline_s,
            key=key,
        )
        if as_json and not wait:
            click.echo(json.dumps(made.status()))
        elif not as_json:
            click.echo(made.id)
        if wait:
            show_until_end(made, as_json)
        elif not as_json:
            click.echo(f"queued; see `distbp logs -f {made.id}`, or {service.url}/#/jobs/{made.id}", err=True)


@click.command()
@click.argument("job_id", metavar="[JOB]", required=False)
@click.option("--wait", is_flag=True, help="Show its progress until it ends.")
@URL
@JSON
@reports_errors
def status(job_id: str | None, wait: bool, url: str | None, as_json: bool) -> None:
    """Print the state of a job; without JOB, that of the service.

    \b
    Examples:
      distbp status
      distbp status last
      distbp status job_01j9ze3k8xq2v5w7y0ab --json | jq .metrics
    """
    with session(url) as service:
        if job_id is None:
            _service_status(service, as_json)
            return
        job = handle(service, job_id)
        if wait:
            show_until_end(job, as_json)
            return
        found = job.status()
        click.echo(json.dumps(found) if as_json else _described(found))


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Continue until the job ends.")
@URL
@reports_errors
def logs(job_id: str, follow: bool, url: str | None) -> None:
    """Print the log of a job, each line with its time.

    \b
    Examples:
      distbp logs last -f
      distbp logs job_01j9ze3k8xq2v5w7y0ab > job.log
    """
    with session(url) as service:
        for text in handle(service, job_id).logs(follow=follow, times=True):
            sys.stdout.write(text)
            sys.stdout.flush()


@click.command()
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@URL
@reports_errors
def cancel(job_ids: tuple[str, ...], url: str | None) -> None:
    """End jobs for good.

    \b
    Example:
      distbp cancel job_01j9ze3k8xq2v5w7y0ab
    """
    _ask(job_ids, url, lambda job: job.cancel())


@click.command()
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@URL
@reports_errors
def pause(job_ids: tuple[str, ...], url: str | None) -> None:
    """Stop jobs for a while: each leaves a checkpoint first.

    \b
    Example:
      distbp pause last
      distbp resume last
    """
    _ask(job_ids, url, lambda job: job.pause())


def resume_job(job_id: str, url: str | None) -> None:
    _ask([job_id], url, lambda job: job.resume())


def _ask(job_ids: Sequence[str], url: str | None, ask: Callable[[JobHandle], None]) -> None:
    """Calls `ask` for each job, and prints the state that the job then has."""
    with session(url) as service:
        for job in [handle(service, job_id) for job_id in job_ids]:  # checks all ids before the first call
            ask(job)
            click.echo(f"{job.id} {job.state}")


def scale_job(job_id: str, workers: int, url: str | None) -> None:
    with session(url) as service:
        job = handle(service, job_id)
        job.scale(workers)
        click.echo(
            f"{job.id}: asked for {counted(workers, 'worker')}; `distbp logs {job.id}` shows the change"
        )


def show_until_end(job: JobHandle, as_json: bool) -> None:
    """Waits for the job's end and shows its progress as local training does. Raises JobFailedError."""
    from distbp.run.events import Finished
    from distbp.run.progress import json_lines, summary

    try:
        if as_json:
            listen = json_lines(sys.stdout)
            result = job.wait(listener=listen)
            listen(Finished(result.to_json()))
        else:
            click.echo(summary(job.wait(progress=True)))
            click.echo(f"  {'model':<22}`distbp models get {job.id} DIR` fetches it")
    except KeyboardInterrupt:
        click.echo(f"{job.id} continues; see `distbp status {job.id}`", err=True)
        sys.exit(130)


def _service_status(service: Service, as_json: bool) -> None:
    who = service.transport.call("GET", "/v1/whoami")
    ready = service.ready()
    if as_json:
        click.echo(json.dumps({"url": service.url, "ready": ready, **who}))
        return
    token = who["token"]
    click.echo(f"{service.url}  distbp {who['version']}, {ready['status']}")
    for part, found in ready["checks"].items():
        click.echo(f"  {part:<12}{found}")
    click.echo(f"  {'project':<12}{token['project']}")
    click.echo(f"  {'token':<12}{token['id']} {token['name']} ({', '.join(token['scopes'])})")


def _described(found: Mapping[str, Any]) -> str:
    from distbp.cli.text import ago, cell_text
    from distbp.run.live import duration

    progress = found["progress"] or {}
    reason = f" ({found['reason']})" if found["reason"] else ""
    lines = [f"{found['id']}  {found['name']}  {found['state']}{reason}"]
    rows: dict[str, Any] = {"submitted": ago(found["created_at"])}
    if progress.get("total_steps"):
        rows["step"] = f"{progress['step']:,} of {progress['total_steps']:,}"
    if found.get("eta_s") is not None:
        rows["time left"] = duration(found["eta_s"])
    if found["workers"] is not None:
        rows["workers"] = f"{found['workers']} (scaled)"
    rows["attempt"] = found["attempt"]
    rows |= {
        name.replace("_", " "): value
        for name, value in (found["metrics"] or {}).items()
        if isinstance(value, int | float)
    }
    if found["model_id"] is not None:
        rows["model"] = found["model_id"]
        rows["model of epoch"] = (found["result"] or {}).get("model_epoch")
    wide = max(22, *(len(name) + 2 for name in rows))
    lines += [
        f"  {name:<{wide}}{cell_text(value)}".rstrip() for name, value in rows.items() if value is not None
    ]
    lines += [f"  warning: {sentence}" for sentence in found.get("unhealthy", {}).values()]
    for attempt in found["attempts"]:
        if attempt["error"]:
            lines.append(f"  attempt {attempt['attempt']}: {attempt['error'].get('message')}")
    if found["error"] and not any(a["error"] for a in found["attempts"][-1:]):
        lines.append(f"  error: {found['error'].get('message')}")
    return "\n".join(lines)
