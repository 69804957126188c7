"""A change stream opened only to see what the server makes of it.

Finds the token of a start position, tells whether the server reads on after a token, what it objects to in a pipeline
or an option, and what an error of a stream means. Also what all streams of a deployment share: how a pipeline is read,
and how commands stay on one mongos.

Not its business: reading events (`change_source.py`).
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
from bson import CodecOptions, json_util
from bson.errors import BSONError
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import NetworkTimeout, OperationFailure, PyMongoError
from pymongo.server_description import ServerDescription

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
from app.domain.watcher import Start, Watcher, javascript_in
from app.mongodb import errors as mongo_errors
from app.mongodb.bounded import run_bounded

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient

PROBE_MS: Final = 1_000
"""For a try whose answer is the error: a lost history or a bad token shows at once, a long scan proves nothing more."""
EARLIEST_ATTEMPTS: Final = 8
"""A busy server cuts its oplog's beginning off in bursts, also between a look at it and the opening there."""
AGAIN_SECONDS: Final = 1.0
"""After so long MongoDB is asked again what it said, where nothing else tells whether that is so."""
RAW: Final = CodecOptions(document_class=RawBSONDocument)
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


pinned: ContextVar[Pin | None] = ContextVar("pin", default=None)


def prefer_pinned(candidates: list[ServerDescription]) -> list[ServerDescription]:
    """Keep a stream's commands on one mongos (`server_selector` of the client).

    Commands of our own are not bound to the server that holds their cursor, as a driver's cursor would be. A mongos
    that has gone is not insisted upon: another one answers "cursor not found", and the stream is opened there.
    """
    pin = pinned.get()
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


