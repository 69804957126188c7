"""The straight line every change takes: read, encode, publish, checkpoint.

One `Capture` is one opening of one watcher: it finds where to go on, then two tasks pass batches along, so that reading
and encoding the next one overlap with waiting for the last one's acknowledgement. An error ends it; whoever runs it
(`control/supervisor.py`) opens the next. What a position or a fence means is decided in `domain/position.py`, how a
batch gets onto the stream for certain in `publisher.py`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from app.domain.dead_letters import Replay, name_of
from app.domain.errors import (
    ChangewireError,
    HistoryLost,
    RegistryError,
    SourceUnavailable,
    Stale,
    StoreUnavailable,
    Unavailable,
)
from app.domain.evidence import claim_of_opening
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
from app.pipeline.batch_encoder import YIELD_BYTES, BatchEncoder, Codec
from app.pipeline.batch_queue import BatchQueue, Encoded, Turn
from app.pipeline.checkpointer import Checkpointer
from app.pipeline.memory_budget import MemoryBudget
from app.pipeline.progress import Progress
from app.pipeline.proof import Proof, recognised
from app.pipeline.publisher import Publisher, is_displaced
from app.pipeline.replays import Replays
from app.pipeline.window_recovery import WindowRecovery
from app.ports import ChangeSource, CheckpointStore, DeadLetterQueue, EventSink, Observer, SourceBatch

log = structlog.get_logger(__name__)

T = TypeVar("T")

SLACK_SECONDS = 30
"""How far MongoDB's clock, as it shows in a reply, may lag behind the moment in which a message was published."""

_CAUSES = {
    "changewire": "atomic publish is unavailable here (server older than 2.12, or a stream that may not be changed)",
    "connector": "the stream keeps mongodb-nats-connector's settings (sink.stream_settings), without atomic publish",
}
_FALLBACKS = {
    "window": ": messages are published one by one in a window, each fenced by the stream's sequence; the guarantee is "
    "the same",
    "single": ", and the stream is shared: messages are published and acknowledged one at a time; the guarantee is the "
    "same, the rate is not",
}


