"""Plays the demo of many watchers: adds them, has them written to, tells what happens, and draws the balance.

Everything runs in one task group that ends when `stop` is set: nothing outlives the demo, and nothing fails unnoticed.
"""

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nats.aio.client import Client as NatsClient
from nats.errors import Error as NatsError
from pymongo.errors import PyMongoError

from app.cli import FAILED, OK, CommandError
from app.cli.fleet import plan, summary
from app.cli.fleet.check import verdict
from app.cli.fleet.hints import MOST_SECONDS, hints
from app.cli.fleet.plan import Part
from app.cli.fleet.story import Pace, Story
from app.cli.fleet.writers import Writers
from app.cli.traffic import connected, counted
from app.control.registry import Addition, Registry
from app.devservers.servers import Server
from app.domain.errors import ChangewireError
from app.domain.lifecycle import State
from app.domain.status import Status
from app.domain.watcher import from_document

READY_SECONDS = 120
LOOK_SECONDS = 1.0
CATCH_UP_SECONDS = 30
_NOT_YET = frozenset({State.STARTING, State.RETRYING})
_OUT_OF_IT = frozenset({State.PAUSED, State.FAILED})


@dataclass(frozen=True, slots=True)
class Stage:
    """What the demo has started, and how it is told to end."""

    registry: Registry
    mongo_uri: str
    nats_url: str
    own: list[Server]
    """The servers that the demo itself has started: only those are broken."""
    base: str
    """The address of the HTTP interface."""
    show: Callable[[str], None]
    stop: asyncio.Event


