"""The straight line every change takes: read, encode, publish, checkpoint.

One `Relay` is one opening of one watcher: it finds where to go on, then two tasks pass batches along, so that reading
and encoding the next one overlap with waiting for the last one's acknowledgement. An error ends it; whoever runs it
(`supervisor.py`) opens the next. What a position or a fence means is decided in `domain/position.py`, how a batch gets
onto the stream for certain in `publisher.py`.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, TypeVar

import structlog

from app.allowance import Allowance
from app.checkpointer import Checkpointer
from app.domain.errors import (
    HistoryLost,
    MessageTooLarge,
    PermanentError,
    SourceUnavailable,
    Stale,
    StoreUnavailable,
)
from app.domain.events import Change
from app.domain.gap import OPERATION as GAP
from app.domain.gap import Gap, history_gap, moment
from app.domain.position import (
    Checkpoint,
    GoOn,
    Reached,
    Refill,
    StartAnew,
    check_scope,
    decide_opening,
    known_until,
    last_known,
    last_own,
    lost_end,
    made_anew,
)
from app.domain.tokens import id_suffix
from app.domain.watcher import Start, Watcher
from app.doubts import Doubts
from app.ports import ChangeSource, CheckpointStore, EventSink, Observer, SourceBatch
from app.progress import Progress
from app.publisher import Publisher, is_displaced

log = structlog.get_logger(__name__)

T = TypeVar("T")

YIELD_BYTES = 256 * 1024
"""How much is encoded before other tasks get their turn."""
THREAD_BYTES = 128 * 1024
"""From which size on a batch is given to a thread to be transcoded; a smaller one is done before a thread has begun."""

_FALLBACKS = {
    "window": "atomic publish is not to be had here (server older than 2.12, or a stream that may not be changed): "
    "messages are published one by one in a window, each fenced by the stream's sequence; the guarantee is the same",
    "single": "atomic publish is not to be had here (server older than 2.12, or a stream that may not be changed), and "
    "the stream is shared: messages are published and acknowledged one at a time; the guarantee is the same, the rate "
    "is not",
}


@dataclass(frozen=True, slots=True)
class Codec:
    """How a raw event becomes a message: `encode(raw, id_suffix)`, and `reduce(raw)` for one that is too large.

    `transcode`, an option, does a whole batch without the GIL; where it leaves None, `encode` is asked (`native.py`).
    """

    encode: Callable[[bytes, str], Change]
    reduce: Callable[[bytes], bytes]
    transcode: Callable[[list[bytes], str], list[Change | None]] | None = None

    async def transcoded(self, batch: SourceBatch, suffix: str) -> Iterable[Change | None]:
        """What can be made of the batch at once: for each event its change, or None where that is left to `encode`."""
        if self.transcode is None or not batch.events:
            return repeat(None, len(batch.events))
        if batch.size < THREAD_BYTES:
            return self.transcode(batch.events, suffix)
        return await asyncio.get_running_loop().run_in_executor(None, self.transcode, batch.events, suffix)


@dataclass(slots=True)
class _Encoded:
    changes: list[Change]
    position: str
    read_at: float
    size: int
    """The bytes read, which are held until all of it is on the stream."""


class Relay:
    """One run of a watcher, from opening to stop or error. Use it once."""

    def __init__(
        self,
        watcher: Watcher,
        *,
        source: ChangeSource,
        sink: EventSink,
        checkpoints: CheckpointStore,
        codec: Codec,
        observer: Observer,
        progress: Progress,
        new_start: bool = False,
        begin: str | None = None,
        losses: int = 3,
        allowance: Allowance | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._watcher = watcher
        self._route = watcher.route
        self._source = source
        self._sink = sink
        self._checkpoints = checkpoints
        self._codec = codec
        self._observer = observer
        self._progress = progress
        self._new_start = new_start
        self._begin = begin
        self._clock = clock
        self._doubts = Doubts(watcher, sink, checkpoints, progress)
        self._publisher = Publisher(watcher, sink, progress, self._doubts, observer, losses=losses, clock=clock)
        self._checkpointer = Checkpointer(checkpoints, observer, watcher=watcher.name, clock=clock)
        self._operations = frozenset(watcher.sink.operations)
        self._queue: asyncio.Queue[_Encoded | None] = asyncio.Queue(maxsize=1)
        self._share = (allowance or Allowance()).share()
        self._stopping = asyncio.Event()
        self._overtaken: HistoryLost | None = None

    def stop(self) -> None:
        """Ask for a drain: no further reads; what is read is published, acknowledged and checkpointed."""
        self._stopping.set()

    async def run(self, opened: Callable[[], None]) -> None:
        """Open, tell `opened`, and relay until stopped; returns only after a drain.

        Raises what ended it: TransientError, PermanentError, Fenced, Stale."""
        try:
            reached = await self._open()
            opened()
            await self._relay(reached)
        finally:
            self._share.give_all_back()
            await self._source.close()
            await self._sink.close()

    async def _open(self) -> Reached:
        """Find where to go on; where nothing was stored yet, store that before the first event is read.

        Where there is a gap to be left behind, its marker is on the stream before the first event behind it is read.
        """
        progress, source, sink = self._progress, self._source, self._sink
        operation_time = await source.prepare()
        checkpoint, memory = await self._checkpoints.read(), progress.reached
        if checkpoint is not None:
            progress.ahead += 1
            check_scope(checkpoint, scope=source.scope, operation_time=operation_time, looks=progress.ahead)
            progress.ahead = 0
        # A stream that was there is not made anew behind the user's back: what it held would be missing silently.
        was_there = any(known is not None and known.stream_created for known in (checkpoint, memory))
        await sink.prepare(may_create=not was_there)
        tail = await sink.tail(since=known_until(checkpoint, memory))
        if any(made_anew(tail, known) for known in (checkpoint, memory) if known is not None):
            tail = await sink.tail()  # what is known of the earlier stream's sequences says nothing of this one's
        known = last_known(tail, checkpoint, memory)
        displaced = await is_displaced(sink, tail, known)
        lost = known is not None and not made_anew(tail, known) and lost_end(tail, known, displaced=displaced)
        if lost:
            tail = await sink.tail()  # what is left of ours lies before what was searched
        if tail.foreign:
            log.warning("foreign_messages", watcher=self._watcher.name, space=self._watcher.space, count=tail.foreign)
            self._observer.skipped(self._watcher.name, "foreign", tail.foreign)
        decision = decide_opening(
            tail=tail, checkpoint=checkpoint, memory=memory, exclusive=sink.exclusive, new_start=self._new_start,
            displaced=displaced, on_history_lost=self._watcher.on_history_lost, now=self._clock(),
        )  # fmt: skip
        self._doubts.recall(checkpoint)
        await self._doubts.settle(decision.epoch)
        anew = isinstance(decision, StartAnew)
        if isinstance(decision, StartAnew):
            token = self._begin or await source.locate(self._watcher.start)
        else:
            token = decision.token
        if lost:
            log.warning("stream_lost_its_end", watcher=self._watcher.name, token=token, last=tail.last_sequence)
        before = known.own if known is not None and not lost and not isinstance(decision, Refill) else None
        own = last_own(tail, decision.epoch, before)
        reached = Reached(token, decision.epoch, tail.last_sequence, tail.created, own)
        if anew and not await self._checkpoints.create(self._checkpoint(reached)):
            raise Stale("another instance has just stored the first position")
        gap = await self._open_source(decision, token)
        if gap is None:
            self._publisher.begin(reached, decision.fence)
        else:
            reached = await self._leave_behind(gap, reached, decision.fence)
        progress.route = self._route
        progress.operation_time = max(progress.operation_time, operation_time)
        progress.publish_mode, progress.fence = sink.mode, "stream" if sink.exclusive else "subject"
        if sink.mode != "atomic":
            progress.notes["mode"] = _FALLBACKS[sink.mode]
        if checkpoint is not None:
            progress.checkpointed_at = checkpoint.updated_at
        log.info(
            "watcher_opened", watcher=self._watcher.name, token=reached.token, epoch=reached.epoch,
            fence=decision.fence, mode=sink.mode, anew=anew,
        )  # fmt: skip
        return reached

    async def _open_source(self, decision: GoOn | StartAnew | Refill, token: str) -> Gap | None:
        """Begin to read after the position, or where that cannot be, from where the watcher says; return the gap."""
        wish = self._watcher.on_history_lost
        if not isinstance(decision, Refill):
            try:
                await self._source.open(token)
            except HistoryLost:
                if wish == "fail":
                    raise
            else:
                return None
        try:
            resumed = await self._source.locate(Start("latest" if wish == "latest" else "earliest"))
            await self._source.open(resumed)
        except HistoryLost as error:
            raise SourceUnavailable(f"the oplog moves on faster than it is opened: {error}") from error
        if isinstance(decision, Refill):
            return Gap("stream_recreated", token, resumed, decision.epoch)
        return history_gap(token, resumed, decision.epoch)

    async def _leave_behind(self, gap: Gap, reached: Reached, fence: int) -> Reached:
        """Mark a gap on the stream, then take over the position behind it."""
        name, progress = self._watcher.name, self._progress
        await self._publisher.mark(gap.marker(self._watcher.source), reached, fence)
        reached = self._publisher.reached
        progress.notes["gap"] = f"{gap}; a message on {self._watcher.subject(GAP)} marks it"
        log.warning(
            "gap_marked", watcher=name, reason=gap.reason, after=moment(gap.reached), until=moment(gap.resumed),
            reached=gap.reached, resumed=gap.resumed, epoch=gap.epoch, sequence=reached.sequence,
        )  # fmt: skip
        self._checkpointer.note(self._checkpoint(reached))
        return reached

    async def _relay(self, reached: Reached) -> None:
        name = self._watcher.name
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(unless_asked(self._read_and_encode(reached)), name=f"read:{name}")
                publishing = tasks.create_task(unless_asked(self._publish_and_checkpoint()), name=f"publish:{name}")
                writing = tasks.create_task(unless_asked(self._checkpointer.run()), name=f"checkpoint:{name}")
                publishing.add_done_callback(lambda _: writing.cancel())
        except BaseExceptionGroup as group:
            failure = group.exceptions[0]
        if failure is not None:
            raise failure
        try:
            await self._checkpointer.flush()
        except StoreUnavailable as error:
            log.warning("last_checkpoint_not_written", watcher=name, error=str(error))
        if self._overtaken is not None:
            if self._watcher.on_history_lost == "fail":
                raise self._overtaken
            raise Stale(str(self._overtaken)) from self._overtaken

    async def _read_and_encode(self, reached: Reached) -> None:
        suffix, last = id_suffix(reached.epoch), reached.token
        ahead: asyncio.Task[SourceBatch] | None = None
        try:
            while ahead is not None or not self._stopping.is_set():
                if ahead is None:
                    await self._share.until_room()
                    if self._stopping.is_set():
                        break
                batch = await (ahead or self._source.read())
                self._share.take(batch.size)
                ahead = self._read_ahead(batch)
                self._progress.operation_time = batch.operation_time
                await self._queue.put(await self._encode(batch, suffix, last))
                last = batch.position
        except HistoryLost as error:
            self._overtaken = error  # raised once what was read is published: nobody can read that again
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)
        await self._queue.put(None)

    def _read_ahead(self, batch: SourceBatch) -> asyncio.Task[SourceBatch] | None:
        """Have the server look for the next batch while a large one is encoded; after a small one it would only be in
        the way of publishing it."""
        if batch.size <= YIELD_BYTES or not self._share.room or self._stopping.is_set():
            return None
        return asyncio.create_task(self._source.read(), name=f"ahead:{self._watcher.name}")

    async def _encode(self, batch: SourceBatch, suffix: str, last: str) -> _Encoded:
        read_at = time.perf_counter()
        encode, operations, too_large = self._codec.encode, self._operations, self._sink.too_large
        changes: list[Change] = []
        unyielded = 0
        for raw, ready in zip(batch.events, await self._codec.transcoded(batch, suffix), strict=True):
            change = encode(raw, suffix) if ready is None else ready
            if change.token <= last:
                # The protocol rests on tokens that only grow; where they do not, stopping is the only right answer.
                raise PermanentError(f"MongoDB delivered token {change.token} after {last}: the order cannot be kept")
            last = change.token
            if change.operation in operations:
                changes.append(self._pointing(change, raw) if too_large(change) else change)
            unyielded += len(raw) if ready is None else 0
            if unyielded > YIELD_BYTES:
                unyielded = 0
                await asyncio.sleep(0)
        if skipped := len(batch.events) - len(changes):
            self._progress.skipped += skipped
            self._observer.skipped(self._watcher.name, "operation", skipped)
        return _Encoded(changes, batch.position, read_at, batch.size)

    def _pointing(self, change: Change, raw: bytes) -> Change:
        """Give a change whose message would be too large the small body that will point to the large one."""
        if self._watcher.sink.oversize == "fail":
            raise MessageTooLarge(
                f"the {change.operation} with token {change.token} makes a message of {len(change.body):,} bytes, more "
                "than the NATS server takes (max_payload); raise that, or set sink.oversize to claim_check"
            )
        return replace(change, pointer=self._codec.reduce(raw))

    async def _publish_and_checkpoint(self) -> None:
        while (encoded := await self._queue.get()) is not None:
            if encoded.changes:
                await self._publisher.publish(encoded.changes, encoded.read_at)
            reached = self._publisher.reached
            if encoded.position > reached.token:
                self._progress.reached = reached = replace(reached, token=encoded.position)
            self._checkpointer.note(self._checkpoint(reached), quiet=not encoded.changes)
            self._share.give_back(encoded.size)
            self._progress.checkpointed_at = self._checkpointer.written_at or self._progress.checkpointed_at

    def _checkpoint(self, reached: Reached) -> Checkpoint:
        return Checkpoint(
            token=reached.token,
            epoch=reached.epoch,
            sequence=reached.sequence,
            stream_created=reached.stream_created,
            scope=self._source.scope,
            watcher=self._watcher.name,
            route=self._route,
            updated_at=self._clock(),
            own=reached.own,
        )


async def unless_asked(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, and raise RuntimeError where it ends cancelled though nobody asked for that.

    A driver's cancelled future does this. Taken for a wish, as a task group does, it would be missed by nobody.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError(f"{task.get_name()} was cancelled from within") from error
