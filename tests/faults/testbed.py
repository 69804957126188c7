"""What is broken: two clusters, instances with one registry, a watcher and a stream for each collection, writers.

Each way to publish has a collection of its own, so that every run covers them all.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import nats.errors
from pymongo import AsyncMongoClient

from tests.faults.cluster import APP_NAME, MEMBERS, PASSWORD, MongoCluster, NatsCluster, accompanied, connected
from tests.faults.lag import GOOD_SECONDS, Lag
from tests.faults.proxy import Link
from tests.faults.recorder import Recorder
from tests.faults.writers import KINDS, Writers
from tests.service import Service, Stage, until

DATABASE = "shop"
BATCHES, FAST, SHARED, WINDOW = "orders", "customers", "payments", "invoices"
"""One for each way to publish: two atomic batches under way (three replicas), fast ingest (one replica), one atomic
batch (a stream that others use too), and a window of single messages (the settings of mongodb-nats-connector)."""
KEPT = (BATCHES, FAST, SHARED, WINDOW)
"""Whose streams keep all that they are given: they are compared as they are in the end."""
ANEW_WITH_GAP, ANEW_BY_HAND = "visits", "audits"
"""Whose streams are purged, bounded and recreated; for the one a gap's marker tells what is missing then, for the other
somebody has to say where to go on. What was ever delivered of them is compared."""
RECORDED = (ANEW_WITH_GAP, ANEW_BY_HAND)
COLLECTIONS = (*KEPT, *RECORDED)
ONE_REPLICA = (FAST, ANEW_WITH_GAP)
"""Whose streams are away with their only server. The others have three replicas."""
REPLICATED = tuple(name for name in COLLECTIONS if name not in ONE_REPLICA)
MODES = {
    BATCHES: "atomic",
    FAST: "fast_ingest",
    SHARED: "atomic",
    WINDOW: "window",
    ANEW_WITH_GAP: "fast_ingest",
    ANEW_BY_HAND: "atomic",
}
"""The publish mode that each watcher has to have had in a run."""
BATCH_SIZES = (500, 120, 250, 90)
"""Of the services: where one follows on another, their batches do not begin at the same changes."""
NEIGHBOURS = "neighbours"
"""Whose messages come to the shared stream all the time."""
NEIGHBOUR_SECONDS = 0.1
WINDOW_SECONDS = 1
"""JetStream's duplicate window: almost every fault lasts longer, so that nothing but the fence can help."""
TAKEN_BACK = '"stream_lost_its_end"'
"""What the log says where a stream ends before what a service took for acknowledged. The service goes on from there, so
that the stream does not show it; but no fault here takes the end of a stream away."""
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
    bulk: int = 600
    """The most documents that are inserted at once; half of it on average."""
    bulk_pause: float = 0.8
    """Seconds between two such inserts."""


