"""What a feed has handed to one watcher, and the watcher has not taken yet."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from app.domain.errors import ChangewireError
from app.domain.parts import Part
from app.domain.raw_events import RawEvents
from app.domain.tokens import mark_of
from app.mongodb.feeds.parts import token_of
from app.ports import SourceBatch

TAKE_BYTES = 4 * 1024 * 1024
"""What a watcher takes at once, as much as a read of a stream of its own brings."""


class Piece(NamedTuple):
    events: RawEvents
    last: str
    """The token of the last of the events."""
    reduced: tuple[str, ...] = ()


class Feeding(Protocol):
    """What a member and its source ask of its feed, and tell it."""

    position: str
    """The token up to which everything is handed over."""
    mark: str
    """The last high-water mark: a position that every change stream can begin at."""
    operation_time: int
    caught_up: bool

    def took(self, size: int) -> None: ...

    def leave(self, member: "Member") -> None: ...


class Member:
    """One watcher's place in a feed. The feed hands over, the watcher's source takes.

    It ends by being let go, after which the source goes on by a stream of its own from the last position that it took,
    or by a failure, which the source raises. What was handed over and not taken is dropped then."""

    def __init__(self, feed: Feeding, database: str, collection: str, after: str) -> None:
        """`after`: the position of the watcher, which wants only what is later."""
        self.feed = feed
        self.database = database
        self.collection = collection
        self.held = 0
        """The bytes that wait here."""
        self.taken_at = asyncio.get_running_loop().time()
        """When the watcher last came for something, by the loop's clock."""
        self.let_go: str | None = None
        """Why it is no member any more, where it was let go."""
        self.failure: ChangewireError | None = None
        self.position = after
        """The latest position that covers everything taken."""
        self._after = after
        self._pieces: deque[Piece] = deque()
        self._news = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self.let_go is not None or self.failure is not None

    # For the feed

    def put(self, part: Part, reduced: tuple[str, ...] = ()) -> int:
        """Hand events over; return the bytes that wait more than before."""
        events: RawEvents = part.events
        if part.first <= self._after:
            events = self._later(part)
            if not events:
                return 0
        self._after = part.last  # so nothing is handed over twice, whatever the feed does
        self._pieces.append(Piece(events, part.last, reduced))
        self.held += events.size
        self._news.set()
        return events.size

    def move(self, feed: Feeding, after: str) -> None:
        """Another feed goes on with this member after a token up to which everything is handed over."""
        self.feed = feed
        self._after = max(self._after, after)

    def end(self, *, let_go: str | None = None, failure: ChangewireError | None = None) -> None:
        """Drop what waits, and tell the source."""
        self.let_go, self.failure = let_go, failure
        self._pieces.clear()
        self.held = 0
        self._news.set()

    def _later(self, part: Part) -> RawEvents:
        events = part.events
        for index, raw in enumerate(events):
            if part.last > self._after and token_of(raw) > self._after:
                return events[index:]
        return events[:0]

    # For the source

    async def wait(self, seconds: float) -> None:
        """Wait until there is something to take, or the end of it; for so long at most."""
        if self._pieces or self.ended:
            return
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """Have a wait end now."""
        self._news.set()

    def leave(self) -> None:
        """The watcher does not read from here any more."""
        self.feed.leave(self)

    def take(self, most: int) -> SourceBatch:
        """Return what waits, `most` events or about TAKE_BYTES at once, or nothing but the position."""
        self.taken_at = asyncio.get_running_loop().time()
        taken: list[RawEvents] = []
        size = 0
        reduced: tuple[str, ...] = ()
        while self._pieces and most and not reduced:
            piece = self._pieces[0]
            if taken and (piece.reduced or size + piece.events.size > TAKE_BYTES):
                break
            self._pieces.popleft()
            if len(piece.events) > most:
                self._pieces.appendleft(piece._replace(events=piece.events[most:]))
                piece = piece._replace(events=piece.events[:most], last=token_of(piece.events[most - 1]))
            taken.append(piece.events)
            most -= len(piece.events)
            size += piece.events.size
            self.position, reduced = max(self.position, piece.last), piece.reduced
        feed = self.feed
        self.held -= size
        feed.took(size)
        if not self._pieces:
            # All that comes before the feed's last event was handed over as well.
            self.position = max(self.position, feed.mark, mark_of(feed.position) or "")
        caught_up = feed.caught_up and not self._pieces
        return SourceBatch(_together(taken), self.position, feed.operation_time, size, reduced, caught_up=caught_up)


def _together(pieces: Sequence[RawEvents]) -> RawEvents:
    """Make one of several sequences of events."""
    if len(pieces) == 1:
        return pieces[0]
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    for piece in pieces:
        starts += [start + at for start in piece.starts]
        ends += [end + at for end in piece.ends]
        at += len(piece.buffer)
    return RawEvents(b"".join(piece.buffer for piece in pieces), starts, ends)
