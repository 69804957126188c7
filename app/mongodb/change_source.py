"""One watcher's change stream, read by raw commands a batch at a time.

motor's `watch` costs a thread hop per event; a `getMore` of our own costs one per batch and leaves the events as the
bytes they came in. The price is that this module does what a driver does: it keeps session and cursor, resumes after an
invalidate, and tells a failover from a lost history. Every position is a token, and every stream is opened with
`startAfter`, which takes all kinds of token: an event's, an invalidate's, a high-water mark.

Not its business: when to open again after an error (the capture's), what an event means (`formats/extended_json.py`),
what the server objects to (`trial.py`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pymongo
import structlog
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import ConnectionFailure, NetworkTimeout, OperationFailure, PyMongoError

from app.domain.errors import SourceRefused, SourceUnavailable
from app.domain.tokens import cluster_time
from app.domain.watcher import Start, Watcher, javascript_in
from app.mongodb import errors as mongo_errors
from app.mongodb import history, large_events
from app.mongodb import pipeline as mongo_pipeline
from app.mongodb.bounded import end_session_on_server
from app.mongodb.trial import RAW, Pin, Reach, StreamTrial, pinned
from app.ports import SourceBatch

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClientSession

BATCH_SIZE: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
"""What one read is meant to bring at most. MongoDB counts events only, up to a reply of 16 MB: the count asked for goes
by the size of the last ones."""
AWAIT_MS: Final = 500
"""How long the server waits for events before it answers with none."""
AWAIT_MOST_MS: Final = 4_000
"""And how long where there were none again and again: an answer that says nothing costs as much as one with an event.
What is watched moves on in the oplog that often, when nothing happens to it."""
CLOSE_SECONDS: Final = 2.0

log = structlog.get_logger(__name__)


class MongoChangeSource:
    """`ChangeSource` over one collection. Holds a server session and a cursor from `open` to `close`."""

    def __init__(self, watcher: Watcher, reach: Reach, *, batch_size: int = BATCH_SIZE) -> None:
        self._source = watcher.source
        self._reach = reach
        self._batch_size = self._ask_for = batch_size
        self._namespace = watcher.source.namespace
        self._reshaped = mongo_pipeline.reshapes(watcher.source.pipeline)
        self._trial = StreamTrial(watcher, reach)
        self._database = reach.client[watcher.source.database]
        self._session: AsyncIOMotorClientSession | None = None
        self._await_ms = AWAIT_MS
        self._cursor = 0
        self._pin = Pin()
        self._position = ""
        self._skip_to: str | None = None
        self._waiting: SourceBatch | None = None
        self._singly = 0
        """Events that are read one by one, since one among them is too large to be sent."""
        self._splits = True
        """Whether the server splits large events, as far as is known."""
        self._under_way: asyncio.Future[RawBSONDocument] | None = None

    @property
    def scope(self) -> str:
        return self._trial.scope

    async def prepare(self, *, may_create: bool = True) -> int:
        return await self._trial.prepare(may_create=may_create)

    async def locate(self, start: Start) -> str:
        return await self._trial.locate(start)

    async def has_event(self, token: str) -> bool | None:
        try:
            return await history.has_event(self._reach, self._source, token, wire_version=self._trial.wire_version)
        except PyMongoError as error:
            raise await self._trial.explained(error, history.start_of(token)) from error

    async def open(self, after: str) -> None:
        cluster_time(after)  # refuses what is not a token
        await self.close()
        self._position, self._skip_to, self._singly, self._pin = after, None, 0, Pin()
        client = self._reach.patient() if self._namespace in self._reach.slow else self._reach.client
        self._database = client[self._source.database]
        start = {"startAfter": {"_data": after}}
        try:
            self._session = await client.start_session(causal_consistency=False)
            self._waiting = await self._begin(start)
        except PyMongoError as error:
            if self._unseen(error):
                self._waiting = await self._begin_by_time(error)
            elif not _is_too_large(error):  # that one is for `read` to get over
                raise await self._trial.explained(error, start) from error

    async def read(self) -> SourceBatch:
        if self._waiting is not None:
            batch, self._waiting = self._waiting, None
            return batch
        if self._session is None:
            raise SourceUnavailable(f"the change stream of {self._namespace} is not open")
        start = {"startAfter": {"_data": self._position}}
        try:
            batch = await self._past_large(self._next(start))
        except PyMongoError as error:
            if self._unseen(error):
                return await self._begin_by_time(error)
            if isinstance(error, ConnectionFailure) and not isinstance(error, NetworkTimeout):
                self._cursor = 0  # nobody is there to end it
            raise await self._trial.explained(error, start) from error
        if self._reach.slow:
            self._reach.slow.discard(self._namespace)
        return batch

    async def close(self) -> None:
        under_way, self._under_way = self._under_way, None
        session, self._session = self._session, None
        idle = True
        if under_way is not None:
            if not under_way.done():  # it waits for events: that ends with its cursor
                await self._end_cursor()
            done, _ = await asyncio.wait((under_way,), timeout=CLOSE_SECONDS)
            idle = bool(done)
            if done and not under_way.cancelled() and under_way.exception() is None:
                self._cursor = under_way.result()["cursor"]["id"]
        self._waiting = None
        if session is None or not idle:  # the server ends by itself what hangs on a connection that is gone
            self._cursor = 0
            if session is not None and javascript_in(self._source.pipeline) is not None:
                await end_session_on_server(self._reach.client, session)  # but no script
            return
        await self._end_cursor()
        with contextlib.suppress(PyMongoError), pymongo.timeout(CLOSE_SECONDS):
            await session.end_session()

    # The stream.

    async def _next(self, start: Mapping[str, Any]) -> SourceBatch:
        if not self._cursor:  # an invalidate ended the stream; the collection may come back
            batch = await self._begin(start)
        else:
            batch = self._take(await self._run(self._get_more(self._at_once)), "nextBatch")
        self._singly = max(0, self._singly - len(batch.events)) if batch.events else 0
        self._await_ms = AWAIT_MS if batch.events else min(2 * self._await_ms, AWAIT_MOST_MS)
        return batch

    @property
    def _at_once(self) -> int:
        """How many events a read asks for."""
        return 1 if self._singly else self._ask_for

    def _get_more(self, size: int) -> dict[str, Any]:
        return {
            "getMore": Int64(self._cursor),
            "collection": self._source.collection,
            "batchSize": size,
            "maxTimeMS": self._await_ms,
        }

    # An event that is too large to be sent.

    def _start(self) -> dict[str, Any]:
        """Where the event can be read again from, behind which the large one is."""
        if self._skip_to is None:
            return {"startAfter": {"_data": self._position}}
        moment = cluster_time(self._skip_to)
        return {"startAtOperationTime": Timestamp(moment.seconds, moment.increment)}

    async def _past_large(self, reading: Awaitable[SourceBatch]) -> SourceBatch:
        """Read, and get over an event that is too large to be sent."""
        try:
            return await reading
        except OperationFailure as error:
            if not _is_too_large(error):
                raise
            return await self._get_over()

    async def _get_over(self) -> SourceBatch:
        """Read on though a batch could not be sent: what comes before the large event one by one, then that alone."""
        self._cursor = 0  # the error has ended it
        if not self._singly:
            self._singly = self._batch_size
            try:
                return await self._begin(self._start())
            except OperationFailure as error:
                if not _is_too_large(error):
                    raise
        start = self._start()
        for names in large_events.DROPS:
            try:
                batch = await self._without(start, names)
            except OperationFailure as error:
                if not _is_too_large(error) or names == large_events.DROPS[-1]:
                    raise
                continue
            self._singly = 0
            return batch
        raise AssertionError

    async def _without(self, start: Mapping[str, Any], names: Sequence[str]) -> SourceBatch:
        """Read the next event without these fields, and put it together from its fragments where the server can."""
        try:
            batch = self._take(await self._run(self._command(start, {"$unset": list(names)}, size=1)), "firstBatch")
            while self._cursor and not batch.events and self._skip_to is not None:
                batch = self._take(await self._run(self._get_more(1)), "nextBatch")
        finally:
            await self._leave_cursor()
        if not batch.events:
            return batch
        (event,) = batch.events
        whole = await self._whole(event) if self._splits else None
        if whole is not None:
            return replace(batch, events=[whole], size=len(whole))
        lacks = large_events.left_out(event, self._source, names)
        log.warning("event_reduced", namespace=self._namespace, token=batch.position, without=lacks)
        return replace(batch, reduced=lacks)

    async def _whole(self, reduced: bytes) -> bytes | None:
        """Read an event in fragments; None where the server does not split, or the event does not come.

        From its time on: 6.0 refuses to split after a position whose own event is a large one.
        """
        fragments = large_events.Fragments(reduced)
        try:
            reply, part = await self._run(self._command(fragments.start, large_events.SPLIT, size=1)), "firstBatch"
            while True:
                self._cursor = reply["cursor"]["id"]
                came = reply["cursor"][part]
                if fragments.take(came) or not came or not self._cursor:
                    return fragments.whole
                reply, part = await self._run(self._get_more(self._batch_size)), "nextBatch"
        except OperationFailure as error:
            if mongo_errors.passing(error) or not (_is_too_large(error) or mongo_errors.of_parser(error)):
                raise
            self._splits = error.code != large_events.UNKNOWN_STAGE
            return None
        finally:
            await self._leave_cursor()

    async def _leave_cursor(self) -> None:
        """Be done with the cursor; where a command is under way on it, `close` has to end it."""
        if self._under_way is None:
            await self._end_cursor()
        self._cursor = 0

    async def _end_cursor(self) -> None:
        """End the cursor where there is one, over a connection of its own; one out of reach ends by itself."""
        cursor, self._cursor = self._cursor, 0
        if not cursor:
            return
        before = pinned.set(self._pin)
        try:
            with contextlib.suppress(PyMongoError), pymongo.timeout(CLOSE_SECONDS):
                await self._database.command(self._trial.kill(cursor))
        finally:
            pinned.reset(before)

    # Opening.

    async def _begin(self, start: Mapping[str, Any]) -> SourceBatch:
        """Open the cursor; the first batch comes with it at once, and so do most refusals."""
        position = self._position
        command = self._command(start, size=self._at_once)
        batch = self._take(await self._run(command), "firstBatch")
        if not self._cursor and not batch.events and batch.position == position:
            raise SourceUnavailable(f"MongoDB ends the change stream of {self._namespace} as soon as it is opened")
        return batch

    def _command(self, start: Mapping[str, Any], *last: Mapping[str, Any], size: int) -> dict[str, Any]:
        return {
            "aggregate": self._source.collection,
            "pipeline": [self._trial.stage(start), *self._trial.stages(), *last],
            "cursor": {"batchSize": size},
        }

    async def _begin_by_time(self, cause: PyMongoError) -> SourceBatch:
        """Open at the position's cluster time instead of its token, and skip what is not later than it."""
        self._skip_to = self._position
        start = self._start()
        try:
            return await self._past_large(self._begin(start))
        except PyMongoError as error:
            raise await self._trial.explained(error, start) from cause

    def _unseen(self, error: PyMongoError) -> bool:
        """Whether the stream does not see its token's event, and opening by time has not been tried."""
        unseen = isinstance(error, OperationFailure) and error.code == mongo_errors.TOKEN_NOT_FOUND
        return unseen and self._skip_to is None and mongo_errors.of_stream(error, self._source) is None

    async def _run(self, command: dict[str, Any]) -> Mapping[str, Any]:
        """Run a command that may wait. A cancelled caller leaves it under way: a thread cannot be called back, and a
        cursor that arrives later has to be killed; `close` sees to both."""
        before = pinned.set(self._pin)
        try:
            under_way: asyncio.Future[RawBSONDocument] = asyncio.ensure_future(
                self._database.command(command, codec_options=RAW, session=self._session)
            )
        finally:
            pinned.reset(before)
        self._under_way = under_way
        try:
            reply = await asyncio.shield(under_way)
        except Exception:
            self._under_way = None
            raise
        self._under_way = None
        return reply

    def _take(self, reply: Mapping[str, Any], batch: str) -> SourceBatch:
        cursor = reply["cursor"]
        self._cursor = cursor["id"]
        events = [bytes(event.raw) for event in cursor[batch]]  # a copy only from 4 KiB on, where raw is a memoryview
        if self._skip_to is not None:
            events = self._later(events, self._skip_to)
        if self._reshaped:
            self._refuse_damage(events)
        self._position = max(self._position, cursor["postBatchResumeToken"]["_data"])
        size = sum(map(len, events))
        if events:
            self._ask_for = max(1, min(self._batch_size, BATCH_BYTES * len(events) // size))
        return SourceBatch(events, self._position, reply["operationTime"].time, size)

    def _refuse_damage(self, events: Sequence[bytes]) -> None:
        """Stop at an event that the pipeline made useless; what the check before could not tell shows here."""
        for event in events:
            problem = mongo_pipeline.damage(RawBSONDocument(event), self._source)
            if problem is not None:
                raise SourceRefused(f"the pipeline of {self._namespace} {problem}")

    def _later(self, events: Sequence[bytes], token: str) -> list[bytes]:
        later = [event for event in events if RawBSONDocument(event)["_id"]["_data"] > token]
        if later:
            self._skip_to = None  # tokens only grow
        return later


def _is_too_large(error: PyMongoError) -> bool:
    return isinstance(error, OperationFailure) and error.code == mongo_errors.EVENT_TOO_LARGE
