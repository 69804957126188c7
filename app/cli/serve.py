"""Run the service until SIGTERM or SIGINT (Ctrl-C), then finish what is in flight and stop.

SIGHUP (the terminal is closed) and SIGQUIT do the same. Under nohup, SIGHUP is ignored.

Settings come from the environment, then a .env file, then the configuration file of mongodb-nats-connector
(CONFIG_FILE, by default connector.yaml if it exists). The first one that has a setting wins. docs/settings.md lists all
settings.

Exit codes: 0 after a complete stop; 1 if the service could not start, did not finish within CHANGEWIRE_DRAIN_SECONDS,
or if another live instance has its name; 2 for invalid settings; 130 if Ctrl-C came before the service was up, or a
second time (143: SIGTERM, 129: SIGHUP, 131: SIGQUIT).
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from app.cli import MISUSE, OK, CommandError, load_settings, signals

if TYPE_CHECKING:
    import typer

    from app.cli.http_server import Server
    from app.config.settings import Settings
    from app.main import Service

WATCHERS_FIRST_SECONDS = 0.5
"""How long HTTP waits for the watchers at the most: a server may be absent."""
DAY_SECONDS = 24 * 60 * 60
SWITCH_SECONDS = 0.0005
"""How long an import may keep a running watcher waiting for the interpreter, at a time."""


def application() -> "typer.Typer":
    """Declare the command. Only here the parser is imported: a start does not wait for it."""
    import typer

    from app.cli import candidates, typed

    app = typed.application(None)

    @app.command(help=__doc__)
    def serve(
        config: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE",
                help="The connector.yaml to read; overrides CONFIG_FILE.",
                show_default=False,
                autocompletion=candidates.files,
            ),
        ] = None,
    ) -> int:
        return run(config)

    return app


def without_parser(arguments: Sequence[str]) -> dict[str, Path] | None:
    """Return the arguments of `run`, or None where they are not plain: the parser then says what is wrong."""
    match arguments:
        case []:
            return {}
        case ["--config", file] if not file.startswith("-"):
            return {"config": Path(file)}
        case _:
            return None


def run(config: Path | None = None) -> int:
    """Serve; 0 after a complete stop, 1 where the drain did not finish in time."""
    gc.disable()  # imports make objects that stay; looking through them again and again is a fifth of a start
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would look for them in every installed package
    import_structlog()
    from app.config import logging
    from app.config.exposure import open_reads

    settings = load_settings(config)
    logging.configure(settings.log_level, settings.log_format, secrets=settings.secrets)

    _share_one_arena()

    import structlog
    import uvloop

    log = structlog.get_logger("app.cli.serve")
    for warning in settings.warnings:
        log.warning("settings", problem=warning)
    exposed = open_reads(settings)
    if exposed is not None:
        log.warning("reads_open", problem=exposed[0], hint=exposed[1])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


def import_structlog() -> None:
    """Import it without rich, which it takes along where that is installed, for tracebacks that are not drawn here."""
    there = "rich" in sys.modules
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # "cannot be imported", as the documentation has it
    try:
        import structlog  # noqa: F401
    finally:
        if not there:
            del sys.modules["rich"]


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

    from app.cli.listening import listen
    from app.domain.errors import ChangewireError
    from app.main import compose

    log = structlog.get_logger("app.cli.serve")
    sockets = listen(
        settings.host, settings.port, what="SERVER_ADDR: ", instead="choose another, such as SERVER_ADDR=127.0.0.1:8081"
    )
    try:
        service = compose(settings)
    except ChangewireError as error:
        raise CommandError(f"invalid settings\n  {error}", MISUSE) from error
    stopping = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        log.info("stopping", signal=number.name, drain_seconds=settings.drain_seconds)
        stopping.set()

    signals.on_stop(stop)
    service.start()
    share = service.registry.share
    beside = [
        asyncio.create_task(_look_at_certificates(settings), name="certificates"),
        asyncio.create_task(_stop_where(share.name_taken, stopping), name="name_taken"),
    ]
    try:
        await _serve_http(service, sockets, stopping)
    finally:
        for task in beside:
            task.cancel()
        for each in sockets:
            each.close()
        drained = await service.close()
    if share.name_taken.is_set():
        raise CommandError(share.taken())
    if not drained:
        raise CommandError(
            f"batches were still in flight after {settings.drain_seconds:g} seconds; nothing is lost: the next start "
            "reads back from the stream what was stored"
        )
    log.info("stopped")
    return OK


async def _stop_where(fact: asyncio.Event, stopping: asyncio.Event) -> None:
    """Stop as a signal does, once something is so."""
    await fact.wait()
    stopping.set()


async def _look_at_certificates(settings: "Settings") -> None:
    """Say of each certificate of the service that it has expired, or soon will; now and every day, until cancelled."""
    import structlog

    from app.config import certificates
    from app.domain.findings import Level

    log = structlog.get_logger("app.cli.serve")
    while True:
        for finding in certificates.look(settings, datetime.now(UTC)):
            if finding.level is not Level.OK:
                log.warning("certificate", variable=finding.check, problem=finding.found, hint=finding.advice)
        await asyncio.sleep(DAY_SECONDS)


async def _serve_http(service: "Service", sockets: list[socket.socket], stopping: asyncio.Event) -> None:
    """Serve until `stopping`. Raises CommandError where HTTP cannot be served.

    The watchers come first. A client that connects before HTTP is imported is answered as soon as it is.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WATCHERS_FIRST_SECONDS):
            await service.registry.settled()
    http = await asyncio.to_thread(_make_http, service)

    async def stop() -> None:
        await stopping.wait()
        http.should_exit = True

    waiting = asyncio.create_task(stop(), name="stop")
    try:
        await http.serve(sockets=sockets)
    finally:
        waiting.cancel()


def _make_http(service: "Service") -> "Server":
    """Import and make the HTTP interface, in a thread beside the watchers."""
    from app.formats.extended_json import tune_gc

    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        from app.cli.http_server import server
        from app.main import interface

        return server(interface(service), service.settings)
    finally:
        sys.setswitchinterval(usual)
        tune_gc()
