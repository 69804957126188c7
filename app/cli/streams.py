"""Switch a stream's settings, which decide whether mongodb-nats-connector can use it too.

It uses the settings of the service (NATS_URL and the account); the service does not have to be running.

Exit codes: 0 success, 1 if NATS refuses or cannot be reached, 2 for wrong arguments or settings.
"""

import asyncio
import sys
from typing import Annotated

import typer

from app.cli import OK, CommandError, load_settings, say, typed
from app.domain.errors import ChangewireError
from app.domain.watcher import StreamSettings

app = typed.application(None, no_args_is_help=True)


@app.callback(help=__doc__)
def streams() -> None:
    """Keep `switch` a command of its own, though it is the only one."""


@app.command()
def switch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The stream's name.", show_default=False)],
    to: Annotated[StreamSettings, typer.Option("--to", help="Whose settings the stream gets.", show_default=False)],
) -> int:
    """Switch a stream's settings. changewire: fast ingest (allow_batched), atomic batches (allow_atomic) and direct
    reads (allow_direct) on, as far as the server knows them. connector: all of them off, so that mongodb-nats-connector
    can start again. Messages and all other settings stay as they are."""
    from app.config import logging
    from app.domain.subjects import stream_name_problem
    from app.jetstream.stream_switch import switch as switch_over

    problem = stream_name_problem(name)
    if problem is not None:
        raise CommandError(f"{name}: the stream's name {problem}", 2)
    settings = load_settings()
    logging.configure("critical", "console", secrets=settings.secrets, stream=sys.stderr)
    try:
        switched = asyncio.run(switch_over(settings, name, to))
    except ChangewireError as error:
        raise CommandError(logging.redact(str(error), settings.secrets)) from None
    done = ", ".join(f"{setting} {'on' if value else 'off'}" for setting, value in switched.changed.items())
    say(f"{name}: {done or f'already has the settings of {to}'}")
    for setting in switched.unknown:
        say(f"{setting} stays off: nats-server {switched.version or 'below 2.11'} does not know it.")
    if to == "connector":
        say(
            "A watcher with stream_settings changewire switches them on again when it starts: stop the service, or "
            "leave CHANGEWIRE_CONNECTOR_STREAMS at connector."
        )
    return OK
