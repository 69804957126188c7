"""What is broken: two clusters, two services with one registry, a watcher and a stream for each collection, writers."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from pymongo import AsyncMongoClient

from tests.faults.cluster import APP_NAME, MEMBERS, MongoCluster, NatsCluster
from tests.faults.lag import GOOD_SECONDS, Lag
from tests.faults.recorder import Recorder
from tests.faults.writers import KINDS, Writers
from tests.service import Service, Stage, until

DATABASE = "shop"
KEPT = ("orders", "customers", "payments")
"""Whose streams keep all that they are given: they are compared as they are in the end."""
ANEW_WITH_GAP, ANEW_BY_HAND = "visits", "audits"
"""Whose streams are purged, bounded and recreated; for the one a gap's marker tells what is missing then, for the other
somebody has to say where to go on. What was ever delivered of them is compared."""
RECORDED = (ANEW_WITH_GAP, ANEW_BY_HAND)
COLLECTIONS = (*KEPT, *RECORDED)
WINDOW_SECONDS = 1
"""JetStream's duplicate window: almost every fault lasts longer, so that nothing but the fence can help."""
RECOVERY_SECONDS = 90.0
SILENCE_SECONDS = 10.0
"""The standby's patience, as it is by default."""
STUCK_SECONDS = 15.0
"""Nothing flows where the lag is longer than this."""


@dataclass(frozen=True)
class Load:
    """How many writers there are, for how many seconds each rests after a write, and what kinds it draws from."""

    writers: int = 6
    pause: float = 0.025
    kinds: tuple[str, ...] = KINDS


class Testbed:
    """All of it, running. An async context manager."""

    def __init__(
        self,
        load: Load | None = None,
        *,
        patience: float = RECOVERY_SECONDS,
        good: float = GOOD_SECONDS,
        silence: float = SILENCE_SECONDS,
        mongod: Path | None = None,
    ) -> None:
        self.mongo = MongoCluster(mongod)
        self.nats = NatsCluster()
        self.services: list[Service] = []
        self.problems: list[str] = []
        """What was not as it should be, apart from what the streams hold."""
        self.environment: dict[str, str] = {}
        self.folder = Path()
        self.state = ""
        """The database of the registry."""
        self.watchers = [_watcher(name) for name in COLLECTIONS]
        """As they are added."""
        self.patience = patience
        """A lag that is too long for so many seconds after a fault is a finding."""
        self._load = load or Load()
        self._good = good
        self._silence = silence
        self._kept = False

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="changewire-faults-"))
            stack.callback(lambda: shutil.rmtree(self.folder, ignore_errors=True) if not self._kept else None)
            await asyncio.gather(*(stack.enter_async_context(each) for each in (self.mongo, self.nats)))
            self.client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
                self.mongo.uri, w="majority", serverSelectionTimeoutMS=5_000, socketTimeoutMS=10_000, appname="operator"
            )
            stack.push_async_callback(self.client.close)
            self.since = (await self.client.admin.command("hello"))["operationTime"]
            await self._serve(stack)
            servers = [node.server for node in self.nats.nodes]
            self.recorders = {name: Recorder(servers, stream_of(name)) for name in RECORDED}
            for recorder in self.recorders.values():
                await stack.enter_async_context(recorder.recording())
            streams = [stream_of(name) for name in COLLECTIONS]
            load = self._load
            self.writers = Writers(
                self.mongo.uri, DATABASE, COLLECTIONS, count=load.writers, pause=load.pause, kinds=load.kinds
            )
            stack.push_async_callback(self.writers.close)
            self.lag = Lag(servers, streams, self.writers, good=self._good)
            await stack.enter_async_context(self.lag.watched())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _serve(self, stack: AsyncExitStack) -> None:
        stage = Stage(f"{self.mongo.uri}&appName={APP_NAME}", self.nats.url, self.folder, "faults")
        stack.push_async_callback(stage.mongo.close)
        for name in ("one", "two"):
            service = stage.service(f"service {name}", standby_silence_seconds=self._silence)
            stack.push_async_callback(service.close)
            self.services.append(service)
        self.environment = stage.environment()
        self.state = self.environment["CHANGEWIRE_STATE_DB"]
        await asyncio.gather(*(service.start() for service in self.services))
        first = self.services[0]
        await until(lambda: stage.takes(first), "a service takes watchers")
        for watcher in self.watchers:
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

    async def repair(self) -> None:
        """End every fault there may be, after one that did not go as it should."""
        await asyncio.gather(self.mongo.repair(), self.nats.repair())
        for service in self.services:
            if service.running:
                service.thaw()
            else:
                await service.start()

    async def back(self) -> None:
        """Wait until everything is there again; a problem where it is not."""
        try:
            await until(self.whole, "all servers are back", within=self.patience)
        except AssertionError as error:
            self.problems.append(str(error))

    async def recovered(self, what: str = "after it") -> None:
        """Wait until the lag is short; a problem where changes do not flow at all.

        Where they flow and the lag is not short all the same, the machine has too much else to do: the figures show it.
        """
        try:
            await until(lambda: self.lag.steady, f"the lag is short {what}", within=self.patience)
        except AssertionError as error:
            late = self.lag.seconds
            if late > STUCK_SECONDS:
                self.problems.append(f"{error}: it is {late:.1f} s; {await self.states()}")
            else:
                print(f"{error}, but {late:.1f} s: is the machine too busy?", flush=True)

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
            await until(lambda: self.lag.ended, "the last changes have come", within=self.patience)
            for name, recorder in self.recorders.items():
                await until(
                    partial(getattr, recorder, "ended"), f"the last change of {name} is recorded", within=self.patience
                )
        except AssertionError as error:
            self.problems.append(f"{error}; {await self.states()}")
        for service in self.services:
            code = await service.terminate()
            if code != 0:
                self.problems.append(f"{service.name} ended with {code}:\n{service.log_tail()}")


def stream_of(collection: str) -> str:
    """The stream of a collection's watcher."""
    return f"FAULTS_{collection.upper()}"


def _watcher(collection: str) -> dict[str, Any]:
    sink = {"stream": stream_of(collection), "replicas": MEMBERS, "duplicate_window_seconds": WINDOW_SECONDS}
    source = {"database": DATABASE, "collection": collection}
    on_history_lost = "latest" if collection == ANEW_WITH_GAP else "fail"
    return {"name": collection, "source": source, "sink": sink, "on_history_lost": on_history_lost}
