"""Reading past an event that is larger than the 16 MiB that MongoDB can send.

How it works. MongoDB answers a batch that holds such an event with an error, and ends the cursor; which event it was,
the error does not tell. So the stream is opened again where it was, and read one event at a time: what comes before the
large event is delivered as ever. When a single event cannot be sent, it is the next one. Then it is read without its
large fields, which gives its token; and where the server can split it, once more in fragments, which are put together.
What has to be left out otherwise is said in `SourceBatch.reduced`. A stage after the watcher's own pipeline takes the
fields out, so the same events are seen.
"""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from app.domain.watcher import Source
from app.mongodb import large_events
from app.mongodb.codes import Meaning, is_too_large, meaning_of, passes
from app.mongodb.watcher_stream import WatcherStream
from app.ports import SourceBatch

log = structlog.get_logger(__name__)


class LargeEventReader:
    """Reads past large events of one source, and remembers whether its server splits them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._splits = True
        """Whether the server splits large events, as far as is known."""

    async def past(self, stream: WatcherStream, reading: Awaitable[SourceBatch]) -> SourceBatch:
        """Await a read of the stream; where an event is too large for it, read what comes before, or that one alone.

        Raises what pymongo raises; code 10334 where not even the event's smallest form can be sent."""
        try:
            return await reading
        except OperationFailure as error:
            if not is_too_large(error):
                raise
        stream.cursor.forget()  # the error has ended it
        if not stream.reads_singly:
            stream.read_singly()
            try:
                return await stream.begin(stream.start)
            except OperationFailure as error:
                if not is_too_large(error):
                    raise
        return await self._alone(stream)

    async def _alone(self, stream: WatcherStream) -> SourceBatch:
        """Read the next event, which is too large, in the fullest form that can be sent."""
        start = stream.start
        *shorter, shortest = large_events.DROPS
        for names in shorter:
            try:
                batch = await self._without(stream, start, names)
            except OperationFailure as error:
                if not is_too_large(error):
                    raise
            else:
                break
        else:
            batch = await self._without(stream, start, shortest)
        stream.read_singly(on=False)
        return batch

    async def _without(self, stream: WatcherStream, start: Mapping[str, Any], names: Sequence[str]) -> SourceBatch:
        """Read the next event without these fields, and put it together from its fragments where the server can."""
        try:
            batch = await stream.open(start, {"$unset": list(names)}, size=1)
            while stream.cursor.is_open and not batch.events and stream.skips:
                batch = await stream.more(1)
        finally:
            await stream.cursor.end()
        if not batch.events:
            return batch
        (event,) = batch.events
        whole = await self._whole(stream, event) if self._splits else None
        if whole is not None:
            return replace(batch, events=[whole], size=len(whole))
        lacks = large_events.left_out(event, self._source, names)
        log.warning("event_reduced", namespace=self._source.namespace, token=batch.position, without=lacks)
        return replace(batch, reduced=lacks)

    async def _whole(self, stream: WatcherStream, reduced: bytes) -> bytes | None:
        """Read an event in fragments; None where the server does not split, or the event does not come.

        From its time on: 6.0 refuses to split after a position whose own event is a large one.
        """
        fragments = large_events.Fragments(reduced)
        cursor, pace = stream.cursor, stream.pace
        try:
            batch = await cursor.open(stream.request.stages(fragments.start, large_events.SPLIT), size=1)
            while True:
                came = [RawBSONDocument(event) for event in batch.events]
                if fragments.take(came) or not came or not cursor.is_open:
                    return fragments.whole
                batch = await cursor.get_more(size=pace.batch_size, wait_ms=pace.wait_ms)
        except OperationFailure as error:
            if passes(error) or not (is_too_large(error) or meaning_of(error) is Meaning.PARSER):
                raise
            self._splits = error.code != large_events.UNKNOWN_STAGE
            return None
        finally:
            await cursor.end()
