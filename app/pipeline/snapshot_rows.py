"""A snapshot's chunks: read as of a mark, planned, and made messages. Of what is planned already: sent again, or ended.

When a chunk is read, and where its rows go between the changes, is decided in `snapshot.py`.
"""

import time
from collections.abc import Sequence
from functools import partial

import structlog

from app.domain import row_events
from app.domain.errors import (
    CollectionMoved,
    MomentGone,
    PermanentError,
    ReadTooLong,
    SourceRefused,
    SourceUnavailable,
    Stale,
)
from app.domain.events import Change
from app.domain.raw_events import size_of
from app.domain.snapshot import OPERATION, Chunk, ChunkSize, Snapshot
from app.domain.tokens import ClusterTime, moment_before
from app.pipeline.batch_encoder import BatchEncoder
from app.pipeline.batch_queue import BatchQueue, Encoded
from app.pipeline.ledger import Ledger
from app.pipeline.memory_budget import Share
from app.pipeline.run import Run
from app.pipeline.snapshot_record import SnapshotRecord
from app.ports import Rows

log = structlog.get_logger(__name__)

CHUNK_BYTES = 1024 * 1024
"""What a chunk is meant to have."""
HEAD_BYTES = 256
"""What a row has beside its document, about."""
SCANNED = 10_000
"""How many documents are looked at for one chunk where a filter or a pipeline leaves some out."""
SLOW_SECONDS = 0.25
"""A read that takes longer is followed by one that looks at fewer documents: changes wait meanwhile."""
LOOKS = 20
"""How often one capture looks at the end of a run for collections that have come since."""
PLANNED_BYTES = 6 * 1024 * 1024
"""The keys of so many bytes in all may be planned, before a plan waits: a document in MongoDB holds 16 MiB."""
LARGEST_KEY = 2 * 1024 * 1024
"""A plan has a key three times, and the run once more."""
KEY_BYTES = 512 * 1024
"""What the keys of a chunk may have, about: they are stored with its plan, in one document with those of others."""
SEARCH_SECONDS = 0.1
"""How long rows are looked for at one mark without any being found."""


