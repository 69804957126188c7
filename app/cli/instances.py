"""The instances that share the watchers: list them, or have one hand its watchers over to the others.

Without a command it lists them. Any instance may be asked: it is at --url, CHANGEWIRE_URL or http://127.0.0.1:8080. The
API token comes from CHANGEWIRE_API_TOKEN, from the file in CHANGEWIRE_API_TOKEN_FILE, or from --api-token, which other
users of the machine can see while the command runs. A .env file is read. --json prints the service's answer, for
programs.

Exit codes: 0 success, 1 if the service refuses or cannot be reached, 2 for wrong arguments.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli import OK, candidates, say, say_json, typed
from app.cli.http_client import Service, connect
from app.cli.typed import Json, Token, Url

app = typed.application(None)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The instance's name.", show_default=False, autocompletion=candidates.instances
    ),
]


@app.callback(help=__doc__, invoke_without_command=True)
def instances(context: typer.Context, url: Url = None, api_token: Token = None, as_json: Json = False) -> int:
    """List them, unless a command follows, which takes over the address and the token."""
    context.obj = (url, api_token)
    return OK if context.invoked_subcommand is not None else _list(connect(url, api_token), as_json=as_json)


@app.command("list")
def list_(context: typer.Context, url: Url = None, api_token: Token = None, as_json: Json = False) -> int:
    """List the instances with state, watchers and changes per second."""
    return _list(_connect(context, url, api_token), as_json=as_json)


@app.command()
def drain(
    context: typer.Context,
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="Also where no other instance could take the watchers now.")
    ] = False,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """Have an instance hand its watchers over, and take no new ones. It goes on answering requests."""
    service = _connect(context, url, api_token)
    told = service.call("PUT", _path(name) + ("?force=true" if force else ""))
    return _told(told, "hands {watchers} over", as_json=as_json)


@app.command()
def undrain(context: typer.Context, name: Name, url: Url = None, api_token: Token = None, as_json: Json = False) -> int:
    """Let an instance take watchers again."""
    told = _connect(context, url, api_token).call("DELETE", _path(name))
    return _told(told, "takes watchers again; it has {watchers} now", as_json=as_json)


def _connect(context: typer.Context, url: str | None, api_token: str | None) -> Service:
    before = context.obj or (None, None)
    return connect(url or before[0], api_token or before[1])


def _list(service: Service, *, as_json: bool) -> int:
    found = service.call("GET", "/instances")
    if as_json:
        say_json(found)
        return OK
    from app.cli import watcher_tables

    watcher_tables.instances(found)
    return OK


def _path(name: str) -> str:
    return f"/instances/{quote(name, safe='')}/drain"


def _told(instance: Mapping[str, Any], what: str, *, as_json: bool) -> int:
    if as_json:
        say_json(instance)
        return OK
    count = instance["watchers"]
    watchers = "1 watcher" if count == 1 else f"{count:,} watchers"
    say(f"{instance['name']}: {instance['state']}, {what.format(watchers=watchers)}")
    return OK
