"""The command `distbp serve`: runs the service on this machine."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distbp.cli.errors import reports_errors
from distbp.cli.paths import UserPath
from distbp.core import settings
from distbp.core.errors import SettingsError
from distbp.core.imports import missing
from distbp.core.storage import absolute, user_path

if TYPE_CHECKING:
    from distbp_service.serve import Serving


@click.command()
@click.option("--host", help="The address to listen on. Default: DISTBP_SERVICE_HOST, or 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: DISTBP_SERVICE_PORT, or 8470.")
@click.option(
    "--data",
    type=UserPath(folder=True),
    help="Where the service keeps its database, jobs, models and token. Default: DISTBP_SERVICE_HOME, or"
    " ~/.local/share/distbp.",
)
@click.option(
    "--work",
    type=UserPath(folder=True),
    help="The folder that API, dispatcher and runners share. Default: DISTBP_SERVICE_WORK, or DATA/work.",
)
@click.option(
    "--database",
    help="As postgresql://user@host/name. Default: DISTBP_SERVICE_DATABASE, or SQLite in DATA.",
)
@click.option(
    "--files",
    type=UserPath(folder=True),
    help="A folder with data files that jobs may name. Default: DISTBP_SERVICE_DATA, or none.",
)
@click.option("--slots", help="Workers at a time, over all jobs. Default: the CPUs.", metavar="N")
@click.option("--only", type=click.Choice(["api", "dispatcher"]), help="Run one part, in its own process.")
@click.option(
    "--launcher",
    type=click.Choice(["local", "ray-jobs"]),
    help="Runners as processes of this machine, or as jobs of a Ray cluster. Default: local.",
)
@click.option("--ray", help="The cluster's dashboard, as http://head:8265. Default: DISTBP_SERVICE_RAY.")
@click.option("--api-url", help="The API's URL for runners. Default: DISTBP_SERVICE_API, or this machine.")
@reports_errors
def serve(only: Any, **given: Any) -> None:
    """Start the service: API, dashboard and dispatcher.

    At the first start it makes a token, which clients of this user on this machine find by themselves. Ctrl-C
    stops it: running jobs write checkpoints, and continue when it starts again.

    \b
    Examples:
      distbp serve
      distbp serve --port 9000 --data /srv/distbp --slots 8
      distbp serve --only api --host 0.0.0.0 --database postgresql://distbp@db/distbp
      distbp serve --only dispatcher --launcher ray-jobs --ray http://head:8265 --api-url http://api:8470
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    run = _door()
    run(_plan(only, given), ready=_tell, say=lambda text: click.echo(text, err=True))


@contextmanager
def open_store(data: Path | None, database: str | None) -> Iterator[Any]:
    """Opens the store of the service with this folder or database; None: as the environment sets it. Raises
    SettingsError."""
    _door()
    from distbp_service.serve import ServePlan, opened

    home, where = _home(data), database or settings.get("DISTBP_SERVICE_DATABASE")
    if not where and not (home / "distbp.db").exists():
        raise SettingsError(
            f"{home} is not a service's folder: it holds no distbp.db. Name the one given to `distbp serve`"
            " with --data, or its database with --database"
        )
    with opened(ServePlan(home=home, database=where)) as store:
        yield store


def _home(data: Path | None) -> Path:
    home = data or settings.get("DISTBP_SERVICE_HOME")
    share = settings.get("XDG_DATA_HOME") or "~/.local/share"
    return user_path(home) if home else user_path(share) / "distbp"


def _door() -> Any:
    try:
        from distbp_service.serve import serve as run
    except ImportError as error:
        package = error.name or "more packages"
        raise SettingsError(missing("the service", package, "distbp[service]")) from None
    return run


def _plan(only: Any, given: dict[str, Any]) -> Any:
    """The plan from the options on the command line, else from the environment. Raises SettingsError."""
    from distbp_service.serve import ServePlan

    def chosen(option: str, name: str) -> Any:
        value = given[option]
        return settings.get(f"DISTBP_SERVICE_{name}") if value is None else value

    work, files = chosen("work", "WORK"), chosen("files", "DATA")
    if files and not user_path(files).is_dir():
        raise SettingsError(f"the folder {files} with files that jobs may name does not exist. Make it")
    return ServePlan(
        home=_home(given["data"]),
        host=chosen("host", "HOST"),
        port=chosen("port", "PORT"),
        work=user_path(work) if work else None,
        database=chosen("database", "DATABASE"),
        files=absolute(files) if files else None,
        api_url=chosen("api_url", "API"),
        launcher=chosen("launcher", "LAUNCHER"),
        ray=chosen("ray", "RAY"),
        slots=_slots(chosen("slots", "SLOTS")),
        parts=frozenset({only}) if only else frozenset({"api", "dispatcher"}),
    )


def _slots(text: str) -> int:
    if text == "auto":
        return settings.processors()
    if not (text.isdecimal() and 1 <= int(text[:9]) <= 10**6):
        raise SettingsError(f"the number of slots is {text!r}, but must be auto or a whole number above 0")
    return int(text)


def _tell(serving: Serving) -> None:
    """Prints the address of the service, and stores address and token for the clients of this user."""
    from distbp.client.settings_file import Access, remember

    if serving.url is None or serving.token is None:
        click.echo("the dispatcher runs; Ctrl-C stops it")
        return
    try:
        noted = f"clients of this user find it by {remember(Access(serving.url, serving.token))}"
    except OSError:
        noted = f"clients need DISTBP_URL={serving.url} and DISTBP_TOKEN"
    click.echo(f"distbp serves at {serving.url}")
    click.echo(f"  dashboard  {serving.link}")
    click.echo("             (this link signs in once, within the next hour)")
    click.echo(f"  token      in {serving.plan.home / 'token'}")
    click.echo(f"  {noted}")
    if serving.plan.host not in ("127.0.0.1", "localhost", "::1"):
        click.echo(
            "  other machines reach it without encryption: put TLS in front, unless the network is yours"
        )
    click.echo("Ctrl-C stops it; jobs continue at the next start")
    sys.stdout.flush()
