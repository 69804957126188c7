"""A change stream's cursor over a target, read by raw commands a batch at a time.

How it works. motor's `watch` costs a thread hop per event; a `getMore` of our own costs one per batch, and leaves the
events as the bytes they came in. The price is that this module does what a driver does for its own cursors:

- It keeps the session in which all commands of the stream run, and ends it.
- It keeps the cursor on one mongos (`pinning.py`).
- It deals with commands that cannot be called back. motor runs each one on a thread, so cancelling a reader leaves the
  command under way, and its reply may bring a cursor that nobody knows of. The command is remembered, and `close` kills
  its cursor over another connection (which also ends a `getMore` that waits for events), waits for the reply, and kills
  what that brought.

A cursor is opened as often as need be: after an invalidate, after an event that is too large, at a time instead of
after a token. Which of these, and what an error means, is for the reader to know (`change_source.py`).
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pymongo
from bson import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.errors import PyMongoError

from app.mongodb.bounded import end_session_on_server
from app.mongodb.pinning import Pin, pinned
from app.mongodb.raw_reply import read_reply
from app.mongodb.stream import Target
from app.mongodb.writes import to_its_end

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorClientSession

RAW: Final = CodecOptions(document_class=RawBSONDocument)
CLOSE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class CursorBatch:
    """What one command brought.

    `events` are raw BSON in stream order, `token` covers all of them and what was passed over (MongoDB's
    postBatchResumeToken), `operation_time` is the server's own in seconds since 1970."""

    events: Sequence[bytes]
    token: str
    operation_time: int


class ChangeStreamCursor:
    """A cursor over a target, in a session of its own. One reader at a time. Every method but `end` and `close` raises
    what pymongo raises."""

    def __init__(self, client: "AsyncIOMotorClient[Mapping[str, Any]]", target: Target) -> None:
        self._client = client
        self._database = client[target.sent_to]
        self._target = target
        self._session: AsyncIOMotorClientSession | None = None
        self._pin = Pin()
        self._id = 0
        self._under_way: asyncio.Future[RawBSONDocument] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the server has more to give; an invalidate ends a cursor on the server."""
        return self._id != 0

    async def open(self, stages: Sequence[Mapping[str, Any]], *, size: int) -> CursorBatch:
        """Open the stream; the first batch comes at once, and so do most refusals."""
        await self.end()
        if self._session is None:
            self._session = await self._client.start_session(causal_consistency=False)
        return self._take(await self._run(self._target.aggregate(stages, size=size)), "firstBatch")

    async def get_more(self, *, size: int, wait_ms: int) -> CursorBatch:
        """Read on; wait for events for so long, and return none where none came."""
        return self._take(await self._run(self._target.get_more(self._id, size=size, wait_ms=wait_ms)), "nextBatch")

    def forget(self) -> None:
        """The server has ended the cursor by itself, or is gone with it."""
        self._id = 0

    async def end(self) -> None:
        """End the cursor where there is one, over a connection of its own; one out of reach ends by itself.

        Never raises what pymongo raises. Leaves a cursor on which a command is under way to `close`."""
        if not self._id or self._under_way is not None:
            return
        ended, self._id = self._id, 0
        await self._kill(ended)

    @to_its_end
    async def _kill(self, cursor: int) -> None:
        with pinned(self._pin), contextlib.suppress(PyMongoError), pymongo.timeout(CLOSE_SECONDS):
            await self._database.command(self._target.kill(cursor))

    @to_its_end
    async def close(self, *, runs_script: bool = False) -> None:
        """End the cursor and the session, within a few seconds, also where the caller is cancelled meanwhile. Never
        raises what pymongo raises; may come again.

        A command that does not come back ends with its connection. Not so where it `runs_script`: then its session is
        killed on the server."""
        under_way, self._under_way = self._under_way, None
        session, self._session = self._session, None
        if session is None:
            return
        if under_way is not None and not await self._comes_back(under_way):
            self._id = 0
            if runs_script:
                await end_session_on_server(self._client, session)
            return
        await self.end()
        with contextlib.suppress(PyMongoError), pymongo.timeout(CLOSE_SECONDS):
            await session.end_session()

    async def _comes_back(self, under_way: "asyncio.Future[RawBSONDocument]") -> bool:
        """Wait for a command that was left under way, and note the cursor that it brings."""
        if not under_way.done():
            await self.end()  # a command that waits for events ends with its cursor
        done, _ = await asyncio.wait((under_way,), timeout=CLOSE_SECONDS)
        if not done:
            under_way.add_done_callback(_look_at)
        elif not under_way.cancelled() and under_way.exception() is None:
            self._id = under_way.result()["cursor"]["id"]
        return bool(done)

    async def _run(self, command: dict[str, Any]) -> RawBSONDocument:
        """Run a command that may wait. It stays `_under_way` where its caller is cancelled."""
        with pinned(self._pin):
            under_way: asyncio.Future[RawBSONDocument] = asyncio.ensure_future(
                self._database.command(command, codec_options=RAW, session=self._session)
            )
        self._under_way = under_way
        try:
            reply = await asyncio.shield(under_way)
        except Exception:
            self._under_way = None
            raise
        self._under_way = None
        return reply

    def _take(self, reply: RawBSONDocument, batch: str) -> CursorBatch:
        came = read_reply(bytes(reply.raw), batch)  # no copy: a whole reply is bytes
        self._id = came.cursor
        return CursorBatch(events=came.events, token=came.token, operation_time=came.operation_time)


def _look_at(ended: "asyncio.Future[RawBSONDocument]") -> None:
    """Take note of how a command ended that nobody waits for any more; else asyncio would complain in the log."""
    if not ended.cancelled():
        ended.exception()
