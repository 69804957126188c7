"""The servers that a section runs on, the harness's own clients to them, and what it asks a stream.

A stage has one nats-server, or a cluster of three, on which each stream has three replicas (`clustered`).

A stream is asked directly, never the service: how many messages it holds, and when the server stored each.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
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

from app.devservers.nats_cluster import MEMBERS as CLUSTER
from app.devservers.nats_cluster import NatsCluster
from app.devservers.servers import MongoServer, NatsServer
from bench.procfs import Moment

POLL_SECONDS = 0.05


class Incomplete(Exception):
    """A stream does not hold what it has to: the figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender reads and where it publishes; each measurement has one of its own."""

    database: str
    collection: str
    stream: str


class Stage:
    """A mongod, a nats-server, and a client to each. Use it as an async context manager, in the main thread."""

    def __init__(self, *, replicas: int = 1, beside: "Stage | None" = None) -> None:
        """`replicas` (1 or 3) is the number of nats-servers, and the replicas of each stream. Where it is `beside`
        another stage, it shares that one's mongod."""
        self.mongo: MongoServer = MongoServer() if beside is None else beside.mongo
        self.nats: NatsServer | NatsCluster = NatsServer() if replicas == 1 else NatsCluster("bench")
        self.replicas = replicas
        self._beside = beside
        self.client: MongoClient[dict[str, Any]]
        self.bus: Client
        self.directory: Path
        self._exits = AsyncExitStack()
        self._count = 0

    async def __aenter__(self) -> Self:
        try:
            self.directory = Path(self._exits.enter_context(tempfile.TemporaryDirectory(prefix="changewire-bench-")))
            for server in (self.nats,) if self._beside is not None else (self.mongo, self.nats):
                self._exits.push_async_callback(server.close)
                await server.start()
            self.client = MongoClient(self.mongo.uri)
            self._exits.callback(self.client.close)
            self.bus = await nats.connect(
                self.nats.url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_quiet
            )
            self._exits.push_async_callback(self.bus.close)
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    def clustered(self) -> "Stage":
        """Another stage on the same mongod, with three nats-servers and three replicas of each stream."""
        return Stage(replicas=CLUSTER, beside=self)

    def place(self, name: str) -> Place:
        """A collection and a stream that nobody has used yet."""
        self._count += 1
        kind = "bench" if self.replicas == 1 else "cluster"
        return Place(f"{kind}_{name}_{self._count}".replace("-", "_"), "orders", f"{kind.upper()}_{self._count}")

    def spread(self, name: str, count: int) -> list[Place]:
        """So many of them, in one database."""
        first = self.place(name)
        if count == 1:
            return [first]
        return [Place(first.database, f"orders_{each}", f"{first.stream}_{each}") for each in range(count)]

    def collection(self, place: Place) -> Collection[dict[str, Any]]:
        """The place's collection, for writing."""
        return self.client[place.database][place.collection]

    async def settle(self) -> None:
        """Have mongod write what it holds, so that it does not do so while something is measured."""
        await asyncio.to_thread(self.client.admin.command, "fsync")

    async def clear(self, places: Sequence[Place]) -> None:
        """Remove the places' collections and streams, and what contenders have stored beside them."""
        for place in places:
            await self.ask(f"STREAM.DELETE.{place.stream}")
        first = places[0].database
        for name in await asyncio.to_thread(self.client.list_database_names):
            if name == first or name.startswith(f"{first}_"):
                await asyncio.to_thread(self.client.drop_database, name)

    def versions(self) -> dict[str, str]:
        """The two servers' versions."""
        return {"mongod": self.client.server_info()["version"], "nats_server": self.bus._server_info["version"]}

    def moment(self, service: int) -> Moment:
        """The processor time used so far by service, mongod and nats-server."""
        return Moment.now({"service": [service], **self.pids})

    @property
    def pids(self) -> dict[str, list[int]]:
        """The servers' process ids, by what they are called in the figures."""
        cluster = self.nats
        return {"mongod": [self.mongo.pid], "nats": cluster.pids if isinstance(cluster, NatsCluster) else [cluster.pid]}

    # The stream.

    async def ask(self, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call of the JetStream API, by the part of its subject after `$JS.API.`; errors are in the answer."""
        answer = await self.bus.request(f"$JS.API.{call}", json.dumps(body or {}).encode(), timeout=10)
        result: dict[str, Any] = json.loads(answer.data)
        return result

    async def create_stream(self, place: Place, **settings: Any) -> None:
        """Make the stream as a service would, with these settings besides."""
        config = {
            "name": place.stream, "subjects": [f"{place.stream}.*"], "storage": "file", "num_replicas": self.replicas,
            **settings,
        }  # fmt: skip
        answer = await self.ask(f"STREAM.CREATE.{place.stream}", config)
        if "error" in answer:
            raise Incomplete(f"the stream cannot be created: {answer['error']}")

    async def count(self, places: Sequence[Place]) -> int:
        """How many messages the streams hold together; 0 for those that there are not yet."""
        return sum([state["messages"] for state in (await self._states(places)).values()])

    async def _states(self, places: Sequence[Place]) -> dict[str, dict[str, Any]]:
        """The state of each of these streams that exist, by name, with few questions."""
        if len(places) == 1:
            answer = await self.ask(f"STREAM.INFO.{places[0].stream}")
            return {places[0].stream: answer["state"]} if "state" in answer else {}
        names, offset = {place.stream for place in places}, 0
        states: dict[str, dict[str, Any]] = {}
        while True:
            answer = await self.ask("STREAM.LIST", {"offset": offset})
            listed = answer.get("streams") or []
            states |= {name: each["state"] for each in listed if (name := each["config"]["name"]) in names}
            offset += len(listed)
            if not listed or offset >= answer["total"]:
                return states

    async def stretch(self, places: Sequence[Place], share: float) -> tuple[int, float]:
        """How many messages came after the first `share` of each stream's, and the seconds they took in all, by the
        server's times."""
        count, begun, ended = 0, [], []
        for stream, state in (await self._states(places)).items():
            if not state["messages"]:
                continue
            passed = min(int(state["messages"] * share), state["messages"] - 1)
            begun.append(await self._time_of(stream, state["first_seq"] + passed))
            count += state["messages"] - passed - 1
            ended.append(_seconds(state["last_ts"]))
        return count, max(ended) - min(begun)

    async def time_of(self, place: Place, sequence: int) -> float:
        """When the server stored a message, in seconds since 1970."""
        return await self._time_of(place.stream, sequence)

    async def _time_of(self, stream: str, sequence: int) -> float:
        answer = await self.ask(f"STREAM.MSG.GET.{stream}", {"seq": sequence})
        return _seconds(answer["message"]["time"])

    async def times(self, places: Sequence[Place]) -> tuple[float, float]:
        """When the server stored the first and the last message of all, in seconds since 1970."""
        held = [state for state in (await self._states(places)).values() if state["messages"]]
        return min(_seconds(each["first_ts"]) for each in held), max(_seconds(each["last_ts"]) for each in held)

    async def purge(self, place: Place) -> None:
        """Remove all messages."""
        await self.ask(f"STREAM.PURGE.{place.stream}")

    async def until(self, places: Sequence[Place], count: int, seconds: float) -> None:
        """Wait for so many messages. Raises Incomplete where nothing arrives for `seconds`."""
        before, moved = -1, time.monotonic()
        while (now := await self.count(places)) < count:
            if now != before:
                before, moved = now, time.monotonic()
            elif time.monotonic() - moved > seconds:
                raise Incomplete(f"{places[0].stream} holds {now:,} of {count:,} messages, and nothing more arrives")
            await asyncio.sleep(POLL_SECONDS if len(places) == 1 else POLL_SECONDS * 4)

    async def deliver(self, place: Place, subject: str, *, only: str = "") -> None:
        """Have every message that the stream stores from now on sent to a subject, by a push consumer; or `only` those
        with this operation."""
        config = {"deliver_subject": subject, "deliver_policy": "new", "ack_policy": "none", "mem_storage": True}
        if only:
            config["filter_subject"] = f"{place.stream}.{only}"
        answer = await self.ask(f"CONSUMER.CREATE.{place.stream}", {"stream_name": place.stream, "config": config})
        if "error" in answer:
            raise Incomplete(f"the stream cannot be followed: {answer['error']}")

    async def first(self, place: Place) -> asyncio.Future[float]:
        """When the next message of the stream is here (`time.perf_counter`)."""
        arrived: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        inbox = self.bus.new_inbox()

        async def take(_: Msg) -> None:
            if not arrived.done():
                arrived.set_result(time.perf_counter())

        await self.bus.subscribe(inbox, cb=take)
        await self.bus.flush()
        await self.deliver(place, inbox)
        return arrived


def _seconds(text: str) -> float:
    """RFC 3339 with nanoseconds, as NATS writes it, in seconds since 1970."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp() + float(f"0.{fraction or 0}")


async def _quiet(_: Exception) -> None:
    """Connection errors are expected: a section stops the server on purpose."""
