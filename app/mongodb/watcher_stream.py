"""One watcher's events, out of a change stream's cursor: how far they are read, and how much is read at once.

Between two reads a position stands for everything: the last token that MongoDB gave. Where a token cannot be read on
after, since the stream does not see its event (other options hid it), the stream is opened at the token's cluster time
instead. Events that are not later than the token are skipped until the first later one comes: tokens only grow.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bson.raw_bson import RawBSONDocument

from app.domain.errors import SourceRefused, SourceUnavailable
from app.domain.raw_events import size_of
from app.mongodb import pipeline as mongo_pipeline
from app.mongodb.cursor import ChangeStreamCursor, CursorBatch
from app.mongodb.stream import StreamRequest, after_token, at_time_of
from app.ports import SourceBatch

BATCH_BYTES: Final = 4 * 1024 * 1024
"""What one read is meant to bring at most. MongoDB counts events only, up to a reply of 16 MB: the count asked for goes
by the size of the last ones."""
AWAIT_MS: Final = 500
"""How long the server waits for events before it answers with none."""
AWAIT_MOST_MS: Final = 4_000
"""And how long after several answers with none: an answer that says nothing costs as much as one with an event. A quiet
watcher's position moves on with the oplog that often."""

HURRIED_MS: Final = 20
"""And how long where its position is waited for: twice as long each time that it has not moved, AWAIT_MS at most."""


class Pace:
    """How many events a read asks for, and how long it waits for them; learned from the reads before."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.ask_for = batch_size
        self.wait_ms = AWAIT_MS
        self.hurried = False
        """Whether the next read waits a moment only."""
        self._in_vain = 0
        """How many such reads in a row have brought no newer position."""

    @property
    def patience_ms(self) -> int:
        """How long the next read waits for events."""
        return min(HURRIED_MS << min(self._in_vain, 8), AWAIT_MS) if self.hurried else self.wait_ms

    def came(self, events: int, size: int) -> None:
        """Learn from so many events, of so many bytes together."""
        if events:
            self.ask_for = max(1, min(self.batch_size, BATCH_BYTES * events // size))

    def waited(self, events: int, *, moved: bool) -> None:
        """Learn from a read that waited, and brought so many events; `moved`: and a newer position."""
        hurried, self.hurried = self.hurried, False
        self._in_vain = self._in_vain + 1 if hurried and not moved else 0
        if hurried:
            return
        self.wait_ms = AWAIT_MS if events else min(2 * self.wait_ms, AWAIT_MOST_MS)


class WatcherStream:
    """One opening of a watcher's change stream. Reads raise what pymongo raises, and SourceRefused for an event that
    the pipeline made useless."""

    def __init__(self, request: StreamRequest, cursor: ChangeStreamCursor, position: str, pace: Pace) -> None:
        self.request = request
        self.cursor = cursor
        self.pace = pace
        self.position = position
        """The token that covers all that was read."""
        self._reshaped = mongo_pipeline.reshapes(request.source.pipeline)
        self._skip_to: str | None = None
        self._singly = 0
        self._refusal: SourceRefused | None = None

    @property
    def skips(self) -> bool:
        """Whether events that are not later than the first position are still being skipped."""
        return self._skip_to is not None

    def skip(self) -> None:
        """From now on, open at the position's time and skip what is not later than it."""
        self._skip_to = self.position

    @property
    def start(self) -> dict[str, Any]:
        """Where the stream is to be opened so that the next event is read again."""
        return after_token(self.position) if self._skip_to is None else at_time_of(self._skip_to)

    @property
    def reads_singly(self) -> bool:
        return self._singly > 0

    def read_singly(self, *, on: bool = True) -> None:
        """Read as many events as a batch has one by one, since one among them cannot be sent; or no longer."""
        self._singly = self.pace.batch_size if on else 0

    async def begin(self, start: Mapping[str, Any]) -> SourceBatch:
        """Open the stream. Raises SourceUnavailable where that brings neither events nor a cursor."""
        position = self.position
        batch = await self.open(start, size=self._at_once)
        if not self.cursor.is_open and not batch.events and batch.position == position:
            raise SourceUnavailable(
                f"MongoDB ends the change stream of {self.request.source.namespace} as soon as it is opened"
            )
        return batch

    async def next(self) -> SourceBatch:
        """Read on; an invalidate has ended the cursor, but the collection may have been created again."""
        if self._refusal is not None:
            raise self._refusal
        before = self.position
        if self.cursor.is_open:
            batch = await self.more(self._at_once)
        else:
            batch = await self.begin(after_token(self.position))
        self._singly = max(0, self._singly - len(batch.events)) if batch.events else 0
        self.pace.waited(len(batch.events), moved=self.position > before)
        return batch

    async def open(self, start: Mapping[str, Any], *last: Mapping[str, Any], size: int) -> SourceBatch:
        """Open the stream with the stages `last` after the watcher's own."""
        return self._take(await self.cursor.open(self.request.stages(start, *last), size=size))

    async def more(self, size: int) -> SourceBatch:
        return self._take(await self.cursor.get_more(size=size, wait_ms=self.pace.patience_ms))

    @property
    def _at_once(self) -> int:
        """How many events a read asks for."""
        return 1 if self._singly else self.pace.ask_for

    def _take(self, batch: CursorBatch) -> SourceBatch:
        events = batch.events
        if self._skip_to is not None:
            events = self._later(events, self._skip_to)
        token = batch.token
        if self._reshaped:
            events, token = self._undamaged(events, token)
        self.position = max(self.position, token)
        size = size_of(events)
        self.pace.came(len(events), size)
        return SourceBatch(events, self.position, batch.operation_time, size)

    def _later(self, events: Sequence[bytes], token: str) -> list[bytes]:
        later = [event for event in events if RawBSONDocument(event)["_id"]["_data"] > token]
        if later:
            self._skip_to = None
        return later

    def _undamaged(self, events: Sequence[bytes], token: str) -> tuple[Sequence[bytes], str]:
        """Stop at an event that the pipeline made useless; what the check before could not tell shows here.

        Return the events before it, and the token up to which these are all; the next read raises SourceRefused. So
        does this one where none comes before it."""
        source, before = self.request.source, ""
        for index, raw in enumerate(events):
            event = RawBSONDocument(raw)
            problem = mongo_pipeline.damage(event, source)
            if problem is not None:
                self._refusal = SourceRefused(f"the pipeline of {source.namespace} {problem}")
                if not index:
                    raise self._refusal
                return events[:index], before
            before = str(event["_id"]["_data"])
        return events, token
