"""A stage to break the service on: servers, traffic, and what arrived in the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client as NatsClient
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from pymongo import AsyncMongoClient, DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import PyMongoError

from tests.service.messages import Change, Message, assert_same
from tests.service.process import ROOT, Service
from tests.service.waiting import POLL_SECONDS, until
from tests.traps import Trap

FETCH = 500
NOT_INHERITED = ("CHANGEWIRE_", "LOG_LEVEL", "CONFIG_FILE", "COVERAGE_")
"""What of this process's environment a service does not get. Measuring coverage would cost it as much time as it needs
itself, and one that is killed reports none: `tests/live.py` and the tests of the command line measure the same code."""


class Stage:
    """What one test works on. Every name is this test's own, so that many share the servers."""

    def __init__(self, mongo_uri: str, nats_url: str, workdir: Path, unique: str) -> None:
        self.mongo_uri = mongo_uri
        self.nats_url = nats_url
        self.database = f"db_{unique}"
        self.stream = f"S_{unique}".upper()
        self.watcher = "things"
        self.state_database = f"state_{unique}"
        self.own_place = True
        """Whether the watcher names a place for its position; else it lies among those of all watchers."""
        self.written: list[Change] = []
        """Every change made to the watched collection, in order."""
        self._workdir = workdir
        self._unique = unique
        self._numbers = 0
        self._alive: list[int] = []
        self._services: list[Service] = []
        self._nats: NatsClient | None = None
        self.mongo: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo_uri, serverSelectionTimeoutMS=30_000)

    @property
    def collection(self) -> Any:
        """The watched collection."""
        return self.mongo[self.database]["things"]

    async def close(self) -> None:
        for service in self._services:
            await service.close()
            print(f"--- the end of {service.name}'s log\n{service.log_tail()}")  # shown where the test has failed
        if self._nats is not None:
            await self._nats.close()
        await self.mongo.close()

    async def nats(self) -> NatsClient:
        """A connection to look at streams with; waits for its server."""
        if self._nats is None:
            self._nats = await nats.connect(
                self.nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.2, error_cb=_ignore
            )
        return self._nats

    # Services and watchers

    def service(
        self, name: str = "service", *, trap: Trap | None = None, nats_url: str | None = None, **settings: object
    ) -> Service:
        """A service on this stage's servers, not started. All share one registry, where an instance has the name of its
        service. `settings`: CHANGEWIRE_ ones; `nats_url` leads to the stage's server in another way, such as through a
        proxy."""
        environment = self.environment(**{"instance": name, **settings})
        if nats_url is not None:
            environment["NATS_URL"] = nats_url
        service = Service(name, self._workdir, environment, trap=trap)
        self._services.append(service)
        return service

    def environment(self, **settings: object) -> dict[str, str]:
        """The environment of a service, and of a command that is to see what it sees."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        if codec := os.environ.get("CHANGEWIRE_CODEC"):  # the tests may be run on either encoder
            inherited["CHANGEWIRE_CODEC"] = codec
        asked = {"STATE_DB": self.state_database, "LOG_FORMAT": "json", "RECONCILE_SECONDS": 0.5, **settings}
        return {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "MONGO_URI": self.mongo_uri,
            "NATS_URL": self.nats_url,
            **{f"CHANGEWIRE_{name.upper()}": str(value) for name, value in asked.items()},
        }

    def described(self, **sink: object) -> dict[str, Any]:
        """The watcher of `collection`, as it is posted."""
        own = {"checkpoint": {"database": f"tokens_{self._unique}", "collection": "things"}} if self.own_place else {}
        return {
            "name": self.watcher,
            "source": {"database": self.database, "collection": "things"},
            "sink": {"stream": self.stream, **sink},
            **own,
        }

    async def add(self, service: Service, *, running: bool = True, **sink: object) -> None:
        """Add the watcher once the service takes it, and wait until it runs."""
        await until(lambda: self.takes(service), f"{service.name} is ready")
        await service.call("POST", "/watchers", self.described(**sink), status=201)
        if running:
            await service.until_state(self.watcher, "RUNNING")

    async def owners(self) -> dict[str, str]:
        """Which instance owns each watcher, as the state database has it; without those that are being handed over."""
        found = await self.mongo[self.state_database]["registry"].find_one({"_id": "owners"})
        owners = {} if found is None else found["owners"]
        return {
            name.replace("%2E", "."): one["by"] for name, one in owners.items() if one.get("to") in (None, one["by"])
        }

    async def owner(self, watcher: str = "") -> Service:
        """The service that owns a watcher, once it runs there (or is PAUSED or FAILED)."""

        async def found() -> Service | None:
            by = (await self.owners()).get(watcher or self.watcher)
            service = next((one for one in self._services if one.name == by and one.running), None)
            if service is None or await service.state(watcher or self.watcher) in (None, "STARTING"):
                return None
            return service

        owner: Service = await until(found, "the watcher has an owner, and runs there")
        return owner

    @staticmethod
    async def takes(service: Service) -> bool:
        """Whether the service takes changing calls by now."""
        return (await service.call("GET", "/readyz")).status_code == 200

    async def checkpoint(self) -> dict[str, Any] | None:
        """The watcher's stored position."""
        if self.own_place:
            found = await self.mongo[f"tokens_{self._unique}"]["things"].find_one({}, sort=[("_id", -1)])
        else:
            found = await self.mongo[self.state_database]["checkpoints"].find_one({"_id": self.watcher})
        return None if found is None else dict(found)

    # Changes

    async def write(self, count: int, *, at_once: int = 40, pause: float = 0.0) -> None:
        """Make `count` changes of all four kinds, `at_once` in one command, with a `pause` in seconds between these."""
        alive, made = self._alive, 0
        while made < count:
            requests: list[Any] = []
            changes: list[Change] = []
            for _ in range(min(at_once, count - made)):
                self._numbers += 1
                number = self._numbers
                kind = ("insert", "insert", "insert", "update", "insert", "replace", "insert", "delete")[number % 8]
                if kind == "insert" or len(alive) < 4:
                    requests.append(InsertOne({"_id": number, "n": number, "text": "x" * 200}))
                    changes.append(Change("insert", number, number))
                    alive.append(number)
                elif kind == "update":
                    requests.append(UpdateOne({"_id": alive[-1]}, {"$set": {"n": number}}))
                    changes.append(Change("update", alive[-1], number))
                elif kind == "replace":
                    requests.append(ReplaceOne({"_id": alive[-2]}, {"n": number, "replaced": True}))
                    changes.append(Change("replace", alive[-2], number))
                else:
                    requests.append(DeleteOne({"_id": alive[0]}))
                    changes.append(Change("delete", alive.pop(0), None))
            await self.collection.bulk_write(requests, ordered=True)
            self.written.extend(changes)
            made += len(changes)
            await asyncio.sleep(pause)

    async def write_through_failures(self, count: int, *, at_once: int = 25, pause: float = 0.02) -> None:
        """Insert `count` documents while mongod dies and comes back: what failed is looked up and gone on from."""
        first = self._numbers + 1
        self._numbers += count
        last, number = self._numbers, first
        while number <= last:
            batch = range(number, min(number + at_once, last + 1))
            try:
                await self.collection.insert_many([{"_id": n, "n": n, "text": "x" * 200} for n in batch], ordered=True)
                number = batch[-1] + 1
            except PyMongoError:
                number = await self._goes_on_at(first)
            await asyncio.sleep(pause)
        self.written.extend(Change("insert", n, n) for n in range(first, last + 1))

    async def _goes_on_at(self, first: int) -> int:
        while True:
            try:
                newest = await self.collection.find_one({}, sort=[("_id", -1)])
            except PyMongoError:
                await asyncio.sleep(POLL_SECONDS)
                continue
            return first if newest is None else max(first, int(newest["_id"]) + 1)

    @asynccontextmanager
    async def load(self, *, at_once: int = 20, pause: float = 0.05) -> AsyncIterator[None]:
        """Let changes be made, without an end, beside what the test does within the block."""
        over = False

        async def write() -> None:
            while not over:
                await self.write(at_once, at_once=at_once, pause=pause)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            yield
            over = True

    # What arrived

    async def length(self, stream: str = "") -> int:
        """How many messages the stream holds; 0 where there is none, or no answer."""
        try:
            return await self.held(stream, seconds=2)
        except (nats.js.errors.Error, nats.errors.Error, TimeoutError):
            return 0

    async def held(self, stream: str = "", *, seconds: float = 20) -> int:
        """The same of a stream that is there, whose server answers, however busy it is."""
        jetstream = (await self.nats()).jetstream(timeout=seconds)
        return int((await jetstream.stream_info(stream or self.stream)).state.messages)

    async def until_length(self, count: int, *, stream: str = "", within: float = 40) -> None:
        """Wait until the stream holds that many messages."""
        there = 0

        async def long_enough() -> bool:
            nonlocal there
            there = await self.length(stream)
            return there >= count

        try:
            await until(long_enough, "", within=within)
        except AssertionError:
            states = [f"{each.name} {await each.status(self.watcher)}" for each in self._services if each.running]
            raise AssertionError(f"{there} of {count} messages within {within:g} s; {states}") from None

    async def messages(self, stream: str = "", *, last: int | None = None) -> list[Message]:
        """The whole stream, from its first message to its last; or so many at its end, where none is missing there."""
        jetstream = (await self.nats()).jetstream(timeout=10)
        state = (await jetstream.stream_info(stream or self.stream)).state
        left = state.messages if last is None else min(last, state.messages)
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=max(1, state.first_seq if last is None else state.last_seq - left + 1),
            ack_policy=AckPolicy.NONE,
            mem_storage=True,
            max_waiting=10,
        )
        reader = await jetstream.pull_subscribe(
            "", stream=stream or self.stream, config=config, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        found: list[Message] = []
        while len(found) < left:
            for each in await reader.fetch(min(FETCH, left - len(found)), timeout=10):
                sequence = each.metadata.sequence.stream
                found.append(Message(sequence, each.subject, each.headers or {}, each.data))
        await reader.unsubscribe()
        return found

    async def check(self, *, within: float = 40, epoch: int = 0) -> list[Message]:
        """Wait for as many messages as there were changes, end every service, and compare: each once, in order."""
        await self.until_length(len(self.written), within=within)
        for service in self._services:
            if service.running:
                service.thaw()
                assert await service.terminate() == 0, service.log_tail()
        messages = await self.messages()
        assert_same(self.written, [message.change for message in messages])
        ids = [message.id for message in messages]
        assert ids == sorted(set(ids)), "the ids do not grow from message to message"
        assert {message.subject for message in messages} <= {
            f"{self.stream}.{operation}" for operation in ("insert", "update", "replace", "delete")
        }
        return messages


async def _ignore(_: Exception) -> None:
    """Streams are looked at while their server is down; nats-py would print each failure."""


@asynccontextmanager
async def staged(mongo_uri: str, nats_url: str, workdir: Path, unique: str) -> AsyncIterator[Stage]:
    """A stage that is cleared away afterwards."""
    async with AsyncExitStack() as stack:
        stage = Stage(mongo_uri, nats_url, workdir, unique)
        stack.push_async_callback(stage.close)
        yield stage
