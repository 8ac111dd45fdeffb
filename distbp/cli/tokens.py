"""The commands `distbp token`: through a service for its project, or on its database for any project."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import click

from distbp.cli.errors import reports_errors
from distbp.cli.options import JSON
from distbp.cli.paths import UserPath
from distbp.cli.serve import open_store
from distbp.cli.service import URL, session
from distbp.client.names import SCOPES, TOKEN_ID

_MOST_DAYS = 36_500


@click.group()
def token() -> None:
    """Create, list and revoke tokens.

    A token gives access to one project. Its scopes: read; submit; manage (cancel, pause, resume, scale,
    delete); admin (all, and tokens). The service keeps only its hash.

    \b
    Examples:
      distbp token create --name ci --scope read --scope submit
      distbp token create --project vision --scope admin --data /srv/distbp
      distbp token list
      distbp token revoke 0643b89eca4d
    """


def _days(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value <= _MOST_DAYS:  # NaN fails, too
        raise click.BadParameter(f"{value:g} is not more than 0 and at most {_MOST_DAYS:,}")
    return value


@token.command()
@click.option("--name", default="", help="A note for people: its owner or its purpose.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    help="May be repeated. Default: read, submit, manage.",
)
@click.option(
    "--days", type=float, callback=_days, metavar="N", help="Days until it expires. Default: never."
)
@click.option("--project", help="Another project; on the service's machine, with --data or --database.")
@click.option("--data", type=UserPath(folder=True), help="The service's folder, as for `serve`.")
@click.option("--database", help="Its database, as for `serve`.")
@URL
@JSON
@reports_errors
def create(
    name: str,
    scopes: tuple[str, ...],
    days: float | None,
    project: str | None,
    data: Path | None,
    database: str | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Create a token, and print it, this once.

    Asks the service, with a token that has the scope admin: the new one is of the same project. With
    --project, --data or --database it is written into the service's database, which needs no token.

    \b
    Examples:
      distbp token create --name ci --scope read --scope submit
      distbp token create --project vision --scope admin --data /srv/distbp
    """
    scopes = scopes or ("read", "submit", "manage")
    if project is not None or data is not None or database is not None:
        until = None if days is None else time.time() + days * 86400
        with open_store(data, database) as store:
            found, secret = store.tokens.create(project or "main", scopes, name=name, expires_at=until)
        made: Any = {"token": {**vars(found), "scopes": list(found.scopes)}, "secret": secret}
    else:
        body: dict[str, Any] = {"scopes": list(scopes), "name": name}
        if days is not None:
            body["expires_in_s"] = days * 86400
        with session(url) as service:
            made = service.transport.call("POST", "/v1/tokens", json=body, repeatable=False)
    if as_json:
        click.echo(json.dumps(made))
        return
    click.echo(made["secret"])
    about = made["token"]
    click.echo(
        f"{about['id']} of project {about['project']} ({', '.join(about['scopes'])}); it is shown this once",
        err=True,
    )


@token.command("list")
@URL
@JSON
@reports_errors
def list_tokens(url: str | None, as_json: bool) -> None:
    """List the project's tokens, oldest first.

    \b
    Example:
      distbp token list
    """
    from distbp.cli.text import ago, table

    with session(url) as service:
        found = service.transport.call("GET", "/v1/tokens")["items"]
    if as_json:
        for one in found:
            click.echo(json.dumps(one))
        return
    rows = [
        (one["id"], one["name"], ", ".join(one["scopes"]), _state(one), ago(one["last_used_at"]))
        for one in found
    ]
    click.echo(table(("token", "name", "scopes", "state", "used"), rows))


@token.command()
@click.argument("token_id", metavar="ID")
@URL
@reports_errors
def revoke(token_id: str, url: str | None) -> None:
    """Revoke a token: from now on it opens nothing.

    \b
    Example:
      distbp token revoke 0643b89eca4d
    """
    if not re.fullmatch(TOKEN_ID, token_id):
        raise click.UsageError(
            f"{token_id!r} is not a token id; one is 0643b89eca4d. `distbp token list` shows them"
        )
    with session(url) as service:
        service.transport.call("DELETE", f"/v1/tokens/{token_id}")
    click.echo(f"{token_id} revoked")


def _state(one: Any) -> str:
    if one["revoked_at"] is not None:
        return "revoked"
    if one["expires_at"] is None:
        return "good"
    return "expired" if one["expires_at"] <= time.time() else f"good until {_day(one['expires_at'])}"


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(moment))
