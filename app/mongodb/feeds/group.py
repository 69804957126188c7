"""The watchers that could share a change stream, and the feeds that they share.

Theory of operation
===================

Every watcher that is about to read, or reads, is *here* (`arrive`, `depart`). As long as it is alone, it reads from its
collection's own stream, which costs the server least. With a second one, the database's stream is opened: the *live*
feed. Tokens of all change streams of a deployment compare, so two positions decide who reads where:

    watcher at or past the feed    it joins, and skips what it has
    watcher behind the feed        it catches up, and joins when it is at or past the feed

Nothing else is needed to join exactly: the feed hands over everything that is later than its position, and the watcher
wants what is later than its own, which is not earlier. (The feed keeps what it handed over last, and hands it to a new
member as well, so its position is the one before that: `reaches_back`.)

Those who come while there is no feed, or are behind it, are *gathered* for a moment, since a service that starts opens
all of its watchers at once, and a thousand of them are not to read the oplog a thousand times. Those whose positions
are near each other get one feed, which begins at the earliest of them. Where there is a live feed already, that one
catches up with it, and then its members move over. One that has no neighbours catches up by a stream of its own.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Final

import structlog

from app.domain.errors import ChangewireError, NotAuthorised
from app.domain.parts import Split
from app.domain.tokens import cluster_time
from app.mongodb.feeds.feed import Feed, Opens
from app.mongodb.feeds.member import Member
from app.mongodb.feeds.room import Room
from app.mongodb.feeds.views import Seen

log = structlog.get_logger(__name__)

FEW: Final = 2
"""So many watchers have to be there for a shared stream to be worth it."""
LINGER_SECONDS: Final = 5.0
"""How long the last watcher but one may be away before the other goes back to a stream of its own."""
GATHER_SECONDS: Final = 15.0
"""How long those who come are gathered at most, as long as others are still on their way."""
PAUSE_SECONDS: Final = 1.0
"""Where nobody has come for so long, those who are still on their way are not waited for."""
NEAR_SECONDS: Final = 300
"""Positions so far apart, in the deployment's time, are near: reading from the earliest is cheaper than two streams."""
BLOCKED_SECONDS: Final = 60.0
"""How long a database that the account may not watch is not tried again."""
VIEWS_SECONDS: Final = 30.0
"""How often the server is asked which collections are views, while a feed is there."""
ALONE: Final = "it is the only watcher of its database with these options"


def _now() -> float:
    """Return the event loop's clock, in seconds."""
    return asyncio.get_running_loop().time()


@dataclass(eq=False, slots=True)
class Waiting:
    """A watcher that waits to be told where to read."""

    collection: str
    after: str
    told: "asyncio.Future[Member | None]"


