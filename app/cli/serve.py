"""Run the service until it gets SIGTERM or SIGINT (Ctrl-C), then finish what is in flight and end.

Settings come from the environment, a .env file, and the predecessor's configuration file (CONFIG_FILE, default
connector.yaml, read where it exists); the former win. docs/settings.md lists all of them.

Exit codes: 0 after a complete stop, 1 where the service could not start or CHANGEWIRE_DRAIN_SECONDS were not enough,
2 for settings that cannot be used, 130 where Ctrl-C came before the service was up, or a second time (143: SIGTERM).
"""

import argparse
import asyncio
import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli import MISUSE, OK, CommandError, signals

if TYPE_CHECKING:
    from app.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the connector.yaml to read; wins over CONFIG_FILE")


def run(arguments: argparse.Namespace) -> int:
    """Serve; 0 after a complete stop, 1 where the drain did not finish in time."""
    from app import logging
    from app.settings import SettingsError, load

    try:
        settings = load(arguments.config)
    except SettingsError as error:
        raise CommandError("the settings cannot be used\n  " + "\n  ".join(error.problems), MISUSE) from None
    logging.configure(settings.log_level, settings.log_format, secrets=settings.secrets)

    _share_one_arena()

    import structlog
    import uvloop

    log = structlog.get_logger("app.cli.serve")
    for warning in settings.warnings:
        log.warning("settings", problem=warning)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


def _share_one_arena() -> None:
    """Have glibc's malloc use one arena for all threads, before there are any.

    Each thread that reads batches would keep an arena of its own, fragmented by them: some five MB more, and no faster.
    Another C library has no such option and needs none.
    """
    import ctypes

    m_arena_max = -8  # malloc.h
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(m_arena_max, 1)


async def _serve(settings: "Settings") -> int:
    import structlog

    from app.cli.http_server import listen, server
    from app.codec import tune_gc
    from app.domain.errors import ChangewireError
    from app.main import create_app

    log = structlog.get_logger("app.cli.serve")
    sockets = listen(
        settings.host, settings.port, what="SERVER_ADDR: ", instead="name another, such as SERVER_ADDR=127.0.0.1:8081"
    )
    tune_gc()
    try:
        app = create_app(settings)
    except ChangewireError as error:
        raise CommandError(f"the settings cannot be used\n  {error}", MISUSE) from error
    http = server(app, settings)

    def stop(number: signal.Signals) -> None:
        log.info("stopping", signal=number.name, drain_seconds=settings.drain_seconds)
        http.should_exit = True

    signals.on_stop(stop)
    log.info("listening", addresses=[each.getsockname()[:2] for each in sockets])
    await http.serve(sockets=sockets)
    if not getattr(app.state, "drained", True):
        raise CommandError(
            f"batches were still in flight after {settings.drain_seconds:g} seconds; the next start reads "
            "back from the stream how far they came, and nothing is lost"
        )
    log.info("stopped")
    return OK
