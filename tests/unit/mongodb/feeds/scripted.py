"""A deployment in memory with several collections, and sources over one of them or over a database, filtered or not."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from app.domain.errors import SourceRefused, SourceUnavailable
from app.domain.status import Reads
from app.domain.tokens import cluster_time
from app.domain.watcher import Start
from app.mongodb.feeds.filters import Filter
from app.mongodb.feeds.parts import concerned
from app.mongodb.feeds.views import Seen
from app.ports import SourceBatch
from tests.encoders import raw_events
from tests.fakes import BEGIN, event_token, mark_token, raw_event

ALL = Filter()
EVENT_BYTES = len(raw_event(1))


@dataclass
class Deployment:
    """What happened, in order: token, database, collection, raw event."""

    events: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    moment: int = 0
    opened: list[str] = field(default_factory=list)
    """Each stream that was opened: a collection's name, or `*` for a database's."""
    trouble: list[Exception | None] = field(default_factory=list)
    """What the next reads of database streams raise."""
    refused: Exception | None = None
    """What the opening of a database's stream raises."""
    views: set[str] = field(default_factory=set)
    """Collections that were dropped and created again as views: nothing is written there, and nothing opens."""
    asked: int = 0
    """How often somebody asked for the views."""
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, collection: str, operation: str = "insert", database: str = "shop", **fields: Any) -> str:
        self.moment += 1
        token = event_token(self.moment)
        fields = {"ns": {"db": database, "coll": collection}, **fields}
        self.events.append((token, database, collection, raw_event(self.moment, operation, **fields)))
        self._arrived.set()
        return token

    async def see_views(self) -> Seen:
        self.asked += 1
        seen = Seen(frozenset(self.views), cluster_time(self.now))
        await asyncio.sleep(0)
        return seen

    @property
    def now(self) -> str:
        return mark_token(self.moment + 1)

    def tokens(self, collection: str, after: str = "") -> list[str]:
        return [token for token, _, name, _ in self.events if name == collection and token > after]

    async def something(self) -> None:
        """Wait a moment for something new."""
        self._arrived.clear()
        try:
            async with asyncio.timeout(0.002):
                await self._arrived.wait()
        except TimeoutError:
            return


class Stream:
    """A change stream over a collection of the deployment, or over the database `shop` where none is named."""

    def __init__(self, deployment: Deployment, collection: str = "", wanted: Filter = ALL, batch: int = 3) -> None:
        self.deployment = deployment
        self.scope = "fake"
        self.reads = Reads(shared=False)
        self.is_open = False
        self.hurried = 0
        self._collection = collection
        self._wanted = wanted
        self._batch = batch
        self._position = ""
        self.behind = 0
        """So many of the last events are not seen yet: the reply is on the way while others write."""

    async def prepare(self, *, may_create: bool = True) -> int:
        await asyncio.sleep(0)
        return BEGIN

    async def locate(self, start: Start) -> str:
        return self.deployment.now

    def pass_over(self, ahead: Collection[tuple[str, str]]) -> None:
        assert not ahead

    async def has_event(self, token: str) -> bool | None:
        raise NotImplementedError

    async def open(self, after: str) -> None:
        await asyncio.sleep(0)
        if not self._collection and self.deployment.refused is not None:
            raise self.deployment.refused
        if self._collection in self.deployment.views:
            raise SourceRefused(f"{self._collection} is a view")
        self.deployment.opened.append(self._collection or "*")
        self._position, self.is_open = after, True

    async def read(self) -> SourceBatch:
        await asyncio.sleep(0)
        if not self.is_open:
            raise SourceUnavailable("it is not open")
        if not self._collection and self.deployment.trouble:
            trouble = self.deployment.trouble.pop(0)
            if trouble is not None:
                self.is_open = False
                raise trouble
        found = self._found()
        if not found:
            await self.deployment.something()
            found = self._found()
        caught_up = len(found) < self._batch
        now = mark_token(self.deployment.moment - self.behind + 1)
        self._position = max(self._position, now if caught_up else found[-1][0])
        raw = raw_events([event for _, event in found])
        return SourceBatch(raw, self._position, BEGIN + self.deployment.moment + 1, raw.size)

    def _found(self) -> list[tuple[str, bytes]]:
        every = self.deployment.events
        every = every[: len(every) - self.behind]
        found = [(token, raw) for token, _, name, raw in every if token > self._position and self._sees(name, raw)]
        return found[: self._batch]

    def _sees(self, collection: str, raw: bytes) -> bool:
        if self._collection:
            return collection == self._collection or ("shop", self._collection) in concerned(raw)
        return self._wanted.covers(collection) or bool(concerned(raw))

    def hurry(self) -> None:
        self.hurried += 1

    async def close(self) -> None:
        self.is_open = False