class Capture:
    """One run of a watcher, from opening to stop or error. Use it once."""

    def __init__(
        self,
        watcher: Watcher,
        *,
        source: ChangeSource,
        sink: EventSink,
        letters: DeadLetterQueue,
        checkpoints: CheckpointStore,
        codec: Codec,
        observer: Observer,
        progress: Progress,
        new_start: bool = False,
        begin: str | None = None,
        losses: int = 3,
        memory_budget: MemoryBudget | None = None,
        clock: Callable[[], float] = time.time,
        begun: Callable[[], Awaitable[None]] | None = None,
        prompt_checkpoints: bool = False,
    ) -> None:
        """`begun` is told when a position is stored, and before the first event is read: `new_start` and `begin` have
        done their part by then."""
        self._watcher = watcher
        self._route = watcher.route
        self._source = source
        self._sink = sink
        self._checkpoints = checkpoints
        self._encoder = BatchEncoder(watcher, codec, sink, progress, observer)
        self._observer = observer
        self._progress = progress
        self._new_start = new_start
        self._begin = begin
        self._begun = begun
        self._clock = clock
        self._window_recovery = WindowRecovery(watcher, sink, checkpoints, progress)
        self._letters = letters
        self._proof = Proof(source, progress)
        self._publisher = Publisher(
            watcher, sink, letters, progress, self._window_recovery, self._proof, observer, losses=losses, clock=clock
        )
        self._replays = Replays(
            watcher, sink=sink, letters=letters, publisher=self._publisher, codec=codec, progress=progress
        )
        self._checkpointer = Checkpointer(
            checkpoints, observer, watcher=watcher.name, clock=clock, prompt=prompt_checkpoints
        )
        self._batch_queue = BatchQueue()
        self._share = (memory_budget or MemoryBudget()).share()
        self._ended = False
        self._stopping = asyncio.Event()
        self._overtaken: HistoryLost | None = None

    def stop(self) -> None:
        """Ask for a drain: no further reads; what is read is published, acknowledged and checkpointed."""
        self._stopping.set()

    async def replay(self, sequence: int) -> Replay:
        """Publish a dead letter in its turn. Raises NotFound, Conflict, Unavailable."""
        if self._ended:
            raise Unavailable("the watcher is about to stop; nothing was published")
        return await self._batch_queue.ask(sequence)

    async def run(self, opened: Callable[[], None]) -> None:
        """Open, tell `begun` and `opened`, and relay until stopped; returns only after a drain.

        Raises what ended it: TransientError, PermanentError, Fenced, Stale."""
        try:
            reached = await self._open()
            if self._begun is not None:
                await self._begun()
            opened()
            await self._follow(reached)
        finally:
            self._ended = True
            self._batch_queue.end_turns()
            self._progress.caught_up = False
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
        checkpoint = await recognised(checkpoint, tail, sink, self._watcher)
        memory = await recognised(memory, tail, sink, self._watcher)
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
            displaced=displaced, on_history_lost=self._watcher.on_history_lost,
            at_latest=self._watcher.start.at == "latest", now=self._clock(),
        )  # fmt: skip
        progress.operation_time = max(progress.operation_time, operation_time)
        stream = self._watcher.sink.stream
        await self._proof.of_opening(
            claim_of_opening(decision, tail=tail, checkpoint=checkpoint, memory=memory, stream=stream)
        )
        self._window_recovery.recall(checkpoint)
        await self._window_recovery.settle(decision.epoch)
        anew = isinstance(decision, StartAnew)
        if isinstance(decision, StartAnew):
            token = self._begin or await source.locate(self._watcher.start)
        else:
            token = decision.token
        if lost:
            log.warning("stream_lost_its_end", watcher=self._watcher.name, token=token, last=tail.last_sequence)
        before = known.own if known is not None and not lost and not isinstance(decision, Refill) else None
        own = last_own(tail, decision.epoch, before)
        gone = decision.gone if isinstance(decision, GoOn) else 0
        counted = (
            tail.counts and not tail.foreign and all(one.counted for one in (checkpoint, memory) if one is not None)
        )
        # Asked for again, since another instance may have published until the stream's end was read.
        until = await source.prepare() - int(tail.quiet) + SLACK_SECONDS if gone else 0
        reached = Reached(token, decision.epoch, tail.end - gone, tail.created, own, counted=counted)
        if anew and not await self._checkpoints.create(self._checkpoint(reached)):
            raise Stale("another instance has just stored the first position")
        if not counted and checkpoint is not None and checkpoint.counted and checkpoint.sequence is not None:
            await self._checkpoints.uncount(decision.epoch)  # the next one may be far off
        gap = await self._open_source(decision, token)
        if gap is None:
            self._publisher.begin(reached, decision.fence, gone=gone, until=until)
        else:
            reached = await self._leave_behind(gap, reached, decision.fence)
        with suppress(ChangewireError):  # it is only shown
            progress.dead_letters = await self._letters.count()
        progress.route = self._route
        progress.publish_mode, progress.fence = sink.mode, "stream" if sink.exclusive else "subject"
        if sink.mode != "atomic":
            progress.notes["mode"] = _CAUSES[self._watcher.sink.stream_settings] + _FALLBACKS[sink.mode]
        else:
            progress.notes.pop("mode", None)
        if checkpoint is not None:
            progress.checkpointed_at = checkpoint.updated_at
        log.info(
            "watcher_opened", watcher=self._watcher.name, token=name_of(reached.token), epoch=reached.epoch,
            fence=decision.fence, mode=sink.mode, anew=anew, gone=gone,
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
        # At once: where the marker is consumed, only the checkpoint tells that the gap is left behind.
        self._checkpointer.note(self._checkpoint(reached))
        await self._checkpointer.flush()
        return reached

    async def _follow(self, reached: Reached) -> None:
        name = self._watcher.name
        failure: BaseException | None = None
        own = asyncio.current_task()
        asked = 0 if own is None else own.cancelling()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(unless_asked(self._read_and_encode(reached)), name=f"read:{name}")
                publishing = tasks.create_task(unless_asked(self._publish_and_checkpoint()), name=f"publish:{name}")
                writing = tasks.create_task(unless_asked(self._checkpointer.run()), name=f"checkpoint:{name}")
                publishing.add_done_callback(lambda _: writing.cancel())
        except BaseExceptionGroup as group:
            failure = group.exceptions[0]
            # Up to Python 3.12 the group leaves its own request to cancel this task standing. Python 3.11.2 then takes
            # every later timeout of the task for a cancellation, which would end the watcher without a word.
            if own is not None and own.cancelling() > asked:
                own.uncancel()
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
        suffix, last, reads = id_suffix(reached.epoch), reached.token, 0
        ahead: asyncio.Task[SourceBatch] | None = None
        stopping = asyncio.create_task(self._stopping.wait(), name=f"stopping:{self._watcher.name}")
        try:
            while not self._stopping.is_set():
                if ahead is None:
                    await self._share.until_room()
                    ahead = self._read()
                await asyncio.wait((ahead, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not ahead.done():
                    break  # what the server has not brought by now stays in the oplog
                batch, reads = ahead.result(), reads + 1
                self._share.take(batch.size)
                ahead = self._read_ahead(batch)
                self._progress.operation_time = batch.operation_time
                self._progress.caught_up = not batch.events
                read_at = time.perf_counter()
                changes = await self._encoder.encode(batch, suffix, last)
                if changes:
                    self._progress.arrears.read(self._clock())
                elif reads > 1 and self._share.held == batch.size:  # the first comes with the opening, mostly empty
                    self._progress.arrears.settled(self._clock())
                await self._batch_queue.put(Encoded(changes, batch.position, read_at, batch.size))
                last = batch.position
        except HistoryLost as error:
            self._overtaken = error  # raised once what was read is published: nobody can read that again
        finally:
            for task in (ahead, stopping):
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
        self._batch_queue.close()

    def _read_ahead(self, batch: SourceBatch) -> asyncio.Task[SourceBatch] | None:
        """Have the server look for the next batch while a large one is encoded; after a small one it would only be in
        the way of publishing it."""
        if batch.size <= YIELD_BYTES or not self._share.room or self._stopping.is_set():
            return None
        return self._read()

    def _read(self) -> asyncio.Task[SourceBatch]:
        return asyncio.create_task(self._source.read(), name=f"batch:{self._watcher.name}")

    async def _take(self, turn: Turn) -> None:
        try:
            await self._stop_counting()
            done = await self._replays.replay(turn.sequence)
        except RegistryError as error:
            turn.fail(error)
        except BaseException as error:
            turn.fail(Unavailable(f"the watcher was interrupted; ask again: {error}"))
            raise
        else:
            if not turn.done.done():
                turn.done.set_result(done)

    async def _stop_counting(self) -> None:
        """Say, before a message goes out that is no change in its turn, that those after the checkpoint are not to be
        counted as changes. Raises Unavailable."""
        if self._publisher.behind:
            raise Unavailable("the watcher is passing over what was published before; ask again")
        try:
            await self._checkpointer.flush()
            await self._checkpoints.uncount(self._publisher.reached.epoch)
        except StoreUnavailable as error:
            raise Unavailable(f"{error} (nothing was published)") from error

    async def _publish_and_checkpoint(self) -> None:
        while (encoded := await self._batch_queue.take()) is not None:
            if isinstance(encoded, Turn):
                await self._take(encoded)
                continue
            if encoded.changes:
                await self._publisher.publish(encoded.changes, encoded.read_at)
            self._publisher.come_to(encoded.position)
            reached = self._publisher.reached
            if encoded.position > reached.token:
                self._progress.reached = reached = replace(reached, token=encoded.position)
            if not self._publisher.behind:  # else a wrong count may still show, and what was passed over is needed
                self._checkpointer.note(
                    self._checkpoint(reached), quiet=not encoded.changes, changes=len(encoded.changes)
                )
            self._share.give_back(encoded.size)
            if encoded.changes and not self._share.held:
                self._progress.arrears.settled(self._clock())
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
            counted=reached.counted,
        )


async def unless_asked(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, and raise RuntimeError where it ends cancelled though nobody asked for that.

    A driver's cancelled future does this. Taken for a wish, as a task group does, it would be missed by nobody.
    """
    task = asyncio.current_task()
    asked = 0 if task is None else task.cancelling()
    try:
        return await work
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > asked:
            raise
        raise RuntimeError(f"{task.get_name()} was cancelled from within") from error
