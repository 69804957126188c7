"""The commands of `changewire watchers` about definitions: `add`, `apply`, `replace` and `export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.cli import FAILED, MISUSE, OK, CommandError, candidates, say, say_json
from app.cli.http_client import Refused, Service, connect, watcher_path
from app.cli.typed import Json, Token, Url, Yes, confirm

if TYPE_CHECKING:
    from app.cli.watcher_files import Definition

Optional = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME", help="Name of the one watcher.", show_default=False, autocompletion=candidates.watchers
    ),
]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--file", "-f", metavar="FILE", help="JSON or YAML, or a directory of such files; - is standard input; may be "
        "repeated.", show_default=False, autocompletion=candidates.files,
    ),
]  # fmt: skip
Database = Annotated[
    str | None, typer.Option(metavar="DATABASE", help="The database that NAME watches.", show_default=False)
]
Collection = Annotated[
    str | None, typer.Option(metavar="COLLECTION", help="Only this collection of it.", show_default=False)
]
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Only such as 'orders_*'; may be repeated.", show_default=False),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="None such as '*_tmp'; may be repeated.", show_default=False),
]
Deployment = Annotated[bool, typer.Option("--deployment", help="NAME watches every database.")]
Stream = Annotated[str | None, typer.Option(metavar="STREAM", help="The stream it publishes to.", show_default=False)]
Snapshot = Annotated[
    Literal["initial", "only"] | None,
    typer.Option(help="Publish the documents that exist, too, or nothing but them.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and change nothing.")]


def add(
    name: Optional = None,
    file: Files = None,
    database: Database = None,
    collection: Collection = None,
    include: Include = None,
    exclude: Exclude = None,
    deployment: Deployment = False,
    stream: Stream = None,
    snapshot: Snapshot = None,
    dry_run: DryRun = False,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """Add a watcher by NAME and options, or those of a file.

    NAME needs --database or --deployment. Without --collection a whole database is watched, as far as --include and
    --exclude choose; with --deployment a PATTERN is 'database.collection'. A file has every other setting. It holds one
    watcher, a list, several YAML documents, or `watchers: [...]`, at most 1000. All of them are added, or if one is
    refused, none; the exit code is 1 then.
    """
    from app.cli import watcher_files, watcher_plan

    wanted = _wanted(name, file, _source(database, collection, include, exclude), deployment, stream, snapshot)
    service = connect(url, api_token)
    documents = [each.document for each in wanted]
    path = "/watchers" + ("?dry_run=true" if dry_run else "")
    try:
        added = service.call("POST", path, documents if len(documents) > 1 else documents[0])
    except Refused as error:
        if error.status not in watcher_plan.REFUSED:
            raise
        for line in watcher_files.with_names(error.lines, [each.label for each in wanted]):
            say(f"changewire: {line}", error=True)
        if len(wanted) > 1:
            say(f"changewire: none of the {len(wanted)} watchers was added", error=True)
        return FAILED
    listed = added if isinstance(added, list) else [added]
    if as_json:
        say_json(listed)
        return OK
    for watcher in listed:
        what = "could be added" if dry_run else f"added, {watcher['status']['state']}"
        say(f"{watcher['name']}: {what}")
    return OK


def apply(
    file: Files = None,
    dry_run: DryRun = False,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """Create or replace the watchers of files.

    Says of each watcher what was done, and of each field that changes its value before and after. A watcher that is as
    the file says is `unchanged`: nothing is sent for it, and it does not restart. A field that a file leaves out gets
    its default, except `paused`: without it a watcher stays paused or running. Watchers that are in no file stay as
    they are. All are checked first: if one is refused, each error is printed, nothing is changed, and the exit code is
    1.
    """
    from app.cli import watcher_files

    if not file:
        raise typer.BadParameter("give a --file")
    wanted = watcher_files.read_all(file)
    return _make_so(connect(url, api_token), wanted, there=False, dry_run=dry_run, as_json=as_json)


def replace(
    name: Optional = None,
    file: Files = None,
    database: Database = None,
    collection: Collection = None,
    include: Include = None,
    exclude: Exclude = None,
    deployment: Deployment = False,
    stream: Stream = None,
    snapshot: Snapshot = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """Replace a watcher by NAME and options, or those of a file.

    Everything but the position: what neither options nor file say gets its default, and the watcher restarts. It stays
    paused or running, unless a file says it. Prints each field that changes, as `apply` does, and on a terminal
    asks before it changes it. The watcher has to exist.
    """
    wanted = _wanted(name, file, _source(database, collection, include, exclude), deployment, stream, snapshot)
    return _make_so(connect(url, api_token), wanted, there=True, dry_run=dry_run, as_json=as_json, ask=not yes)


def export(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Only these watchers (default: all).",
            show_default=False,
            autocompletion=candidates.watchers,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write to this file; JSON where it ends with .json, else YAML.",
            show_default=False,
            autocompletion=candidates.files,
        ),
    ] = None,
    url: Url = None,
    api_token: Token = None,
    as_json: Json = False,
) -> int:
    """Print the definitions of watchers, as `apply` takes them.

    YAML, or with --json JSON. What is the default is left out, and so are states and positions. `apply` finds the
    watchers of an export unchanged.
    """
    from app.cli import watcher_files, watcher_plan

    service = connect(url, api_token)
    if names:
        watchers = [service.call("GET", watcher_path(name)) for name in dict.fromkeys(names)]
    else:
        watchers = service.call("GET", "/watchers")
    if not watchers:
        raise CommandError("there are no watchers to export")
    documents = [watcher_plan.exported(each) for each in watchers]
    json_wanted = as_json or (output is not None and output.suffix == ".json")
    text = watcher_files.as_json(documents) if json_wanted else watcher_files.as_yaml(documents)
    if output is None:
        say(text.rstrip("\n"))
        return OK
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{output} cannot be written: {error.strerror}", MISUSE) from None
    say(f"{output}: {len(documents)} watcher{'s' * (len(documents) != 1)}")
    return OK


def _source(
    database: str | None, collection: str | None, include: list[str] | None, exclude: list[str] | None
) -> dict[str, Any]:
    given = {"database": database, "collection": collection, "include": include, "exclude": exclude}
    return {name: value for name, value in given.items() if value}


def _wanted(
    name: str | None,
    file: list[Path] | None,
    source: dict[str, Any],
    deployment: bool,
    stream: str | None,
    snapshot: str | None,
) -> "list[Definition]":
    """Return the definitions of files, or the one that options make. Raises typer.BadParameter, CommandError."""
    from app.cli import watcher_files

    if (name is None) == (not file):
        raise typer.BadParameter("give either a NAME or a --file")
    if name is None and (source or deployment or stream or snapshot):
        raise typer.BadParameter("a --file says itself what is watched; give no other option but --dry-run")
    if name is not None and bool(source.get("database")) == deployment:
        raise typer.BadParameter("give either --database or --deployment")
    if name is None:
        return watcher_files.read_all(file or ())
    more = ({"sink": {"stream": stream}} if stream else {}) | ({"snapshot": snapshot} if snapshot else {})
    return [watcher_files.Definition({"name": name, "source": source, **more}, "")]


def _make_so(
    service: Service, wanted: "Sequence[Definition]", *, there: bool, dry_run: bool, as_json: bool, ask: bool = False
) -> int:
    from app.cli import watcher_plan

    def tell(step: watcher_plan.Step) -> None:
        if not as_json:
            say("\n".join(watcher_plan.lines_of(step)))

    steps: list[watcher_plan.Step] = []
    try:
        steps = watcher_plan.plan(service, wanted, there=there)
        if dry_run:
            for step in steps:
                tell(step)
        else:
            changing = [step for step in steps if step.changes]
            if changing and ask:
                shown = "\n".join(line for step in changing for line in watcher_plan.lines_of(step))
                what = "it" if len(changing) == 1 else f"these {len(changing)}"
                confirm(f"Replace {what}?", yes=False, shown=shown)
            watcher_plan.carry_out(service, steps, tell)
    except watcher_plan.NotApplied as error:
        for line in error.lines:
            say(f"changewire: {line}", error=True)
        some = "the other watchers were changed; correct this and repeat the command"
        say(f"changewire: {some if any(step.done for step in steps) else 'nothing was changed'}", error=True)
        return FAILED
    if as_json:
        say_json([watcher_plan.as_json(step) for step in steps])
    elif len(steps) > 1:
        say(watcher_plan.summary(steps))
    return OK