class SnapshotRows:
    """One capture's. One chunk is read at a time."""

    def __init__(
        self, run: Run, record: SnapshotRecord, ledger: Ledger, encoder: BatchEncoder, queue: BatchQueue, share: Share
    ) -> None:
        self._name = run.watcher.name
        self._watched = run.watcher.source
        self._clock = run.now
        self._source = run.ports.rows
        self._record = record
        self._ledger = ledger
        self._encoder = encoder
        self._queue = queue
        self._share = share
        self._size = ChunkSize(CHUNK_BYTES)
        self._scanned = SCANNED
        self._looks = 0
        self._ends_after: ClusterTime | None = None
        """The run's end comes after this time. None: after one that is still to be asked for, once all is read."""

    def look_again(self) -> None:
        """Somebody else has gone on with the run, or begun another one."""
        self._ends_after = None

    async def begin(self) -> None:
        """Find out which collections are read, where that is not known yet. Raises as `next`."""
        if self._record.run.begun:
            return
        self._looks = 0
        parts = await self._source.parts(self._record.run.wanted)
        estimated = None if self._record.run.filter else await self._source.estimate(parts)
        epoch, now = self._ledger.reached.epoch, self._clock()
        listed_at = await self._source.now()
        begun = await self._record.move(lambda run: run.begin(epoch, parts, estimated, now))
        self._ends_after = listed_at
        log.info("snapshot_begun", watcher=self._name, run=begun.run, collections=len(parts), documents=estimated)

    async def next(self, mark: str) -> Encoded | None:
        """Read the next chunk as of a mark, plan it, and return its rows; after the last one, the message that the run
        is complete. None where nothing more is to be sent, none was found in time, or the end needs a later mark.

        Raises MomentGone and what a row source raises, what an encoder raises, Stale, StoreUnavailable."""
        began, read_at = time.monotonic(), time.perf_counter()
        while (run := self._record.now) is not None and run.running:
            if run.read:
                if run.end_planned or not await self._may_end(mark):
                    return None
                if await self._appeared(run):
                    continue
                chunk = Chunk(run.next, mark, None, since=self._ledger.reached.sequence or 0)
                return await self._planned(chunk, await self._end_encoded(run, chunk))
            if run.parts[run.part].left:  # the run was cut back to before that
                await self._record.move(partial(Snapshot.passed, until=None))
                continue
            await self._share.until_room()
            try:
                rows, until = await self._read(run, mark)
            except CollectionMoved as moved:
                await self._follow(run, moved)
                continue
            if rows.keys:
                rows, until = within(rows, until)
                if sum(map(_planned_size, run.chunks)) > PLANNED_BYTES:
                    return None  # until some of them are on the stream
                since = self._ledger.reached.sequence or 0
                keys = tuple(rows.keys)
                chunk = Chunk(run.next, mark, run.part, run.after, until, keys, since, len(keys))
                return await self._planned(chunk, await self._encoded(run, chunk, rows, read_at))
            await self._record.move(partial(Snapshot.passed, until=until))
            if time.monotonic() - began > SEARCH_SECONDS:
                return None
        return None

    async def _read(self, run: Snapshot, mark: str) -> tuple[Rows, bytes | None]:
        """Read on, and return the rows, and up to where all was looked at (None: the collection's end)."""
        part, after, at, until = run.parts[run.part], run.after, moment_before(mark), None
        if part.capped:
            self._ends_after = None
        began = time.monotonic()
        try:
            if run.filter or self._watched.pipeline:
                until = await self._source.boundary(part, after, self._scanned)
            rows = await self._source.read(
                part, at, after=after, until=until, limit=self._size.rows, filter_=run.filter
            )
        except ReadTooLong:
            self._size.took_too_long()
            self._scanned = max(1, self._scanned // 4)
            raise
        slow = time.monotonic() - began > SLOW_SECONDS
        self._scanned = max(1, self._scanned // 2) if slow else min(SCANNED, self._scanned * 2)
        self._size.came(len(rows.keys), rows.size)
        if rows.keys and (rows.more or until is None):
            until = rows.keys[-1]
        return rows, until

    async def _follow(self, run: Snapshot, moved: CollectionMoved) -> None:
        """Go on with a collection under its new name, where the watcher reads that; else with the next one.

        A row has the name that its collection had at its place. So under the new name nothing is read before the
        changes have come to the renaming: raises MomentGone."""
        database, _, collection = (moved.namespace or "").partition(".")
        self._ends_after = None
        log.info("snapshot_collection_moved", watcher=self._name, run=run.run, now=moved.namespace)
        if moved.namespace is None or not self._watched.has(database, collection):
            await self._record.move(Snapshot.without)
            return
        await self._record.move(partial(Snapshot.renamed, namespace=moved.namespace))
        raise MomentGone(f"{moved.namespace} has this name only since a short time ago")

    async def _may_end(self, mark: str) -> bool:
        """Whether the message that the run is complete may stand at a mark. Raises as `next`.

        Some things are known as they are now, and not as of a mark: which collections there are, and the documents of a
        capped one. What was dropped or deleted since the mark was there at that mark, and has no row. So the end comes
        after that change: at a mark that is later than all that was read so. It ends the run for an earlier capture
        too, of which that is not known."""
        if self._ends_after is None:
            now = await self._source.now()
            await self._record.move(Snapshot.touched)  # where nothing else is written, no later mark would come
            self._ends_after = now
        return moment_before(mark) >= self._ends_after

    async def _appeared(self, run: Snapshot) -> bool:
        """Look whether there are collections by now that are not read yet, and have them read too. Raises as `next`.

        Documents of one that was created since come as changes. But of one that was renamed, and had another name that
        is not watched, nothing has come: also where it had this one before, and came back. So the run is complete only
        when all that are there were read."""
        if self._looks >= LOOKS:
            return False
        self._looks += 1
        known = {part.uuid or part.namespace for part in run.parts if not part.left}
        there = await self._source.parts(run.wanted)
        new = [part for part in there if (part.uuid or part.namespace) not in known]
        if new:
            log.info("snapshot_collections_appeared", watcher=self._name, run=run.run, collections=len(new))
            await self._record.move(partial(Snapshot.also, parts=new))
        return bool(new)

    async def _planned(self, chunk: Chunk, encoded: Encoded) -> Encoded:
        """Plan a chunk whose messages can be made, and return them."""
        try:
            await self._record.move(partial(Snapshot.planned, chunk=chunk))
        except BaseException:
            self._share.give_back(encoded.size)
            raise
        return encoded

    async def _encoded(self, run: Snapshot, chunk: Chunk, rows: Rows, read_at: float) -> Encoded:
        """Make a chunk's rows messages."""
        assert chunk.part is not None, "the end of a run has no rows"
        database, _, collection = run.parts[chunk.part].namespace.partition(".")
        names = (database, collection) if rows.whole else None
        head = row_events.RowHead(run.before(chunk), moment_before(chunk.mark), names)
        size = rows.size + HEAD_BYTES * len(rows.keys)
        self._share.take(size)
        try:
            changes = await self._encoder.chunk(rows, head, run.run, chunk.mark)
        except PermanentError:
            self._share.give_back(size)
            raise
        return Encoded(changes, run.end(chunk), read_at, size)

    async def _end_encoded(self, run: Snapshot, chunk: Chunk) -> Encoded:
        place = run.place(chunk, 0)
        events = row_events.of_done(place, moment_before(chunk.mark), run.run, run.documents, run.names)
        return Encoded(await self._encoder.rows(events, run.run, chunk.mark), place, time.perf_counter(), 0)

    # What an earlier capture has planned

    async def again(self, chunk: Chunk) -> Encoded | None:
        """Return the rows of a planned chunk once more: those that are there are left out by their places. None where
        it had to be ended: what was planned after it is planned again. Raises as `next`."""
        run, read_at = self._record.run, time.perf_counter()
        if not run.running:
            await self._end_chunk(run, chunk, "the run is over")
            return None
        if chunk.part is None:
            return await self._end_encoded(run, chunk)
        part, at = run.parts[chunk.part], moment_before(chunk.mark)
        try:
            rows = await self._source.read(
                part, at, after=chunk.after, until=chunk.until, limit=chunk.rows, filter_=run.filter
            )
            if tuple(rows.keys) == chunk.keys[: chunk.rows] or (chunk.settled and len(rows.keys) == chunk.rows):
                return await self._encoded(run, chunk, rows, read_at)
            reason = "its documents are others"
        except (SourceUnavailable, CollectionMoved, PermanentError) as error:  # what is permanent comes again, and ends
            reason = str(error)  # the run, but not the watcher
        await self._end_chunk(run, chunk, reason)
        return None

    async def _end_chunk(self, run: Snapshot, chunk: Chunk, reason: str) -> None:
        """End a chunk with those of its rows that are on the stream, or gone from there, before anything else is sent:
        where messages are only counted, no other may be taken for the rest of them."""
        there = await self._pass_over(run, chunk)
        if chunk.settled and 0 < there < chunk.rows:  # which document the last row there is of is not known any more
            if run.running:
                await self._record.end("failed", f"the stream has lost rows that cannot be made again: {reason}")
        elif there < chunk.rows:  # else the next planned chunk follows it, of which rows may be there, or counted
            await self.cut(chunk.number, there)
        log.info("snapshot_chunk_ended", watcher=self._name, chunk=chunk.number, rows=there, reason=reason)

    async def _pass_over(self, run: Snapshot, chunk: Chunk) -> int:
        """Return how many rows of a chunk are on the stream, once it is known. Those that are gone from there, and only
        counted, are passed over: for that no document is needed. Raises Stale where another writer went past them."""
        await self._queue.settled()
        places = places_of(run, chunk)
        there = sum(place <= self._ledger.reached.token for place in places)
        if any(place > self._ledger.rows_until for place in places[:there]):
            raise Stale("another writer has published changes that come after the snapshot's rows")  # look for them
        gone = places[there : there + self._ledger.left_at(chunk.mark)]
        if gone:
            rows = [Change(place, OPERATION, b"", 0.0, place) for place in gone]
            await self._queue.put(Encoded(rows, gone[-1], time.perf_counter(), 0))
            await self._queue.settled()
        return there + len(gone)

    async def cut(self, number: int, rows: int) -> None:
        """End a chunk with its first rows, and plan what comes after it again. Raises Stale, StoreUnavailable."""
        await self._record.move(lambda run: run.cut(number, rows), though_ended=True)


def within(rows: Rows, until: bytes | None) -> tuple[Rows, bytes | None]:
    """Return as many of the rows as have keys that fit into a plan, and up to where all was looked at then."""
    count, size = 0, 0
    if len(rows.keys[0]) > LARGEST_KEY:
        raise SourceRefused(
            f"a document has an _id of {len(rows.keys[0]):,} bytes, which is more than a snapshot can keep account of "
            f"({LARGEST_KEY:,}); leave it out with a filter"
        )
    for key in rows.keys:
        size += len(key)
        if count and size > KEY_BYTES:
            break
        count += 1
    if count == len(rows.keys):
        return rows, until
    documents = rows.documents[:count]
    return Rows(documents, rows.keys[:count], size_of(documents), rows.whole), rows.keys[count - 1]


def _planned_size(chunk: Chunk) -> int:
    return sum(map(len, chunk.keys)) + len(chunk.after or b"") + len(chunk.until or b"")


def places_of(run: Snapshot, chunk: Chunk) -> Sequence[str]:
    """Return the positions of a chunk's rows."""
    return [run.place(chunk, row) for row in range(chunk.rows)]
