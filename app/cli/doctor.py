"""Check MongoDB, NATS and each watcher, and say what is wrong and what to do.

It uses the settings of the service (environment, .env, connector.yaml) and changes nothing; the service does not have
to be running. It checks reachability, versions, replica set, account and privileges, oplog window, JetStream, publish
modes and max_payload, and for each watcher its change stream, pre-images, position and stream. Checks that depend on
a failed check are skipped.

Exit codes: 0 if there is no problem (there may be warnings), 1 if there is one, 2 for wrong arguments or settings.
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import FAILED, MISUSE, OK, CommandError, load_settings, say, say_json, typed
from app.domain.errors import Invalid
from app.domain.findings import Finding, Level, worst
from app.domain.plain import plain

if TYPE_CHECKING:
    from app.config.settings import Settings

STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}

app = typed.application(__doc__)


@app.command(help=__doc__)
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> int:
    from app.config import logging

    settings = load_settings()
    # The findings below say the same as the adapters' log, and what to do.
    logging.configure("critical", "console", secrets=settings.secrets, stream=sys.stderr)
    try:
        found = asyncio.run(_collect(settings))
    except Invalid as error:
        raise CommandError(f"invalid settings\n  {error}", MISUSE) from None
    level = worst(found)
    if as_json:
        print_json(found, level)
    else:
        print_table(found)
    return FAILED if level is Level.PROBLEM else OK


async def _collect(settings: "Settings") -> list[Finding]:
    """All findings, with every secret taken out of the servers' words."""
    from dataclasses import replace

    from app.config.logging import redact
    from app.doctor.examination import examine

    def clean(text: str) -> str:
        return redact(text, settings.secrets)

    return [replace(each, found=clean(each.found), advice=clean(each.advice)) async for each in examine(settings)]


def print_json(found: Sequence[Finding], level: Level) -> None:
    rows = [
        {"about": each.about, "check": each.check, "level": each.level, "found": each.found, "advice": each.advice}
        for each in found
    ]
    say_json({"result": level, "findings": rows})


def print_table(found: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for name in ("what", "check", "found", "what to do"):
        table.add_column(name, overflow="fold")
    for each in found:
        cells = (plain(cell) for cell in (each.about, each.check, each.found, each.advice))
        table.add_row(Text(each.level, STYLES[each.level]), *cells)
    typed.console().print(table)
    counts = {level: sum(each.level is level for each in found) for level in Level}
    words = (f"{counts[level]} {level}{'s' * (counts[level] != 1)}" for level in (Level.PROBLEM, Level.WARNING))
    say(f"\n{', '.join(words)}, {counts[Level.OK]} ok")
