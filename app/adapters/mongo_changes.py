"""One watcher's change stream, read by raw commands a batch at a time.

motor's `watch` costs a thread hop per event; a `getMore` of our own costs one per batch and leaves the events as the
bytes they came in. The price is that this module does what a driver does: it keeps session and cursor, resumes after an
invalidate, and tells a failover from a lost history. Every position is a token, and every stream is opened with
`startAfter`, which takes all kinds of token: an event's, an invalidate's, a high-water mark.

Not its business: when to open again after an error (the relay's), what an event means (`codec.py`).
"""

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import bson
import pymongo
from bson import CodecOptions, json_util
from bson.errors import BSONError
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import ConnectionFailure, NetworkTimeout, OperationFailure, PyMongoError
from pymongo.server_description import ServerDescription

from app.adapters import mongo_errors
from app.domain.errors import (
    ChangewireError,
    FieldProblem,
    HistoryLost,
    Invalid,
    NotAuthorised,
    SourceRefused,
    SourceUnavailable,
    TokenRefused,
)
from app.domain.tokens import ClusterTime, cluster_time
from app.domain.watcher import Start, Watcher
from app.ports import SourceBatch

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorClientSession

BATCH_SIZE: Final = 500
AWAIT_MS: Final = 500
"""How long the server waits for events before it answers with none; a stop takes as long at worst."""
PROBE_MS: Final = 1_000
"""For a try whose answer is the error: a lost history or a bad token shows at once, a long scan proves nothing more."""
CLOSE_SECONDS: Final = 2.0
EARLIEST_ATTEMPTS: Final = 8
"""A busy server cuts its oplog's beginning off in bursts, also between a look at it and the opening there."""
_RAW: Final = CodecOptions(document_class=RawBSONDocument)
_PRE_IMAGES_WIRE_VERSION: Final = 17  # MongoDB 6.0