class Fleet:
    """A demo of so many watchers, with about `rate` writes a second."""

    def __init__(self, stage: Stage, count: int, rate: float, pace: Pace) -> None:
        self.watchers = plan.watchers(count)
        self._stage = stage
        self._rate = rate
        self._pace = pace
        self._begun = time.monotonic()

    def say(self, text: str) -> None:
        """Show one fact, with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self._begun), 60)
        self._stage.show(f"{minutes:>4}:{seconds:02}  {text}")

    async def play(self, introduce: Callable[[str, str], None], seconds: float | None) -> int:
        """Run until `stop`, or for so long; return the exit code. `introduce` is called when all is up, with the
        versions of mongod and nats-server."""
        stage = self._stage
        async with contextlib.AsyncExitStack() as stack:
            connection = await connected(stage.nats_url)
            stack.push_async_callback(connection.close)
            writers = stack.enter_context(Writers(stage.mongo_uri, secrets.token_hex(2), self.watchers, self._rate))
            await self._add(writers)
            introduce(await writers.server_version(), re.sub(r"[^0-9.]", "", str(connection.connected_server_version)))
            last = MOST_SECONDS if seconds is None else seconds
            broken = [server.program for server in stage.own]
            stage.show(hints(self.watchers, stage.base, self._rate, broken, last))
            self._begun = time.monotonic()
            asyncio.get_running_loop().call_later(last, stage.stop.set)
            try:
                await self._until_stopped(connection, writers)
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from None
            took = time.monotonic() - self._begun
            stage.show(f"\n{counted(writers.written, 'write')} in {took:,.0f} seconds; {await self._balance()}.")
            if seconds is None:
                stage.show("Stopping …")
                return OK
            return await self._conclude(connection, writers)

    # The watchers

    async def _add(self, writers: Writers) -> None:
        """Add the watchers that an earlier demo with the same data has not left, and wait for them to run."""
        registry = self._stage.registry
        self._stage.show(f"Adding {counted(len(self.watchers), 'watcher')} …")
        if (snapshot := plan.one(self.watchers, Part.SNAPSHOT)) is not None:
            try:
                await writers.fill(snapshot)
            except PyMongoError as error:
                raise CommandError(f"MongoDB does not take the documents of {snapshot.collection}: {error}") from error
        try:
            known = set(await registry.names())
            missing = [each for each in self.watchers if each.name not in known]
            await registry.add_all(
                [Addition(from_document(each.definition()), paused=each.part is Part.PAUSED) for each in missing]
            )
        except ChangewireError as error:
            raise CommandError(f"the watchers cannot be added: {error}") from error
        deadline = time.monotonic() + READY_SECONDS
        while waiting := [
            name
            for name, status in (await self._statuses()).items()
            if status.state in (State.STARTING, State.RETRYING)
        ]:
            if time.monotonic() > deadline:
                raise CommandError(f"{counted(len(waiting), 'watcher')} did not start, among them {waiting[0]}")
            await asyncio.sleep(0.1)

    async def _statuses(self) -> Mapping[str, Status]:
        return {view.stored.name: view.status for view in await self._stage.registry.watchers()}

    # While it runs

    async def _until_stopped(self, connection: NatsClient, writers: Writers) -> None:
        stage = self._stage
        story = Story(stage.registry, connection, writers, self.say, stage.stop)
        own = {server.program for server in stage.own}
        async with asyncio.TaskGroup() as group:
            group.create_task(writers.write_until(stage.stop), name="writers")
            group.create_task(self._tell(), name="teller")
            group.create_task(story.break_servers(stage.own, self._pace), name="outages")
            for each in self.watchers:
                if each.part is Part.FAILS and "nats-server" in own:
                    group.create_task(story.recreate_stream(each), name="recreated stream")
                elif each.part is Part.LETTER:
                    group.create_task(story.write_too_large(each), name="too large")
                elif each.part is Part.SNAPSHOT:
                    group.create_task(story.take_snapshots(each, self._pace.snapshot), name="snapshots")

    async def _tell(self) -> None:
        """Say what changes, and now and then show a table."""
        before = summary.states(await self._statuses())
        next_table = time.monotonic() + self._pace.table / 3
        while not self._stage.stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stage.stop.wait(), LOOK_SECONDS)
            statuses = await self._statuses()
            now = summary.states(statuses)
            for line in summary.changes(before, now):
                self.say(line)
            before = now
            if time.monotonic() >= next_table and not self._stage.stop.is_set():
                with contextlib.suppress(ChangewireError):  # a server is down, which is told
                    lags = await self._stage.registry.lags()
                    self.say(summary.counts(statuses))
                    self._stage.show("\n".join(f"       {row}" for row in summary.table(self.watchers, statuses, lags)))
                    next_table = time.monotonic() + self._pace.table

    # The end

    async def _balance(self) -> str:
        return f"watchers: {summary.counts(await self._statuses())}"

    async def _conclude(self, connection: NatsClient, writers: Writers) -> int:
        """Compare each stream with what was written for it; return the exit code."""
        self._stage.show("Comparing the streams with what was written …")
        wrong, right, messages, left_out = [], 0, 0, []
        stream = connection.jetstream(timeout=10)
        deadline = time.monotonic() + CATCH_UP_SECONDS
        for each in self.watchers:
            while (status := (await self._statuses()).get(each.name)) is not None and status.state not in _OUT_OF_IT:
                try:
                    found = await verdict(stream, each.stream, writers.of[each.name])
                except (NatsError, TimeoutError) as error:
                    said = f"{each.stream} cannot be read: {type(error).__name__} {error}"
                else:
                    if found.right:
                        right, messages = right + 1, messages + found.received
                        break
                    said = f"{each.name}: {found}"
                if time.monotonic() > deadline:
                    wrong.append(said)
                    break
                await asyncio.sleep(0.5)
            else:
                left_out.append(each.name)
        for line in wrong:
            self._stage.show(f"WRONG: {line}")
        if left_out:
            self._stage.show(f"Not compared, since nothing is published for them now: {', '.join(left_out)}")
        if not wrong:
            self._stage.show(f"OK: {right} watchers, {counted(messages, 'message')}: every write once, in order")
        return FAILED if wrong else OK