class StreamTrial:
    """One watcher's change stream, as far as it can be known without keeping one open."""

    def __init__(self, watcher: Watcher, reach: Reach) -> None:
        self.namespace = watcher.source.namespace
        self.wire_version = _PRE_IMAGES_WIRE_VERSION
        """The server's maxWireVersion, known after `prepare`: 17 is MongoDB 6.0."""
        self._source = watcher.source
        self._reach = reach
        self._deployment = ""
        self._database = reach.client[watcher.source.database]

    @property
    def scope(self) -> str:
        """See `ports.ChangeSource`."""
        return f"{self._deployment}/{self.namespace}"

    async def prepare(self, *, may_create: bool = True) -> int:
        with self._translated("connecting"):
            hello = await self._reach.client.admin.command("hello")
            if "setName" not in hello and hello.get("msg") != "isdbgrid":
                raise SourceRefused(mongo_errors.STANDALONE)
            self._deployment = hello.get("setName") or "sharded"
            self.wire_version = hello["maxWireVersion"]
            if self._source.pre_and_post_images and may_create:
                await self._keep_images()
        return int(hello["operationTime"].time)

    async def _keep_images(self) -> None:
        """Create the collection with pre- and post-images, or switch them on."""
        if self.wire_version < _PRE_IMAGES_WIRE_VERSION:
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
            raise await self.explained(error, {}) from error

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
            except (HistoryLost, SourceUnavailable) as error:
                cut_off = isinstance(error.__cause__, OperationFailure) and _says_lost(error.__cause__)
                if not cut_off or attempt + 1 == EARLIEST_ATTEMPTS:
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
            if _says_lost(error):
                raise await self._history_lost(start, error) from error
            if error.code not in (mongo_errors.MAX_TIME_EXPIRED, mongo_errors.EVENT_TOO_LARGE):
                raise
        return await self.probe(start)

    async def verify(self, token: str) -> None:
        """Look whether MongoDB reads on after a token. Raises HistoryLost, TokenRefused and what `open` raises."""
        moment, start = cluster_time(token), {"startAfter": {"_data": token}}
        try:
            await self.probe(start, batch_size=1, maxTimeMS=PROBE_MS)
        except OperationFailure as error:
            if error.code == mongo_errors.TOKEN_NOT_FOUND and mongo_errors.of_stream(error, self._source) is None:
                await self._probe_time(Timestamp(moment.seconds, moment.increment))
            elif error.code not in (mongo_errors.MAX_TIME_EXPIRED, mongo_errors.EVENT_TOO_LARGE):
                raise await self.explained(error, start) from error
        except PyMongoError as error:
            raise await self.explained(error, start) from error

    async def probe(
        self, start: Mapping[str, Any], *, pipeline: bool = True, options: bool = True, batch_size: int = 0, **more: Any
    ) -> str:
        """Open a stream and close it again; return the position it stands at. Raises what pymongo raises."""
        stages = [self.stage(start, options=options), *(self.stages() if pipeline else ())]
        cursor_options = {"cursor": {"batchSize": batch_size}, **more}
        command = {"aggregate": self._source.collection, "pipeline": stages, **cursor_options}
        before = pinned.set(Pin())
        try:
            cursor = (await self._run(command, bounded=pipeline and "maxTimeMS" in more))["cursor"]
            if cursor["id"]:
                with contextlib.suppress(PyMongoError):
                    await self._database.command(self.kill(cursor["id"]))
        finally:
            pinned.reset(before)
        return str(cursor["postBatchResumeToken"]["_data"])

    async def _run(self, command: dict[str, Any], *, bounded: bool) -> Mapping[str, Any]:
        if bounded and javascript_in(self._source.pipeline) is not None:
            seconds = 2 * PROBE_MS / 1000
            return await run_bounded(self._reach.client, self._database.name, command, seconds=seconds)
        return await self._database.command(command, codec_options=RAW)

    def stage(self, start: Mapping[str, Any], *, options: bool = True) -> dict[str, Any]:
        """Build the $changeStream stage. What is None is left to the server's default."""
        stage, source = dict(start), self._source
        if options:
            if source.full_document is not None:
                stage["fullDocument"] = source.full_document
            before = source.full_document_before_change
            # Before 6.0 no collection has pre-images and no server knows the option: that is what whenAvailable means.
            if before is not None and (self.wire_version >= _PRE_IMAGES_WIRE_VERSION or before != "whenAvailable"):
                stage["fullDocumentBeforeChange"] = before
            if source.show_expanded_events:
                stage["showExpandedEvents"] = True
        return {"$changeStream": stage}

    def stages(self) -> list[dict[str, Any]]:
        try:
            return parse_pipeline(self._source.pipeline)
        except Invalid as error:
            raise SourceRefused(f"{self.namespace}: {error}") from error

    def kill(self, cursor: int) -> dict[str, Any]:
        return {"killCursors": self._source.collection, "cursors": [Int64(cursor)]}

    # Errors.

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except PyMongoError as error:
            grant = f"find and changeStream, and for images createCollection and collMod, on {self.namespace}"
            raise mongo_errors.unavailable(error, doing=doing, grant=grant) from error

    async def explained(self, error: PyMongoError, start: Mapping[str, Any]) -> ChangewireError:
        """Say what an error of the stream is; where the code does not tell, find out what the server objects to."""
        if isinstance(error, NetworkTimeout):
            self._reach.slow.add(self.namespace)
        known = mongo_errors.of_stream(error, self._source)
        if known is not None and not isinstance(known, HistoryLost):
            return known
        if isinstance(error, OperationFailure):
            if _says_lost(error) or error.code == mongo_errors.TOKEN_NOT_FOUND:
                return await self._history_lost(start, error)
            if mongo_errors.of_parser(error):
                with contextlib.suppress(PyMongoError):  # where a try fails too, the first error is the one to tell
                    return await self._refusal(error, start)
        return SourceUnavailable(f"reading {self.namespace} failed: {mongo_errors.quiet_words(error)}")

    async def _refusal(self, error: OperationFailure, start: Mapping[str, Any]) -> ChangewireError:
        """Find out by comparison what an error of the parser is about. Raises what pymongo raises, where a try fails
        otherwise than by such an error, and `error` where everything opens."""
        refused = await self.objection()
        if refused is not None:
            return SourceRefused(f"MongoDB refuses the {refused[0]} of {self.namespace}: {refused[1]}")
        if "startAfter" in start:
            again = await self._refused(start, pipeline=False)
            if again is not None and again.code == error.code:
                return TokenRefused(f"MongoDB does not take the resume token: {mongo_errors.words(again)}")
        raise error

    async def objection(self) -> tuple[str, str] | None:
        """Open the stream as it is configured, from now, running nothing; tell what the server refuses.

        Returns None where it opens, else `pipeline` or `options` and the server's words. What it refuses it has to
        refuse twice, with something that it takes in between: else that was a bad moment. Raises what pymongo raises
        for that, and for everything that is neither.
        """
        first = await self._refused({})
        if first is None:
            return None
        without = await self._refused({}, pipeline=False)
        if without is None:
            part, again = "pipeline", await self._refused({})
        else:
            await self.probe({}, pipeline=False, options=False)
            part, first, again = "options", without, await self._refused({}, pipeline=False)
        if again is None or again.code != first.code:
            raise first
        return part, mongo_errors.words(first)

    async def _refused(self, start: Mapping[str, Any], *, pipeline: bool = True) -> OperationFailure | None:
        """Try to open the stream, and return the error that may be about what was asked. Raises all others."""
        try:
            await self.probe(start, pipeline=pipeline)
        except OperationFailure as error:
            if mongo_errors.of_stream(error, self._source) is not None:
                raise
            return error
        return None

    async def _history_lost(self, start: Mapping[str, Any], error: OperationFailure) -> ChangewireError:
        """Say that the history is lost, where the oplog bears that out, or where it may not be read, MongoDB says it
        again: a server that has been asked in a bad moment says so of a position that is still there."""
        moment, first = _moment(start), None
        with contextlib.suppress(ChangewireError):
            first = await self._reach.oplog_first(0)
        if first is not None:
            lost = moment is not None and (first.time, first.inc) > (moment.seconds, moment.increment)
            begins = f"it begins at {mongo_errors.iso(first.time)}"
        else:
            lost = moment is not None and await self._says_so_again(start)
            begins = "its first entry may not be read"
        said = mongo_errors.quiet_words(error)
        if moment is None or not lost:
            return SourceUnavailable(
                f"MongoDB says that the history of {self.namespace} is lost, but the oplog still reaches back to the "
                f"position ({begins}); it is read again from there. MongoDB says: {said}"
            )
        return HistoryLost(
            f"the oplog no longer reaches back to where {self.namespace} was read up to, "
            f"{mongo_errors.iso(moment.seconds)}: {begins}. The changes in between cannot be read any more; set the "
            "token to say where to go on, and consider a larger oplog (replSetResizeOplog). "
            f"MongoDB says: {said}"
        )

    async def _says_so_again(self, start: Mapping[str, Any]) -> bool:
        await asyncio.sleep(AGAIN_SECONDS)
        try:
            await self.probe(start, batch_size=1, maxTimeMS=PROBE_MS)
        except OperationFailure as error:
            return _says_lost(error) or error.code == mongo_errors.TOKEN_NOT_FOUND
        except PyMongoError:
            return False
        return False


def _says_lost(error: OperationFailure) -> bool:
    return error.code in mongo_errors.HISTORY_LOST and not mongo_errors.labelled(error)


def _moment(start: Mapping[str, Any]) -> ClusterTime | None:
    """The cluster time that a stream is opened at; None where that is now."""
    if "startAtOperationTime" in start:
        return ClusterTime(start["startAtOperationTime"].time, start["startAtOperationTime"].inc)
    return cluster_time(start["startAfter"]["_data"]) if "startAfter" in start else None