class Testbed:
    """All of it, running. An async context manager. This form has a watcher for each way to publish."""

    __test__ = False  # for pytest, which takes it for a test by its name

    databases: Mapping[str, str] = dict.fromkeys(COLLECTIONS, DATABASE)
    """The collections that faults strike, and the database of each."""
    names: Sequence[str] = COLLECTIONS
    """The watchers, named as their collections, that are looked at while faults strike."""
    recorded: Sequence[str] = RECORDED
    replicated: Sequence[str] = REPLICATED
    one_replica: Sequence[str] = ONE_REPLICA
    instances: Sequence[str] = ("one", "two")
    """The services that are to run all the time."""
    guests: Sequence[str] = ()
    """Those that may join them."""

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
        marks = [mark_of(name) for name in (*self.instances, *self.guests)]
        self.nats = NatsCluster(marks)
        for cluster in (self.mongo, self.nats):
            cluster.apart.update({mark.encode(): Link() for mark in marks})
        self.services: list[Service] = []
        self.visiting: list[Service] = []
        """The guests, of which some may run."""
        self.problems: list[str] = []
        """What was not as it should be, apart from what the streams hold."""
        self.environment: dict[str, str] = {}
        self.folder = Path()
        self.state = ""
        """The database of the registry."""
        self.watchers = self._described()
        """As they are added."""
        self.foreign: Counter[str] = Counter()
        """Messages of somebody else on each watcher's subjects, as far as they are acknowledged."""
        self.foreign_uncertain: Counter[str] = Counter()
        """Those that were not acknowledged, and may be there."""
        self.taken_back = 0
        """How often a service had taken changes for stored that its stream does not have."""
        self.modes: dict[str, Counter[str]] = {name: Counter() for name in self.names}
        """How often each watcher was seen in which publish mode."""
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
            self.recorders = {name: Recorder(servers, stream_of(name)) for name in self.recorded}
            for recorder in self.recorders.values():
                await stack.enter_async_context(recorder.recording())
            streams = [stream_of(name) for name in self.names]
            load, (databases, drawn) = self._load, self._written()
            self.writers = Writers(
                self.mongo.uri, databases, drawn, count=load.writers, pause=load.pause, kinds=load.kinds
            )
            self.writers.bulk, self.writers.bulk_pause = load.bulk, load.bulk_pause
            stack.push_async_callback(self.writers.close)
            await stack.enter_async_context(accompanied(*self._beside()))
            self.lag = Lag(servers, streams, self.writers, good=self._good)
            await stack.enter_async_context(self.lag.watched())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _serve(self, stack: AsyncExitStack) -> None:
        for name, size in zip((*self.instances, *self.guests), BATCH_SIZES, strict=False):
            mark = mark_of(name)
            stage = Stage(f"{self.mongo.uri}&appName={APP_NAME}-{mark}", self.nats.url, self.folder, "faults")
            stack.push_async_callback(stage.mongo.close)
            service = stage.service(
                name, standby_silence_seconds=self._silence, batch_size=size, instance=name, nats_user=mark,
                nats_password=PASSWORD,
            )  # fmt: skip
            stack.push_async_callback(service.close)
            (self.services if name in self.instances else self.visiting).append(service)
            self.environment = stage.environment()
        self.state = self.environment["CHANGEWIRE_STATE_DB"]
        await asyncio.gather(*(service.start() for service in self.services))
        first = self.services[0]
        await until(lambda: Stage.takes(first), "a service takes watchers")
        await self._make_streams()
        await first.call("POST", "/watchers", self.watchers, status=201)
        await until(self.all_run, "every watcher runs in a service", within=self.patience)

    def _described(self) -> list[dict[str, Any]]:
        """The watchers, as they are added."""
        return [_watcher(name) for name in self.names]

    def _written(self) -> tuple[Mapping[str, str], Sequence[str]]:
        """The databases of the collections that are written, and the collections to draw from."""
        return self.databases, self.names

    def _beside(self) -> list[Coroutine[Any, Any, None]]:
        """What else goes on all the time."""
        return [self._neighbours()]

    async def _make_streams(self) -> None:
        """Make the streams that the watchers do not make."""
        shared = {"name": stream_of(SHARED), "subjects": [f"{stream_of(SHARED)}.>", f"{NEIGHBOURS}.>"]}
        limits = {"num_replicas": MEMBERS, "duplicate_window": WINDOW_SECONDS * 10**9}
        await self.nats.change(f"STREAM.CREATE.{stream_of(SHARED)}", {**shared, **limits})

    async def _neighbours(self) -> None:
        """Publish to the shared stream beside its watcher, whatever is away."""
        while True:
            for node in self.nats.nodes:
                with suppress(OSError, nats.errors.Error, TimeoutError):
                    async with connected(node.server) as client:
                        while client.is_connected:
                            await client.publish(f"{NEIGHBOURS}.news", b"{}")
                            await asyncio.sleep(NEIGHBOUR_SECONDS)
            await asyncio.sleep(NEIGHBOUR_SECONDS)

    async def disturb(self, name: str, count: int = 1) -> None:
        """Publish messages of somebody else to a watcher's subjects."""
        for _ in range(count):
            stored = await self.nats.publish(f"{stream_of(name)}.foreign", b'{"operationType": "foreign"}')
            (self.foreign if stored else self.foreign_uncertain)[name] += 1

    async def note_modes(self) -> None:
        """Look by which mode each watcher publishes now, as far as a service says."""
        for service, names in (await self.running()).items():
            for name in names & set(self.names):
                status = await service.status(name)
                if status.get("state") == "RUNNING" and status.get("publish_mode"):
                    self.modes[name][status["publish_mode"]] += 1

    def keep(self) -> None:
        """Leave the services' logs and the writers' lists behind, and say where."""
        self._kept = True
        print(f"logs and lists: {self.folder}")

    async def active(self) -> Service:
        """The service that publishes for most of the watchers, as far as they say."""
        running = await self.running()
        return max(self.services, key=lambda service: len(running.get(service, set()) & set(self.names)))

    async def running(self) -> dict[Service, set[str]]:
        """The watchers that are RUNNING in each service that runs itself; a frozen one does not say so of any."""
        live = [service for service in (*self.services, *self.visiting) if service.running]
        return dict(zip(live, await asyncio.gather(*(service.runs() for service in live)), strict=True))

    async def all_run(self) -> bool:
        """Whether every watcher that is to run is RUNNING in a service."""
        running: set[str] = set().union(*(await self.running()).values())
        return set(self.names) <= running

    async def runners(self, name: str) -> list[Service]:
        """The services in which this watcher is RUNNING."""
        return [service for service, names in (await self.running()).items() if name in names]

    async def publisher(self, name: str) -> Service:
        """The only service that runs this watcher; waits until there is exactly one."""

        async def alone() -> Service | None:
            found = await self.runners(name)
            return found[0] if len(found) == 1 else None

        found: Service = await until(alone, f"one service publishes for {name}", within=60)
        return found

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

    async def settled(self, what: str) -> None:
        """Wait until all else is as it should be, once changes flow again."""

    async def states(self) -> dict[str, Any]:
        """What the services say of their watchers."""
        return {
            f"{service.name}/{name}": await service.status(name)
            for service in self.services
            if service.running
            for name in self.names
        }

    async def finish(self) -> None:
        """Write the last documents, wait for their messages, and end the services."""
        await self.writers.finish()
        try:
            await until(self._ended, "the last changes have come", within=self.patience)
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
            self.taken_back += service.log.read_text(errors="replace").count(TAKEN_BACK)
        if self.taken_back:
            self.problems.append(f"{self.taken_back} times an acknowledged end of a stream was not there")
        self._judge_modes()

    def _ended(self) -> Any:
        """Whether every watched collection's last document is on its stream; may be awaitable."""
        return self.lag.ended

    def _judge_modes(self) -> None:
        for name in self.names:
            mode = MODES[name]
            if not self.modes[name][mode]:
                self.problems.append(f"{name} never published by {mode}: {dict(self.modes[name]) or 'never looked'}")


def mark_of(name: str) -> str:
    """By what the proxies tell an instance's connections: a part of its `appName`, and its user."""
    return f"instance-{name}"


def stream_of(collection: str) -> str:
    """The stream of a collection's watcher."""
    return f"FAULTS_{collection.upper()}"


def _watcher(collection: str) -> dict[str, Any]:
    sink = {
        "stream": stream_of(collection),
        "replicas": 1 if collection in ONE_REPLICA else MEMBERS,
        "duplicate_window_seconds": WINDOW_SECONDS,
        "stream_settings": "connector" if collection == WINDOW else "changewire",
    }
    source = {"database": DATABASE, "collection": collection}
    on_history_lost = "latest" if collection == ANEW_WITH_GAP else "fail"
    return {"name": collection, "source": source, "sink": sink, "on_history_lost": on_history_lost}
