"""A place on a stream whose publishes are traced, each batch as one span; on request each message says which one in its
header `traceparent`.

The header is one of the few short ones that a change may have of its own, the same for a whole batch, so packed changes
stay packed. The sink below knows that each message will have it, and counts it in all sizes (`HEADER_BYTES`).
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal

from app.domain.dead_letters import Following
from app.domain.events import Change
from app.domain.packed import PackedChanges
from app.domain.position import OwnMessage, Tail
from app.domain.tokens import MessageId
from app.domain.watcher import Watcher
from app.ports import EventSink
from app.ports.tracer import Span, Tracer
from app.tracing.trail import Trail

HEADER: Final = "traceparent"
HEADER_BYTES: Final = len(f"{HEADER}: \r\n") + 55
"""What the header adds to each message: name and value as the W3C has them, and the line around."""
_OUT_OF_TURN: Final = ":r:"


class TracedSink:
    """`EventSink`: another one, traced. `mark` says whether messages have the header."""

    def __init__(self, sink: EventSink, watcher: Watcher, tracer: Tracer, trail: Trail, *, mark: bool) -> None:
        self._sink = sink
        self._tracer = tracer
        self._trail = trail
        self._mark = mark
        self._attributes: dict[str, str | int] = {
            "changewire.watcher": watcher.name,
            "messaging.system": "nats",
            "messaging.operation.type": "send",
            "messaging.destination.name": watcher.sink.stream,
        }

    # Publishing.

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        if not changes:
            return await self._sink.publish(changes, fence)
        span = self._begin(changes)
        try:
            stored = await self._sink.publish(self._marked(changes, span), fence)
        except BaseException as error:
            span.end(error)
            raise
        span.end()
        return stored

    def send(self, changes: Sequence[Change], fence: int, *, more: bool) -> asyncio.Future[int]:
        span = self._begin(changes)
        stored = self._sink.send(self._marked(changes, span), fence, more=more)
        stored.add_done_callback(_ending(span))
        return stored

    async def publish_singly(self, change: Change, fence: int) -> int:
        span = self._begin((change,))
        try:
            stored = await self._sink.publish_singly(self._marked((change,), span)[0], fence)
        except BaseException as error:
            span.end(error)
            raise
        span.end()
        return stored

    def _begin(self, changes: Sequence[Change]) -> Span:
        first, last = changes[0], changes[-1].token
        # A gap marker, and a dead letter's replay, are published out of turn: no read has brought them.
        reads = [] if _OUT_OF_TURN in first.id else self._trail.reads_of(first.token, last)
        attributes = {**self._attributes, "messaging.batch.message_count": len(changes)}
        span = self._tracer.begin("publish", attributes, parent=reads[0] if reads else None, links=reads[1:])
        self._trail.was_published(last, span)
        return span

    def _marked(self, changes: Sequence[Change], span: Span) -> Sequence[Change]:
        """The changes, each with the header."""
        if not self._mark:
            return changes
        header = (HEADER, span.traceparent)
        if isinstance(changes, PackedChanges):
            return changes.with_headers((header,))
        return [  # not `replace`, which takes four times as long: this is of every event where Python encodes
            Change(
                each.token, each.operation, each.body, each.wall_time, each.id, each.subject,
                (*each.headers, header), each.pointer, each.letter,
            )
            for each in changes
        ]  # fmt: skip

    # What is no span of its own.

    @property
    def exclusive(self) -> bool:
        return self._sink.exclusive

    @property
    def mode(self) -> Literal["fast_ingest", "atomic", "window", "single"]:
        return self._sink.mode

    @property
    def slower(self) -> str | None:
        return self._sink.slower

    @property
    def pipelined(self) -> bool:
        return self._sink.pipelined

    async def prepare(self, *, may_create: bool) -> None:
        with self._trail.failing():
            await self._sink.prepare(may_create=may_create)

    async def tail(self, since: int = 0) -> Tail:
        with self._trail.failing():
            return await self._sink.tail(since)

    async def holds(self, message: OwnMessage) -> bool | None:
        return await self._sink.holds(message)

    async def ready(self, changes: Sequence[Change]) -> None:
        await self._sink.ready(changes)

    def settle(self) -> None:
        self._sink.settle()

    @property
    def surely_fits(self) -> tuple[int, int]:
        return self._sink.surely_fits

    def too_large(self, change: Change) -> bool:
        return self._sink.too_large(change)

    def unusable(self, change: Change) -> str | None:
        return self._sink.unusable(change)

    def room(self, change: Change) -> int:
        return self._sink.room(change)

    async def following(self, sequence: int) -> Following:
        return await self._sink.following(sequence)

    async def last_of_each(self, namespaces: Collection[str], since: int = 0) -> Mapping[str, OwnMessage]:
        return await self._sink.last_of_each(namespaces, since)

    async def published(self, id_: MessageId) -> bool:
        return await self._sink.published(id_)

    async def claim_check(self, change: Change, pointer: bytes) -> Change:
        return await self._sink.claim_check(change, pointer)

    async def close(self) -> None:
        await self._sink.close()


def _ending(span: Span) -> Callable[[asyncio.Future[int]], None]:
    def ended(stored: asyncio.Future[int]) -> None:
        span.end(asyncio.CancelledError() if stored.cancelled() else stored.exception())

    return ended
