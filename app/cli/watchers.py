"""The watchers of a running service, over its HTTP interface.

The service is at --url, CHANGEWIRE_URL or http://127.0.0.1:8080. The API token comes from CHANGEWIRE_API_TOKEN, from
the file in CHANGEWIRE_API_TOKEN_FILE, or from --api-token, which other users of the machine can see while the command
runs. A .env file is read. --json prints the service's answer, for programs.

Exit codes: 0 success, 1 if the service refuses or cannot be reached, 2 for wrong arguments.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from app.cli import FAILED, OK, CommandError, say, say_json, typed
from app.cli.http_client import Refused, connect
from app.cli.typed import Json, Token, Url
from app.domain.plain import plain

app = typed.application(__doc__)

Name = Annotated[str, typer.Argument(metavar="NAME", help="the watcher's name", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask for confirmation")]

CONFLICT = 409
REFUSED = (CONFLICT, 413, 422)
"""Statuses of a request that has changed nothing."""


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands; return its exit code."""
    return typed.run(app, "watchers", arguments)


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="only watchers in this state", show_default=False)] = None,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """List all watchers with state, lag and counts."""
    service = connect(url, api_token)
    watchers = service.call("GET", "/watchers" + (f"?state={quote(state)}" if state else ""))
    if as_json:
        return _print_json(watchers)
    if not watchers:
        say("there are no watchers" + (f" in the state {state.upper()}" if state else ""))
        return OK
    from app.cli import watcher_tables

    watcher_tables.listing(watchers, service.call("GET", "/lag"))
    return OK


@app.command()
def show(name: Name, url: Url = None, api_token: Token = None, as_json: Json = False) -> int:
    """Show one watcher: definition, status, lag and position."""
    service = connect(url, api_token)
    watcher = service.call("GET", _path(name))
    lag = service.call("GET", _path(name, "lag"))
    position = service.call("GET", _path(name, "token"))
    if as_json:
        return _print_json({**watcher, "lag": lag, "position": position})
    from app.cli import watcher_tables

    watcher_tables.one(watcher, lag, position)
    return OK


