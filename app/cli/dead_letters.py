"""`changewire watchers dead-letters`: the changes of a watcher that could not be published, listed, shown, replayed or
discarded.

docs/dead-letters.md says what they are. Several are replayed or discarded one after the other, oldest first: where one
is refused, the others go on, and the exit code is 1.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import typer

from app.cli import FAILED, OK, say, say_json
from app.cli.http_client import Refused, Service, connect, watcher_path
from app.cli.typed import Json, Token, Url, Watcher, Yes, confirm

PAGE = 100
"""Dead letters that are asked for at a time."""
GONE, CONFLICT, UNAVAILABLE = 404, 409, 503


def dead_letters(
    name: Watcher,
    action: Annotated[
        Literal["list", "show", "replay", "discard"],
        typer.Argument(metavar="ACTION", help="list (the default), show, replay or discard.", show_default=False),
    ] = "list",
    sequences: Annotated[
        list[int] | None,
        typer.Argument(metavar="SEQUENCE", help="Which ones, as the list has them.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Replay or discard all of them.")] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="COUNT", help="List at most so many.")] = 100,
    yes: Yes = False,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """List, show, replay or discard a watcher's dead letters.

    `dead-letters NAME` lists them, oldest first. `show` prints one with its event. `replay` publishes them after
    everything that is already published; the watcher has to be RUNNING. `discard` gives a change up: it will never be
    on the stream.
    """
    chosen = sequences or []
    if action in ("list", "show") and everything:
        raise typer.BadParameter("--all is for replay and discard")
    if action == "list" and chosen:
        raise typer.BadParameter(f"write: changewire watchers dead-letters {name} show {chosen[0]}")
    if action == "show" and len(chosen) != 1:
        raise typer.BadParameter("give one SEQUENCE to show")
    if action in ("replay", "discard") and bool(chosen) == everything:
        raise typer.BadParameter(f"give either each SEQUENCE to {action}, or --all")
    if action == "discard" and everything and not yes and not sys.stdin.isatty():
        raise typer.BadParameter("discard --all needs --yes where nobody can be asked")
    service = connect(url, api_token)
    if action == "list":
        return _list(service, name, limit, as_json=as_json)
    if action == "show":
        return _show(service, name, chosen[0], as_json=as_json)
    if everything:
        chosen = [each["sequence"] for page in _pages(service, name) for each in page["dead_letters"]]
        if not chosen and not as_json:
            say(f"{name}: no dead letters")
            return OK
    if action == "replay":
        return _each(name, chosen, lambda sequence: _replay(service, name, sequence), as_json=as_json)
    count = f"the dead letter {chosen[0]}" if len(chosen) == 1 else f"{len(chosen):,} dead letters"
    confirm(f"Discard {count} of {name}? Their changes will never be on the stream.", yes=yes)
    return _each(name, chosen, lambda sequence: _discard(service, name, sequence), as_json=as_json)


def _list(service: Service, name: str, limit: int, *, as_json: bool) -> int:
    from app.cli import watcher_tables

    found: list[dict[str, Any]] = []
    total = 0
    for page in _pages(service, name):
        found, total = (found + page["dead_letters"])[:limit], page["total"]
        if len(found) == limit:
            break
    if as_json:
        say_json(found)
        return OK
    if not found:
        say(f"{name}: no dead letters")
        return OK
    watcher_tables.letters(found)
    if total > len(found):
        say(f"the first {len(found):,} of {total:,}; --limit lists more")
    return OK


def _pages(service: Service, name: str) -> Iterator[dict[str, Any]]:
    after: int | None = 0
    while after is not None:
        page: dict[str, Any] = service.call("GET", watcher_path(name, f"dead-letters?limit={PAGE}&after={after}"))
        yield page
        after = page["after"]


def _show(service: Service, name: str, sequence: int, *, as_json: bool) -> int:
    from app.cli import watcher_tables

    found = service.call("GET", watcher_path(name, f"dead-letters/{sequence}"))
    if as_json:
        say_json(found)
        return OK
    watcher_tables.letter(found)
    if found["event"] is not None:
        say("")
        say_json(found["event"])
    return OK


def _replay(service: Service, name: str, sequence: int) -> tuple[dict[str, Any], str]:
    told = service.call("POST", watcher_path(name, f"dead-letters/{sequence}/replay"))
    return told, f"replayed, #{told['stream_sequence']} on its stream"


def _discard(service: Service, name: str, sequence: int) -> tuple[dict[str, Any], str]:
    service.call("DELETE", watcher_path(name, f"dead-letters/{sequence}"))
    return {}, "discarded"


def _each(name: str, sequences: list[int], act: Callable[[int], tuple[dict[str, Any], str]], *, as_json: bool) -> int:
    """Do it to one after the other, and say of each what came of it."""
    done: list[dict[str, Any]] = []
    refused = 0
    for sequence in sequences:
        try:
            told, words = act(sequence)
        except Refused as error:
            if error.status not in (GONE, CONFLICT, UNAVAILABLE):
                raise
            refused += 1
            say(f"changewire: {name} {sequence}: {error}", error=True)
            continue
        done.append({"sequence": sequence, **told})
        if not as_json:
            say(f"{name} {sequence}: {words}")
    if as_json:
        say_json(done)
    return FAILED if refused else OK
