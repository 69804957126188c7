"""A service over fake servers, and how to wait for what it does."""

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

from app.control.admission import Rules
from app.control.fallback_store import FallbackStore
from app.control.instance import Instance
from app.control.registry import Registry, Times
from app.control.server_probe import ServerProbe
from app.control.share import Share
from app.control.watcher_task import WatcherTask
from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import NotFound, Unavailable
from app.domain.instances import Member
from app.domain.lifecycle import State
from app.domain.namespaces import Namespaces
from app.domain.watcher import Sink, Source, StoredWatcher, Watcher
from app.formats.extended_json import encode, identify, names_of, reduced
from app.pipeline.batch_encoder import Codec
from app.pipeline.capture import Capture
from app.pipeline.dependencies import Dependencies, Shared, Tuning
from app.pipeline.run import Ports, Run
from app.pipeline.run_state import RunState
from app.pipeline.run_statistics import RunStatistics
from tests.fakes import (
    FakeBox,
    FakeCheckpoints,
    FakeInstances,
    FakeInstanceState,
    FakeLetters,
    FakeMongo,
    FakeNats,
    FakeOplog,
    FakeRows,
    FakeSink,
    FakeSnapshots,
    FakeSource,
    FakeStream,
    FakeWatchers,
    NullObserver,
)

ORDERS = Watcher("orders", Source("shop", "orders"), checkpoint=CheckpointPlace()).with_defaults()


def watcher(name: str = "orders", **source: Any) -> Watcher:
    """A watcher on shop.<name>, with stream and checkpoint place of its own."""
    return Watcher(
        name, Source("shop", name, **source), Sink(name.upper()), CheckpointPlace(collection=name)
    ).with_defaults()


class Fakes:
    """One deployment, one account, one state database; as many instances on them as a test makes."""

    def __init__(self, *stored: StoredWatcher) -> None:
        self.oplog = FakeOplog()
        self.mongo = FakeMongo(self.oplog)
        self.nats = FakeNats()
        self.watchers = FakeWatchers(stored)
        self.watchers.runs = self.mongo.runs
        self.members = FakeInstanceState()
        self.instances: dict[str, FakeInstances] = {}
        """The way to the members and owners of each instance that shares the watchers, by name."""
        self.observers: list[NullObserver] = []
        """Of each instance, in the order in which they were made; so are the probes of those that are services."""
        self.probes: list[ServerProbe] = []

    def dependencies(self, clock: Callable[[], float] = time.time, **tuning: Any) -> Dependencies:
        self.observers.append(NullObserver())
        return Dependencies(
            mongo=self.mongo,
            nats=self.nats,
            codec=Codec(encode, reduced, identify, names_of),
            observer=self.observers[-1],
            clock=clock,
            tuning=Tuning(**tuning),
        )

    def registry(
        self,
        *,
        from_file: list[Watcher] | None = None,
        allowed: Namespaces | None = None,
        instance: str | None = None,
        **tuning: Any,
    ) -> Registry:
        """An instance of the service; with a name it shares the watchers with the others that have one."""
        share = None
        if instance is not None:
            self.instances[instance] = FakeInstances(self.members)
            share = Share(self.instances[instance], Member(instance, f"session {len(self.probes)}"))
        dependencies = self.dependencies(**tuning)
        self.probes.append(ServerProbe(dependencies.mongo, dependencies.nats))
        return Registry(
            dependencies,
            self.watchers,
            Rules("changewire", allowed),
            from_file=from_file,
            times=Times(drain=2.0, reconcile=0.05),
            server_probe=self.probes[-1],
            share=share,
        )

    def task(self, stored: StoredWatcher, dependencies: Dependencies | None = None, /, **tuning: Any) -> WatcherTask:
        """A watcher of an instance of its own, not started; the store holds it."""
        self.watchers.stored[stored.name] = stored
        store = FallbackStore(self.watchers, possible=False)
        return WatcherTask(stored, dependencies or self.dependencies(**tuning), store, Instance(store, "one"))

    def stream(self, name: str = "ORDERS") -> FakeStream:
        return self.nats.streams.setdefault(name, FakeStream(name, exists=False))


async def until(condition: Callable[[], object | Awaitable[object]], seconds: float = 10.0) -> None:
    """Wait until a condition (which may be awaitable) holds; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.001)


def outrun(fakes: Fakes) -> None:
    """Have another writer publish the first change right before the watcher's next publish."""
    stream = fakes.stream()

    def rival() -> None:
        stream.before_publish = None
        stream.store([("ORDERS.insert", encode(fakes.oplog.events[0][1]))], stream.last_sequence, "ORDERS.*")

    stream.before_publish = rival


async def kill(name: str = "orders") -> None:
    """End the one run that a watcher has, as SIGKILL would: nothing is drained, and nothing more is stored."""
    for run in [task for task in asyncio.all_tasks() if task.get_name() == f"watcher:{name}"]:
        run.cancel()
        await asyncio.wait([run])


async def until_state(registry: Registry, name: str, *states: State) -> None:
    """Wait until a watcher is in one of the states."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(NotFound, Unavailable):
                if (await registry.watcher(name)).status.state in states:
                    return
            await asyncio.sleep(0.001)


def capture(
    stream: FakeStream, source: FakeSource, *, sink: FakeSink | None = None, codec: Codec | None = None, **shared: Any
) -> Capture:
    """A capture of its own, of the watcher `ORDERS`, with no position stored; see `Shared` for the options."""
    ports = Ports(
        source, sink or FakeSink(stream, ORDERS), FakeLetters(FakeBox(), ORDERS), FakeCheckpoints({}), FakeRows(),
        FakeSnapshots(),
    )  # fmt: skip
    shared.setdefault("observer", NullObserver())
    options = Shared(codec=codec or Codec(encode, reduced, identify, names_of), **shared)
    return Capture(Run(StoredWatcher(ORDERS), ports, options, RunState(), RunStatistics()))