def parse_pipeline(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Read a pipeline's Extended JSON (`{"$oid": …}`, `{"$date": …}`) into what BSON holds.

    Raises Invalid on the field `source.pipeline`.
    """
    try:
        pipeline: list[dict[str, Any]] = json.loads(json.dumps(list(stages)), object_hook=_extended)
        bson.encode({"pipeline": pipeline})
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError, BSONError) as error:
        problem = f"is not Extended JSON that MongoDB understands: {error}"
        raise Invalid(problems=(FieldProblem("source.pipeline", problem),)) from error
    return pipeline


def _extended(value: dict[str, Any]) -> Any:
    # $regex is a query operator here, with operators beside it that json_util's reading of old JSON would drop.
    return value if "$regex" in value else json_util.object_hook(value, json_util.RELAXED_JSON_OPTIONS)


class Pin:
    """The one mongos that a cursor lives on; replica sets need none, since only the primary is read."""

    __slots__ = ("address",)

    def __init__(self) -> None:
        self.address: tuple[str, int | None] | None = None


_pin: ContextVar[Pin | None] = ContextVar("pin", default=None)


def prefer_pinned(candidates: list[ServerDescription]) -> list[ServerDescription]:
    """Keep a stream's commands on one mongos (`server_selector` of the client).

    Commands of our own are not bound to the server that holds their cursor, as a driver's cursor would be. A mongos
    that has gone is not insisted upon: another one answers "cursor not found", and the stream is opened there.
    """
    pin = _pin.get()
    if pin is None or len(candidates) < 2 or candidates[0].server_type_name != "Mongos":
        return candidates
    if pin.address is None:
        pin.address = random.choice(candidates).address
    return [candidate for candidate in candidates if candidate.address == pin.address] or candidates


@dataclass(slots=True)
class Reach:
    """What the streams of one deployment share. `slow` names the namespaces whose reads outlast the usual timeout."""

    client: "AsyncIOMotorClient[Mapping[str, Any]]"
    patient: Callable[[], "AsyncIOMotorClient[Mapping[str, Any]]"]
    """The same deployment without a short socket timeout: while it scans the oplog for the next event of a quiet
    collection, a server answers nothing, whatever maxTimeMS says, and given up early it would start over for ever."""
    oplog_first: Callable[[float], Awaitable[Timestamp | None]]
    """Takes the age in seconds that the answer may have."""
    slow: set[str] = field(default_factory=set)


class MongoChangeSource:
    """`ChangeSource` over one collection. Holds a server session and a cursor from `open` to `close`."""

    def __init__(self, watcher: Watcher, reach: Reach, *, batch_size: int = BATCH_SIZE) -> None:
        self._source = watcher.source
        self._reach = reach
        self._batch_size = batch_size
        self._namespace = watcher.source.namespace
        self._deployment = ""
        self._wire_version = _PRE_IMAGES_WIRE_VERSION
        self._database = reach.client[watcher.source.database]
        self._session: AsyncIOMotorClientSession | None = None
        self._cursor = 0
        self._pin = Pin()
        self._position = ""
        self._skip_to: str | None = None
        self._waiting: SourceBatch | None = None
        self._under_way: asyncio.Future[RawBSONDocument] | None = None

    @property
    def scope(self) -> str:
        return f"{self._deployment}/{self._namespace}"

    @property
    def wire_version(self) -> int:
        """The server's maxWireVersion, known after `prepare`: 17 is MongoDB 6.0."""
        return self._wire_version

    async def prepare(self, *, may_create: bool = True) -> int:
        with self._translated("connecting"):
            hello = await self._reach.client.admin.command("hello")
            if "setName" not in hello and hello.get("msg") != "isdbgrid":
                raise SourceRefused(mongo_errors.STANDALONE)
            self._deployment = hello.get("setName") or "sharded"
            self._wire_version = hello["maxWireVersion"]
            if self._source.pre_and_post_images and may_create:
                await self._keep_images()
        return int(hello["operationTime"].time)

    async def _keep_images(self) -> None:
        """Create the collection with pre- and post-images, or switch them on."""
        if self._wire_version < _PRE_IMAGES_WIRE_VERSION:
            raise SourceRefused("pre_and_post_images needs MongoDB 6.0 or later")
        name, images = self._source.collection, {"changeStreamPreAndPostImages": {"enabled": True}}
        try:
            await self._database.command({"create": name, **images, "writeConcern": {"w": "majority"}})
        except OperationFailure as error:
            if error.code != mongo_errors.NAMESPACE_EXISTS:
                raise
            found = await self._database.command({"listCollections": 1, "filter": {"name": name}})
            options = (found["cursor"]["firstBatch"] or [{}])[0].get("options", {})
            if not options.get("changeStreamPreAndPostImages", {}).get("enabled"):
                await self._database.command({"collMod": name, **images, "writeConcern": {"w": "majority"}})

    async def locate(self, start: Start) -> str:
        try:
            match start.at:
                case "latest":
                    return await self.probe({})
                case "earliest":
                    return await self._locate_earliest()
                case "timestamp":
                    return await self._locate_time(float(start.value or 0))
                case "token":
                    token = str(start.value)
                    await self.verify(token)
                    return token
        except PyMongoError as error:
            raise await self._explained(error, {}) from error

    async def _locate_earliest(self) -> str:
        for attempt in range(EARLIEST_ATTEMPTS):
            first = await self._reach.oplog_first(0)
            if first is None:
                raise NotAuthorised(
                    "start `earliest` has to read the oplog's first entry (local.oplog.rs), which this account may not "
                    "or which mongos does not show: grant it read on local, or start at a timestamp"
                )
            try:
                return await self._probe_time(first)
            except HistoryLost:
                if attempt + 1 == EARLIEST_ATTEMPTS:
                    raise
            await asyncio.sleep(0.05 * attempt)
        raise AssertionError

    async def _locate_time(self, seconds: float) -> str:
        with self._translated("asking for the time"):
            now = (await self._reach.client.admin.command("hello"))["operationTime"]
        if seconds > now.time:
            start, clock = mongo_errors.iso(seconds), mongo_errors.iso(now.time)
            raise TokenRefused(f"the start {start} lies in the future; MongoDB's clock says {clock}")
        return await self._probe_time(Timestamp(max(1, int(seconds)), 1))

    async def _probe_time(self, moment: Timestamp) -> str:
        """Return the high-water mark of a cluster time the oplog reaches back to."""
        start = {"startAtOperationTime": moment}
        try:
            await self.probe(start, batch_size=1, maxTimeMS=PROBE_MS)
        except OperationFailure as error:
            if error.code in mongo_errors.HISTORY_LOST:
                raise await self._history_lost(moment.time, error) from error
            if error.code != mongo_errors.MAX_TIME_EXPIRED:
                raise
        return await self.probe(start)

    async def verify(self, token: str) -> None:
        """Look whether MongoDB reads on after a token. Raises HistoryLost, TokenRefused and what `open` raises."""
        moment, start = cluster_time(token), {"startAfter": {"_data": token}}
        try:
            await self.probe(start, batch_size=1, maxTimeMS=PROBE_MS)
        except OperationFailure as error:
            if error.code == mongo_errors.TOKEN_NOT_FOUND and mongo_errors.of_stream(error, self._namespace) is None:
                await self._probe_time(Timestamp(moment.seconds, moment.increment))
            elif error.code in mongo_errors.HISTORY_LOST:
                raise await self._history_lost(moment.seconds, error) from error
            elif error.code != mongo_errors.MAX_TIME_EXPIRED:
                raise await self._explained(error, start) from error
        except PyMongoError as error:
            raise await self._explained(error, start) from error

    async def probe(
        self, start: Mapping[str, Any], *, pipeline: bool = True, options: bool = True, batch_size: int = 0, **more: Any
    ) -> str:
        """Open a stream and close it again; return the position it stands at. Raises what pymongo raises."""
        stages = [self._stage(start, options=options), *(self._stages() if pipeline else ())]
        cursor_options = {"cursor": {"batchSize": batch_size}, **more}
        command = {"aggregate": self._source.collection, "pipeline": stages, **cursor_options}
        pinned = _pin.set(Pin())
        try:
            cursor = (await self._database.command(command, codec_options=_RAW))["cursor"]
            if cursor["id"]:
                with contextlib.suppress(PyMongoError):
                    await self._database.command(self._kill(cursor["id"]))
        finally:
            _pin.reset(pinned)
        return str(cursor["postBatchResumeToken"]["_data"])

    async def open(self, after: str) -> None:
        cluster_time(after)  # refuses what is not a token
        await self.close()
        self._position, self._skip_to, self._pin = after, None, Pin()
        client = self._reach.patient() if self._namespace in self._reach.slow else self._reach.client
        self._database = client[self._source.database]
        start = {"startAfter": {"_data": after}}
        try:
            self._session = await client.start_session(causal_consistency=False)
            self._waiting = await self._begin(start)
        except PyMongoError as error:
            if self._unseen(error):
                self._waiting = await self._begin_by_time(error)
            else:
                raise await self._explained(error, start) from error

    async def read(self) -> SourceBatch:
        if self._waiting is not None:
            batch, self._waiting = self._waiting, None
            return batch
        if self._session is None:
            raise SourceUnavailable(f"the change stream of {self._namespace} is not open")
        start = {"startAfter": {"_data": self._position}}
        try:
            if not self._cursor:  # an invalidate ended the stream; the collection may come back
                return await self._begin(start)
            get_more = {
                "getMore": Int64(self._cursor),
                "collection": self._source.collection,
                "batchSize": self._batch_size,
                "maxTimeMS": AWAIT_MS,
            }
            batch = self._take(await self._run(get_more), "nextBatch")
        except PyMongoError as error:
            if self._unseen(error):
                return await self._begin_by_time(error)
            if isinstance(error, ConnectionFailure) and not isinstance(error, NetworkTimeout):
                self._cursor = 0  # nobody is there to end it
            raise await self._explained(error, start) from error
        if self._reach.slow:
            self._reach.slow.discard(self._namespace)
        return batch

    async def close(self) -> None:
        under_way, self._under_way = self._under_way, None
        session, self._session = self._session, None
        idle = True
        if under_way is not None:
            done, _ = await asyncio.wait((under_way,), timeout=CLOSE_SECONDS)
            idle = bool(done)
            if done and not under_way.cancelled() and under_way.exception() is None:
                self._cursor = under_way.result()["cursor"]["id"]
        cursor, self._cursor, self._waiting = self._cursor, 0, None
        if session is None or not idle:  # the server ends by itself what hangs on a connection that is gone
            return
        with contextlib.suppress(PyMongoError), pymongo.timeout(CLOSE_SECONDS):
            if cursor:
                pinned = _pin.set(self._pin)
                try:
                    await self._database.command(self._kill(cursor), session=session)
                finally:
                    _pin.reset(pinned)
            await session.end_session()

    # The stream.

    def _stage(self, start: Mapping[str, Any], *, options: bool = True) -> dict[str, Any]:
        """Build the $changeStream stage. What is None is left to the server's default."""
        stage, source = dict(start), self._source
        if options:
            if source.full_document is not None:
                stage["fullDocument"] = source.full_document
            before = source.full_document_before_change
            # Before 6.0 no collection has pre-images and no server knows the option: that is what whenAvailable means.
            if before is not None and (self._wire_version >= _PRE_IMAGES_WIRE_VERSION or before != "whenAvailable"):
                stage["fullDocumentBeforeChange"] = before
            if source.show_expanded_events:
                stage["showExpandedEvents"] = True
        return {"$changeStream": stage}

    def _stages(self) -> list[dict[str, Any]]:
        try:
            return parse_pipeline(self._source.pipeline)
        except Invalid as error:
            raise SourceRefused(f"{self._namespace}: {error}") from error

    def _kill(self, cursor: int) -> dict[str, Any]:
        return {"killCursors": self._source.collection, "cursors": [Int64(cursor)]}

    async def _begin(self, start: Mapping[str, Any]) -> SourceBatch:
        """Open the cursor; the first batch comes with it at once, and so do most refusals."""
        before = self._position
        command = {
            "aggregate": self._source.collection,
            "pipeline": [self._stage(start), *self._stages()],
            "cursor": {"batchSize": self._batch_size},
        }
        batch = self._take(await self._run(command), "firstBatch")
        if not self._cursor and not batch.events and batch.position == before:
            raise SourceUnavailable(f"MongoDB ends the change stream of {self._namespace} as soon as it is opened")
        return batch

    async def _begin_by_time(self, cause: PyMongoError) -> SourceBatch:
        """Open at the position's cluster time instead of its token, and skip what is not later than it."""
        self._skip_to = self._position
        moment = cluster_time(self._position)
        start = {"startAtOperationTime": Timestamp(moment.seconds, moment.increment)}
        try:
            return await self._begin(start)
        except PyMongoError as error:
            raise await self._explained(error, start) from cause

    def _unseen(self, error: PyMongoError) -> bool:
        """Whether the stream does not see its token's event, and opening by time has not been tried."""
        unseen = isinstance(error, OperationFailure) and error.code == mongo_errors.TOKEN_NOT_FOUND
        return unseen and self._skip_to is None and mongo_errors.of_stream(error, self._namespace) is None

    async def _run(self, command: dict[str, Any]) -> Mapping[str, Any]:
        """Run a command that may wait. A cancelled caller leaves it under way: a thread cannot be called back, and a
        cursor that arrives later has to be killed; `close` sees to both."""
        pinned = _pin.set(self._pin)
        try:
            under_way: asyncio.Future[RawBSONDocument] = asyncio.ensure_future(
                self._database.command(command, codec_options=_RAW, session=self._session)
            )
        finally:
            _pin.reset(pinned)
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
        self._position = max(self._position, cursor["postBatchResumeToken"]["_data"])
        return SourceBatch(events, self._position, reply["operationTime"].time, sum(map(len, events)))

    def _later(self, events: Sequence[bytes], token: str) -> list[bytes]:
        later = [event for event in events if RawBSONDocument(event)["_id"]["_data"] > token]
        if later:
            self._skip_to = None  # tokens only grow
        return later

    # Errors.

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except PyMongoError as error:
            grant = f"find and changeStream, and for images createCollection and collMod, on {self._namespace}"
            raise mongo_errors.unavailable(error, doing=doing, grant=grant) from error

    async def _explained(self, error: PyMongoError, start: Mapping[str, Any]) -> ChangewireError:
        """Say what an error of the stream is; where the code does not tell, find out what the server objects to."""
        if isinstance(error, NetworkTimeout):
            self._reach.slow.add(self._namespace)
        known = mongo_errors.of_stream(error, self._namespace)
        if isinstance(known, HistoryLost):
            return await self._history_lost(self._moment(start).seconds, error)
        if known is not None:
            return known
        if isinstance(error, OperationFailure) and error.code == mongo_errors.TOKEN_NOT_FOUND:
            return await self._history_lost(self._moment(start).seconds, error)
        with contextlib.suppress(PyMongoError):  # where a try fails too, the first error is the one to tell
            refused = await self.objection()
            if refused is not None:
                return SourceRefused(f"MongoDB refuses the {refused[0]} of {self._namespace}: {refused[1]}")
            if "startAfter" in start:
                try:
                    await self.probe(start, pipeline=False)
                except OperationFailure as again:
                    if mongo_errors.of_stream(again, self._namespace) is None:
                        return TokenRefused(f"MongoDB does not take the resume token: {mongo_errors.words(again)}")
        return SourceUnavailable(f"reading {self._namespace} failed: {mongo_errors.quiet_words(error)}")

    async def objection(self) -> tuple[str, str] | None:
        """Open the stream as it is configured, from now, running nothing; tell what the server refuses.

        Returns None where it opens, else `pipeline` or `options` and the server's words. Raises what pymongo raises for
        everything that is neither.
        """
        try:
            await self.probe({})
        except OperationFailure as error:
            if mongo_errors.of_stream(error, self._namespace) is not None:
                raise
            try:
                await self.probe({}, pipeline=False)
            except OperationFailure as other:
                if mongo_errors.of_stream(other, self._namespace) is not None:
                    raise
                await self.probe({}, pipeline=False, options=False)
                return "options", mongo_errors.words(other)
            return "pipeline", mongo_errors.words(error)
        return None

    def _moment(self, start: Mapping[str, Any]) -> ClusterTime:
        if "startAtOperationTime" in start:
            return ClusterTime(start["startAtOperationTime"].time, start["startAtOperationTime"].inc)
        return cluster_time(start["startAfter"]["_data"]) if "startAfter" in start else ClusterTime(0, 0)

    async def _history_lost(self, seconds: int, error: PyMongoError) -> HistoryLost:
        begins = "its first entry may not be read"
        with contextlib.suppress(ChangewireError):
            first = await self._reach.oplog_first(0)
            if first is not None:
                begins = f"it begins at {mongo_errors.iso(first.time)}"
        return HistoryLost(
            f"the oplog no longer reaches back to where {self._namespace} was read up to, {mongo_errors.iso(seconds)}: "
            f"{begins}. The changes in between cannot be read any more; set the token to say where to go on, and "
            f"consider a larger oplog (replSetResizeOplog). MongoDB says: {mongo_errors.quiet_words(error)}"
        )
