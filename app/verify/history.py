"""The history of what a watcher watches, as MongoDB tells it now: its change stream, read by pymongo's own `watch`.

Documents are looked up only where the pipeline sees them, since they are not compared. Not its business: what is done
with the changes (`comparison.py`).
"""

import asyncio
import time
from typing import Any, Final

import pymongo
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.asynchronous.change_stream import AsyncChangeStream, AsyncClusterChangeStream
from pymongo.errors import ConnectionFailure, OperationFailure

from app.domain.tokens import ClusterTime, cluster_time
from app.domain.watcher import Watcher
from app.verify.bodies import RAW, UNREADABLE, Selection, from_bson
from app.verify.comparison import Event
from app.verify.errors import CannotCompare
from app.verify.state import CALL_SECONDS, Client

BATCH: Final = 1_000
AWAIT_MS: Final = 500
GONE_SECONDS: Final = 30.0
"""How long a MongoDB may be gone in the middle of its history."""
PAUSE_SECONDS: Final = 0.5
_LOST: Final = (286, 136)
_ATTEMPTS: Final = 8
_BREAKS: Final = frozenset({"drop", "rename", "dropDatabase", "invalidate"})
"""After these a collection may hold other documents, without a change that says so."""
_IMAGES_WIRE_VERSION: Final = 17  # MongoDB 6.0
_TIME: Final = 18
"""The hexadecimal digits of a token that hold its cluster time."""


def bound(moment: ClusterTime) -> str:
    """Return what every token of this cluster time begins with: it is below all of them, and above all before."""
    return f"82{moment.seconds:08X}{moment.increment:08X}"


async def oplog_begin(client: Client) -> str | None:
    """Return the bound of the oplog's first entry; None where the account may not read it, or mongos has none."""
    for _ in range(_ATTEMPTS):
        try:
            with pymongo.timeout(CALL_SECONDS):
                entry = await client.local["oplog.rs"].find_one({}, {"ts": 1}, sort=[("$natural", 1)])
        except OperationFailure as error:
            if error.code not in _LOST:  # else it went while it was read, and the next one is the first now
                return None
        else:
            return None if entry is None else bound(ClusterTime(entry["ts"].time, entry["ts"].inc))
    return None


