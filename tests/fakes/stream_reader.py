"""A look at a stream in memory."""

import asyncio
from typing import TYPE_CHECKING

from app.domain.errors import SinkUnavailable
from app.domain.streams import StoredMessage, StreamFacts
from app.domain.subjects import covers
from app.domain.watcher import Watcher
from tests.fakes.stream import FakeStream

if TYPE_CHECKING:
    from tests.fakes.servers import FakeNats


class FakeReader:
    """A look at a `FakeStream`."""

    def __init__(self, account: "FakeNats", stream: FakeStream, watcher: Watcher) -> None:
        self._account = account
        self._stream = stream
        self._space = watcher.space

    async def _reach(self) -> list[StoredMessage]:
        await asyncio.sleep(0)
        if not self._account.up:
            raise SinkUnavailable("connection refused")
        if self._stream.misfortune is not None:
            raise self._stream.misfortune
        return [
            StoredMessage(m.sequence, 1.7e9, m.subject, {"Nats-Msg-Id": m.change.id}, m.change.body)
            for m in self._stream.messages
            if covers(self._space, m.subject)
        ]

    async def facts(self) -> StreamFacts | None:
        await self._reach()
        stream = self._stream
        if not stream.exists:
            return None
        first = stream.messages[0].sequence if stream.messages else stream.last_sequence + 1
        return StreamFacts(
            stream.name, tuple(stream.subjects), stream.created, "file", "limits", "old", 1, 0, -1, -1, 120,
            len(stream.messages), sum(len(m.change.body) for m in stream.messages), first, stream.last_sequence, 0, (),
        )  # fmt: skip

    async def newest(self) -> int:
        found = await self._reach()
        return found[-1].sequence if found else 0

    async def last(self, count: int) -> list[StoredMessage]:
        return (await self._reach())[-count:] if count else []

    async def after(self, sequence: int, limit: int) -> list[StoredMessage]:
        return [message for message in await self._reach() if message.sequence > sequence][:limit]