class Group:
    """Of one database, and one choice of options."""

    def __init__(
        self, database: str, opens: Opens, split: Split | None, room: Room, views: Callable[[], Awaitable[Seen]]
    ) -> None:
        """`views` asks the server which of the database's collections are views."""
        self.database = database
        self._opens = opens
        self._split = split
        self._room = room
        self._views = views
        self._looks = False
        """Whether a task looks for views from time to time."""
        self._here: dict[object, str] = {}
        """Who reads, or is on the way to, and which collection."""
        self._apart: set[object] = set()
        """Those of them who do not want anything from a feed for the time being."""
        self._on_their_way: set[object] = set()
        self._expected: set[str] = set()
        """The names of watchers that will be on their way soon."""
        self._live: Feed | None = None
        self._begins = False
        """Whether a live feed is being opened for those who read by streams of their own."""
        self._behind: list[Feed] = []
        self._waiting: list[Waiting] = []
        self._came = asyncio.Event()
        self._lonely_since: float | None = None
        self._blocked_until = 0.0
        self.blocked: str | None = None
        """Why the database cannot be watched as a whole, where it cannot."""
        self._tasks: set[asyncio.Task[None]] = set()

    # Who is there

    def expect(self, name: str) -> None:
        """A watcher will arrive soon: those who come before it wait for it, within reason."""
        self._expected.add(name)

    def arrive(self, who: object, name: str, collection: str) -> None:
        """Somebody is on the way to read."""
        self._expected.discard(name)
        self._here[who] = collection
        self._on_their_way.add(who)

    def stand_apart(self, who: object, *, on: bool) -> None:
        """Somebody reads by a stream of their own for a while, and would only drop what comes here; or no longer."""
        if on:
            self._apart.add(who)
        else:
            self._apart.discard(who)

    def depart(self, who: object) -> None:
        """Somebody does not read any more."""
        self._here.pop(who, None)
        self._apart.discard(who)
        self._on_their_way.discard(who)
        self._came.set()

    async def close(self) -> None:
        """End every feed: the service stops."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def shares(self) -> bool:
        """Whether a feed is there."""
        return self._live is not None

    @property
    def members(self) -> int:
        """How many watchers read from a feed."""
        return sum(len(feed.members) for feed in self._feeds)

    @property
    def _feeds(self) -> list[Feed]:
        return self._behind if self._live is None else [self._live, *self._behind]

    @property
    def _together(self) -> bool:
        """Whether there are enough to share, and nothing is in the way."""
        if self.blocked is not None and _now() >= self._blocked_until:
            self.blocked = None
        return len(self._here) >= FEW and self.blocked is None

    # Joining

    async def join(self, who: object, collection: str, after: str) -> Member | None:
        """Return the place in a feed of a watcher that is to go on after a token, or None: by a stream of its own.

        A view gets None, since its own stream says what is wrong with it."""
        try:
            joins = self._live is not None and after >= self._live.reaches_back  # for the others `_gather` asks
            is_view = joins and collection in (await self._views()).names
        finally:
            self._on_their_way.discard(who)
        if is_view or not self._together:
            return None
        if (member := self._attach(collection, after)) is not None:
            return member
        waiting = Waiting(collection, after, asyncio.get_running_loop().create_future())
        if not self._waiting:
            self._start(self._gather(), f"gather:{self.database}")
        self._waiting.append(waiting)
        self._came.set()
        try:
            return await waiting.told
        except asyncio.CancelledError:
            if waiting.told.done() and not waiting.told.cancelled() and (member := waiting.told.result()) is not None:
                member.leave()
            raise

    def join_now(self, collection: str, after: str) -> Member | None:
        """The same, at once, for a watcher that reads by a stream of its own: it is asked again after each batch."""
        if not self._together or self._waiting:
            return None
        if self._live is None:
            if not self._begins:
                self._begins = True
                self._start(self._begin_live(after), f"begin:feed:{self.database}")
            return None
        return self._attach(collection, after)

    def _attach(self, collection: str, after: str) -> Member | None:
        live = self._live
        if live is None or after < live.reaches_back:
            return None
        if not live.covers(collection):
            live.ask(collection)
            return None
        return live.attach(self.database, collection, after)

    # Those who come at the same time

    async def _gather(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                while self._on_their_way or self._expected:
                    self._came.clear()
                    async with asyncio.timeout(PAUSE_SECONDS):
                        await self._came.wait()
        self._expected.clear()
        waiting, self._waiting = self._waiting, []
        try:
            views = (await self._views()).names
            await self._place([each for each in waiting if each.collection not in views])
        finally:
            for each in waiting:
                if not each.told.done():
                    each.told.set_result(None)

    async def _place(self, waiting: list[Waiting]) -> None:
        """Tell each where to read: from the live feed where it can, from one with its neighbours, or alone."""
        waiting = [each for each in waiting if not each.told.done()]
        waiting.sort(key=lambda each: each.after)
        while waiting:
            newest = cluster_time(waiting[-1].after).seconds
            near = [each for each in waiting if cluster_time(each.after).seconds >= newest - NEAR_SECONDS]
            waiting = waiting[: -len(near)]
            near = [each for each in near if not self._tell(each)]
            if len(near) >= FEW or (near and self._live is None):
                await self._open(near)

    def _tell(self, each: Waiting) -> bool:
        """Let one join the live feed where it can by now."""
        member = self._attach(each.collection, each.after)
        if member is not None:
            each.told.set_result(member)
        return member is not None

    async def _open(self, near: list[Waiting]) -> None:
        """Open a feed for watchers that are near each other, at the earliest of them."""
        feed = await self._begin(near[0].after)
        if feed is None:
            return
        for each in near:
            if not each.told.done():
                each.told.set_result(feed.attach(self.database, each.collection, each.after))
        self._run(feed)

    # Feeds

    async def _begin_live(self, after: str) -> None:
        try:
            if self._live is None and (feed := await self._begin(after)) is not None:
                self._run(feed)
        finally:
            self._begins = False

    async def _begin(self, start: str) -> Feed | None:
        feed = Feed(self.database, self._opens, self._split, start, self._wanted, self._room)
        try:
            await feed.begin()
        except ChangewireError as error:  # each gets it from its own stream, or does not
            if isinstance(error, NotAuthorised):
                self.blocked = f"the MongoDB account may not watch the database {self.database} as a whole: {error}"
                self._blocked_until = _now() + BLOCKED_SECONDS
            log.info("feed_not_opened", feed=self.database, reason=str(error))
            return None
        return feed

    def _wanted(self) -> set[str]:
        """The collections that somebody wants from a feed, or soon will."""
        return {collection for who, collection in self._here.items() if who not in self._apart}

    def _run(self, feed: Feed) -> None:
        live = self._live is None
        if live:
            self._live = feed
        else:
            self._behind.append(feed)
        log.info("feed_opened", feed=self.database, members=len(feed.members), catching_up=not live)
        self._start(self._follow(feed), f"feed:{self.database}")
        if not self._looks:
            self._looks = True
            self._start(self._look_for_views(), f"views:{self.database}")

    async def _follow(self, feed: Feed) -> None:
        try:
            await feed.run(lambda: self._goes_on(feed))
        finally:
            if self._live is feed:
                self._lonely_since = None  # the next one has a time of its own
                self._live = self._behind.pop(0) if self._behind else None
            elif feed in self._behind:
                self._behind.remove(feed)
            log.info("feed_closed", feed=self.database)

    async def _look_for_views(self) -> None:
        """Find the members whose collections became views, as long as a feed is there: no event tells."""
        try:
            while self._feeds:
                await asyncio.sleep(VIEWS_SECONDS)
                seen = await self._views()
                for feed in self._feeds:
                    feed.found_views(seen)
        finally:
            self._looks = False

    def _goes_on(self, feed: Feed) -> bool:
        """Before a read of a feed: move its members to where they are with the others. Whether it is still needed."""
        if not self._here:
            return False
        if feed is self._live:
            return not self._is_lonely(feed)
        if feed.is_empty:
            return False
        live = self._live
        if live is None or feed.position < live.reaches_back:
            return True
        missing = [member for member in feed.members if not live.covers(member.collection)]
        for member in missing:
            live.ask(member.collection)
        if missing:
            return True
        for member in feed.members:
            feed.leave(member)
            live.adopt(member, feed.position)
        return False

    def _is_lonely(self, feed: Feed) -> bool:
        """Whether the live feed is for nobody, or for one, and has been so for a while."""
        if len(self._here) >= FEW and not feed.is_empty:
            self._lonely_since = None
            return False
        if self._lonely_since is None:
            self._lonely_since = _now()
        if _now() - self._lonely_since < LINGER_SECONDS:
            return False
        feed.let_all_go(ALONE)
        return True

    # Tasks

    def _start(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("feed_task_ended", task=task.get_name(), exc_info=error)
