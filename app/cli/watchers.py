"""The watchers of a running service, over its HTTP interface.

The service is at --url, CHANGEWIRE_URL or http://127.0.0.1:8080. The API token comes from CHANGEWIRE_API_TOKEN, from
the file in CHANGEWIRE_API_TOKEN_FILE, or from --api-token, which other users of the machine can see while the command
runs. A .env file is read. --json prints the service's answer, for programs.

Exit codes: 0 success, 1 if the service refuses or cannot be reached, 2 for wrong arguments.
"""

import json
from typing import Annotated, Any, Literal

import typer

from app.cli import OK, CommandError, dead_letters, say, say_json, typed
from app.cli.http_client import Refused, connect, watcher_path
from app.cli.typed import Json, Token, Url, Watcher, Yes, confirm
from app.cli.watcher_definitions import add, apply, export, replace
from app.domain.lifecycle import State

app = typed.application(__doc__, no_args_is_help=True)

CONFLICT = 409


@app.command("list")
def list_(
    state: Annotated[
        list[State] | None,
        typer.Option(
            metavar="STATE",
            case_sensitive=False,
            help=f"Only watchers in this state: {', '.join(State)}; may be repeated.",
            show_default=False,
        ),
    ] = None,
    trouble: Annotated[
        bool, typer.Option("--trouble", help="Only watchers in trouble: FAILED, RETRYING, or out of reach.")
    ] = False,
    wide: Annotated[bool, typer.Option("--wide", help="All columns, also on a narrow terminal.")] = False,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """List the watchers, those in trouble first.

    Below the table is how many there are in each state, and why each is in trouble that is."""
    from app.cli import watcher_tables

    service = connect(url, api_token)
    # One state is asked for, so that a service of thousands answers with a few.
    everything = service.call("GET", "/watchers" + (f"?state={state[0]}" if state and len(state) == 1 else ""))
    watchers = [
        each
        for each in everything
        if (not state or each["status"]["state"] in state) and (not trouble or watcher_tables.in_trouble(each))
    ]
    if as_json:
        return _print_json(watchers)
    watchers.sort(key=watcher_tables.severity)
    if not watchers:
        which = " in trouble" if trouble else ""
        say(f"there are no watchers{which}" + (f" in the state {' or '.join(state)}" if state else ""))
        return OK
    watcher_tables.listing(watchers, service.call("GET", "/lag"), wide=wide)
    say(watcher_tables.counted(watchers))
    return OK


@app.command()
def show(name: Watcher, url: Url = None, api_token: Token = None, as_json: Json = False) -> int:
    """Show one watcher: definition, status, lag and position."""
    service = connect(url, api_token)
    watcher = service.call("GET", watcher_path(name))
    lag = service.call("GET", watcher_path(name, "lag"))
    position = service.call("GET", watcher_path(name, "token"))
    if as_json:
        return _print_json({**watcher, "lag": lag, "position": position})
    from app.cli import watcher_tables

    watcher_tables.one(watcher, lag, position)
    return OK


for each in (add, apply, replace, export):
    app.command()(each)


@app.command()
def pause(name: Watcher, url: Url = None, api_token: Token = None, as_json: Json = False) -> int:
    """Pause a watcher until it is resumed."""
    return _told(connect(url, api_token).call("PUT", watcher_path(name, "pause")), as_json=as_json)


@app.command()
def resume(name: Watcher, url: Url = None, api_token: Token = None, as_json: Json = False) -> int:
    """Resume a paused or failed watcher from its position."""
    return _told(connect(url, api_token).call("PUT", watcher_path(name, "resume")), as_json=as_json)


@app.command()
def restart(name: Watcher, url: Url = None, api_token: Token = None, as_json: Json = False) -> int:
    """Restart a watcher; it continues from its position."""
    return _told(connect(url, api_token).call("POST", watcher_path(name, "restart")), as_json=as_json)


@app.command()
def snapshot(
    name: Watcher,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON", help="Only documents that this query matches.", show_default=False),
    ] = None,
    collection: Annotated[
        list[str] | None,
        typer.Option(metavar="DATABASE.COLLECTION", help="Only this one; may be repeated.", show_default=False),
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the one that is running.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show how far it is, until it has ended.")] = False,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """Publish the documents that exist already.

    Each once, at its exact place among the changes. A query is Extended JSON, such as '{"status": "open"}'. With
    --follow, Ctrl-C leaves the snapshot running, and the exit code is 1 if it is cancelled or fails. One that is
    running already is followed, if neither --filter nor --collection is given."""
    if cancel and (filter_ is not None or collection or follow):
        raise typer.BadParameter("--cancel takes no other option")
    if follow and as_json:
        raise typer.BadParameter("give either --follow or --json")
    service, path = connect(url, api_token), watcher_path(name, "snapshot")
    if cancel:
        return _told_of_snapshot(name, service.call("DELETE", path), as_json=as_json)
    wish: dict[str, Any] = {} if filter_ is None else {"filter": _parsed(filter_)}
    wish |= {"collections": collection} if collection else {}
    try:
        run = service.call("POST", path, wish)
    except Refused as error:
        run = service.call("GET", watcher_path(name, "status"))["snapshot"] if error.status == CONFLICT else None
        if wish or not follow or run is None or run["state"] != "running":
            raise
    if not follow:
        return _told_of_snapshot(name, run, as_json=as_json)
    from app.cli import snapshot_progress

    return snapshot_progress.follow(name, run["run"], lambda: service.call("GET", watcher_path(name, "status")))


@app.command()
def rewind(
    name: Watcher,
    timestamp: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Continue from this time, such as 2026-01-01T00:00:00Z.", show_default=False),
    ] = None,
    token: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="Continue after the event with this token.", show_default=False)
    ] = None,
    at: Annotated[
        Literal["latest", "earliest"] | None,
        typer.Option(help="Continue from now, or from the beginning of the oplog."),
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Continue from the watcher's own start.")] = False,
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
    state = service.call("GET", watcher_path(name))["status"]["state"]
    if state not in ("PAUSED", "FAILED"):
        raise CommandError(
            f"{name} is {state}, and only a paused or failed watcher can be moved; "
            f"first run: changewire watchers pause {name}"
        )
    where = " ".join(map(str, given.values())) or "its own start"
    confirm(
        f"{name} continues from {where}; the changes after that are published again, in a new epoch. Move it?", yes=yes
    )
    if start:
        position = service.call("DELETE", watcher_path(name, "token"))
    else:
        position = service.call("PUT", watcher_path(name, "token"), given)
    if as_json:
        return _print_json(position)
    goes_on = position["cluster_time"] or "its first opening"
    say(f"{name}: continues from {goes_on}, epoch {position['epoch']}; now run: changewire watchers resume {name}")
    return OK


app.command("dead-letters")(dead_letters.dead_letters)


@app.command()
def remove(
    name: Watcher,
    delete_checkpoint: Annotated[
        bool, typer.Option("--delete-checkpoint", help="Delete its stored position too.")
    ] = False,
    yes: Yes = False,
    url: Url = None,
    api_token: Token = None,
) -> int:
    """Stop and remove a watcher.

    The stream stays. The watcher's position stays too, unless you give --delete-checkpoint."""
    service = connect(url, api_token)
    service.call("GET", watcher_path(name))  # nothing is asked about one that is not there
    also = " and its stored position" if delete_checkpoint else "; its position and its stream stay"
    confirm(f"Remove the watcher {name}{also}?", yes=yes)
    service.call("DELETE", watcher_path(name) + ("?checkpoint=delete" if delete_checkpoint else ""))
    say(f"{name}: removed")
    return OK


@app.command()
def tail(
    name: Watcher,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", "-n", metavar="COUNT", min=1, help="Stop after this many messages.", show_default=False
        ),
    ] = None,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """Print a watcher's last messages, then each new one.

    Ctrl-C ends it. With --json each message is one line. Everything else, such as errors, goes to standard error."""
    from app.cli import watcher_tables

    seen = 0
    for kind, data in connect(url, api_token).events(watcher_path(name, "messages")):
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