@app.command()
def add(
    name: Annotated[str | None, typer.Argument(help="name of the one watcher to add", show_default=False)] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="FILE", help="JSON or YAML; - is standard input", show_default=False),
    ] = None,
    database: Annotated[str | None, typer.Option(help="the database that NAME watches", show_default=False)] = None,
    collection: Annotated[str | None, typer.Option(help="only this collection of it", show_default=False)] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="only such as 'orders_*'; may be repeated", show_default=False),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="none such as '*_tmp'; may be repeated", show_default=False),
    ] = None,
    deployment: Annotated[bool, typer.Option("--deployment", help="NAME watches every database")] = False,
    stream: Annotated[str | None, typer.Option(help="the stream it publishes to", show_default=False)] = None,
    snapshot: Annotated[
        Literal["initial", "only"] | None,
        typer.Option(help="publish the documents that exist, too, or nothing but them", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check everything and change nothing")] = False,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """Add a watcher by its NAME and the options, or the watchers of a JSON or YAML file.

    NAME needs --database or --deployment. Without --collection a whole database is watched, as far as --include and
    --exclude choose; with --deployment a PATTERN is 'database.collection'. A file has every other setting. It holds one
    watcher, a list, several YAML documents, or `watchers: [...]`, at most 1000. All of them are added, or if one is
    refused, none; the exit code is 1 then.
    """
    from app.cli import watcher_files

    source = {"database": database, "collection": collection, "include": include, "exclude": exclude}
    source = {key: value for key, value in source.items() if value}
    if (name is None) == (file is None):
        raise typer.BadParameter("give either a NAME or a --file")
    if name is None and (source or deployment or stream or snapshot):
        raise typer.BadParameter("a --file says itself what is watched; give no other option but --dry-run")
    if name is not None and (database is not None) == deployment:
        raise typer.BadParameter("give either --database or --deployment")
    service = connect(url, api_token)
    if file is not None:
        definitions = watcher_files.read(file)
    else:
        more = ({"sink": {"stream": stream}} if stream else {}) | ({"snapshot": snapshot} if snapshot else {})
        definitions = [{"name": name, "source": source, **more}]
    path = "/watchers" + ("?dry_run=true" if dry_run else "")
    try:
        added = service.call("POST", path, definitions if len(definitions) > 1 else definitions[0])
    except Refused as error:
        names = [str(each.get("name") or f"watcher {number} of {file}") for number, each in enumerate(definitions, 1)]
        for line in watcher_files.with_names(error.lines, names):
            say(f"changewire: {line}", error=True)
        if len(names) > 1 and error.status in REFUSED:
            say(f"changewire: none of the {len(names)} watchers was added", error=True)
        return FAILED
    listed = added if isinstance(added, list) else [added]
    if as_json:
        return _print_json(listed)
    for watcher in listed:
        what = "could be added" if dry_run else f"added, {watcher['status']['state']}"
        say(f"{watcher['name']}: {what}")
    return OK


@app.command()
def pause(name: Name, url: Url = None, api_token: Token = None, as_json: Json = False) -> int:
    """Pause a watcher until it is resumed."""
    return _told(connect(url, api_token).call("PUT", _path(name, "pause")), as_json=as_json)


@app.command()
def resume(name: Name, url: Url = None, api_token: Token = None, as_json: Json = False) -> int:
    """Resume a paused or failed watcher from its position."""
    return _told(connect(url, api_token).call("PUT", _path(name, "resume")), as_json=as_json)


@app.command()
def restart(name: Name, url: Url = None, api_token: Token = None, as_json: Json = False) -> int:
    """Restart a watcher; it continues from its position."""
    return _told(connect(url, api_token).call("POST", _path(name, "restart")), as_json=as_json)


@app.command()
def snapshot(
    name: Name,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON", help="only documents that this query matches", show_default=False),
    ] = None,
    collection: Annotated[
        list[str] | None,
        typer.Option(metavar="DATABASE.COLLECTION", help="only this one; may be repeated", show_default=False),
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="cancel the one that is running")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="show how far it is, until it has ended")] = False,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """Publish the documents that exist, each once, at its exact place among the changes.

    A query is Extended JSON, such as '{"status": "open"}'. With --follow, Ctrl-C leaves the snapshot running, and the
    exit code is 1 if it is cancelled or fails. One that is running already is followed, if neither --filter nor
    --collection is given."""
    if cancel and (filter_ is not None or collection or follow):
        raise typer.BadParameter("--cancel takes no other option")
    if follow and as_json:
        raise typer.BadParameter("give either --follow or --json")
    service, path = connect(url, api_token), _path(name, "snapshot")
    if cancel:
        return _told_of_snapshot(name, service.call("DELETE", path), as_json=as_json)
    wish: dict[str, Any] = {} if filter_ is None else {"filter": _parsed(filter_)}
    wish |= {"collections": collection} if collection else {}
    try:
        run = service.call("POST", path, wish)
    except Refused as error:
        run = service.call("GET", _path(name, "status"))["snapshot"] if error.status == CONFLICT else None
        if wish or not follow or run is None or run["state"] != "running":
            raise
    if not follow:
        return _told_of_snapshot(name, run, as_json=as_json)
    from app.cli import snapshot_progress

    return snapshot_progress.follow(name, run["run"], lambda: service.call("GET", _path(name, "status")))


@app.command()
def rewind(
    name: Name,
    timestamp: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="continue from this time, such as 2026-01-01T00:00:00Z", show_default=False),
    ] = None,
    token: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="continue after the event with this token", show_default=False)
    ] = None,
    at: Annotated[
        Literal["latest", "earliest"] | None, typer.Option(help="continue from now, or from the beginning of the oplog")
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="continue from the watcher's own start")] = False,
    yes: Yes = False,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """Move the position of a paused or failed watcher.

    Give exactly one of --timestamp, --token, --at and --start. The changes after that position are published again, in
    a new epoch. The watcher stays paused.
    """
    given: dict[str, Any] = {"timestamp": timestamp, "token": token, "at": at}
    given = {key: value for key, value in given.items() if value is not None}
    if len(given) + start != 1:
        raise typer.BadParameter("give exactly one of --timestamp, --token, --at and --start")
    service = connect(url, api_token)
    state = service.call("GET", _path(name))["status"]["state"]
    if state not in ("PAUSED", "FAILED"):
        raise CommandError(
            f"{name} is {state}, and only a paused or failed watcher can be moved; "
            f"first run: changewire watchers pause {name}"
        )
    where = " ".join(map(str, given.values())) or "its own start"
    _confirm(
        f"{name} continues from {where}; the changes after that are published again, in a new epoch. Move it?", yes=yes
    )
    if start:
        position = service.call("DELETE", _path(name, "token"))
    else:
        position = service.call("PUT", _path(name, "token"), given)
    if as_json:
        return _print_json(position)
    goes_on = position["cluster_time"] or "its first opening"
    say(f"{name}: continues from {goes_on}, epoch {position['epoch']}; now run: changewire watchers resume {name}")
    return OK


@app.command()
def remove(
    name: Name,
    delete_checkpoint: Annotated[
        bool, typer.Option("--delete-checkpoint", help="delete its stored position too")
    ] = False,
    yes: Yes = False,
    url: Url = None,
    api_token: Token = None,
) -> int:
    """Stop and remove a watcher.

    The stream stays. The watcher's position stays too, unless you give --delete-checkpoint."""
    service = connect(url, api_token)
    service.call("GET", _path(name))  # nothing is asked about one that is not there
    also = " and its stored position" if delete_checkpoint else "; its position and its stream stay"
    _confirm(f"Remove the watcher {name}{also}?", yes=yes)
    service.call("DELETE", _path(name) + ("?checkpoint=delete" if delete_checkpoint else ""))
    say(f"{name}: removed")
    return OK


@app.command()
def tail(
    name: Name,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="stop after this many messages")] = None,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """Print a watcher's last messages, then each new one.

    Ctrl-C ends it. With --json each message is one line. Everything else, such as errors, goes to standard error."""
    from app.cli import watcher_tables

    seen = 0
    for kind, data in connect(url, api_token).events(_path(name, "messages")):
        if kind in watcher_tables.REMARKS:
            say(watcher_tables.remark(kind, json.loads(data)), error=True)
        if kind != "message":
            continue
        if as_json:
            say(data)
        else:
            say(watcher_tables.message(json.loads(data)))
        seen += 1
        if seen == count:
            return OK
    raise CommandError(f"the service ended the messages of {name}")


def _path(name: str, call: str = "") -> str:
    return f"/watchers/{quote(name, safe='')}" + (f"/{call}" if call else "")


def _told(watcher: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        return _print_json(watcher)
    say(f"{watcher['name']}: {watcher['status']['state']}")
    return OK


def _told_of_snapshot(name: str, run: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        return _print_json(run)
    from app.cli import snapshot_progress

    say(f"{name}: snapshot {run['run']}: {snapshot_progress.words(run)}")
    return OK


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"--filter is not JSON: {error}") from None


def _print_json(value: Any) -> int:
    say_json(value)
    return OK


def _confirm(question: str, *, yes: bool) -> None:
    """Ask where somebody is there to answer. Raises typer.Abort."""
    if not yes and sys.stdin.isatty():
        typer.confirm(plain(question), abort=True)
