"""The servers that a section runs on, the harness's own clients to them, and what it asks a stream.

A stream is asked directly, never the service: how many messages it holds, and when the server stored each.
"""

import asyncio
import base64
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from pymongo import MongoClient
from pymongo.collection import Collection

from app.embedded import MongoServer, NatsServer
from bench.procfs import Moment

POLL_SECONDS = 0.05
SETTLE_SECONDS = 0.5
"""How long a stream is watched, once it is complete, for messages too many."""


class Incomplete(Exception):
    """A stream does not hold what it has to: the figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender reads and where it publishes; each measurement has one of its own."""

    database: str
    collection: str
    stream: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as the stream has it; `at` is when the server stored it, in seconds since 1970."""

    at: float
    body: bytes


class Stage:
    """A mongod, a nats-server, and a client to each. Use it as an async context manager, in the main thread."""

    def __init__(self) -> None:
        self.mongo = MongoServer()
        self.nats = NatsServer()
        self.client: MongoClient[dict[str, Any]]
        self.bus: Client
        self.directory: Path
        self._exits = AsyncExitStack()
        self._count = 0

    async def __aenter__(self) -> Self:
        try:
            self.directory = Path(self._exits.enter_context(tempfile.TemporaryDirectory(prefix="changewire-bench-")))
            for server in (self.mongo, self.nats):
                self._exits.push_async_callback(server.close)
                await server.start()
            self.client = MongoClient(self.mongo.uri)
            self._exits.callback(self.client.close)
            self.bus = await nats.connect(
                self.nats.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_quiet
            )
            self._exits.push_async_callback(self.bus.close)
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    def place(self, name: str) -> Place:
        """A collection and a stream that nobody has used yet."""
        self._count += 1
        return Place(f"bench_{name}_{self._count}".replace("-", "_"), "orders", f"BENCH_{self._count}")

    def collection(self, place: Place) -> Collection[dict[str, Any]]:
        """The place's collection, for writing."""
        return self.client[place.database][place.collection]

    async def settle(self) -> None:
        """Have mongod write what it holds, so that it does not do so while something is measured."""
        await asyncio.to_thread(self.client.admin.command, "fsync")

    async def clear(self, place: Place) -> None:
        """Remove the place's collection and stream."""
        await self.ask(f"STREAM.DELETE.{place.stream}")
        await asyncio.to_thread(self.client.drop_database, place.database)

    def versions(self) -> dict[str, str]:
        """The two servers' versions."""
        return {"mongod": self.client.server_info()["version"], "nats_server": str(self.bus.connected_server_version)}

    def moment(self, service: int) -> Moment:
        """The processor time used so far by service, mongod and nats-server."""
        return Moment.now({"service": service, "mongod": self.mongo.pid, "nats": self.nats.pid})

    # The stream.

    async def ask(self, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call of the JetStream API, by the part of its subject after `$JS.API.`; errors are in the answer."""
        answer = await self.bus.request(f"$JS.API.{call}", json.dumps(body or {}).encode(), timeout=10)
        result: dict[str, Any] = json.loads(answer.data)
        return result

    async def create_stream(self, place: Place) -> None:
        """Make the stream as a service would."""
        config = {"name": place.stream, "subjects": [f"{place.stream}.*"], "storage": "file", "num_replicas": 1}
        answer = await self.ask(f"STREAM.CREATE.{place.stream}", config)
        if "error" in answer:
            raise Incomplete(f"the stream cannot be created: {answer['error']}")

    async def count(self, place: Place) -> int:
        """How many messages the stream holds; 0 where there is no stream yet."""
        state = (await self.ask(f"STREAM.INFO.{place.stream}")).get("state", {})
        return int(state.get("messages", 0))

    async def purge(self, place: Place) -> None:
        """Remove all messages."""
        await self.ask(f"STREAM.PURGE.{place.stream}")

    async def message(self, place: Place, index: int) -> Stored:
        """The stream's message number `index`, from 1 for the first it holds, below 0 from its end."""
        state = (await self.ask(f"STREAM.INFO.{place.stream}"))["state"]
        sequence = state["first_seq"] + index - 1 if index > 0 else state["last_seq"] + index + 1
        message = (await self.ask(f"STREAM.MSG.GET.{place.stream}", {"seq": sequence}))["message"]
        return Stored(_seconds(message["time"]), base64.b64decode(message.get("data", "")))

    async def until(self, place: Place, count: int, seconds: float) -> None:
        """Wait for so many messages. Raises Incomplete where nothing arrives for `seconds`."""
        before, moved = -1, time.monotonic()
        while (now := await self.count(place)) < count:
            if now != before:
                before, moved = now, time.monotonic()
            elif time.monotonic() - moved > seconds:
                raise Incomplete(f"{place.stream} holds {now:,} of {count:,} messages, and nothing more arrives")
            await asyncio.sleep(POLL_SECONDS)

    async def exactly(self, place: Place, count: int) -> None:
        """Raise Incomplete unless the stream holds so many messages, and goes on doing so."""
        await asyncio.sleep(SETTLE_SECONDS)
        now = await self.count(place)
        if now != count:
            raise Incomplete(f"{place.stream} holds {now:,} messages instead of {count:,}")

    async def follow(self, place: Place, received: Callable[[Msg], None]) -> None:
        """Have every message that the stream stores from now on delivered to `received`, by a push consumer."""
        inbox = self.bus.new_inbox()

        async def take(message: Msg) -> None:
            received(message)

        await self.bus.subscribe(inbox, cb=take)
        await self.bus.flush()
        config = {"deliver_subject": inbox, "deliver_policy": "new", "ack_policy": "none", "mem_storage": True}
        answer = await self.ask(f"CONSUMER.CREATE.{place.stream}", {"stream_name": place.stream, "config": config})
        if "error" in answer:
            raise Incomplete(f"the stream cannot be followed: {answer['error']}")


def _seconds(text: str) -> float:
    """RFC 3339 with nanoseconds, as NATS writes it, in seconds since 1970."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp() + float(f"0.{fraction or 0}")


async def _quiet(_: Exception) -> None:
    """Connection errors are expected: a section stops the server on purpose."""
