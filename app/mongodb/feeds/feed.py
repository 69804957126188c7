"""One change stream over a database, read by one task, its events handed to the watchers that are its members.

How it works. The stream is a `MongoChangeSource` over the whole database, so large events, invalidates and odd tokens
are got over as in a watcher's own. Each batch is taken apart by collection, and each member gets what is its own. While
that is done, the server already looks for the next batch.

Two positions are kept. `position` is the token up to which everything has been handed over: it decides who may join.
`mark` is the last token that MongoDB gave for a moment and not for an event. Members without events of their own move
on to that one only: the token of another collection's event is one that their own streams could not begin at.

What was handed over last is kept for a moment, and given to those who join a little behind (see `recent.py`).

A member that does not take what it gets must not hold up the others. Where the feed may not read on because too much
waits, it lets go of those that have taken nothing for a while, and of one that holds most of it, though it takes some.
And where it does not keep up with the server, since most of what it reads is one collection's, that one's members go.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Final, Protocol

import structlog

from app.domain.errors import ChangewireError, SourceUnavailable, TransientError
from app.domain.parts import Part, Split
from app.domain.raw_events import RawEvents
from app.domain.tokens import cluster_time, is_mark
from app.mongodb.feeds import parts
from app.mongodb.feeds.filters import FEW, Filter, Waste
from app.mongodb.feeds.hot import Hot
from app.mongodb.feeds.member import Member
from app.mongodb.feeds.recent import Kept, Recent
from app.mongodb.feeds.room import Room
from app.mongodb.feeds.views import NONE, Seen
from app.ports import ChangeSource, SourceBatch

log = structlog.get_logger(__name__)

FEED_BYTES: Final = 16 * 1024 * 1024
"""What may wait for all members before the feed stops reading."""
STALLED_SECONDS: Final = 1.0
"""A member that has taken nothing for so long is let go where the feed may not read on."""
PATIENCE_SECONDS: Final = 0.25
"""How long a member may hold up the others, though it takes something now and then."""
REGAINED: Final = 0.05
"""The part of the time that passes by which patience is regained: so much of it the feed may wait for a member."""
LARGEST: Final = 1 / 4
"""The part of what waits that one member has to hold to be the one that holds up the others."""
ASIDE_BYTES: Final = 128 * 1024
"""From which size on a batch is taken apart on a thread."""
SLOW: Final = "it took its changes more slowly than the other watchers of the shared change stream"
HOT: Final = "its collection is written more than all others of the shared change stream, which would wait for it"
VIEW: Final = "its collection was dropped and is a view or a time series now, which has no change stream"


class Opens(Protocol):
    """Makes a source over the feed's database with a filter."""

    def __call__(self, wanted: Filter, /) -> ChangeSource: ...