class WatchedHistory:
    """`comparison.History` over a live change stream, up to a fixed cluster time. Close it."""

    def __init__(
        self,
        client: Client,
        watcher: Watcher,
        pipeline: list[dict[str, Any]],
        *,
        end: ClusterTime,
        wire_version: int,
        state_database: str,
    ) -> None:
        """`state_database` is what no watcher of the deployment reads."""
        source = watcher.source
        self._state_database = state_database
        self._client = client
        self._source = source
        self._pipeline = pipeline
        self._operations = frozenset(watcher.sink.operations)
        self._end = bound(end)
        self._options: dict[str, Any] = {"batch_size": BATCH, "max_await_time_ms": AWAIT_MS}
        selection = Selection(source)
        if selection.looks_up:
            self._options["full_document"] = _lenient(source.full_document)
        if selection.looks_before and wire_version >= _IMAGES_WIRE_VERSION:
            self._options["full_document_before_change"] = _lenient(source.full_document_before_change)
        if source.show_expanded_events:
            self._options["show_expanded_events"] = True
        self._stream: AsyncChangeStream[RawBSONDocument] | None = None
        self._place: dict[str, Any] = {}
        """From where the change stream would be opened again."""
        self._start = ""
        self._next: Event | None = None
        self._ended = False
        self._broken: list[str] = []

    async def open(self, at: str) -> str:
        for attempt in range(_ATTEMPTS):
            await self.close()
            moment = cluster_time(at[:_TIME].ljust(_TIME, "0"))
            try:
                # A high-water mark, or the first event: either shows whether the oplog reaches back so far.
                await self._watch(start_at_operation_time=Timestamp(moment.seconds, moment.increment))
                self._start, self._ended, self._broken = at, False, []
                self._next = await self._read()
            except OperationFailure as error:
                begin = await oplog_begin(self._client) if error.code in _LOST else None
                if begin is None or attempt + 1 == _ATTEMPTS:
                    raise
                at = max(at, begin)  # it has moved on meanwhile
            else:
                return at
        raise AssertionError

    async def peek(self) -> Event | None:
        if self._next is None and not self._ended:
            self._next = await self._read()
        return self._next

    def take(self) -> None:
        self._next = None

    def broke(self, before: str) -> bool:
        here = [token for token in self._broken if token < before]
        self._broken = self._broken[len(here) :]
        return bool(here)

    async def close(self) -> None:
        stream, self._stream, self._next, self._ended = self._stream, None, None, True
        if stream is not None:
            with pymongo.timeout(CALL_SECONDS):
                await stream.close()

    async def _watch(self, **start: Any) -> None:
        self._place = start
        options: dict[str, Any] = {**start, **self._options}
        source = self._source
        if source.database:
            database = self._client[source.database].with_options(codec_options=RAW)
            watched = database[source.collection] if source.collection else database
            self._stream = await watched.watch(self._pipeline, **options)
            return
        # As `client.watch` does it, which takes no codec options.
        self._stream = AsyncClusterChangeStream(
            self._client.admin.with_options(codec_options=RAW), self._pipeline,
            **{"full_document": None, "resume_after": None, "max_await_time_ms": None, "batch_size": None,
               "collation": None, "start_at_operation_time": None, "session": None, "start_after": None, **options},
        )  # fmt: skip
        await self._stream._initialize_cursor()

    async def _read(self) -> Event | None:
        """The next selected change; None where there is none up to the end."""
        while self._stream is not None and not self._ended:
            if not self._stream.alive:
                await self._go_on_after_invalidate()
            raw = await self._try_next()
            token = self._stream.resume_token if raw is None else raw["_id"]
            reached = "" if token is None else str(token["_data"])
            # An empty batch says that everything up to its own token has been told.
            if reached[:_TIME] > self._end or (raw is None and reached[:_TIME] == self._end):
                self._ended = True
            elif raw is not None and reached >= self._start:
                if raw["operationType"] in _BREAKS:
                    self._broken.append(reached)
                if not self._selects(raw):
                    continue
                return Event(reached, raw["operationType"], _body(raw))
        return None

    async def _try_next(self) -> RawBSONDocument | None:
        """The next event; None where the last batch is read and the next one is empty.

        pymongo asks once more by itself. A server that is busy, or fails over, may need longer. Raises what pymongo
        raises once it has been gone for `GONE_SECONDS`."""
        since: float | None = None
        while True:
            assert self._stream is not None
            try:
                if since is not None:
                    await self._watch(**self._place)
                raw = await self._stream.try_next()
            except ConnectionFailure:
                since = since or time.monotonic()
                if time.monotonic() - since > GONE_SECONDS:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if self._stream.resume_token is not None:
                self._place = {"start_after": self._stream.resume_token}
            return raw

    def _selects(self, raw: RawBSONDocument) -> bool:
        """Whether the watcher publishes the event. Which collections a scope has is asked here once more."""
        if raw["operationType"] not in self._operations:
            return False
        source, namespace = self._source, raw.get("ns")
        if not source.is_scope or namespace is None:
            return True
        if namespace["db"] == self._state_database:
            return False
        if "coll" not in namespace:
            return source.has_database(namespace["db"])
        names = [namespace, raw["to"]] if "to" in raw else [namespace]  # a rename is one of both its collections
        return any(source.has(each["db"], each["coll"]) for each in names)

    async def _go_on_after_invalidate(self) -> None:
        """A drop or a rename ended the stream; the collection may have come back."""
        assert self._stream is not None
        token = self._stream.resume_token
        if token is None:
            raise CannotCompare("MongoDB ends the change stream as soon as it is opened")
        with pymongo.timeout(CALL_SECONDS):
            await self._stream.close()
        await self._watch(start_after=token)


def _body(raw: RawBSONDocument) -> dict[str, Any]:
    """The event as JSON; of one that cannot be written so, what is certain of it."""
    try:
        return from_bson(raw)
    except (BSONError, ValueError, RecursionError):
        namespace = raw.get("ns")
        names = {} if namespace is None else {"ns": {name: namespace[name] for name in namespace}}
        return {"operationType": raw["operationType"], UNREADABLE: True, **names}


def _lenient(mode: str | None) -> str | None:
    """An image that has expired meanwhile must not end the reading."""
    return "whenAvailable" if mode == "required" else mode
