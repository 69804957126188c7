"""What the tests of MongoDB's adapter share: a collection with sources that watch it, and what came out of them."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import bson
import pymongo
import pytest
from pymongo.write_concern import WriteConcern

from app.devservers.servers import MongoServer
from app.domain.errors import Invalid, SourceUnavailable, StoreUnavailable
from app.domain.watcher import Source, Start, Watcher
from app.mongodb.change_source import MongoChangeSource
from app.mongodb.connection import OPTIONS
from app.mongodb.deployment import MongoDeployment
from app.ports import ChangeSource
from tests.live import until

Client = pymongo.MongoClient[dict[str, Any]]
Event = dict[str, Any]
MakeMongo = Callable[..., Awaitable[MongoServer]]
T = TypeVar("T")

SOCKET_SECONDS: float = OPTIONS["socketTimeoutMS"] / 1000
"""The driver's own patience with a connection: what takes less is noticed in another way."""


class Bench:
    """One server's collection `orders`, a blocking client to write with, and sources that watch it."""

    def __init__(self, uri: str, database: str, *, batch_size: int = 500) -> None:
        self.client: Client = pymongo.MongoClient(uri)
        self.database = self.client[database]
        self.orders = self.database.get_collection("orders", write_concern=WriteConcern("majority"))
        self.deployment = MongoDeployment(uri, state_database="changewire", batch_size=batch_size)
        self._batch_size = batch_size

    def source(self, **options: Any) -> MongoChangeSource:
        watcher = Watcher("w", Source(self.database.name, "orders", **options))
        return MongoChangeSource(watcher, self.deployment.reach, batch_size=self._batch_size)

    def insert(self, *keys: int) -> None:
        for key in keys:
            self.orders.insert_one({"_id": key})

    def open_cursors(self) -> int:
        return int(self.client.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"])

    def close(self) -> None:
        self.deployment.close()
        self.client.close()


MakeBench = Callable[..., Bench]


async def found_again(ask: Callable[[], Awaitable[T]]) -> T:
    """Return the answer of a server that is back, once the driver has found it."""

    async def answer() -> tuple[T] | None:
        try:
            return (await ask(),)
        except (SourceUnavailable, StoreUnavailable):
            return None

    (found,) = await until(answer)
    return cast("T", found)


def watcher(database: str, *stages: dict[str, Any], collection: str = "orders", **options: Any) -> Watcher:
    return Watcher("w", Source(database, collection, pipeline=stages, **options))


async def opened(source: ChangeSource, start: Start | None = None) -> str:
    await source.prepare()
    position = await source.locate(start or Start("latest"))
    await source.open(position)
    return position


async def read_until(source: ChangeSource, enough: Callable[[list[Event]], bool], seconds: float = 20) -> list[Event]:
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while not enough(events):
        assert time.monotonic() < deadline, f"only {said(events)} came"
        events += [bson.decode(raw) for raw in (await source.read()).events]
    return events


async def events_of(
    mongo: MongoDeployment, watched: Watcher, write: Callable[[], object], count: int = 1
) -> list[Event]:
    """What a watcher's source brings of a write, which makes `count` events."""
    source = mongo.source(watched)
    await opened(source)
    write()
    events = await read_until(source, lambda events: len(events) >= count)
    await source.close()
    return events


def said(events: list[Event]) -> list[str | int]:
    """Inserts by their key, all else by its operation."""
    return [e["documentKey"]["_id"] if e["operationType"] == "insert" else e["operationType"] for e in events]


def fields(error: pytest.ExceptionInfo[Invalid]) -> list[str]:
    """The fields of the request that are refused."""
    return [problem.field for problem in error.value.problems]


def last_is(key: int) -> Callable[[list[Event]], bool]:
    return lambda events: bool(events) and events[-1].get("documentKey") == {"_id": key}