class Feed:
    """One shared change stream. `begin`, then `run` in a task, which ends when nobody is a member any more."""

    def __init__(
        self, name: str, opens: Opens, split: Split | None, start: str, wanted: Callable[[], Set[str]], room: Room
    ) -> None:
        """`start` is the token to read on after, `wanted` tells the collections that somebody wants, or soon will."""
        self.name = name
        self.position = start
        self.mark = start
        self.caught_up = False
        """Whether the server had nothing more when it was read last."""
        self.operation_time = 0
        self.held = 0
        self.ended = False
        self._opens = opens
        self._split = split
        self._wanted = wanted
        self._filter = Filter()
        self._waste = Waste()
        self._source: ChangeSource | None = None
        self._members: dict[tuple[str, str], list[Member]] = {}
        self._asked: set[str] = set()
        self._stir = asyncio.Event()
        """Set where the loop has to look up: somebody has asked, or has left."""
        self._recent = Recent()
        self._hot = Hot()
        self._views = NONE
        self._of_views: frozenset[Member] = frozenset()
        self._room = room
        self._waited = 0.0
        self._waited_at = 0.0

    # Members

    @property
    def reaches_back(self) -> str:
        """The earliest position from which a watcher may join: everything later is kept, or still to come."""
        return self._recent.reaches_back(self.position)

    def covers(self, collection: str) -> bool:
        """Whether a watcher of this collection gets everything after the feed's position."""
        return not self.ended and self._filter.covers(collection)

    def ask(self, collection: str) -> None:
        """Let the feed come to cover this collection soon."""
        self._asked.add(collection)
        self._stir.set()

    def attach(self, database: str, collection: str, after: str) -> Member:
        """Make a member of a watcher that is at a position not earlier than `reaches_back`, and that is covered."""
        member = Member(self, database, collection, after)
        self._add(member)
        self._give_recent(member)
        return member

    def adopt(self, member: Member, after: str) -> None:
        """Go on with another feed's member, which has everything up to a position not earlier than `reaches_back`."""
        member.move(self, after)
        self._hold(member.held)
        self._add(member)
        self._give_recent(member)

    def _add(self, member: Member) -> None:
        self._members.setdefault((member.database, member.collection), []).append(member)

    def leave(self, member: Member) -> None:
        """Forget a member, and what waits for it."""
        others = self._members.get((member.database, member.collection), [])
        if member in others:
            others.remove(member)
            if not others:
                del self._members[member.database, member.collection]
            self._hold(-member.held)
            self._stir.set()

    def took(self, size: int) -> None:
        """A member has taken so many bytes."""
        if size:
            self._hold(-size)

    @property
    def is_empty(self) -> bool:
        return not self._members

    @property
    def members(self) -> list[Member]:
        return [member for group in self._members.values() for member in group]

    def let_all_go(self, why: str) -> None:
        self._end_all(let_go=why)

    def found_views(self, seen: Seen) -> None:
        """Let go of the members whose collections are views, as soon as they have taken everything until then: by a
        stream of their own they would not get what came before."""
        self._of_views = frozenset(member for member in self._each() if member.collection in seen.names)
        self._views = seen
        if self._of_views:
            self._stir.set()

    # The stream

    async def begin(self) -> None:
        """Open the stream. Raises as a source's `open`, and leaves nothing open then."""
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise

    async def run(self, between: Callable[[], bool]) -> None:
        """Read and hand over. `between` is asked before each read whether to go on.

        An error that is not passing leaves the members to their own streams, which get it as well, or do not. Raises
        nothing but what is no error of MongoDB's."""
        reading: asyncio.Task[SourceBatch] | None = None
        try:
            while between():
                self._let_go_of_views()
                await self._until_room()
                if self._needs_other_filter():
                    await self._drop(reading)
                    reading = None
                    await self._open()
                if reading is None:
                    reading = self._read(self.position)
                batch = await self._stirred(reading)
                if batch is None:
                    continue
                reading = None
                if batch.size > ASIDE_BYTES and self.held < FEED_BYTES:
                    reading = self._read(max(self.position, batch.position))
                await self._hand_over(batch)
        except ChangewireError as error:
            self._fail(error)
        finally:
            self.ended = True
            await self._drop(reading)
            self._end_all(let_go="the shared change stream has ended")

    async def _open(self, after: str | None = None) -> None:
        """Open at a position, the feed's where none is given, with the filter as it is now."""
        await self._close()
        self._source = source = self._opens(self._filter)
        await source.prepare(may_create=False)
        await source.open(self.position if after is None else after)

    async def _close(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            await source.close()

    def _read(self, after: str) -> "asyncio.Task[SourceBatch]":
        return asyncio.create_task(self._read_or_resume(after), name=f"read:feed:{self.name}")

    async def _read_or_resume(self, after: str) -> SourceBatch:
        """Read what is later than a position; where that fails in passing, open there once more at once, as a driver
        does. It is not the feed's position while the batch before is still handed over."""
        assert self._source is not None, "it is open"
        try:
            return await self._source.read()
        except SourceUnavailable as error:
            log.info("feed_resumes", feed=self.name, reason=str(error))
            await self._open(after)
            return await self._source.read()

    async def _drop(self, reading: "asyncio.Task[SourceBatch] | None") -> None:
        """Give up a read. What it would have brought is read again."""
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await self._close()

    async def _stirred(self, reading: "asyncio.Task[SourceBatch]") -> SourceBatch | None:
        """Wait for the batch; None where the loop has to look up before it has come."""
        if not reading.done():
            self._stir.clear()
            stirred = asyncio.create_task(self._stir.wait(), name=f"stir:feed:{self.name}")
            try:
                await asyncio.wait((reading, stirred), return_when=asyncio.FIRST_COMPLETED)
            finally:
                stirred.cancel()
            if not reading.done():
                return None
        return reading.result()

    # Handing over

    async def _hand_over(self, batch: SourceBatch) -> None:
        events = batch.events
        taken_apart = await self._parts(events, batch.size)
        for part in taken_apart:
            if part.collection:
                self._hot.came(part.collection, len(part.events))
                self._give(part, self._members.get((part.database, part.collection), ()), batch.reduced)
                continue
            for name in parts.concerned(part.events[0]):
                self._give(part, self._members.get(name, ()), batch.reduced)
        self._waste.came(len(events))
        last = parts.token_of(events[-1]) if events else self.position
        caught_up = batch.position > last
        if caught_up and is_mark(batch.position):  # where a filter hides an invalidate, its token comes as the position
            self.mark = batch.position
        now = asyncio.get_running_loop().time()
        self._recent.add(Kept(self.position, taken_apart, batch.reduced, batch.size, now))
        self.position = max(self.position, batch.position)
        self.operation_time, self.caught_up = batch.operation_time, caught_up or not events
        hot = self._hot.found(now, caught_up=self.caught_up)
        if hot is not None and len(self._members) > 1:
            self._let_go([member for member in self._each() if member.collection == hot], HOT)

    def _give_recent(self, member: Member) -> None:
        """Hand over what was handed to others already, and is later than this member's position."""
        for part, reduced in self._recent.of(member.database, member.collection):
            self._hold(member.put(part, reduced))

    async def _parts(self, events: Sequence[bytes], size: int) -> list[Part]:
        if not events:
            return []
        found = None
        if self._split is not None and isinstance(events, RawEvents):
            if size < ASIDE_BYTES:
                found = self._split(events)
            else:
                found = await asyncio.get_running_loop().run_in_executor(None, self._split, events)
        return parts.split(events) if found is None else found

    def _give(self, part: Part, members: Sequence[Member], reduced: tuple[str, ...]) -> None:
        if not members:
            self._waste.dropped(part.collection, len(part.events))
        for member in members:
            self._hold(member.put(part, reduced))

    def _each(self) -> Iterator[Member]:
        for group in self._members.values():
            yield from group

    def _let_go_of_views(self) -> None:
        if self._of_views and cluster_time(self.position) >= self._views.at:
            self._of_views = self._of_views.intersection(self._each())
            self._let_go([member for member in self._of_views if not member.held], VIEW)

    # Which collections

    def _needs_other_filter(self) -> bool:
        """Choose another filter where that is worth opening the stream again; True where it is another one."""
        if not self._asked and not self._waste.tells:
            return False  # asked before each read: to list a thousand collections would cost more than the read
        wanted = self._wanted() | {collection for _, collection in self._members} | self._asked
        asked, self._asked = self._asked, set()
        if not all(self._filter.covers(name) for name in asked):
            only = None if self._filter.only is None or len(wanted) > FEW else frozenset(wanted)
            self._use(Filter(only, self._filter.without - wanted))
            return True
        better = self._waste.better(self._filter, wanted)
        if better is None or better == self._filter:
            return False
        log.info(
            "feed_filtered", feed=self.name, only=None if better.only is None else len(better.only),
            without=len(better.without),
        )  # fmt: skip
        self._use(better)
        return True

    def _use(self, wanted: Filter) -> None:
        """Use another filter from the next opening on. What is kept lacks what it lets through, so nobody may join
        from there any more, at once: those who ask while the stream is still being closed are covered by now."""
        self._filter = wanted
        self._recent.clear()

    # Who holds up the others

    async def _until_room(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._waited = max(0.0, self._waited - REGAINED * (began - self._waited_at))
        self._waited_at = began
        while self._is_full:
            began = loop.time()
            await self._room.freed(PATIENCE_SECONDS)
            self._waited += loop.time() - began
            self._let_go_who_hold_up(loop.time())

    @property
    def _is_full(self) -> bool:
        return self.held > 0 and (self.held >= FEED_BYTES or self._room.is_full)

    def _hold(self, size: int) -> None:
        """Count so many bytes more that wait here, or less."""
        self.held += size
        self._room.change(size)

    def _let_go_who_hold_up(self, now: float) -> None:
        if not self._is_full or self._waited < PATIENCE_SECONDS:
            return
        stalled = [member for member in self._each() if member.held and now - member.taken_at >= STALLED_SECONDS]
        if not stalled:
            largest = max(self._each(), key=lambda member: member.held)
            stalled = [largest] if largest.held >= LARGEST * self.held else []
        self._let_go(stalled, SLOW)

    def _let_go(self, members: Sequence[Member], why: str) -> None:
        for member in members:
            log.info("feed_lets_go", feed=self.name, collection=member.collection, held=member.held, reason=why)
            self.leave(member)
            member.end(let_go=why)

    # The end

    def _fail(self, error: ChangewireError) -> None:
        log.info("feed_failed", feed=self.name, members=len(self.members), reason=str(error))
        if isinstance(error, TransientError):
            self._end_all(failure=error)
        else:
            self._end_all(let_go=f"the shared change stream has ended: {error}")

    def _end_all(self, *, let_go: str | None = None, failure: ChangewireError | None = None) -> None:
        members = self.members
        self._members.clear()
        self._hold(-self.held)
        for member in members:
            member.end(let_go=let_go, failure=failure)
