"""One watcher's change stream: `ChangeSource` on MongoDB.

What it is made of: a cursor that reads batches (`cursor.py`), the watcher's place in them (`watcher_stream.py`), the
way past events that are too large (`large_event_reader.py`), and the tries that find a start and say what an error
means (`trial.py`, `start.py`, `diagnosis.py`). This module puts them together. It opens, reads and closes, and tells
the errors that it gets over by itself from those that it raises. When to open again is the capture's decision.
"""

import asyncio
import contextlib
from collections.abc import Collection
from typing import Final

from pymongo.errors import ConnectionFailure, NetworkTimeout, PyMongoError

from app.domain.errors import SourceUnavailable
from app.domain.javascript import javascript_in
from app.domain.status import Reads
from app.domain.tokens import cluster_time
from app.domain.watcher import Start, Watcher
from app.mongodb import history
from app.mongodb.codes import Meaning, is_too_large, meaning_of
from app.mongodb.cursor import ChangeStreamCursor
from app.mongodb.diagnosis import explained
from app.mongodb.errors import of_stream
from app.mongodb.large_event_reader import LargeEventReader
from app.mongodb.reach import Reach
from app.mongodb.start import locate
from app.mongodb.stream import after_token, at_time_of
from app.mongodb.trial import StreamTrial
from app.mongodb.unmatched import Unmatched
from app.mongodb.watcher_stream import Pace, WatcherStream
from app.ports import SourceBatch

BATCH_SIZE: Final = 500


class MongoChangeSource:
    """`ChangeSource` by a change stream of its own. Holds a server session and a cursor from `open` to `close`."""

    def __init__(
        self,
        watcher: Watcher,
        reach: Reach,
        *,
        batch_size: int = BATCH_SIZE,
        why_own: str | None = None,
        shared: bool = False,
    ) -> None:
        """`why_own` says why this stream is not `shared`."""
        self.reads = Reads(shared=shared, why=why_own)
        self._source = watcher.source
        self._reach = reach
        self._trial = StreamTrial(watcher, reach)
        self._pace = Pace(batch_size)
        self._large_events = LargeEventReader(watcher.source)
        self._unmatched = Unmatched(watcher.source, reach)
        self._stream: WatcherStream | None = None
        self._waiting: SourceBatch | None = None
        """The batch that came when the stream was opened, for the next `read`."""

    @property
    def scope(self) -> str:
        return self._trial.scope

    async def prepare(self, *, may_create: bool = True) -> int:
        return await self._trial.prepare(may_create=may_create)

    async def locate(self, start: Start) -> str:
        return await locate(self._trial, start)

    async def has_event(self, token: str) -> bool | None:
        wire_version = self._trial.request.wire_version
        try:
            return await history.has_event(self._reach, self._source, token, wire_version=wire_version)
        except PyMongoError as error:
            raise await explained(self._trial, error, at_time_of(token)) from error

    def pass_over(self, ahead: Collection[tuple[str, str]]) -> None:
        assert not ahead, "only a watcher of several entries has any"

    async def open(self, after: str) -> None:
        cluster_time(after)  # refuses what is not a token
        await self.close()
        request = self._trial.request
        cursor = ChangeStreamCursor(self._reach.client_for(self._source.namespace), request.target)
        stream = self._stream = WatcherStream(request, cursor, after, self._pace)
        self._reach.opened(self, shared=self.reads.shared)
        start = after_token(after)
        try:
            self._waiting = await stream.begin(start)
        except PyMongoError as error:
            if self._unseen(stream, error):
                self._waiting = await self._begin_by_time(stream, error)
            elif not is_too_large(error):  # that one is for `read` to get over
                raise await explained(self._trial, error, start) from error

    async def read(self) -> SourceBatch:
        if self._waiting is not None:
            batch, self._waiting = self._waiting, None
            return batch
        stream = self._stream
        if stream is None:
            raise SourceUnavailable(f"the change stream of {self._source.namespace} is not open")
        start = after_token(stream.position)
        try:
            batch = await self._large_events.past(stream, stream.next())
        except PyMongoError as error:
            if self._unseen(stream, error):
                return await self._begin_by_time(stream, error)
            if isinstance(error, ConnectionFailure) and not isinstance(error, NetworkTimeout):
                stream.cursor.forget()  # nobody is there to end it
            raise await explained(self._trial, error, start) from error
        if self._reach.slow:
            self._reach.slow.discard(self._source.namespace)
        if batch.events:
            self._unmatched.came()
        if self._unmatched.is_due(now := asyncio.get_running_loop().time()):
            await self._look_at_patterns(now)
        return batch

    async def _look_at_patterns(self, now: float) -> None:
        with contextlib.suppress(SourceUnavailable):  # the next read says so, and the next look comes later
            await self._unmatched.look(now)
            self.reads = self.reads._replace(note=self._unmatched.note)

    def hurry(self) -> None:
        self._pace.hurried = True

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        self._waiting = None
        self._reach.reading.pop(self, None)
        if stream is not None:
            await stream.cursor.close(runs_script=javascript_in(self._source.pipeline) is not None)

    def _unseen(self, stream: WatcherStream, error: PyMongoError) -> bool:
        """Whether the stream does not see its token's event, and opening by time has not been tried."""
        unseen = meaning_of(error) is Meaning.TOKEN_NOT_FOUND and of_stream(error, self._source) is None
        return unseen and not stream.skips

    async def _begin_by_time(self, stream: WatcherStream, cause: PyMongoError) -> SourceBatch:
        """Open at the position's cluster time instead of its token, and skip what is not later than it."""
        stream.skip()
        start = stream.start
        try:
            return await self._large_events.past(stream, stream.begin(start))
        except PyMongoError as error:
            raise await explained(self._trial, error, start) from cause
