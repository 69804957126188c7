"""A change stream whose openings and reads are traced.

A read that brings nothing is no span: an idle watcher makes two a second.
"""

import time
from collections.abc import Collection

from app.domain.errors import ChangewireError
from app.domain.status import Reads
from app.domain.watcher import Start, Watcher
from app.ports import ChangeSource, SourceBatch
from app.ports.tracer import Tracer
from app.tracing.trail import Trail


class TracedSource:
    """`ChangeSource`: another one, traced. The opening begins with `prepare` and ends with `open`."""

    def __init__(self, source: ChangeSource, watcher: Watcher, tracer: Tracer, trail: Trail) -> None:
        self._source = source
        self._tracer = tracer
        self._trail = trail
        self._attributes: dict[str, str | int] = {"changewire.watcher": watcher.name, "db.system.name": "mongodb"}
        if watcher.source.database:
            self._attributes["db.namespace"] = watcher.source.database
        if watcher.source.collection:
            self._attributes["db.collection.name"] = watcher.source.collection

    @property
    def scope(self) -> str:
        return self._source.scope

    @property
    def reads(self) -> Reads:
        return self._source.reads

    async def prepare(self, *, may_create: bool = True) -> int:
        self._trail.opening = self._tracer.begin("open", self._attributes)
        with self._trail.failing():
            return await self._source.prepare(may_create=may_create)

    async def locate(self, start: Start) -> str:
        return await self._source.locate(start)

    def pass_over(self, ahead: Collection[tuple[str, str]]) -> None:
        self._source.pass_over(ahead)

    async def open(self, after: str) -> None:
        with self._trail.failing():
            await self._source.open(after)
        self._trail.opened(None)

    async def has_event(self, token: str) -> bool | None:
        return await self._source.has_event(token)

    async def read(self) -> SourceBatch:
        begun = time.time_ns()
        try:
            batch = await self._source.read()
        except ChangewireError as error:
            self._tracer.begin("read", self._attributes, at=begun).end(error)
            raise
        if batch.events:
            attributes = {
                **self._attributes, "changewire.events": len(batch.events), "changewire.bytes": batch.size,
            }  # fmt: skip
            span = self._tracer.begin("read", attributes, at=begun)
            span.end()
            self._trail.was_read(batch.position, span)
        return batch

    def hurry(self) -> None:
        self._source.hurry()

    async def close(self) -> None:
        await self._source.close()
