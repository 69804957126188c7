"""A watcher's `ChangeSource` that reads from a stream of its own or from a feed, whichever the group says.

The position is what counts: the last one that a batch was given with. Whatever happens to a feed, the next batch comes
from the collection's own stream after that position, or from a feed that skips what is not later.
"""

import asyncio
import random
from collections.abc import Collection
from typing import Final

from app.domain.errors import SourceUnavailable
from app.domain.status import Reads
from app.domain.tokens import cluster_time
from app.domain.watcher import Start, Watcher
from app.mongodb.feeds.group import ALONE, Group
from app.mongodb.feeds.member import Member
from app.ports import ChangeSource, SourceBatch

FIRST_SECONDS: Final = 0.5
"""How long the first read from a feed waits for events before it tells the position alone."""
QUIET_SECONDS: Final = (7.0, 13.0)
"""And any later one, between these: a thousand quiet watchers that were told at once would hold up the rest."""
HURRIED_SECONDS: Final = 0.02
"""And one whose position is waited for: twice as long each time that it was waited for in vain, FIRST_SECONDS at most.
The feed itself cannot be hurried, and a thousand may wait for it."""
AGAIN_SECONDS: Final = 10.0
"""How long a watcher that was let go reads by a stream of its own at least; twice as long each time that it comes soon
again."""
AGAIN_MOST: Final = 64
"""And at most, so many times as long."""
SOON_SECONDS: Final = 60.0
"""A watcher that has shared for so long has not come soon again."""
CATCHES_UP: Final = "it catches up with the shared change stream"
SHARED: Final = Reads(shared=True)


class SharingSource:
    """`ChangeSource` over one collection."""

    def __init__(self, own: ChangeSource, group: Group, watcher: Watcher, *, batch_size: int) -> None:
        self._own = own
        self._group = group
        self._name, self._collection = watcher.name, watcher.source.collection
        self._batch_size = batch_size
        self._member: Member | None = None
        self._position = ""
        self._owns = False
        """Whether the own stream is open."""
        self._why = ALONE
        self._first = True
        self._hurried = False
        self._in_vain = 0
        """How many hurried reads in a row have brought no newer position."""
        self._join_from = 0.0
        self._joined_at = 0.0
        self._times = 0
        """How many times AGAIN_SECONDS it was to read by its own stream the last time; 0: it was never let go."""

    @property
    def scope(self) -> str:
        return self._own.scope

    @property
    def reads(self) -> Reads:
        return SHARED if self._member is not None else Reads(shared=False, why=self._group.blocked or self._why)

    async def prepare(self, *, may_create: bool = True) -> int:
        self._group.arrive(self, self._name, self._collection)
        return await self._own.prepare(may_create=may_create)

    async def locate(self, start: Start) -> str:
        return await self._own.locate(start)

    async def has_event(self, token: str) -> bool | None:
        return await self._own.has_event(token)

    def pass_over(self, ahead: Collection[tuple[str, str]]) -> None:
        self._own.pass_over(ahead)

    async def open(self, after: str) -> None:
        cluster_time(after)  # refuses what is not a token
        await self._stop_reading()
        self._group.arrive(self, self._name, self._collection)
        self._position = after
        self._take_place(await self._group.join(self, self._collection, after))
        if self._member is None:
            self._why = self._why_apart()
            await self._open_own()

    async def read(self) -> SourceBatch:
        member = self._member
        if member is not None:
            if self._owns:
                await self._close_own()
            hurried, self._hurried = self._hurried, False
            await member.wait(self._patience(hurried=hurried))
            self._first = False
            if member.failure is not None:
                self._member = None
                raise type(member.failure)(str(member.failure))
            if member.let_go is None:
                batch = member.take(self._batch_size)
                self._in_vain = self._in_vain + 1 if hurried and batch.position == self._position else 0
                self._position = batch.position
                return batch
            self._member, self._why = None, member.let_go
            self._group.stand_apart(self, on=True)
            now = asyncio.get_running_loop().time()
            soon = now - self._joined_at < SOON_SECONDS
            self._times = min(AGAIN_MOST, max(1, 2 * self._times)) if soon else 1
            self._join_from = now + AGAIN_SECONDS * self._times
            await self._open_own()
        if not self._owns:
            raise SourceUnavailable("the change stream is not open")
        batch = await self._own.read()
        self._position = batch.position
        if asyncio.get_running_loop().time() >= self._join_from:
            self._why = self._why_apart()
            self._group.stand_apart(self, on=False)
            self._take_place(self._group.join_now(self._collection, self._position))
        return batch

    def _patience(self, *, hurried: bool) -> float:
        """How long a read waits for events, in seconds."""
        if hurried:
            return min(HURRIED_SECONDS * 2 ** min(self._in_vain, 16), FIRST_SECONDS)
        return FIRST_SECONDS if self._first else random.uniform(*QUIET_SECONDS)

    def hurry(self) -> None:
        self._hurried = self._member is not None
        if self._member is None:
            self._own.hurry()
        else:
            self._member.wake()

    async def close(self) -> None:
        self._group.depart(self)
        await self._stop_reading()

    def _why_apart(self) -> str:
        """Why no feed takes it now."""
        return CATCHES_UP if self._group.shares else ALONE

    def _take_place(self, member: Member | None) -> None:
        self._member, self._first = member, True
        if member is not None:
            self._joined_at = asyncio.get_running_loop().time()

    async def _stop_reading(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            member.leave()
        await self._close_own()

    async def _open_own(self) -> None:
        self._owns = True
        await self._own.open(self._position)

    async def _close_own(self) -> None:
        self._owns = False
        await self._own.close()
