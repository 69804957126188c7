"""What goes wrong in the demo of many watchers, on purpose, and what puts it right again.

Some things wait for a person: a watcher that is FAILED, one that is paused, a dead letter. Others pass by themselves:
now and then nats-server or mongod is killed and started again. Only what the demo started itself is broken.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client as NatsClient
from nats.errors import Error as NatsError

from app.cli import CommandError
from app.cli.fleet.plan import FleetWatcher
from app.cli.fleet.writers import Writers
from app.control.registry import Registry
from app.devservers.servers import Server, StartError
from app.domain.errors import ChangewireError
from app.domain.lifecycle import State

_POLL_SECONDS = 0.2
_FEW_CHANGES = 5
"""How many changes a stream has before it is deleted: those that come again when the watcher is repaired."""
_MOST_BYTES = 15 << 20
"""MongoDB's documents have 16 MiB at most."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When things happen, in seconds."""

    first_outage: float = 45
    between_outages: float = 90
    outage: float = 6
    snapshot: float = 150
    table: float = 30


class Story:
    """The demo's accidents; `say` gets a line for each. Each coroutine ends soon after `stop` is set."""

    def __init__(
        self, registry: Registry, nats: NatsClient, writers: Writers, say: Callable[[str], None], stop: asyncio.Event
    ) -> None:
        self._registry = registry
        self._nats = nats
        self._writers = writers
        self._say = say
        self._stop = stop

    async def recreate_stream(self, watcher: FleetWatcher) -> None:
        """Delete a watcher's stream and create it again, as somebody does who wants to empty it: the watcher, which
        cannot know what consumers have of it, is FAILED."""
        while not await self._has_published(watcher.name):
            if await self._stopped(_POLL_SECONDS):
                return
        info = await self._ask(f"STREAM.INFO.{watcher.stream}")
        await self._ask(f"STREAM.DELETE.{watcher.stream}")
        await self._ask(f"STREAM.CREATE.{watcher.stream}", info["config"])
        self._say(f"somebody has deleted the stream {watcher.stream} and created it again")

    async def write_too_large(self, watcher: FleetWatcher) -> None:
        """Write a document that no message can hold: it is set aside as a dead letter."""
        size = self._nats.max_payload
        if size > _MOST_BYTES or await self._stopped(1):
            return
        wrong = await self._writers.write_too_large(watcher, size)
        told = f"a document of more than {size // 1024:,} KiB was written for {watcher.name}: it becomes a dead letter"
        self._say(told if wrong is None else f"no document for {watcher.name}: {wrong}")

    async def take_snapshots(self, watcher: FleetWatcher, every: float) -> None:
        """Ask for a snapshot now and then; one is taken when the watcher is added."""
        while not await self._stopped(every):
            try:
                await self._registry.snapshots.begin(watcher.name)
            except ChangewireError as error:
                self._say(f"no snapshot of {watcher.name}: {error}")
            else:
                self._say(f"a snapshot of {watcher.name} begins")

    async def break_servers(self, servers: list[Server], pace: Pace) -> None:
        """Kill the servers in turn, and start each again. Raises CommandError where one does not start."""
        pause, turn = pace.first_outage, 0
        while servers and not await self._stopped(pause):
            server = servers[turn % len(servers)]
            turn, pause = turn + 1, pace.between_outages
            server.kill()
            self._say(f"{server.program} was killed, and is started again in {pace.outage:g} seconds")
            await self._stopped(pace.outage)
            try:
                await server.start()
            except StartError as error:
                raise CommandError(f"{server.program} did not start again: {error}") from error
            self._say(f"{server.program} is back: the watchers read back what is stored, and go on from there")

    async def _ask(self, what: str, body: Any = None) -> Any:
        """Ask JetStream, again where it gives no answer: it may be down just now. Raises CommandError if it refuses."""
        while True:
            try:
                answer = await self._nats.request(f"$JS.API.{what}", b"" if body is None else json.dumps(body).encode())
            except (NatsError, TimeoutError) as error:
                if await self._stopped(1):
                    raise CommandError(f"JetStream gives no answer to {what}: {type(error).__name__}") from error
                continue
            found = json.loads(answer.data)
            if "error" in found:
                raise CommandError(f"JetStream refuses {what}: {found['error'].get('description')}")
            return found

    async def _has_published(self, name: str) -> bool:
        with contextlib.suppress(ChangewireError):
            status = (await self._registry.watcher(name)).status
            return status.state is State.RUNNING and status.published >= _FEW_CHANGES
        return False

    async def _stopped(self, seconds: float) -> bool:
        """Wait for the end of the demo, at most so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()
