"""A change stream in memory: what happened, and a source that reads it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import bson

from app.domain.errors import (
    HistoryLost,
    SourceUnavailable,
    TokenRefused,
)
from app.domain.status import Reads
from app.domain.tokens import cluster_time, is_token
from app.domain.watcher import Start
from app.ports import SourceBatch

UUID = "4F21104B3626A4E42B629044FDF2A8DD"
BEGIN = 1_700_000_000


def event_token(moment: int, uuid: str = UUID) -> str:
    """The token of the event at a moment (counted from 1), as MongoDB 6.0 makes them."""
    return f"82{BEGIN + moment:08X}00000001" + f"2B022C0100296E5A1004{uuid}46645F696400290004"


def mark_token(moment: int) -> str:
    """A high-water mark: the token before whatever happened at that moment."""
    return f"82{BEGIN + moment:08X}00000001" + "2B0229296E04"


def raw_event(moment: int, operation: str = "insert", uuid: str = UUID, **fields: Any) -> bytes:
    """A change event like a server's, as raw BSON."""
    return bson.encode(
        {
            "_id": {"_data": event_token(moment, uuid)},
            "operationType": operation,
            "clusterTime": bson.Timestamp(BEGIN + moment, 1),
            "ns": {"db": "shop", "coll": "orders"},
            "documentKey": {"_id": moment},
            "fullDocument": {"_id": moment},
            **fields,
        }
    )


@dataclass
class FakeOplog:
    """What happened, shared by every source that reads it. `first` is the earliest moment still known."""

    events: list[tuple[str, bytes]] = field(default_factory=list)
    moment: int = 0
    first: int = 1
    faults: deque[BaseException | None] = field(default_factory=deque)
    misfortune: Exception | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    uuid: str = UUID
    """The collection's: another deployment's has another one."""

    def happen(self, operation: str = "insert", uuid: str | None = None, **fields: Any) -> str:
        """Let one change happen, and return its token; `uuid` is the collection's, where that is another one."""
        self.moment += 1
        token = event_token(self.moment, uuid or self.uuid)
        self.events.append((token, raw_event(self.moment, operation, uuid or self.uuid, **fields)))
        self.arrived.set()
        self.arrived = asyncio.Event()
        return token

    @property
    def tokens(self) -> list[str]:
        return [token for token, _ in self.events]

    def misbehave(self) -> None:
        if self.misfortune is not None:
            raise self.misfortune
        if self.faults and (fault := self.faults.popleft()) is not None:
            raise fault


class FakeSource:
    """A change stream over a `FakeOplog`; `batch` is the most it returns at once."""

    def __init__(
        self, oplog: FakeOplog, batch: int = 500, patience: float = 0.0, *, collection: str = "orders"
    ) -> None:
        self._oplog = oplog
        self._collection = collection
        self._batch = batch
        self._patience = patience
        self._after: str | None = None
        self.scope = "fake/shop.orders"
        self.reads = Reads(shared=False)

    async def prepare(self, *, may_create: bool = True) -> int:
        await asyncio.sleep(0)
        self._oplog.misbehave()
        return BEGIN + self._oplog.moment + 1

    async def locate(self, start: Start) -> str:
        await asyncio.sleep(0)
        if start.at == "token":
            if not is_token(str(start.value)):
                raise TokenRefused(f"{start.value} is not a resume token")
            return str(start.value)
        if start.at == "timestamp":
            moment = int(float(start.value or 0)) - BEGIN
            if moment < self._oplog.first:
                raise HistoryLost("the oplog does not reach back to that moment")
            return mark_token(moment)
        return mark_token(self._oplog.first if start.at == "earliest" else self._oplog.moment + 1)

    def pass_over(self, ahead: Collection[tuple[str, str]]) -> None:
        assert not ahead

    async def has_event(self, token: str) -> bool | None:
        await asyncio.sleep(0)
        self._oplog.misbehave()
        self._reach_back(token)
        if token in self._oplog.tokens:
            return True
        return False if token < mark_token(self._oplog.moment + 1) else None

    async def open(self, after: str) -> None:
        await asyncio.sleep(0)
        self._oplog.misbehave()
        if not is_token(after):
            raise TokenRefused(f"{after} is not a resume token")
        self._reach_back(after)
        self._after = after

    def _reach_back(self, after: str) -> None:
        if cluster_time(after).seconds - BEGIN < self._oplog.first - 1:
            raise HistoryLost("the oplog does not reach back to the position")

    async def read(self) -> SourceBatch:
        await asyncio.sleep(0)
        self._oplog.misbehave()
        if self._after is None:
            raise SourceUnavailable("the source is not open")
        self._reach_back(self._after)
        found = self._next()
        if not found:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._oplog.arrived.wait(), self._patience or 0.002)
            found = self._next()
        position = found[-1][0] if found else max(self._after, mark_token(self._oplog.moment + 1))
        self._after = position
        raw = [event for _, event in found]
        return SourceBatch(raw, position, BEGIN + self._oplog.moment + 1, sum(map(len, raw)))

    def _next(self) -> list[tuple[str, bytes]]:
        after = self._after or ""
        found = [(token, raw) for token, raw in self._oplog.events if token > after][: self._batch]
        if self._collection == "orders":
            return found
        # Whatever happens happens in every collection.
        return [(token, bson.encode(bson.decode(raw) | {"ns": self._namespace})) for token, raw in found]

    @property
    def _namespace(self) -> dict[str, str]:
        return {"db": "shop", "coll": self._collection}

    def hurry(self) -> None:
        return

    async def close(self) -> None:
        self._after = None
