"""What is broken: two clusters, two services with one registry, a watcher and a stream for each collection, writers."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from tests.faults.cluster import APP_NAME, MEMBERS, MongoCluster, NatsCluster
from tests.faults.lag import Lag
from tests.faults.writers import Writers
from tests.service import Service, Stage, until

COLLECTIONS = ("orders", "customers", "payments")
WINDOW_SECONDS = 1
"""JetStream's duplicate window: almost every fault lasts longer, so that nothing but the fence can help."""
RECOVERY_SECONDS = 90
"""A lag that is too long for so long after a fault is a finding."""


class World:
    """All of it, running. An async context manager."""

    def __init__(self, *, writers: int = 6, pause: float = 0.025) -> None:
        self.mongo = MongoCluster()
        self.nats = NatsCluster()
        self.services: list[Service] = []
        self.problems: list[str] = []
        """What was not as it should be, apart from what the streams hold."""
        self.environment: dict[str, str] = {}
        self.folder = Path()
        self._load = (writers, pause)
        self._kept = False

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="changewire-faults-"))
            stack.callback(lambda: shutil.rmtree(self.folder, ignore_errors=True) if not self._kept else None)
            await asyncio.gather(*(stack.enter_async_context(each) for each in (self.mongo, self.nats)))
            await self._serve(stack)
            streams = [stream_of(name) for name in COLLECTIONS]
            count, pause = self._load
            self.writers = Writers(self.mongo.uri, "shop", COLLECTIONS, count=count, pause=pause)
            stack.push_async_callback(self.writers.close)
            self.lag = Lag([node.server for node in self.nats.nodes], streams, self.writers)
            await stack.enter_async_context(self.lag.watched())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _serve(self, stack: AsyncExitStack) -> None:
        stage = Stage(f"{self.mongo.uri}&appName={APP_NAME}", self.nats.url, self.folder, "faults")
        stack.push_async_callback(stage.mongo.close)
        for name in ("one", "two"):
            service = stage.service(f"service {name}")
            stack.push_async_callback(service.close)
            self.services.append(service)
        self.environment = stage.environment()
        await asyncio.gather(*(service.start() for service in self.services))
        first = self.services[0]
        await until(lambda: stage.takes(first), "a service takes watchers")
        for name in COLLECTIONS:
            sink = {"stream": stream_of(name), "replicas": MEMBERS, "duplicate_window_seconds": WINDOW_SECONDS}
            watcher = {"name": name, "source": {"database": "shop", "collection": name}, "sink": sink}
            await first.call("POST", "/watchers", watcher, status=201)
        for name in COLLECTIONS:
            await first.until_state(name, "RUNNING")

    def keep(self) -> None:
        """Leave the services' logs and the writers' lists behind, and say where."""
        self._kept = True
        print(f"logs and lists: {self.folder}")

    async def active(self) -> Service:
        """The service that publishes for most of the watchers, as far as they say."""
        running: Counter[str] = Counter()
        for service in self.services:
            for name in COLLECTIONS:
                running[service.name] += await service.state(name) == "RUNNING"
        return max(self.services, key=lambda service: running[service.name])

    async def whole(self) -> bool:
        """Whether everything is there again."""
        for service in self.services:
            assert service.running, f"{service.name} ended by itself:\n{service.log_tail()}"
        return await self.mongo.whole() and await self.nats.whole()

    async def back(self) -> None:
        """Wait until everything is there again; a problem where it is not."""
        try:
            await until(self.whole, "all servers are back", within=RECOVERY_SECONDS)
        except AssertionError as error:
            self.problems.append(str(error))

    async def recovered(self) -> None:
        """Wait until the lag is short; a problem where it stays long."""
        try:
            await until(lambda: self.lag.steady, "the lag is short", within=RECOVERY_SECONDS)
        except AssertionError as error:
            self.problems.append(f"{error}; {await self.states()}")

    async def states(self) -> dict[str, Any]:
        """What the services say of their watchers."""
        return {
            f"{service.name}/{name}": await service.status(name)
            for service in self.services
            if service.running
            for name in COLLECTIONS
        }

    async def finish(self) -> None:
        """Write the last documents, wait for their messages, and end the services."""
        await self.writers.finish()
        try:
            await until(lambda: self.lag.ended, "the last changes have come", within=RECOVERY_SECONDS)
        except AssertionError as error:
            self.problems.append(f"{error}; {await self.states()}")
        for service in self.services:
            code = await service.terminate()
            if code != 0:
                self.problems.append(f"{service.name} ended with {code}:\n{service.log_tail()}")


def stream_of(collection: str) -> str:
    """The stream of a collection's watcher."""
    return f"FAULTS_{collection.upper()}"
